//! What a wait sends after its first slice: blocks, in which the end of a slice is no error.
//!
//! The text of a block is the same for every wait, so that `pg_stat_statements` has it once: what it is
//! for stands in a setting that is made in front of it, and what has become of it in another.
//!
//! # The line
//!
//! Who has waited for a slice stands in line, as in ZooKeeper's recipe for locks. It takes a *place*, a
//! session lock on (class of the key, n), with n behind the last, and waits for the place just ahead of
//! its own. Who has nobody ahead waits to be the *head*: with the head's mutex it lets its place go, so that
//! the next waits for the mutex already when the head has the key, and the server hands it on without a gap,
//! in which a newcomer would find no line. The head waits for the key, and lets the mutex go in the statement
//! that has the key. A place counts only if its session is a *member*, that is, holds a lock of 64 bits too:
//! 32 bits collide, and the pairs of a user's are no places.
//!
//! A member whose client is frozen or gone would hold up the line. So a member's session has an
//! `idle_session_timeout` of a few slices; and who has waited two whole slices for one place, and found no
//! head after either, tries the key, which costs order, never safety. After one, the next head may be between
//! two slices.

use std::fmt::Write as _;

use super::conditions::suffix;
use super::time::WaitTime;
use crate::failure::Refusal;
use crate::key::Key;
use crate::process;
use crate::targets::{LockInfo, Mode};

/// What a wait asks for, slice after slice.
pub(crate) struct Wait {
    token: String,
    keys: String,
    /// The class of each key's places, and its head's mutex.
    lines: Vec<(i32, i64)>,
}

/// How long a member of a line may be silent before the server ends its session.
pub(super) const IDLE_MILLIS: i32 = 2_400;

impl Wait {
    pub(crate) fn new(lock: &LockInfo) -> Self {
        let (mut keys, mut lines) = (String::new(), Vec::new());
        for (key, mode) in lock.keys_and_modes() {
            let (classid, objid, objsubid) = key.pg_locks();
            lines.push((key.class(), key.head()));
            let _ = write!(
                keys,
                " {} {} {} {} {} {classid}.{objid}.{objsubid}",
                arguments(key),
                match mode {
                    Mode::Exclusive => "-",
                    Mode::Shared => suffix(Mode::Shared),
                },
                key.head(),
                key.member(),
                key.class(),
            );
        }
        Self {
            token: process::unique_word(),
            keys,
            lines,
        }
    }

    fn asks(&self, millis: i32, most: i32, state: Option<&str>) -> String {
        let state = match state {
            Some(state) => format!(", pg_catalog.set_config('pglock.line', '{state}', false)"),
            None => String::new(),
        };
        format!(
            "SELECT pg_catalog.set_config('pglock.wait', '{} {millis} {most} {IDLE_MILLIS} {}{}', true){state}; ",
            self.token,
            process::word(),
            self.keys,
        )
    }

    /// The first looks only, and takes nothing: whether the session holds one of the keys, or a pair where
    /// the places would be. So [`leave`](Self::leave) gives back nothing that was held before.
    ///
    /// One slice in the line, of `millis` milliseconds; where the server must look for a deadlock, up to
    /// `most`. [`OUTCOME`] asks what has become of it.
    pub(crate) fn in_line(&self, millis: i32, most: i32, first: bool) -> String {
        let new = format!("{} new 0 0 f 0 f f f 0 0", self.token);
        let asks = self.asks(millis, most, first.then_some(&new));
        [&asks, IN_LINE].concat()
    }

    /// One slice for a member that stands behind another. It is little for the server to read, and most of a
    /// line does nothing else. [`PLACE`] asks what has become of it; whatever is to be done then,
    /// [`in_line`](Self::in_line) does.
    pub(crate) fn in_place(&self, millis: i32, behind: Behind) -> String {
        let (class, head) = self.lines.get(behind.key).copied().unwrap_or_default();
        format!(
            "SELECT pg_catalog.set_config('pglock.wait', '{} {millis} {} {class} {} {head}', true); {IN_PLACE}",
            self.token,
            process::word(),
            behind.place,
        )
    }

