"""Forgetting, proven on the bytes of the disk."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

import store.gallery.indexes
from store import (
    Database,
    Deletion,
    ExportError,
    Filters,
    ForgetError,
    Gallery,
    GalleryError,
    JobError,
    Jobs,
    Marks,
    NewImage,
    Search,
    Shown,
    VersionRow,
    Versions,
    export_marks,
)
from store.deletion_log import begin, end, guard_deletion, pending, times
from store.export import MANIFEST
from store.export.withdrawal import holds
from store.gallery.image_table import ImageTable

DIM = 32
VERSIONS = ("mini-v0", "mini-v1")


def file_of(number: int) -> bytes:
    return np.random.default_rng(number).bytes(300)


def picture(number: int) -> NewImage:
    source, pid = ("wanted" if number % 100 == 7 else "own"), f"p{number % 50}"
    return NewImage(data=file_of(number), uri=f"{number}.jpg", width=64, height=128, source=source, pid=pid)


def embed(data: Sequence[bytes]) -> np.ndarray:
    rows = np.stack([np.random.default_rng(int.from_bytes(item[:8])).normal(size=DIM) for item in data])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def opened(folder: Path) -> Deletion:
    exports, temporary = folder / "exports", folder / "tmp"
    exports.mkdir(parents=True, exist_ok=True)
    temporary.mkdir(exist_ok=True)
    return Deletion(Gallery(folder / "gallery"), Marks(Database(folder / "app.db")), exports, temporary)


def grown(folder: Path, count: int) -> Deletion:
    everything = opened(folder)
    for start in range(0, count, 100):
        everything.gallery.add([picture(number) for number in range(start, min(start + 100, count))])
    for version in VERSIONS:
        everything.gallery.fill(version, embed, dim=DIM, batch_size=200)
    return everything


def traces(folder: Path, image: NewImage) -> list[str]:
    """The files that hold a picture, its vector (whole or half), or its id.

    Looks at a copy that another process makes: closing a file of SQLite's here would free the locks this one holds.
    """
    vector = embed([image.data])[0].tobytes()
    sought = (image.data[:64], image.data[-64:], vector[: len(vector) // 2], vector[len(vector) // 2 :])
    sought = (*sought, image.id.encode(), bytes.fromhex(image.id))
    with tempfile.TemporaryDirectory() as copy:
        subprocess.run(["cp", "-r", f"{folder}/.", copy], check=True)
        files = [path for path in sorted(Path(copy).rglob("*")) if path.is_file()]
        return [
            str(path.relative_to(copy))
            for path in files
            if image.id in path.name or any(part in path.read_bytes() for part in sought)
        ]


def mark_three(everything: Deletion, images: Sequence[NewImage]) -> str:
    search = Search(user="ada", caption="a man in red", version="mini-v0", backbone="mini")
    query = everything.marks.record_search(search, [Shown(image.id, n, 0.5) for n, image in enumerate(images, 1)])
    everything.marks.mark_many("ada", query, [image.id for image in images], "hit")
    return query


def index_files(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.rglob("*.idx")}


@pytest.fixture
def small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.gallery.indexes, "INDEX_FROM", 500)


@pytest.mark.usefixtures("small_index")
def test_a_forgotten_picture_is_nowhere_on_the_disk(tmp_path: Path) -> None:
    everything = grown(tmp_path, 1000)
    gallery, secret, kept = everything.gallery, picture(123), picture(124)
    query = mark_three(everything, [secret, kept])
    export_marks(everything.marks, gallery, everything.exports / "with", as_seen=bytes)
    (everything.temporary / "deep").mkdir()
    (everything.temporary / "deep" / f"{secret.id}.jpg").write_bytes(secret.data)
    (everything.temporary / "upload.png").write_bytes(secret.data)
    (everything.temporary / "other.png").write_bytes(kept.data)
    with zipfile.ZipFile(everything.temporary / "download.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((everything.exports / "with" / "data").iterdir()):
            archive.write(file, file.name)
    (everything.exports / "without").mkdir()
    (everything.exports / "without" / "marks.jsonl").write_text(json.dumps({"image_id": kept.id}))
    indexes = index_files(tmp_path)
    assert len(indexes) == len(VERSIONS), "there is an index to erase from"
    before = traces(tmp_path, secret)
    assert any("images.lance" in file for file in before)
    assert any("vectors_mini-v1" in file for file in before)
    assert any("app.db" in file for file in before)
    rows = {row.id: row for row in gallery.rows(gallery.ids())}

    done = everything.forget([secret.id])

    assert (done.pictures, done.marks, done.copies, done.exports) == (1, 1, 3, ("with",))
    assert traces(tmp_path, secret) == []
    assert index_files(tmp_path).isdisjoint(indexes)
    assert len(index_files(tmp_path)) == len(VERSIONS), "searches have an index again"
    del rows[secret.id]
    assert {row.id: row for row in gallery.rows(gallery.ids())} == rows, "all others are as they were"
    assert gallery.data(kept.id) == kept.data
    for version in VERSIONS:
        assert gallery.complete(version)
        assert len(gallery.vectors(version, gallery.ids())[0]) == 999
        assert secret.id not in {c.image_id for c in gallery.search(version, embed([secret.data])[0], 999)}
    assert [mark.image_id for mark in everything.marks.current()] == [kept.id]
    assert [shown.image_id for shown in everything.marks.shown(query)] == [kept.id]
    assert (everything.temporary / "other.png").exists()
    assert sorted(path.name for path in everything.exports.iterdir()) == ["without"]
    assert everything.forget([secret.id]).pictures == 0
    assert gallery.add([secret]) == [secret.id], "bringing it again is not forbidden"


def test_a_source_or_a_person_is_chosen_by_filters(tmp_path: Path) -> None:
    everything = grown(tmp_path, 300)
    chosen = everything.gallery.matching(Filters(source=("wanted",)))
    assert chosen == [picture(number).id for number in (7, 107, 207)]
    assert everything.gallery.matching(Filters(source=("own",), pid=("p7",))) == [
        picture(number).id for number in (57, 157, 257)
    ]
    assert everything.forget(chosen).pictures == 3
    assert [file for number in (7, 107, 207) for file in traces(tmp_path, picture(number))] == []
    assert everything.gallery.sources() == {"own": 297}


def test_versions_that_learnt_from_it_are_flagged(tmp_path: Path) -> None:
    everything = grown(tmp_path, 20)
    versions = Versions(everything.marks.database)
    versions.ensure_base("mini")
    query = mark_three(everything, [picture(1)])
    event = everything.marks.stats().last_event
    versions.add(VersionRow(id="mini-v1", backbone="mini", folder="models/mini-v1", last_event=event - 1))
    versions.add(VersionRow(id="mini-v2", backbone="mini", folder="models/mini-v2", last_event=event))
    search = Search(user="bob", caption="a dog", version="mini-v0", backbone="mini")
    other = everything.marks.record_search(search, [Shown(picture(2).id, 1, 0.4)])
    everything.marks.mark("bob", other, picture(2).id, "wrong_person")
    assert everything.forget([picture(2).id]).versions == (), "nobody learns from a wrong person"
    assert everything.forget([picture(1).id]).versions == ("mini-v2",)
    assert versions.learnt_forgotten() == {"mini-v2": 1}
    assert everything.marks.shown(query) == []


def test_forgetting_waits_for_training_and_wants_to_know_what(tmp_path: Path) -> None:
    everything = grown(tmp_path, 5)
    with pytest.raises(ForgetError, match="ids of pictures"):
        everything.forget([])
    job = Jobs(everything.marks.database).queue("finetune")
    with pytest.raises(ForgetError, match="Cancel it or wait"):
        everything.forget([picture(1).id])
    assert everything.gallery.count() == 5
    Jobs(everything.marks.database).request_cancel(job.id)
    assert everything.forget([picture(1).id]).pictures == 1


def test_nothing_is_learnt_or_exported_while_pictures_are_forgotten(tmp_path: Path) -> None:
    everything = grown(tmp_path, 20)
    mark_three(everything, [picture(1), picture(2)])
    jobs = Jobs(everything.marks.database)

    class Watched(Gallery):
        """Forgets another picture while this one's are read for an export."""

        def datas(self, ids: Sequence[str]) -> dict[str, bytes]:
            found = super().datas(ids)
            everything.forget([picture(1).id])
            return found

    with pytest.raises(ExportError, match="Export again"):
        export_marks(everything.marks, Watched(tmp_path / "gallery"), everything.exports / "set", as_seen=bytes)
    assert traces(tmp_path, picture(1)) == []
    with everything.marks.database.write() as connection:
        begin(connection, [picture(2).id])
    with pytest.raises(JobError, match="being forgotten"):
        jobs.queue("finetune")
    everything.finish()
    assert jobs.queue("finetune").state == "queued"


