"""Runs failure modes on locks by hand and on the libraries for Python, and prints a table.

Run by scripts/test-comparison. The numbers are those of docs/comparison.md. The oracle is a connection of its own,
which asks pg_locks.
"""

import contextlib
import importlib.metadata
import os
import sys
import threading
import time

import django
import psycopg
import psycopg2
from django.conf import settings

URL = os.environ["DATABASE_URL"]
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"],
            "USER": os.environ["PGUSER"],
            "NAME": os.environ["PGDATABASE"],
        }
    }
)
django.setup()

import pglock as dpl
from concurrency_safe.api import lock as concurrency_safe_lock
from django.db import connection, transaction
from django_pg_utils.locks import advisory_lock as pgware_lock
from postgresql_lock import Lock as PostgresqlLock

import django_pglocks

oracle = psycopg.connect(URL, autocommit=True)
oracle_guard = threading.Lock()


def ask(query, *values):
    with oracle_guard:
        cursor = oracle.execute(query, values)
        return cursor.fetchone()[0] if cursor.description else None


def holds(pid):
    return ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = %s", pid) > 0


def eventually(condition):
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


class Boom(Exception):
    pass


class Busy(Exception):
    """The library says that somebody else holds the lock."""


class Party:
    """A connection as the library's users have it, and the library's lock on it."""

    lock_of = None
    times_out = False

    def execute(self, query):
        raise NotImplementedError

    def pid(self):
        return self.execute("SELECT pg_backend_pid()")

    def lock(self, name, timeout=None):
        return type(self).lock_of(self, name, timeout)


class Raw(Party):
    def __init__(self):
        self.connection = self.connect()

    def execute(self, query):
        with self.connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()[0] if cursor.description else None

    def close(self):
        self.connection.close()


class ByHand(Raw):
    """psycopg2, in autocommit, with BEGIN and COMMIT as text."""

    times_out = True

    def connect(self):
        opened = psycopg2.connect(URL)
        opened.autocommit = True
        return opened

    @contextlib.contextmanager
    def transaction(self):
        self.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    @contextlib.contextmanager
    def lock_of(self, name, timeout):
        key = sum(ord(letter) << (8 * at) for at, letter in enumerate(name[-7:]))
        if timeout is not None:
            self.execute(f"SET lock_timeout = '{int(timeout * 1000)}ms'")
        try:
            self.execute(f"SELECT pg_advisory_lock({key})")
        except psycopg2.errors.LockNotAvailable:
            raise Busy from None
        finally:
            if timeout is not None:
                self.execute("RESET lock_timeout")
        try:
            yield
        finally:
            self.execute(f"SELECT pg_advisory_unlock({key})")


class Psycopg3(Raw):
    autocommit = True

    def connect(self):
        return psycopg.connect(URL, autocommit=self.autocommit)

    def transaction(self):
        return self.connection.transaction()

    def lock_of(self, name, timeout):
        return PostgresqlLock(self.connection, name)


class Django(Party):
    """The connection of this thread."""

    def execute(self, query):
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()[0] if cursor.description else None

    def transaction(self):
        return transaction.atomic()

    def close(self):
        connection.close()


class ConcurrencySafe(Django):
    times_out = True

    def lock_of(self, name, timeout):
        # Without a timeout of ours, its default of 3 s.
        return translated(concurrency_safe_lock(name, *([] if timeout is None else [timeout])))


class Pglocks(Django):
    def lock_of(self, name, timeout):
        return django_pglocks.advisory_lock(name)


class Pgware(Django):
    def lock_of(self, name, timeout):
        return pgware_lock(name)


class DjangoPglock(Django):
    times_out = True

    def lock_of(self, name, timeout):
        if timeout is None:
            return translated(dpl.advisory(name))
        return translated(dpl.advisory(name, timeout=timeout))


@contextlib.contextmanager
def translated(lock):
    try:
        acquired = lock.__enter__()
    except Exception as error:
        if type(error).__name__ == "LockAcquireTimeout":
            raise Busy from None
        raise
    if acquired is False:
        lock.__exit__(None, None, None)
        raise Busy
    try:
        yield
    except BaseException:
        if not lock.__exit__(*sys.exc_info()):
            raise
    else:
        lock.__exit__(None, None, None)