    /// Whether the one ahead is still there, and somebody is the head.
    pub(crate) fn stands(&self, line: &str) -> bool {
        line.split_once(' ') == Some((&self.token, "wait"))
    }

    /// Waits at most so long for locks of the transaction, in the server's queue. It takes all of them or
    /// none; an acquire that does not wait tells.
    pub(crate) fn in_queue(&self, millis: i32) -> String {
        [&self.asks(millis, millis, None), IN_QUEUE].concat()
    }

    /// Tries to lock all of several keys for the transaction, or none. [`OUTCOME`] asks what has become of
    /// it.
    pub(crate) fn try_all(&self) -> String {
        [&self.asks(0, 0, None), TRY_ALL].concat()
    }

    /// Acquires locks for the transaction and raises every error itself, with our mark, its SQLSTATE and its
    /// text: for drivers that tell no SQLSTATE, and where an error must be told from those of the
    /// statements behind it. With `idle`, only where the message is its own transaction.
    ///
    /// It costs the server more than the lock.
    pub(crate) fn exactly(&self, time: WaitTime, idle: bool) -> String {
        let kind = match time {
            WaitTime::No => "try",
            WaitTime::InPlace(None) => "place",
            WaitTime::OwnSlice(_) => "own",
            WaitTime::InPlace(Some(_)) | WaitTime::Slice(_) => "wait",
        };
        let millis = time.limit().unwrap_or(0);
        let asks = format!(
            "SELECT pg_catalog.set_config('pglock.wait', '{} {millis} {} {kind} {}{}', true); ",
            self.token,
            u8::from(idle),
            process::word(),
            self.keys,
        );
        [&asks, EXACTLY].concat()
    }

    /// Gives back whatever a wait in line has left in the session, and fails on another session.
    pub(crate) fn leave(&self) -> String {
        [&self.asks(0, 0, None), LEAVE].concat()
    }

    /// Whether an outcome is this wait's.
    pub(crate) fn outcome<'l>(&self, line: &'l str) -> Option<Outcome<'l>> {
        let mut words = line.split(' ');
        let mine = words.next()? == self.token;
        let word = words.next()?;
        let words: Vec<_> = words.collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let is = |at: usize| words.get(at).is_some_and(|word| word.starts_with('t'));
        let mut settings = (7..9).map(|at| number(at).unwrap_or(0));
        // How many keys are had, the place, whether it is the head's, the place ahead, whether the session holds
        // anything else, whether it suspects a deadlock, and whether a slice went by without a head.
        let behind = match (number(0), number(1), number(3)) {
            (Some(key), Some(1..), Some(place @ 1..)) if ![2, 4, 5, 6].into_iter().any(is) => {
                Some(Behind {
                    key: usize::try_from(key).unwrap_or_default(),
                    place,
                })
            }
            _ => None,
        };
        mine.then(|| Outcome {
            word,
            behind,
            lock_timeout: settings.next().unwrap_or(0),
            statement_timeout: settings.next().unwrap_or(0),
        })
    }
}

/// The place that a member waits for, and of which of the keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    key: usize,
    place: u64,
}

/// What a slice in line has come to.
pub(crate) struct Outcome<'l> {
    /// `had`, `wait`, `direct` (the session holds one of the keys: it does not stand in line), or why the
    /// lock is refused.
    pub(crate) word: &'l str,
    /// Where nothing is to be done but to wait for the place ahead.
    pub(crate) behind: Option<Behind>,
    /// The session's own, in milliseconds; 0 is none.
    pub(crate) lock_timeout: u64,
    /// The session's own, in milliseconds; 0 is none.
    pub(crate) statement_timeout: u64,
}

impl Outcome<'_> {
    /// Why the lock is refused.
    pub(crate) fn refusal(&self) -> Refusal {
        Refusal::read(&self.word.replace('_', " ")).unwrap_or(Refusal::SharedSession)
    }
}

/// Asks what has become of a slice in a place.
pub(crate) const PLACE: &str = "SELECT pg_catalog.current_setting('pglock.place') AS line";

