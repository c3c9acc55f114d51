//! Spans and metrics of waiting and holding: the only file that knows `tracing` and `metrics`.
//!
//! The core starts a [`Waiting`]. It fails, or becomes a [`Hold`], which ends with an
//! [`Outcome`]. With both features off, all of them are empty.

pub(crate) use watch::{Hold, Waiting};

/// How a hold ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Released, or committed with its transaction.
    Released,
    /// Its transaction was rolled back.
    RolledBack,
    /// No longer held at its end.
    Lost,
    /// Left to a transaction of the caller's, whose end is not known here.
    Kept,
}

#[cfg(not(any(feature = "tracing", feature = "metrics")))]
mod watch {
    use super::Outcome;
    use crate::error::Error;
    use crate::request::Scope;
    use crate::targets::LockInfo;

    pub(crate) struct Waiting;
    pub(crate) struct Hold;
    pub(crate) struct Inside;

    impl Waiting {
        pub(crate) fn start(_: &LockInfo, _: Scope) -> Self {
            Self
        }

        pub(crate) fn in_scope(&mut self, _: Scope) {}

        pub(crate) fn acquired(self) -> Hold {
            Hold
        }

        pub(crate) fn found_nothing(self) {}

        pub(crate) fn failed(self, error: Error) -> Error {
            error
        }
    }

    impl Hold {
        pub(crate) fn not_yet() -> Self {
            Self
        }

        pub(crate) fn inside(&self) -> Inside {
            Inside
        }

        pub(crate) fn end(&mut self, _: Outcome) {}
    }

    impl Inside {
        pub(crate) fn run<T>(self, body: impl FnOnce() -> T) -> T {
            body()
        }
    }
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
mod watch {
    use std::time::{Duration, Instant};

    use super::Outcome;
    #[cfg(feature = "metrics")]
    use super::numbers;
    #[cfg(feature = "tracing")]
    use super::spans;
    use crate::error::Error;
    use crate::request::Scope;
    use crate::targets::{LockInfo, Mode};

    /// The labels of waits and holds, each with only a few values.
    #[derive(Clone, Copy)]
    pub(super) struct Labels {
        pub(super) mode: &'static str,
        pub(super) scope: &'static str,
    }

    /// A wait for a lock, however short: for a thread, a session and the server.
    pub(crate) struct Waiting {
        since: Instant,
        labels: Labels,
        #[cfg(feature = "tracing")]
        lock: LockInfo,
        #[cfg(feature = "tracing")]
        span: tracing::Span,
    }

    impl Waiting {
        pub(crate) fn start(lock: &LockInfo, scope: Scope) -> Self {
            let labels = Labels {
                mode: match lock.mode() {
                    Mode::Exclusive => "exclusive",
                    Mode::Shared => "shared",
                },
                scope: word(scope),
            };
            Self {
                since: Instant::now(),
                labels,
                #[cfg(feature = "tracing")]
                lock: lock.clone(),
                #[cfg(feature = "tracing")]
                span: spans::wait(lock, labels),
            }
        }

        /// Sets the scope, once the session is known.
        pub(crate) fn in_scope(&mut self, scope: Scope) {
            self.labels.scope = word(scope);
        }

        pub(crate) fn acquired(self) -> Hold {
            self.end("acquired");
            Hold(Some(Holding {
                since: Instant::now(),
                labels: self.labels,
                #[cfg(feature = "tracing")]
                span: spans::hold(&self.lock, self.labels),
            }))
        }

        /// None of several rows was free.
        pub(crate) fn found_nothing(self) {
            self.end("nothing");
        }

        /// Returns the error.
        pub(crate) fn failed(self, error: Error) -> Error {
            let outcome = match error {
                Error::Timeout {
                    timeout: Some(Duration::ZERO),
                    ..
                } => "busy",
                Error::Timeout { .. } => "timed_out",
                Error::Deadlock { .. } => "deadlock",
                Error::Canceled { .. } => "canceled",
                Error::Stopped { .. } => "stopped",
                Error::ConnectionLost { .. } => "connection_lost",
                _ => "failed",
            };
            self.end(outcome);
            #[cfg(feature = "tracing")]
            spans::failed(&self.span, outcome);
            error
        }

        fn end(&self, outcome: &'static str) {
            #[cfg(feature = "tracing")]
            spans::end(&self.span, self.labels, outcome);
            #[cfg(feature = "metrics")]
            numbers::waited(self.since.elapsed(), self.labels, outcome);
            let _ = (self.since, self.labels, outcome); // each feature uses its own
        }
    }

    fn word(scope: Scope) -> &'static str {
        match scope {
            Scope::Session => "session",
            Scope::Transaction => "transaction",
        }
    }

    /// A lock that is held, until `end`. If nothing ends it, as when a body panics, it counts as
    /// rolled back.
    pub(crate) struct Hold(Option<Holding>);

    struct Holding {
        since: Instant,
        labels: Labels,
        #[cfg(feature = "tracing")]
        span: tracing::Span,
    }

    impl Hold {
        pub(crate) fn not_yet() -> Self {
            Self(None)
        }

