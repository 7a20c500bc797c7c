"""Lines on forgotten pictures leave a folder of JSON lines, whole lines or cut ones, and leave no name behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import Database
from store.backup_files import forget_in_backup, forgotten, to_forget, tombstone, without_lines, writing

ONE, OTHER = "a1" * 32, "b2" * 32


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "app.db")
    yield opened
    opened.close()


def test_only_lines_that_hold_an_id_go() -> None:
    kept = f'{{"image_id": "{OTHER}"}}\n\n{{"caption": "{ONE[:63]}"}}\n'.encode()
    gone = f'{{"image_id": "{ONE}", "x": 1}}\n'.encode()
    cut = f'{{"mark": {{"image_id": "{ONE}'.encode()
    inside = f"ff{ONE}ff\n".encode()
    assert without_lines(gone + kept + inside + cut, {tombstone(ONE)}) == kept
    assert without_lines(gone + kept, set()) == gone + kept


def test_files_are_rewritten_and_what_is_left_to_do_is_noted(tmp_path: Path, database: Database) -> None:
    folder = tmp_path / "backup"
    assert not forget_in_backup(folder, database, [ONE]), "nothing is backed up here"
    assert to_forget(database) == set()
    folder.mkdir()
    (folder / "one.jsonl").write_text(f"{ONE}\n{OTHER}\n")
    (folder / "two.jsonl").write_text(f"{ONE}\n")
    (folder / "three.jsonl").write_text(f"{OTHER}\n")
    before = (folder / "three.jsonl").stat()
    assert forget_in_backup(folder, database, [ONE])
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "one.jsonl": f"{OTHER}\n",
        "three.jsonl": f"{OTHER}\n",
    }
    assert (folder / "three.jsonl").stat().st_mtime_ns == before.st_mtime_ns
    forget_in_backup(folder, database, [OTHER])
    assert to_forget(database) == {tombstone(ONE), tombstone(OTHER)}
    assert not any(ONE.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    forgotten(folder, database, {tombstone(ONE)})
    assert to_forget(database) == {tombstone(OTHER)}


def test_it_waits_for_who_is_writing(tmp_path: Path, database: Database) -> None:
    folder = tmp_path / "backup"
    folder.mkdir()
    thread = threading.Thread(target=forget_in_backup, args=(folder, database, [ONE]))
    with writing(folder):
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        (folder / "late.jsonl").write_text(f"{ONE}\n{OTHER}\n")
    thread.join()
    assert (folder / "late.jsonl").read_text() == f"{OTHER}\n"