const IN_PLACE: &str = "DO $pglock$ DECLARE ask text[] := pg_catalog.string_to_array(pg_catalog.current_setting('pglock.wait'), ' '); \
    BEGIN IF pg_catalog.split_part(pg_catalog.current_setting('pglock.line', true), ' ', 1) IS DISTINCT FROM ask[1] THEN \
    RAISE EXCEPTION USING ERRCODE = 'PL000', MESSAGE = 'pglock-' || ask[3] || ':shared session'; END IF; \
    PERFORM pg_catalog.set_config('lock_timeout', ask[2], true), pg_catalog.pg_advisory_xact_lock_shared(ask[4]::int, ask[5]::int); \
    PERFORM pg_catalog.pg_sleep(0), pg_catalog.set_config('pglock.place', ask[1] || ' passed', true); \
    EXCEPTION WHEN lock_not_available THEN PERFORM pg_catalog.set_config('pglock.place', ask[1] || \
    CASE WHEN pg_catalog.pg_try_advisory_lock_shared(ask[6]::bigint) AND pg_catalog.pg_advisory_unlock_shared(ask[6]::bigint) \
    THEN ' alone' ELSE ' wait' END, true); \
    WHEN SQLSTATE 'PL000' THEN RAISE; \
    WHEN OTHERS OR query_canceled THEN RAISE EXCEPTION 'pglock-%:% %', ask[3], SQLSTATE, SQLERRM; END $pglock$; ";

/// Asks what has become of a slice in line.
pub(crate) const OUTCOME: &str = "SELECT pg_catalog.current_setting('pglock.line') AS line";

/// Keeps the outcome of a wait in the queue beyond its message.
pub(crate) const KEEP: &str = "SELECT pg_catalog.set_config('pglock.line', pg_catalog.current_setting('pglock.line'), false); ";

/// Arguments of a lock function without a space.
fn arguments(key: &Key) -> String {
    match key.as_pair() {
        Some((first, second)) => format!("({first})::int,({second})::int"),
        None => format!("({})::bigint", key.as_i64().unwrap_or_default()),
    }
}

/// The advisory locks of the database, each once, from a single look at `pg_locks`.
macro_rules! look {
    () => {
        "WITH l AS MATERIALIZED (SELECT classid::bigint AS c, objid::bigint AS o, objsubid AS s, pid, mode \
         FROM pg_locks WHERE locktype = 'advisory' AND granted \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) "
    };
}

/// The last place ahead of one, of a member.
macro_rules! last_place {
    () => {
        "(SELECT max(p.o) FROM l p WHERE p.s = 2 AND p.c = class & 4294967295 AND p.mode = 'ExclusiveLock' \
         AND p.o < before AND p.pid IN (SELECT m.pid FROM l m WHERE m.s = 1 AND m.c = (member >> 32) & 4294967295 \
         AND m.o = member & 4294967295))"
    };
}

/// Reads the question. Its locks stand from the sixth word on, six words each.
macro_rules! asked {
    () => {
        "path := current_setting('search_path'); \
         PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true); \
         ask := string_to_array(current_setting('pglock.wait'), ' '); \
         keys := (cardinality(ask) - 5) / 6; "
    };
}

/// Tries the key, unless somebody is the head of its line.
macro_rules! try_now {
    () => {
        "got := false; \
         IF pg_try_advisory_lock_shared(h) AND pg_advisory_unlock_shared(h) THEN \
           EXECUTE 'SELECT pg_try_advisory_lock' || suffix || '(' || args || ')' INTO got; END IF; "
    };
}

/// Whether another process holds one of the keys, behind a pooler, on this server session: so it bears no
/// number of ours, and holds the key for the session. A transaction's locks look alike in `pg_locks`; so the
/// session lets the key go and takes it again, while the transaction holds it too.
macro_rules! if_anothers {
    ($then:literal) => {
        concat!(
            "IF current_setting('pglock.client', true) <> ask[5] THEN FOR i IN 1 .. keys LOOP at := 6 * i; \
             FOR suffix IN SELECT CASE mode WHEN 'ShareLock' THEN '_shared' ELSE '' END FROM pg_locks l \
               WHERE l.granted AND l.pid = pg_backend_pid() AND l.locktype = 'advisory' \
               AND l.classid || '.' || l.objid || '.' || l.objsubid = ask[at + 5] \
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) LOOP \
             EXECUTE format('SELECT pg_try_advisory_xact_lock%1$s(%2$s) AND pg_advisory_unlock%1$s(%2$s) \
               AND pg_try_advisory_lock%1$s(%2$s)', suffix, ask[at]) INTO got; \
             IF got THEN ", $then, "; END IF; END LOOP; END LOOP; END IF; "
        )
    };
}