@pytest.mark.usefixtures("small_index")
def test_searches_and_additions_go_on_meanwhile(tmp_path: Path) -> None:
    everything = grown(tmp_path, 600)
    gallery, faults, ended = everything.gallery, list[Exception](), threading.Event()
    added = 0

    def search() -> None:
        try:
            while not ended.is_set():
                found = gallery.search("mini-v0", embed([picture(5).data])[0], 10)
                assert found[0].image_id == picture(5).id
                assert found[0].score == pytest.approx(1.0, abs=1e-5)
        except Exception as fault:  # noqa: BLE001 - the test itself reports it
            faults.append(fault)

    def add() -> None:
        nonlocal added
        try:
            other = Gallery(tmp_path / "gallery")
            while not ended.is_set():
                other.add([picture(10_000 + added)])
                added += 1
        except Exception as fault:  # noqa: BLE001 - the test itself reports it
            faults.append(fault)

    threads = [threading.Thread(target=work) for work in (search, search, add)]
    for thread in threads:
        thread.start()
    for number in range(100, 104):
        everything.forget([picture(number).id])
    ended.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert added > 0
    assert gallery.count() == 596 + added
    assert [file for number in range(100, 104) for file in traces(tmp_path, picture(number))] == []


def test_what_a_killed_writer_left_half_written_goes_too(tmp_path: Path) -> None:
    everything = grown(tmp_path, 20)
    for table in ("images", "vectors_mini-v0"):
        half = tmp_path / "gallery" / f"{table}.lance" / "data" / ".tmpAb12Cd"  # LanceDB writes there, then renames
        half.write_bytes(b"\0" * 10 + picture(1).data + embed([picture(1).data])[0].tobytes())
    everything.forget([picture(1).id])
    assert traces(tmp_path, picture(1)) == []