# The modes. Each returns S (safe), T (told), W (silently wrong), H (hangs) or - (no such feature).


def body_raises(party, name):
    with contextlib.suppress(Boom), party.lock(name):
        raise Boom
    return "W" if holds(party.pid()) else "S"


def sql_error_in_a_transaction(party, name):
    pid = party.pid()
    with contextlib.suppress(Exception), party.transaction(), party.lock(name):
        party.execute("SELECT 1 / 0")
    return "W" if holds(pid) else "S"


def short_timeouts(party, name):
    if not party.times_out:
        return "-"
    pid, wrong = party.pid(), 0
    other = type(party)() if isinstance(party, Raw) else None
    for _ in range(100):
        taken, done = threading.Event(), threading.Event()

        def hold():
            holder = other or type(party)()
            with holder.lock(name):
                taken.set()
                time.sleep(0.001)
            if other is None:
                holder.close()
            done.set()

        thread = threading.Thread(target=hold)
        thread.start()
        taken.wait()
        try:
            with party.lock(name, timeout=0.001):
                pass
        except Busy:
            wrong += holds(pid)
        except Exception:
            pass
        thread.join()
        party.execute("SELECT pg_advisory_unlock_all()")
    if other:
        other.close()
    return f"W {wrong} of 100" if wrong else "S"


def timeout_in_a_transaction(party, name):
    if not party.times_out:
        return "-"
    with held_elsewhere(party, name):
        try:
            with party.transaction():
                with contextlib.suppress(Busy), party.lock(name, timeout=0.2):
                    pass
                party.execute("SELECT 1")
        except Exception:
            return "T"
    return "S"


def lock_timeout_restored(party, name):
    if not party.times_out:
        return "-"
    party.execute("SET lock_timeout = '7s'")
    with party.lock(name, timeout=1):
        pass
    return "S" if party.execute("SHOW lock_timeout") == "7s" else "W"


def released_before_commit(party, name):
    pid = party.pid()
    with party.transaction():
        with party.lock(name):
            pass
        return "S" if holds(pid) else "W"


def stale_snapshot(party, name):
    ask("UPDATE pglock_comparison SET n = 0")
    with party.transaction():
        party.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        party.execute("SELECT 1")
        ask("UPDATE pglock_comparison SET n = 1")
        with party.lock(name):
            return "S" if party.execute("SELECT n FROM pglock_comparison") == 1 else "W"