/// The setting has the wait's token and the session's own value.
macro_rules! put_idle_back {
    () => {
        "PERFORM set_config('idle_session_timeout', substr(current_setting('pglock.idle'), length(ask[1]) + 2), false), \
         set_config('pglock.idle', '', false); "
    };
}

const IN_LINE: &str = concat!(
    "DO $pglock$ \
     DECLARE path text; ask text[]; was text[]; keys int; had int; place int; head boolean; ahead int; \
       nested boolean; suspect boolean; stale boolean; own boolean; pairs boolean; \
       at int; args text; suffix text; h bigint; member bigint; class bigint; before bigint := 2147000000; \
       ends timestamptz; step text; call text; got boolean; moved boolean := false; millis int; \
       client text; outcome text := 'wait'; limits text; kept text; \
     BEGIN ",
    asked!(),
    "was := string_to_array(current_setting('pglock.line', true), ' '); \
     IF was[1] IS DISTINCT FROM ask[1] THEN \
       RAISE EXCEPTION USING ERRCODE = 'PL000', MESSAGE = 'pglock-' || ask[5] || ':shared session'; END IF; \
     had := was[3]::int; place := was[4]::int; head := was[5]::boolean; ahead := was[6]::int; \
     nested := was[7]::boolean; suspect := was[8]::boolean; stale := was[9]::boolean; \
     limits := was[10] || ' ' || was[11]; \
     client := current_setting('pglock.client', true); \
     outcome := CASE WHEN pg_is_in_recovery() THEN 'in_recovery' \
       WHEN current_setting('crdb_version', true) IS NOT NULL THEN 'not_postgres' \
       WHEN now() <> statement_timestamp() THEN 'in_transaction' ELSE 'wait' END; \
     IF outcome = 'wait' AND was[2] = 'new' THEN ",
    "SELECT concat_ws(' ', (extract(epoch FROM current_setting('lock_timeout')::interval) * 1000)::bigint, \
       (extract(epoch FROM current_setting('statement_timeout')::interval) * 1000)::bigint) INTO limits; \
     member := ask[9]::bigint; class := ask[10]::bigint; ",
    look!(),
    "SELECT coalesce(",
    last_place!(),
    ", 0), coalesce(bool_or(c || '.' || o || '.' || s = ANY (ask)), false), coalesce(bool_or(s = 2 AND \
       (c - CASE WHEN c > 2147483647 THEN 4294967296 ELSE 0 END)::text = ANY (ask[6:])), false), count(*) > 0 \
       INTO ahead, own, pairs, nested FROM l WHERE pid = pg_backend_pid(); \
     IF client IS NULL OR NOT nested THEN PERFORM set_config('pglock.client', ask[5], false); \
     ELSIF client <> ask[5] THEN \
       IF own THEN outcome := 'shared_session'; \
       ELSE PERFORM set_config('pglock.client', 'several', false); END IF; \
     END IF; \
     IF outcome = 'wait' AND (own OR pairs) THEN outcome := 'direct'; END IF; \
     IF outcome = 'wait' THEN \
       PERFORM set_config('pglock.idle', ask[1] || ' ' || current_setting('idle_session_timeout', true), false); END IF; \
     END IF; \
     ends := clock_timestamp() + CASE WHEN suspect THEN least(ask[3]::bigint, greatest(ask[2]::bigint, \
       (extract(epoch FROM current_setting('deadlock_timeout')::interval) * 2000)::bigint)) ELSE ask[2]::bigint END * interval '1 ms'; \
     WHILE outcome = 'wait' AND was[2] <> 'new' LOOP \
       IF had = keys THEN outcome := 'had'; EXIT; END IF; \
       at := 6 + 6 * had; args := ask[at]; suffix := CASE ask[at + 1] WHEN '-' THEN '' ELSE ask[at + 1] END; \
       h := ask[at + 2]::bigint; member := ask[at + 3]::bigint; class := ask[at + 4]::bigint; \
       step := CASE WHEN place = 0 THEN 'join' WHEN head OR suspect THEN 'key' WHEN ahead > 0 THEN 'place' ELSE 'head' END; \
       IF step = 'join' THEN \
         ",
    try_now!(),
    "IF got THEN had := had + 1; CONTINUE; END IF; \
         kept := current_setting('idle_session_timeout', true); \
         IF extract(epoch FROM kept::interval) * 1000 NOT BETWEEN 1 AND ask[4]::int THEN \
           PERFORM set_config('idle_session_timeout', ask[4], false); END IF; \
         PERFORM pg_advisory_lock_shared(member); \
         IF had > 0 THEN ",
    look!(),
    "SELECT coalesce(",
    last_place!(),
    ", 0) INTO ahead; END IF; \
         place := ahead + 1; \
         WHILE NOT pg_try_advisory_lock(class::int, place) LOOP place := place + 1; END LOOP; \
         IF place > ahead + 1 THEN before := place; ",
    look!(),
    "SELECT coalesce(",
    last_place!(),
    ", 0) INTO ahead; END IF; \
         moved := true; CONTINUE; \
       END IF; \
       call := CASE step WHEN 'place' THEN format('_shared(%L, %L)', class, ahead) \
         WHEN 'head' THEN format('(%L)', h) ELSE suffix || '(' || args || ')' END; \
       millis := ceil(extract(epoch FROM ends - clock_timestamp()) * 1000); \
       got := false; \
       IF millis >= 1 THEN BEGIN \
         PERFORM set_config('lock_timeout', millis::text, true); \
         EXECUTE 'SELECT pg_advisory_xact_lock' || call; PERFORM pg_sleep(0); got := true; \
       EXCEPTION WHEN lock_not_available THEN got := false; END; END IF; \
       IF NOT got THEN \
         IF step = 'place' AND NOT moved THEN \
           IF stale THEN ",
    try_now!(),
    "END IF; \
           stale := pg_try_advisory_lock_shared(h) AND pg_advisory_unlock_shared(h); END IF; \
         IF NOT got THEN EXIT; END IF; \
         step := 'passed'; \
       END IF; \
       moved := true; \
       IF step = 'place' THEN before := place; ",
    look!(),
    "SELECT coalesce(",
    last_place!(),
    ", 0) INTO ahead; \
       ELSIF step = 'head' THEN PERFORM pg_advisory_lock(h), pg_advisory_unlock(class::int, place); head := true; \
       ELSE \
         IF step = 'key' THEN EXECUTE 'SELECT pg_advisory_lock' || suffix || '(' || args || ')'; END IF; \
         IF head THEN PERFORM pg_advisory_unlock(h); ELSE PERFORM pg_advisory_unlock(class::int, place); END IF; \
         PERFORM pg_advisory_unlock_shared(member); \
         had := had + 1; place := 0; head := false; ahead := 0; suspect := false; \
         EXIT WHEN had < keys; \
       END IF; \
     END LOOP; \
     IF outcome = 'wait' THEN \
       suspect := place > 0 AND nested AND NOT suspect AND EXISTS (WITH RECURSIVE blocker (pid) AS ( \
         SELECT l.pid FROM pg_locks l WHERE l.granted AND l.locktype = 'advisory' AND l.pid <> pg_backend_pid() \
           AND (l.classid || '.' || l.objid || '.' || l.objsubid = ask[at + 5] \
             OR l.objsubid = 1 AND l.classid::bigint = (h >> 32) & 4294967295 AND l.objid::bigint = h & 4294967295 \
             OR NOT head AND l.objsubid = 2 AND l.classid::bigint = class & 4294967295 AND l.objid::bigint < place) \
         UNION SELECT unnest(pg_blocking_pids(blocker.pid)) FROM blocker WHERE blocker.pid <> pg_backend_pid() \
           AND NOT EXISTS (SELECT FROM pg_locks w WHERE w.pid = blocker.pid AND NOT w.granted AND w.locktype = 'virtualxid')) \
         SELECT FROM blocker WHERE pid = pg_backend_pid()); \
     ELSIF current_setting('pglock.idle', true) LIKE ask[1] || ' %' THEN ",
    put_idle_back!(),
    "END IF; \
     PERFORM set_config('pglock.line', concat_ws(' ', ask[1], outcome, had, place, head::text, ahead, nested::text, suspect::text, (stale AND NOT moved)::text, limits), false), \
       set_config('search_path', path, true); \
     EXCEPTION WHEN SQLSTATE 'PL000' THEN RAISE; \
     WHEN OTHERS OR query_canceled THEN RAISE EXCEPTION 'pglock-%:% %', pg_catalog.split_part(pg_catalog.current_setting('pglock.wait'), ' ', 5), SQLSTATE, SQLERRM; \
     END $pglock$; "
);

