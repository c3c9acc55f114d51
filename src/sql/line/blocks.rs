//! The blocks, in PL/pgSQL. Each reads what it is for from a setting.

pub(super) const IN_PLACE: &str = "DO $pglock$ DECLARE ask text[] := pg_catalog.string_to_array(pg_catalog.current_setting('pglock.wait'), ' '); \
    BEGIN IF pg_catalog.split_part(pg_catalog.current_setting('pglock.line', true), ' ', 1) IS DISTINCT FROM ask[1] THEN \
    RAISE EXCEPTION USING ERRCODE = 'PL000', MESSAGE = 'pglock-' || ask[3] || ':shared session'; END IF; \
    PERFORM pg_catalog.set_config('lock_timeout', ask[2], true), pg_catalog.pg_advisory_xact_lock_shared(ask[4]::int, ask[5]::int); \
    PERFORM pg_catalog.pg_sleep(0), pg_catalog.set_config('pglock.place', ask[1] || ' passed', true); \
    EXCEPTION WHEN lock_not_available THEN PERFORM pg_catalog.set_config('pglock.place', ask[1] || \
    CASE WHEN pg_catalog.pg_try_advisory_lock_shared(ask[6]::bigint) AND pg_catalog.pg_advisory_unlock_shared(ask[6]::bigint) \
    THEN ' alone' ELSE ' wait' END, true); \
    WHEN SQLSTATE 'PL000' THEN RAISE; \
    WHEN OTHERS OR query_canceled THEN RAISE EXCEPTION 'pglock-%:% %', ask[3], SQLSTATE, SQLERRM; END $pglock$; ";

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

pub(super) const IN_LINE: &str = concat!(
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
pub(super) const TRY_ALL: &str = concat!(
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

pub(super) const IN_QUEUE: &str = concat!(
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

pub(super) const EXACTLY: &str = concat!(
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

pub(super) const LEAVE: &str = concat!(
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