def test_a_vector_that_comes_too_late_is_not_kept(tmp_path: Path) -> None:
    everything = opened(tmp_path)
    everything.gallery.add([picture(number) for number in range(10)])

    def slow(data: list[bytes]) -> np.ndarray:
        everything.forget([picture(3).id])  # while its batch is being encoded
        return embed(data)

    assert everything.gallery.fill("mini-v0", slow, dim=DIM) == 9
    assert traces(tmp_path, picture(3)) == []


def forget_in_process(folder: str, image_id: str) -> None:
    opened(Path(folder)).forget([image_id])


def being_forgotten(everything: Deletion) -> list[str]:
    with everything.marks.database.read() as connection:
        return pending(connection)


@pytest.mark.usefixtures("small_index")
def test_killed_while_forgetting_it_is_made_up_for(tmp_path: Path) -> None:
    everything = grown(tmp_path, 400)
    mark_three(everything, [picture(number) for number in range(3)])
    spawn = multiprocessing.get_context("spawn")
    rng = np.random.default_rng(0)
    for number in range(3):
        process = spawn.Process(target=forget_in_process, args=(str(tmp_path), picture(number).id))
        process.start()
        while not being_forgotten(everything) and process.is_alive():
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, 0.15)))
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        everything.finish()
        assert everything.finish() is None
        assert traces(tmp_path, picture(number)) == []
        assert everything.gallery.count() == 399 - number
        assert len(everything.gallery.search("mini-v1", embed([b"anything at all"])[0], 500)) == 399 - number
    assert everything.marks.stats().total == 0


def test_who_ends_first_leaves_the_others_named(tmp_path: Path) -> None:
    everything = opened(tmp_path)
    with everything.marks.database.write() as connection:
        begin(connection, ["a", "b", "c"])
        end(connection, ["a", "c"])
        assert (pending(connection), times(connection)) == (["b"], 1)
        end(connection, ["b"])
        assert (pending(connection), times(connection)) == ([], 2)


def test_a_table_that_cannot_be_opened_keeps_nothing_from_being_forgotten(tmp_path: Path) -> None:
    """Of a version that does not serve: half created or half deleted."""
    everything, secret = grown(tmp_path, 20), picture(3)
    shutil.rmtree(tmp_path / "gallery" / "vectors_mini-v1.lance" / "_versions")
    again = opened(tmp_path)
    assert again.forget([secret.id]).pictures == 1
    assert traces(tmp_path, secret) == []
    assert again.gallery.versions() == ["mini-v0"]
    assert len(again.gallery.search("mini-v0", embed([b"anything at all"])[0], 50)) == 19
    assert everything.finish() is None


def test_two_never_forget_at_once(tmp_path: Path) -> None:
    everything = grown(tmp_path, 20)
    with everything.marks.database.write() as connection:
        begin(connection, [picture(3).id])
    with FileLock(tmp_path / "forgetting.lock"):
        assert everything.finish(wait=False) is None, "somebody is at it"
        assert everything.gallery.count() == 20
    done = everything.finish(wait=False)
    assert done is not None
    assert (done.pictures, everything.pending()) == (1, [])


@pytest.mark.usefixtures("small_index")
def test_the_index_comes_back_when_forgetting_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = grown(tmp_path, 600)

    def full(*_: object) -> int:
        raise GalleryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(ImageTable, "erase", full)
        with pytest.raises(GalleryError, match="no room"):
            everything.forget([picture(3).id])
    assert not any(everything.gallery.stale(version) for version in VERSIONS)
    assert everything.pending() == [picture(3).id]
    assert everything.finish() is not None