/// All of several locks, or none, without a wait: what became of it stands in the setting too.
const TRY_ALL: &str = concat!(
    "DO $pglock$ DECLARE path text; ask text[]; keys int; at int; got boolean; \
       word text; suffix text; \
     BEGIN ",
    asked!(),
    "word := CASE WHEN pg_is_in_recovery() THEN 'in_recovery' \
       WHEN current_setting('crdb_version', true) IS NOT NULL THEN 'not_postgres' \
       WHEN current_setting('transaction_isolation') NOT LIKE 'read %' THEN 'stale_snapshot' ELSE 'had' END; ",
    if_anothers!("word := 'shared_session'"),
    "BEGIN \
       FOR i IN 1 .. keys LOOP EXIT WHEN word <> 'had'; at := 6 * i; \
         EXECUTE 'SELECT pg_try_advisory_xact_lock' || CASE ask[at + 1] WHEN '-' THEN '' ELSE ask[at + 1] END || '(' || ask[at] || ')' INTO got; \
         IF NOT got THEN RAISE lock_not_available; END IF; \
       END LOOP; \
     EXCEPTION WHEN lock_not_available THEN word := 'busy'; END; \
     PERFORM set_config('pglock.line', ask[1] || ' ' || word, true), \
       set_config('search_path', path, true); \
     END $pglock$; "
);

