"""Exports as files to be served, here or in a process of their own."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.search.views import SearchRequest
from app.services import Services
from app.web import export_files
from app.web.export_files import clear_killed, export_file, write_export
from store.export import CARD_NAME, MANIFEST
from store.store_errors import ExportError


@pytest.fixture
def marked(services: Services) -> Services:
    """With three marks of one search."""
    found = services.search(SearchRequest("a man in a black jacket", k=3), "me")
    services.mark_rest("me", found.query_id, [one.image_id for one in found.candidates])
    return services


def test_an_export_is_the_same_from_a_process_of_its_own(marked: Services) -> None:
    here = write_export(marked.state, "imagefolder")
    apart = export_file(marked.state, "imagefolder")
    assert apart != here
    assert apart.is_relative_to(marked.settings.tmp_dir)
    assert apart.read_bytes() == here.read_bytes()
    with zipfile.ZipFile(apart) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    assert {CARD_NAME, MANIFEST} < names
    assert len([name for name in names if name.endswith(".jpg")]) == 3
    assert len(list(marked.settings.exports_dir.iterdir())) == 1, "the same content of one day is one export"


def test_that_process_leaves_the_processors_to_those_who_search(marked: Services) -> None:
    with ThreadPoolExecutor(1) as pool:
        export = pool.submit(export_file, marked.state, "jsonl")
        below = min(19, psutil.Process().nice() + 10)
        seen: set[int] = set()
        while not export.done():
            with suppress(psutil.Error):
                seen |= {one.nice() for one in psutil.Process().children() if "app.web.export_files" in one.cmdline()}
            time.sleep(0.01)
    assert export.result().is_file()
    assert below in seen


def test_what_ends_that_process_is_reported(marked: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "false")
    with pytest.raises(ExportError, match=r"ended before it was done \(exit code 1\)\. Nothing is kept"):
        export_file(marked.state, "jsonl")
    assert list(marked.settings.exports_dir.iterdir()) == []


def test_that_process_says_why_it_cannot(
    marked: Services, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    export_files.main(str(marked.settings.data_dir), "cuhk-pedes")
    assert "at least three people" in json.loads(capsys.readouterr().out)["error"]
    export_files.main(str(marked.settings.database / "below a file"), "jsonl")
    assert "cannot be written" in json.loads(capsys.readouterr().out)["error"]
    export_files.main(str(marked.settings.data_dir), "jsonl")
    assert json.loads(capsys.readouterr().out)["file"].endswith(".jsonl")


def test_nothing_is_served_while_pictures_are_forgotten(marked: Services) -> None:
    write_export(marked.state, "jsonl")
    marked.state.database.keep_setting("forgetting", json.dumps(["0" * 64]))  # as a killed `forget` leaves it
    with pytest.raises(ExportError, match="A picture was removed"):
        write_export(marked.state, "parquet")
    assert len(list(marked.settings.exports_dir.iterdir())) == 1
    assert marked.state.deletion.finish() is not None
    assert write_export(marked.state, "parquet").stat().st_size > 0


def test_an_export_withdrawn_while_it_is_packed_says_so(marked: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    (image_id, *_) = marked.state.gallery.ids()
    pack = export_files.pack

    def late(*given: Any) -> Path:
        (export,) = marked.settings.exports_dir.iterdir()
        shutil.rmtree(export)  # as a `forget` of another process does
        marked.forget([image_id], "me")
        return pack(*given)

    monkeypatch.setattr(export_files, "pack", late)
    with pytest.raises(ExportError, match="A picture was removed"):
        write_export(marked.state, "jsonl")
    monkeypatch.setattr(export_files, "pack", lambda *_: sys.exit(1))
    with pytest.raises(SystemExit):
        write_export(marked.state, "jsonl")
    assert list((marked.settings.tmp_dir / "downloads").iterdir()) == []


def test_downloads_of_yesterday_are_deleted(marked: Services) -> None:
    old = write_export(marked.state, "jsonl").parent
    os.utime(old, (1, 1))
    new = write_export(marked.state, "jsonl").parent
    assert list(new.parent.iterdir()) == [new]


def test_what_a_killed_export_left_is_cleared_after_a_day(tmp_path: Path) -> None:
    old, new, whole = (tmp_path / name for name in (".old.partial", ".new.partial", "20260101-jsonl-abc"))
    for folder in (old, new, whole):
        folder.mkdir()
        (folder / "marks.jsonl").write_text("{}")
    for folder in (old, whole):
        os.utime(folder, (1, 1))
    assert clear_killed(tmp_path) == 1
    assert sorted(tmp_path.iterdir()) == sorted([new, whole])
    assert clear_killed(tmp_path / "nowhere") == 0
