"""The database: opening, migrating, and what it says when it cannot."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from store import Database, DatabaseError, Versions
from store.database import migrate
from store.schema import MIGRATIONS, metadata


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "data" / "app.db")
    yield database
    database.close()


def pragma(database: Database, name: str) -> Any:
    with database.read() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def test_it_opens_as_promised(database: Database) -> None:
    assert pragma(database, "journal_mode") == "wal"
    assert pragma(database, "synchronous") == 2, "FULL"
    assert pragma(database, "foreign_keys") == 1
    assert pragma(database, "secure_delete") == 1
    assert pragma(database, "busy_timeout") == 15_000
    assert pragma(database, "user_version") == len(MIGRATIONS)


def test_writers_of_one_process_take_turns(database: Database) -> None:
    inside: list[int] = []

    def write(number: int) -> None:
        with database.write():
            inside.append(number)
            time.sleep(0.01)
            assert inside[-1] == number

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(12)))
    assert sorted(inside) == list(range(12))


def test_a_transaction_within_another_is_refused_at_once(database: Database) -> None:
    with database.write(), pytest.raises(RuntimeError, match="this thread is writing already"), database.write():
        pass
    with database.write() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1


def test_the_statements_make_the_tables_the_queries_name(database: Database) -> None:
    with database.read() as connection:
        found = sa.inspect(connection)
        tables = {name: {column["name"] for column in found.get_columns(name)} for name in found.get_table_names()}
    tables.pop("sqlite_sequence", None)
    assert tables == {table.name: set(table.c.keys()) for table in metadata.tables.values()}


def test_an_older_database_is_migrated_and_keeps_its_rows(database: Database) -> None:
    assert database.setting("kept", lambda: "value") == "value"
    newer = (*MIGRATIONS, ("ALTER TABLE settings ADD COLUMN note TEXT NOT NULL DEFAULT 'none'",), ("DROP TABLE jobs",))
    with database.write() as connection:
        assert migrate(connection, newer, "app.db") == len(MIGRATIONS) + 2
        assert migrate(connection, newer, "app.db") == len(MIGRATIONS) + 2, "nothing is run twice"
        rows = connection.exec_driver_sql("SELECT key, value, note FROM settings").all()
    assert rows == [("kept", "value", "none")]


def test_versions_of_an_older_database_have_vectors_of_their_own(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    with engine.begin() as connection:
        migrate(connection, MIGRATIONS[:1], "app.db")
        connection.exec_driver_sql(
            "INSERT INTO versions VALUES ('mini-v0', 'mini', NULL, 'active', '2026-01-02T03:04:05+00:00', NULL, "
            "'{}', '{}', 0, '{}')"
        )
    engine.dispose()
    database = Database(tmp_path / "app.db")
    row = Versions(database).active("mini")
    database.close()
    assert (row.id, row.vectors) == ("mini-v0", "mini-v0")


def test_a_migration_that_fails_changes_nothing(database: Database) -> None:
    broken = (*MIGRATIONS, ("CREATE TABLE half (x)", "CREATE TABLE half (x)"))
    with pytest.raises(DatabaseError, match="half already exists"), database.write() as connection:
        migrate(connection, broken, "app.db")
    assert pragma(database, "user_version") == len(MIGRATIONS)
    with database.read() as connection:
        assert "half" not in sa.inspect(connection).get_table_names()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    Database(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(DatabaseError, match=r"app\.db has schema 99; this program knows schema \d+"):
        Database(path)


def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    path.write_text("not a database " * 500)
    with pytest.raises(DatabaseError, match=r"app\.db cannot be used: file is not a database.*restore it from a copy"):
        Database(path)
    assert path.read_text().startswith("not a database"), "nothing is written over"


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseError, match=r"The database .* cannot be used: .*Check that its folder exists"):
        Database(tmp_path / "file" / "data" / "app.db")


def test_a_folder_in_its_place_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="cannot be used: Is a directory"):
        Database(tmp_path)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder as a user sees it who may read and not write; permissions do not bind root, so root steps down."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("log_left", [False, True])
def test_a_read_only_folder_is_reported(log_left: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, whose parents only its owner may enter
        database = Database(Path(folder) / "app.db")
        if not log_left:
            database.close()
        with read_only(Path(folder)):
            with pytest.raises(DatabaseError, match=r"app\.db cannot be used: .*Check that its folder exists"):
                Database(Path(folder) / "app.db")
            with pytest.raises(DatabaseError, match="Check that its folder"):
                Database(Path(folder) / "new" / "app.db")
        database.close()
        assert Database(Path(folder) / "app.db").setting("a", lambda: "b") == "b"


def test_a_url_will_do(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'app.db'}")
    assert database.path == tmp_path / "app.db"
    assert database.setting("a", lambda: "b") == "b"
    database.close()


@pytest.mark.parametrize(
    "url", ["postgresql://u:secret@host/db", "sqlite:///:memory:", "sqlite://", "sqlite:///file:a?uri=true"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(DatabaseError, match="Give a path or sqlite:///path") as refused:
        Database(url)
    assert "secret" not in str(refused.value)


def test_a_setting_is_made_once(database: Database) -> None:
    made = iter(range(100))

    def make() -> str:
        return str(next(made))

    with ThreadPoolExecutor(8) as pool:
        values = {future.result() for future in [pool.submit(database.setting, "key", make) for _ in range(20)]}
    assert values == {"0"}
    database.keep_setting("other", "x")
    assert database.kept("key", "other", "never") == {"key": "0", "other": "x"}
    assert database.kept("never") == {}


def test_an_error_rolls_back(database: Database) -> None:
    def write() -> None:
        with database.write() as connection:
            connection.execute(metadata.tables["settings"].insert().values(key="a", value="b"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    with database.read() as connection:
        assert connection.execute(sa.select(metadata.tables["settings"])).all() == []


def test_only_what_need_not_survive_a_power_cut_does_not_wait_for_the_disk(database: Database) -> None:
    with pytest.raises(KeyError), database.write(durable=False):
        raise KeyError
    for durable, level in ((True, 2), (False, 1), (True, 2)):
        with database.write(durable=durable) as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == level


def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    inside, seen = threading.Event(), threading.Event()

    def write() -> None:
        with database.write() as connection:
            connection.execute(metadata.tables["settings"].insert().values(key="a", value="b"))
            inside.set()
            assert seen.wait(10)

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        assert inside.wait(10)
        begun = time.monotonic()
        with database.read() as connection:
            assert connection.execute(sa.select(metadata.tables["settings"])).all() == []
        assert time.monotonic() - begun < 1
        seen.set()
        writer.result()


def open_in_process(path: str, ready: Any) -> None:
    ready.wait(60)
    for _ in range(3):
        database = Database(path)
        database.setting("key", lambda: "made")
        database.close()


def test_processes_may_create_it_at_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(2)
    path = str(tmp_path / "data" / "app.db")
    processes = [spawn.Process(target=open_in_process, args=(path, ready)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