const IN_QUEUE: &str = concat!(
    "DO $pglock$ DECLARE path text; ask text[]; keys int; at int; ends timestamptz; kept text; millis int; \
       word text := 'busy'; got boolean; suffix text; \
     BEGIN ",
    asked!(),
    "kept := current_setting('lock_timeout'); \
     ends := clock_timestamp() + ask[2]::bigint * interval '1 ms'; ",
    if_anothers!("word := 'shared_session'"),
    "BEGIN \
       FOR i IN 1 .. keys LOOP EXIT WHEN word = 'shared_session'; at := 6 * i; \
         millis := greatest(1, ceil(extract(epoch FROM ends - clock_timestamp()) * 1000)); \
         PERFORM set_config('lock_timeout', millis::text, true); \
         EXECUTE 'SELECT pg_advisory_xact_lock' || CASE ask[at + 1] WHEN '-' THEN '' ELSE ask[at + 1] END || '(' || ask[at] || ')'; \
       END LOOP; \
       PERFORM pg_sleep(0); IF word = 'busy' THEN word := 'had'; END IF; \
     EXCEPTION WHEN lock_not_available THEN NULL; END; \
     PERFORM set_config('lock_timeout', kept, true), set_config('pglock.line', ask[1] || ' ' || word, true), \
       set_config('search_path', path, true); \
     END $pglock$; "
);