        pub(crate) fn inside(&self) -> Inside {
            Inside {
                #[cfg(feature = "tracing")]
                span: match &self.0 {
                    Some(holding) => holding.span.clone(),
                    None => tracing::Span::none(),
                },
            }
        }

        pub(crate) fn end(&mut self, outcome: Outcome) {
            let Some(holding) = self.0.take() else {
                return;
            };
            let word = match outcome {
                Outcome::Released => "released",
                Outcome::RolledBack => "rolled_back",
                Outcome::Lost => "lost",
                Outcome::Kept => "kept",
            };
            #[cfg(feature = "tracing")]
            spans::end(&holding.span, holding.labels, word);
            #[cfg(feature = "tracing")]
            if outcome == Outcome::Lost {
                spans::failed(&holding.span, word);
            }
            #[cfg(feature = "metrics")]
            if outcome != Outcome::Kept {
                numbers::held(holding.since.elapsed(), holding.labels, word);
            }
            let _ = (holding.since, holding.labels, word); // each feature uses its own
        }
    }

    impl Drop for Hold {
        fn drop(&mut self) {
            self.end(Outcome::RolledBack);
        }
    }

    /// The span that contains the body's spans and events.
    pub(crate) struct Inside {
        #[cfg(feature = "tracing")]
        span: tracing::Span,
    }

    impl Inside {
        pub(crate) fn run<T>(self, body: impl FnOnce() -> T) -> T {
            #[cfg(feature = "tracing")]
            let _entered = self.span.enter();
            body()
        }
    }
}

/// Names follow OpenTelemetry's semantic conventions:
/// <https://opentelemetry.io/docs/specs/semconv/database/database-spans/>
#[cfg(feature = "tracing")]
mod spans {
    use tracing::field::Empty;
    use tracing::{Span, info_span};

    use super::watch::Labels;
    use crate::targets::LockInfo;

    macro_rules! lock_span {
        ($name:literal, $operation:literal, $lock:ident, $labels:ident) => {
            info_span!(
                target: "pglock",
                $name,
                otel.kind = "client",
                db.system.name = "postgresql",
                db.operation.name = $operation,
                pglock.key = %$lock.target(),
                pglock.mode = $labels.mode,
                pglock.scope = Empty,
                pglock.outcome = Empty,
                error.type = Empty,
                otel.status_code = Empty,
            )
        };
    }

    pub(super) fn wait(lock: &LockInfo, labels: Labels) -> Span {
        lock_span!("pglock.wait", "acquire", lock, labels)
    }

    pub(super) fn hold(lock: &LockInfo, labels: Labels) -> Span {
        lock_span!("pglock.hold", "hold", lock, labels)
    }

    pub(super) fn end(span: &Span, labels: Labels, outcome: &'static str) {
        span.record("pglock.scope", labels.scope);
        span.record("pglock.outcome", outcome);
    }

    /// A busy lock is no error, and neither is a timeout that the caller set.
    pub(super) fn failed(span: &Span, outcome: &'static str) {
        span.record("error.type", outcome);
        if !matches!(outcome, "busy" | "timed_out") {
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// Labels have few values, so the key is not one.
#[cfg(feature = "metrics")]
mod numbers {
    use std::time::Duration;

    use std::sync::Once;

    use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

    use super::watch::Labels;

    /// Runs once, at the first wait: a program that records metrics has installed its recorder by
    /// then.
    fn describe() {
        static DESCRIBED: Once = Once::new();
        DESCRIBED.call_once(|| {
            let seconds = Unit::Seconds;
            describe_histogram!(
                "pglock_wait_seconds",
                seconds,
                "Time spent waiting for a lock."
            );
            describe_histogram!(
                "pglock_hold_seconds",
                seconds,
                "Time for which a lock was held."
            );
            describe_counter!("pglock_acquired_total", "Locks acquired.");
            describe_counter!("pglock_timed_out_total", "Waits that timed out.");
            describe_counter!("pglock_deadlock_total", "Waits that ended in a deadlock.");
            describe_counter!("pglock_lost_total", "Locks lost before their release.");
        });
    }

    pub(super) fn waited(time: Duration, labels: Labels, outcome: &'static str) {
        describe();
        let Labels { mode, scope } = labels;
        histogram!("pglock_wait_seconds", "mode" => mode, "scope" => scope, "outcome" => outcome)
            .record(time);
        let counter = match outcome {
            "acquired" => "pglock_acquired_total",
            "timed_out" => "pglock_timed_out_total",
            "deadlock" => "pglock_deadlock_total",
            _ => return,
        };
        counter!(counter, "mode" => mode, "scope" => scope).increment(1);
    }

    pub(super) fn held(time: Duration, labels: Labels, outcome: &'static str) {
        let Labels { mode, scope } = labels;
        histogram!("pglock_hold_seconds", "mode" => mode, "scope" => scope, "outcome" => outcome)
            .record(time);
        if outcome == "lost" {
            counter!("pglock_lost_total", "mode" => mode, "scope" => scope).increment(1);
        }
    }
}
