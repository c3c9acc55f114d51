//! What spans and metrics report about waiting and holding.

#[path = "support/oracle.rs"]
mod oracle;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use oracle::{Oracle, connect, unique_key, wait_until};
use pglock::{
    Error, Key, Lock, LockGuard, Permit, QueuedPool, Semaphore, transaction_lock, try_with_lock,
    with_lock,
};
use postgres::{Client, NoTls, Transaction};
use r2d2::Pool;
use r2d2_postgres::PostgresConnectionManager;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Subscriber, subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

const SHORT: Duration = Duration::from_millis(20);

/// What each test below observes: one hold of each kind, and the ways in which an acquire fails.
fn everything_that_happens(free: &Key, taken: &Key) {
    let (mut client, mut other) = (connect(), Oracle::new());
    other.lock(taken);
    let ok = |_: &mut Client| Ok::<_, Error>(());

    with_lock(&mut client, free, ok).unwrap();
    assert!(try_with_lock(&mut client, taken, ok).unwrap().is_none());
    let mut timed = Lock::new(&mut client, taken).shared().timeout(SHORT);
    timed.run(ok).unwrap_err();
    timed
        .run_in_transaction(|_| Ok::<_, Error>(()))
        .unwrap_err();
    Lock::new(&mut client, free)
        .run_in_transaction(|_| Ok::<_, Error>(()))
        .unwrap();
    let fails = |_: &mut Transaction<'_>| Err::<(), _>(Error::body("no"));
    Lock::new(&mut client, free)
        .run_in_transaction(fails)
        .unwrap_err();
    transaction_lock(&mut client.transaction().unwrap(), free).unwrap();
    let gives_it_away = |conn: &mut Client| Ok::<_, Error>(conn.batch_execute("DISCARD ALL")?);
    with_lock(&mut client, free, gives_it_away).unwrap_err();
    let mut lock = Lock::new(&mut client, free);
    LockGuard::release(lock.acquire().unwrap()).unwrap();
}

#[test]
fn metrics_count_by_mode_scope_and_outcome() {
    Spans::global();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        everything_that_happens(&unique_key(), &unique_key());
    });
    let told: BTreeMap<_, _> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let key = key.key();
            let labels: Vec<_> = key.labels().map(metrics::Label::value).collect();
            let count = match value {
                DebugValue::Counter(count) => count,
                DebugValue::Histogram(times) => {
                    assert!(times.iter().all(|time| (0.0..30.0).contains(&time.0)));
                    times.len() as u64
                }
                DebugValue::Gauge(_) => unreachable!("pglock has no gauges"),
            };
            (format!("{} {}", key.name(), labels.join(" ")), count)
        })
        .collect();
    let told: Vec<_> = told.iter().map(|(key, n)| format!("{key}: {n}")).collect();
    assert_eq!(
        told,
        [
            "pglock_acquired_total exclusive session: 3",
            "pglock_acquired_total exclusive transaction: 3",
            "pglock_hold_seconds exclusive session lost: 1",
            "pglock_hold_seconds exclusive session released: 2",
            "pglock_hold_seconds exclusive transaction released: 1",
            "pglock_hold_seconds exclusive transaction rolled_back: 1",
            "pglock_lost_total exclusive session: 1",
            "pglock_timed_out_total shared session: 1",
            "pglock_timed_out_total shared transaction: 1",
            "pglock_wait_seconds exclusive session acquired: 3",
            "pglock_wait_seconds exclusive session busy: 1",
            "pglock_wait_seconds exclusive transaction acquired: 3",
            "pglock_wait_seconds shared session timed_out: 1",
            "pglock_wait_seconds shared transaction timed_out: 1",
        ]
    );
}