const EXACTLY: &str = concat!(
    "DO $pglock$ DECLARE path text; ask text[]; keys int; at int; ends timestamptz; kept text; millis int; \
       answer text; got boolean; suffix text; \
     BEGIN ",
    asked!(),
    "answer := CASE WHEN pg_is_in_recovery() THEN 'in recovery' \
       WHEN current_setting('crdb_version', true) IS NOT NULL THEN 'not postgres' \
       WHEN current_setting('transaction_isolation') NOT LIKE 'read %' THEN 'stale snapshot' \
       WHEN ask[3] = '1' AND now() <> statement_timestamp() THEN 'in transaction' ELSE '' END; ",
    if_anothers!("answer := 'shared session'"),
    "kept := current_setting('lock_timeout'); ends := clock_timestamp() + ask[2]::int * interval '1 ms'; \
     FOR i IN 1 .. keys LOOP EXIT WHEN answer <> ''; \
       at := 6 * i; suffix := CASE ask[at + 1] WHEN '-' THEN '' ELSE ask[at + 1] END; \
       IF ask[4] = 'try' THEN \
         EXECUTE 'SELECT pg_try_advisory_xact_lock' || suffix || '(' || ask[at] || ')' INTO got; \
         IF NOT got THEN answer := 'busy'; END IF; \
       ELSE \
         IF ask[4] = 'wait' OR ask[4] = 'own' AND kept !~ '^[1-9][0-9]{0,2}ms$' THEN \
           millis := greatest(1, ceil(extract(epoch FROM ends - clock_timestamp()) * 1000)); \
           PERFORM set_config('lock_timeout', millis::text, true); END IF; \
         EXECUTE 'SELECT pg_advisory_xact_lock' || suffix || '(' || ask[at] || ')'; \
       END IF; \
     END LOOP; \
     PERFORM pg_sleep(0); \
     PERFORM set_config('lock_timeout', kept, true), set_config('search_path', path, true); \
     IF answer <> '' THEN RAISE EXCEPTION USING ERRCODE = 'PL000', MESSAGE = 'pglock-' || ask[5] || ':' || answer; END IF; \
     EXCEPTION WHEN SQLSTATE 'PL000' THEN RAISE; \
     WHEN OTHERS OR query_canceled THEN RAISE EXCEPTION 'pglock-%:% %', pg_catalog.split_part(pg_catalog.current_setting('pglock.wait'), ' ', 5), SQLSTATE, SQLERRM; \
     END $pglock$"
);

const LEAVE: &str = concat!(
    "DO $pglock$ DECLARE path text; ask text[]; keys int; at int; row record; ids text[] := '{}'; classes bigint[] := '{}'; \
     BEGIN ",
    asked!(),
    "IF split_part(current_setting('pglock.line', true), ' ', 1) IS DISTINCT FROM ask[1] THEN \
       RAISE EXCEPTION 'this session is not the one that stands in line'; END IF; \
     FOR i IN 1 .. keys LOOP at := 6 * i; \
       ids := ids || ask[at + 5]; classes := classes || (ask[at + 4]::bigint & 4294967295); \
       FOR j IN 2 .. 3 LOOP \
         ids := ids || concat((ask[at + j]::bigint >> 32) & 4294967295, '.', ask[at + j]::bigint & 4294967295, '.1'); \
       END LOOP; \
     END LOOP; \
     FOR row IN SELECT classid::bigint AS c, objid::bigint AS o, objsubid AS s, CASE mode WHEN 'ShareLock' THEN '_shared' ELSE '' END AS suffix \
       FROM pg_locks WHERE pid = pg_backend_pid() AND granted AND locktype = 'advisory' \
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) LOOP \
       IF row.c || '.' || row.o || '.' || row.s = ANY (ids) OR row.s = 2 AND row.c = ANY (classes) AND row.suffix = '' THEN \
         EXECUTE 'SELECT pg_advisory_unlock' || row.suffix || '(' || CASE row.s \
           WHEN 1 THEN quote_literal((row.c << 32) | row.o) \
           ELSE quote_literal(row.c - CASE WHEN row.c > 2147483647 THEN 4294967296 ELSE 0 END) || ',' \
             || quote_literal(row.o - CASE WHEN row.o > 2147483647 THEN 4294967296 ELSE 0 END) END || ')'; \
       END IF; \
     END LOOP; \
     IF current_setting('pglock.idle', true) LIKE ask[1] || ' %' THEN ",
    put_idle_back!(),
    "END IF; PERFORM set_config('search_path', path, true); END $pglock$; "
);
