"""The locks of Python's libraries, for a test in another process.

    python_locks.py try SCHEME NAME     says `busy` or `free`
    python_locks.py hold SCHEME NAME    says `held`, waits for a line, releases, says `released`
"""

import os
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import django
import psycopg
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

URL = os.environ["DATABASE_URL"]


def set_up_django():
    server = conninfo_to_dict(URL)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": server.get("host", ""),
        "PORT": server.get("port", ""),
        "USER": server.get("user", ""),
        "PASSWORD": server.get("password", ""),
        "NAME": server.get("dbname", ""),
    }
    settings.configure(DATABASES={"default": database}, INSTALLED_APPS=["pgactivity", "pglock"])
    django.setup()


@contextmanager
def django_concurrency_safe(name):
    from concurrency_safe import LockAcquireTimeout, lock

    try:
        # It polls; with a timeout of 0 it would not ask even once.
        with lock(name, timeout=0.1):
            yield True
    except LockAcquireTimeout:
        yield False


@contextmanager
def postgresql_lock(name):
    from postgresql_lock import Lock

    with psycopg.connect(URL, autocommit=True) as connection:
        lock = Lock(connection, name)
        yield lock.acquire(block=False)
        if lock.locked:
            lock.release()


def django_pglocks_1(name):
    # Beside the later version, which has another scheme.
    sys.path.insert(0, str(Path(sys.prefix) / "django-pglocks-1"))
    from django_pglocks import advisory_lock

    return advisory_lock(name, wait=False)


def django_pgware(name):
    from django_pg_utils.locks import advisory_lock

    return advisory_lock(name, wait=False)


def django_pglock(name):
    import pglock

    return pglock.advisory(name, timeout=0)


def main(action, scheme, name):
    warnings.simplefilter("ignore")
    set_up_django()
    with globals()[scheme.replace("-", "_")](name) as held:
        if action == "hold":
            assert held, f"{name!r} is busy"
            print("held", flush=True)
            sys.stdin.readline()
    print("released" if action == "hold" else "free" if held else "busy", flush=True)


main(*sys.argv[1:])