def connection_killed(party, name):
    pid = party.pid()
    try:
        with party.lock(name):
            ask("SELECT pg_terminate_backend(%s)", pid)
            eventually(lambda: ask("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid) == 0)
    except Exception:
        return "T"
    return "W"


def unlock_returns_false(party, name):
    try:
        with party.lock(name):
            party.execute("SELECT pg_advisory_unlock_all()")
    except Exception:
        return "T"
    return "W"


def deadlock(party, name):
    met, outcomes = threading.Barrier(2), []

    def work(first, second):
        mine = type(party)()
        try:
            with mine.lock(first):
                met.wait()
                with mine.lock(second):
                    outcomes.append("in")
        except Busy:
            outcomes.append("busy")
        except Exception as error:
            outcomes.append("told" if "deadlock" in str(error) else repr(error))
        mine.close()

    threads = [threading.Thread(target=work, args=names, daemon=True) for names in [(name, name + "b"), (name + "b", name)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    if "busy" in outcomes:
        return "W busy"
    return "T" if "told" in outcomes else "H"


def statement_timeout(party, name):
    with held_elsewhere(party, name):
        party.execute("SET statement_timeout = '300ms'")
        try:
            with party.lock(name):
                return "W"
        except Busy:
            return "S" if type(party) is ConcurrencySafe else "W busy"
        except Exception as error:
            return "T" if "statement timeout" in str(error) else "W"


def error_replaced(party, name):
    """In an aborted transaction, and on a connection that is gone."""

    def abort():
        party.execute("SELECT 1 / 0")

    def kill():
        ask("SELECT pg_terminate_backend(%s)", pid)

    pid, replaced = party.pid(), []
    for spoil in [abort, kill]:
        try:
            with party.transaction() if spoil is abort else contextlib.nullcontext(), party.lock(name):
                with contextlib.suppress(Exception):
                    spoil()
                raise Boom
        except Boom:
            pass
        except Exception:
            replaced.append(spoil.__name__)
    return "W" if replaced else "S"


def nested(party, name):
    with party.lock(name):
        with party.lock(name):
            pass
        return "S" if holds(party.pid()) else "W"


def index_in_the_session(party, name):
    return index(party, name, party.execute)


def index_in_another_session(party, name):
    with psycopg.connect(URL, autocommit=True) as other:
        other.execute("SET statement_timeout = '4s'")
        return index(party, name, other.execute)


def index(party, name, execute):
    began, told = threading.Event(), []

    def note(error):
        told.append("T" if "deadlock" in str(error) else "T busy" if isinstance(error, Busy) else "H")

    def wait():
        waiter = type(party)()
        began.set()
        try:
            with waiter.lock(name):
                pass
        except Exception as error:
            note(error)
        waiter.close()

    with party.lock(name):
        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        began.wait()
        time.sleep(0.5)  # a waiter that polls does not show in pg_locks
        try:
            execute("CREATE INDEX CONCURRENTLY pglock_comparison_index ON pglock_comparison (n)")
        except Exception as error:
            note(error)
    waiter.join(10)
    ask("DROP INDEX IF EXISTS pglock_comparison_index")
    return told[0] if told else "S"


@contextlib.contextmanager
def held_elsewhere(party, name):
    taken, over = threading.Event(), threading.Event()

    def hold():
        holder = type(party)()
        with holder.lock(name):
            taken.set()
            over.wait()
        holder.close()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    taken.wait(5)
    try:
        yield
    finally:
        over.set()
        thread.join(5)


MODES = {
    1: body_raises,
    2: sql_error_in_a_transaction,
    3: short_timeouts,
    4: timeout_in_a_transaction,
    5: lock_timeout_restored,
    6: released_before_commit,
    7: stale_snapshot,
    8: connection_killed,
    9: unlock_returns_false,
    10: deadlock,
    11: statement_timeout,
    12: error_replaced,
    13: nested,
    15: index_in_the_session,
    16: index_in_another_session,
}
PARTIES = {
    "by hand": (ByHand, "psycopg2-binary"),
    "django-concurrency-safe": (ConcurrencySafe, "django-concurrency-safe"),
    "postgresql-lock": (Psycopg3, "postgresql-lock"),
    "django-pglocks": (Pglocks, None),
    "django-pgware": (Pgware, "django-pgware"),
    "django-pglock": (DjangoPglock, "django-pglock"),
}


def run(kind, mode, name):
    """In a thread of its own, since Django's connection is the thread's."""
    outcome = []

    def work():
        party = kind()
        try:
            outcome.append(mode(party, name))
        except Exception as error:
            outcome.append("? " + type(error).__name__ + " " + str(error).splitlines()[0][:60])
        with contextlib.suppress(Exception):
            party.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(30)
    return outcome[0] if outcome else "H"


def main():
    ask("CREATE TABLE IF NOT EXISTS pglock_comparison (n integer)")
    ask("INSERT INTO pglock_comparison VALUES (0)")
    versions = [package and importlib.metadata.version(package) for _, package in PARTIES.values()]
    print("| mode | " + " | ".join(PARTIES) + " |")
    print("| --- |" + " --- |" * len(PARTIES))
    print("| version | " + " | ".join(version or django_pglocks.__version__ for version in versions) + " |")
    for number, mode in MODES.items():
        cells = [run(kind, mode, f"m{number}{at}") for at, (kind, _) in enumerate(PARTIES.values())]
        print(f"| {number} {mode.__name__.replace('_', ' ')} | " + " | ".join(cells) + " |", flush=True)
    ask("DROP TABLE pglock_comparison")


main()