def test_a_lock_that_cannot_be_taken_is_reported_only_when_needed(tmp_path: Path) -> None:
    everything = grown(tmp_path, 20)
    (tmp_path / "forgetting.lock").mkdir()
    assert everything.finish() is None, "nothing is left to do"
    with pytest.raises(ForgetError, match="the data folder cannot be locked"):
        everything.forget([picture(3).id])
    assert everything.gallery.count() == 20


def test_a_search_under_way_leaves_no_record_of_what_was_forgotten(tmp_path: Path) -> None:
    everything = grown(tmp_path, 20)
    search = Search(user="ada", caption="a man in red", version="mini-v0", backbone="mini")
    found = [Shown(image_id, n, 0.5) for n, image_id in enumerate([picture(3).id, picture(4).id], 1)]
    with everything.guard_searches() as recorded:
        everything.forget([picture(3).id])
        query = everything.marks.record_search(search, found)
        everything.marks.mark("ada", query, picture(4).id, "hit")
        recorded(query, [picture(3).id, picture(4).id, "0" * 64])
    assert [one.image_id for one in everything.marks.shown(query)] == [picture(4).id]
    assert traces(tmp_path, picture(3)) == []
    assert [mark.image_id for mark in everything.marks.current()] == [picture(4).id]


def test_exports_are_withdrawn_by_their_manifests(tmp_path: Path) -> None:
    """What the manifest names goes; of what it does not name, no file is opened. Only without one bytes decide."""
    everything, secret, other = grown(tmp_path, 20), picture(3).id, picture(4).id
    for name, ids, text in (("named", [secret], ""), ("kept", [other], secret), ("damaged", None, secret)):
        export = everything.exports / name
        export.mkdir()
        manifest = {} if ids is None else {"image_ids": ids}
        (export / MANIFEST).write_text(json.dumps(manifest))
        (export / "part.bin").write_text(text)
    assert everything.forget([secret]).exports == ("damaged", "named")
    assert [path.name for path in everything.exports.iterdir()] == ["kept"]


def test_a_guarded_block_is_undone_only_if_pictures_were_forgotten(tmp_path: Path) -> None:
    everything, undone = grown(tmp_path, 20), list[str]()
    database, refusal = everything.marks.database, ExportError("ask again")
    with guard_deletion(database, refuse=refusal) as undo:
        undo.append(lambda: undone.append("quiet"))
    with pytest.raises(OSError, match="full"), guard_deletion(database, refuse=refusal):
        raise OSError("full")

    def interrupted() -> None:
        with guard_deletion(database, refuse=refusal) as undo:
            undo.append(lambda: undone.append("forgotten"))
            everything.forget([picture(3).id])
            raise OSError("withdrawn while it was read")

    with pytest.raises(ExportError, match="ask again"):
        interrupted()
    assert undone == ["forgotten"]


def test_a_copy_that_cannot_be_deleted_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = grown(tmp_path, 20)

    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied", "secret.jpg")

    with monkeypatch.context() as patch:
        patch.setattr("store.deletion.delete_copies", refused)
        with pytest.raises(ForgetError, match=r"Permission denied: 'secret.jpg'"):
            everything.forget([picture(3).id])
    assert everything.pending() == [picture(3).id]
    assert everything.finish() is not None


def test_ids_are_hashes_of_the_bytes() -> None:
    assert picture(1).id == hashlib.sha256(file_of(1)).hexdigest()


def test_an_upload_that_cannot_be_read_keeps_nothing_from_being_forgotten(tmp_path: Path) -> None:
    """A damaged zip, one with a password and one of an unknown kind of compression: looked through as bytes."""
    plain = tmp_path / "plain.zip"
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("note.txt", b"nothing of interest")
    data = plain.read_bytes()
    central = data.index(b"PK\1\2")
    for name, at, value in (("locked", 6, 1), ("odd", 8, 99)):
        changed = bytearray(data)
        changed[at] = changed[central + at + 2] = value
        (tmp_path / f"{name}.zip").write_bytes(changed)
    (tmp_path / "damaged.zip").write_bytes(data.replace(b"nothing", b"NOTHING", 1))
    for file in tmp_path.glob("*.zip"):
        assert not holds(file, {"0" * 64}), file.name


@pytest.mark.long
def test_one_of_ten_thousand_is_nowhere_on_the_disk(tmp_path: Path) -> None:
    """With the index that a gallery of this size has by itself."""
    everything = opened(tmp_path)
    for start in range(0, 10_500, 1500):
        everything.gallery.add([picture(number) for number in range(start, start + 1500)])
    everything.gallery.fill("mini-v0", embed, dim=DIM, batch_size=1000)
    mark_three(everything, [picture(5000)])
    assert index_files(tmp_path)
    assert traces(tmp_path, picture(5000))
    everything.forget([picture(5000).id])
    assert traces(tmp_path, picture(5000)) == []
    assert index_files(tmp_path), "searches have an index again"
    assert everything.gallery.count() == 10_499