#[test]
fn spans_tell_key_mode_scope_and_outcome() {
    let (spans, free, taken) = (Spans::global(), &unique_key(), &unique_key());
    everything_that_happens(free, taken);
    let mut told = spans.closed();
    told.retain(|span| [free.to_string(), taken.to_string()].contains(&span.fields["pglock.key"]));
    let told: Vec<_> = told.iter().map(Told::told).collect();
    let expected = [
        format!("pglock.wait {free} exclusive session acquired"),
        format!("pglock.hold {free} exclusive session released"),
        format!("pglock.wait {taken} exclusive session busy"),
        format!("pglock.wait {taken} shared session timed_out"),
        format!("pglock.wait {taken} shared transaction timed_out"),
        format!("pglock.wait {free} exclusive transaction acquired"),
        format!("pglock.hold {free} exclusive transaction released"),
        format!("pglock.wait {free} exclusive transaction acquired"),
        format!("pglock.hold {free} exclusive transaction rolled_back"),
        format!("pglock.wait {free} exclusive transaction acquired"),
        format!("pglock.hold {free} exclusive transaction kept"),
        format!("pglock.wait {free} exclusive session acquired"),
        format!("pglock.hold {free} exclusive session lost ERROR"),
        format!("pglock.wait {free} exclusive session acquired"),
        format!("pglock.hold {free} exclusive session released"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn the_bodys_spans_are_inside_the_hold() {
    let (spans, key) = (Spans::global(), unique_key());
    with_lock(&mut connect(), &key, |_| {
        tracing::info_span!("body", pglock.key = %key).in_scope(|| {});
        Ok::<_, Error>(())
    })
    .unwrap();
    let body = spans.closed().into_iter().find(|span| span.name == "body");
    assert_eq!(body.unwrap().parent, Some("pglock.hold"));
}

/// A wait in memory counts as a wait, and a hand-over as a release.
#[test]
fn a_semaphore_is_told_as_a_lock_is() {
    let (spans, name) = (Spans::global(), oracle::unique_name("semaphore"));
    let mut client = connect();
    let mut semaphore = Semaphore::new(&mut client, &name, 1);
    let mut permit = semaphore.acquire().unwrap();
    let mut nested = Semaphore::new(&mut *permit, &name, 1);
    assert!(nested.try_acquire().unwrap().is_none());
    Permit::release(permit).unwrap();
    let mut told = spans.closed();
    told.retain(|span| span.fields["pglock.key"] == format!("semaphore {name:?} (1 slot)"));
    let told: Vec<_> = told.iter().map(Told::told).collect();
    let expected = ["acquired", "busy", "released"].map(str::to_owned);
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(format!("{told:?}").contains(&expected), "{told:?}");
    }
}

#[test]
fn what_queues_is_told_as_anywhere() {
    let (spans, key) = (Spans::global(), unique_key());
    let manager = PostgresConnectionManager::new(oracle::url().parse().unwrap(), NoTls);
    let pool = QueuedPool::new(Pool::builder().max_size(2).build(manager).unwrap());
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let mut lock = Lock::new(&pool, &key);
    let guard = lock.acquire().unwrap();
    let waited = thread::scope(|threads| {
        threads.spawn(|| {
            metrics::with_local_recorder(&recorder, || {
                with_lock(&mut &pool, &key, |_| Ok::<_, Error>(())).unwrap();
            });
        });
        wait_until("a waiter", || (pool.waiting() == 1).then_some(()));
        let since = Instant::now();
        let mut timed = Lock::new(&pool, &key).timeout(SHORT);
        let gives_up = move || timed.run(|_| Ok::<_, Error>(())).unwrap_err();
        threads.spawn(gives_up).join().unwrap();
        let waited = since.elapsed();
        LockGuard::release(guard).unwrap();
        waited
    });
    let told = snapshotter.snapshot().into_vec().into_iter();
    let mut wait = told
        .filter(|(key, ..)| key.key().name() == "pglock_wait_seconds")
        .map(|(.., value)| value);
    let DebugValue::Histogram(wait) = wait.next_back().unwrap() else {
        unreachable!("it is a histogram")
    };
    assert!(wait[0].0 >= waited.as_secs_f64(), "{wait:?} of {waited:?}");
    let mut told = spans.closed();
    told.retain(|span| span.fields["pglock.key"] == key.to_string());
    let mut told: Vec<_> = told.iter().map(Told::told).collect();
    told.sort_unstable(); // two threads
    let expected = [
        format!("pglock.hold {key} exclusive session released"),
        format!("pglock.hold {key} exclusive session released"),
        format!("pglock.wait {key} exclusive session acquired"),
        format!("pglock.wait {key} exclusive session acquired"),
        format!("pglock.wait {key} exclusive session timed_out"),
    ];
    assert_eq!(told, expected);
}

/// A layer that keeps the spans of pglock, in the order in which they end.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Told>>>);

#[derive(Clone, Default)]
struct Told {
    name: &'static str,
    parent: Option<&'static str>,
    fields: BTreeMap<&'static str, String>,
}

impl Spans {
    /// One for all tests, since what a thread's own subscriber wants to see is cached for all threads.
    fn global() -> &'static Self {
        static SPANS: LazyLock<Spans> = LazyLock::new(|| {
            let spans = Spans::default();
            let subscriber = tracing_subscriber::registry().with(spans.clone());
            subscriber::set_global_default(subscriber).unwrap();
            spans
        });
        &SPANS
    }

    fn closed(&self) -> Vec<Told> {
        self.0.lock().unwrap().clone()
    }
}

impl Told {
    fn told(&self) -> String {
        assert_eq!(self.fields["db.system.name"], "postgresql");
        let mut text = self.name.to_owned();
        for field in [
            "pglock.key",
            "pglock.mode",
            "pglock.scope",
            "pglock.outcome",
        ] {
            text = text + " " + &self.fields[field];
        }
        match self.fields.get("otel.status_code") {
            Some(status) => text + " " + status,
            None => text,
        }
    }
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let mut told = Told {
            name: span.name(),
            parent: span.parent().map(|parent| parent.name()),
            ..Told::default()
        };
        attributes.record(&mut told);
        span.extensions_mut().insert(told);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        values.record(span.extensions_mut().get_mut::<Told>().unwrap());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let told = span.extensions().get::<Told>().unwrap().clone();
        if told.fields.contains_key("pglock.key") {
            self.0.lock().unwrap().push(told);
        }
    }
}
