"""The SQLite database of marks, versions and jobs: opening, migrating, transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url

from store.schema import MIGRATIONS, settings
from store.store_errors import DatabaseError

_BUSY_MS = 15_000  # a writer waits this long for another's transaction, which takes milliseconds


class Database:
    """One SQLite file for several threads of several processes, given by path or `sqlite:///` URL.

    Migrates itself to this program's schema. Writers take turns (BEGIN IMMEDIATE), readers never wait (WAL);
    what was committed survives a power cut (synchronous=FULL) unless it need not; what was deleted is overwritten
    (secure_delete).
    Raises DatabaseError if the file cannot be opened or written, is no database, or has a newer schema.
    """

    def __init__(self, path_or_url: str | Path) -> None:
        self.url = _sqlite_url(path_or_url)
        path = Path(str(self.url.database))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise DatabaseError(_unusable(path, fault.strerror or str(fault))) from fault
        self.path = path
        _make_private(path)
        self._turn = threading.Lock()
        self._writer: int | None = None
        self._engine = sa.create_engine(self.url, connect_args={"timeout": _BUSY_MS / 1000})
        sa.event.listen(self._engine, "connect", _prepare)
        sa.event.listen(self._engine, "begin", _begin)
        try:
            with self.write() as connection:
                migrate(connection, MIGRATIONS, str(path))
        except DatabaseError:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin a transaction that sees one state of the database and changes nothing."""
        with self._faults(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """A transaction no other writer runs beside; committed at the end, rolled back on any error.

        Not `durable`: the disk is not waited for, but where the log is full, so that a power cut may take it back.
        The next transaction that is durable makes it so, too.
        """
        with self._in_turn(), self._faults(), self._engine.connect() as connection:
            connection = connection.execution_options(immediate=True)
            raw: Any = connection.connection.dbapi_connection  # outside a transaction, where this can be changed
            raw.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}").close()
            with connection.begin():
                yield connection

    def setting(self, key: str, make: Callable[[], str]) -> str:
        """Return the text kept under this key, made on first use; every process gets the same."""
        with self.write() as connection:
            value = connection.scalar(sa.select(settings.c.value).where(settings.c.key == key))
            if value is None:
                value = make()
                connection.execute(settings.insert().values(key=key, value=value))
            return str(value)

    def kept(self, *keys: str) -> dict[str, str]:
        """Return the texts kept under these keys at one moment; those that were never kept are missing."""
        with self.read() as connection:
            rows = connection.execute(sa.select(settings.c.key, settings.c.value).where(settings.c.key.in_(keys)))
            return {row.key: row.value for row in rows}

    def keep_setting(self, key: str, value: str) -> None:
        """Replace the text kept under this key."""
        with self.write() as connection:
            connection.execute(settings.delete().where(settings.c.key == key))
            connection.execute(settings.insert().values(key=key, value=value))

    def truncate_log(self) -> None:
        """Move the write-ahead log into the file and empty it, so that deleted rows are in neither.

        Waits for readers of older states. Raises DatabaseError if one reads on for longer than 15 seconds.
        """
        end = time.monotonic() + _BUSY_MS / 1000
        with self._faults(), self._engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection  # outside a transaction, where a checkpoint can run
            while raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]:
                if time.monotonic() > end:
                    raise DatabaseError(
                        f"The write-ahead log of {self.path} cannot be emptied, because another program reads it: "
                        "what was deleted is still on disk. End that program, then try again."
                    )
                time.sleep(0.05)

    def close(self) -> None:
        """Close every connection; the next use opens new ones."""
        self._engine.dispose()

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """The turn of one of this process's writers: SQLite itself sleeps up to 0.1 s before it asks again.

        Raises DatabaseError after 15 seconds, and RuntimeError where this thread holds the turn already.
        """
        if self._writer == threading.get_ident():
            raise RuntimeError("this thread is writing already: a transaction cannot begin within another")
        if not self._turn.acquire(timeout=_BUSY_MS / 1000):
            raise DatabaseError(
                f"The database {self.path} is busy: other changes have taken {_BUSY_MS // 1000} seconds. Try again."
            )
        self._writer = threading.get_ident()
        try:
            yield
        finally:
            self._writer = None
            self._turn.release()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError:
            raise  # a rule of the schema was broken: the caller knows which, and what it means
        except sa.exc.DatabaseError as fault:
            raise DatabaseError(_unusable(self.path, str(fault.orig))) from fault
        except sqlite3.Error as fault:  # from `_prepare`, which SQLAlchemy does not wrap
            raise DatabaseError(_unusable(self.path, str(fault))) from fault


def migrate(connection: Connection, migrations: Sequence[Sequence[str]], place: str) -> int:
    """Apply the `migrations` that a database has not had, and return its schema version: their number.

    Each migration is the SQL statements from one version to the next and never changes once released. Runs
    in the caller's transaction: all or nothing. Raises DatabaseError if the database has had more than these.
    """
    found = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if found > len(migrations):
        raise DatabaseError(
            f"The database {place} has schema {found}; this program knows schema {len(migrations)} and older. "
            "Update the program, or start it with another data folder."
        )
    for statements in migrations[found:]:
        for statement in statements:
            connection.exec_driver_sql(statement)
    # Written even if it stays the same: SQLite reports only at a write that a file is read-only.
    connection.exec_driver_sql(f"PRAGMA user_version = {len(migrations):d}")
    return len(migrations)


def _sqlite_url(path_or_url: str | Path) -> URL:
    if isinstance(path_or_url, str) and "://" in path_or_url:
        url = make_url(path_or_url)
        if url.get_backend_name() != "sqlite" or (url.database or ":memory:").startswith((":memory:", "file:")):
            raise DatabaseError(
                "Expected an SQLite file for marks, versions and jobs, which several processes share; "
                f"{url.render_as_string(hide_password=True)} came. Give a path or sqlite:///path."
            )
        return url
    return URL.create("sqlite", database=str(path_or_url))


def _make_private(path: Path) -> None:
    """Make the file, or take from others the right to read it, for it names people.

    What SQLite keeps beside it gets the same rights. Raises DatabaseError if the file cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o600)
    except OSError as fault:
        raise DatabaseError(_unusable(path, fault.strerror or str(fault))) from fault
    try:
        facts = os.fstat(descriptor)
        if os.name == "posix" and facts.st_mode & 0o077 and facts.st_uid == os.getuid():
            with suppress(OSError):  # some file systems keep no rights
                os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _unusable(path: Path, reason: str) -> str:
    return (
        f"The database {path} cannot be used: {reason}. Check that its folder exists, can be written and has "
        "room, or start with another data folder; if the file is damaged, restore it from a copy."
    )


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    # sqlite3 would begin transactions by itself, and only before a write: `_begin` does it instead.
    connection.isolation_level = None
    _use_write_ahead_log(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # SQLite does not wait for its turn here: of two processes that open a new file at once, one is refused.
    end = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as fault:
            if fault.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
