"""Marks as a data set, opened as its users open it."""

from __future__ import annotations

import io
import json
import os
import resource
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.images import as_loaders_read, open_picture
from store import Database, Deletion, ExportError, Gallery, ImageRow, Marks, NewImage, Search, Shown, export
from store.export import COLUMNS, export_schema, formats, join_parquet, pseudonym
from store.export.person_splits import persons, positives, split_by_person
from store.export.withdrawal import withdraw
from store.records import EXPORT_FORMATS

# Before `datasets` is imported: it would ask the Hub who it is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

export_marks = partial(export.export_marks, as_seen=as_loaders_read)
"""As the app exports them."""
NAMES = [name for name, _, _ in COLUMNS]
Stores = tuple[Marks, Gallery]


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 36), (number * 10, 100, 50)).save(file, "PNG")
    return file.getvalue()


def picture(number: int) -> NewImage:
    pid = f"p{number}" if number % 2 else None
    return NewImage(data=png(number), uri=f"/home/ada/secret/{number}.PNG", width=12, height=36, source="own", pid=pid)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    database = Database(tmp_path / "app.db")
    yield Marks(database), Gallery(tmp_path / "gallery")
    database.close()


def ask(marks: Marks, images: list[NewImage], caption: str = "a man, in RED", user: str = "ada", **more: Any) -> str:
    search = Search(user=user, caption=caption, version="mini-v0", backbone="mini", **more)
    return marks.record_search(search, [Shown(image.id, rank, 1 / rank) for rank, image in enumerate(images, 1)])


def mark_people(marks: Marks, gallery: Gallery, people: int = 8) -> list[NewImage]:
    """Two pictures of each of these people, hit for a caption of theirs; the next one's picture a miss."""
    images = [picture(n) for n in range(2 * people)]
    gallery.add(images)
    for n in range(people):
        query = ask(marks, images, f"Person number {n}, in a coat.", user=("ada", "bob")[n % 2])
        user = ("ada", "bob")[n % 2]
        marks.mark_many(user, query, [images[2 * n].id, images[2 * n + 1].id], "hit")
        marks.mark(user, query, images[(2 * n + 2) % (2 * people)].id, "miss")
    return images


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("format", ["parquet", "imagefolder"])
def test_datasets_opens_it_with_the_same_pictures(stores: Stores, tmp_path: Path, format: str) -> None:
    datasets = pytest.importorskip("datasets", reason="pip install -r requirements-dev.txt")
    marks, gallery = stores
    images = mark_people(marks, gallery)
    report = export_marks(marks, gallery, tmp_path / "out", format=format)
    assert (report.rows, report.counts.images, report.counts.captions, report.counts.annotators) == (24, 16, 8, 2)
    assert report.counts.verdicts == {"hit": 16, "miss": 8, "wrong_person": 0}

    opened = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in opened.items()} == report.counts.splits
    current = {(mark.query_id, mark.image_id): mark for mark in marks.current()}
    files = {image.id: image.data for image in images}
    names: dict[str, set[str]] = {}
    for split, rows in opened.items():
        assert set(rows.column_names) == {"image", *NAMES}
        assert isinstance(rows.features["image"], datasets.Image)
        for row in rows.cast_column("image", datasets.Image(decode=False)):
            mark = current.pop((row["query_id"], row["image_id"]))
            held = row["image"]["bytes"] or Path(row["image"]["path"]).read_bytes()
            assert held == files[mark.image_id]
            assert (row["caption"], row["verdict"], row["split"]) == (mark.caption, mark.verdict, split)
            assert (row["rank"], row["score"], row["pid"]) == (mark.rank, mark.score, gallery.get(mark.image_id).pid)
            hardness = 1 - 1 / mark.rank if mark.verdict == "hit" else 1 / mark.rank
            assert row["hardness"] == pytest.approx(hardness, abs=1e-6)
            names.setdefault(mark.user, set()).add(row["annotator"])
    assert current == {}, "every mark is in it once"
    assert len(names["ada"]) == len(names["bob"]) == 1
    assert names["ada"] != names["bob"]


def test_parquet_streams_from_several_shards(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="pip install -r requirements-dev.txt")
    marks, gallery = stores
    images = mark_people(marks, gallery)
    monkeypatch.setattr(formats, "SHARD_BYTES", 1)
    monkeypatch.setattr(formats, "GROUP_ROWS", 5)
    report = export_marks(marks, gallery, tmp_path / "out")
    train = sorted(file.name for file in (tmp_path / "out" / "data").glob("train-*"))
    assert len(train) == -(-report.counts.splits["train"] // 5) > 1
    assert train[0] == f"train-00000-of-{len(train):05}.parquet"

    one = tmp_path / "one.parquet"
    join_parquet(tmp_path / "out", one)
    (joined,) = datasets.load_dataset("parquet", data_files=str(one), cache_dir=str(tmp_path / "cache")).values()
    assert isinstance(joined.features["image"], datasets.Image)
    held = joined.cast_column("image", datasets.Image(decode=False))
    files = {image.id: image.data for image in images}
    assert {(row["query_id"], row["image_id"]): row["image"]["bytes"] for row in held} == {
        (mark.query_id, mark.image_id): files[mark.image_id] for mark in marks.current()
    }
    assert len(joined) == report.rows
    streamed = datasets.load_dataset(str(tmp_path / "out"), split="train", streaming=True)
    assert sum(row["image"].size == (12, 36) for row in streamed) == report.counts.splits["train"]
    assert pq.read_schema(tmp_path / "out" / "data" / train[0]).equals(export_schema(), check_metadata=True)


def test_cuhk_pedes_is_what_loaders_of_the_field_read(stores: Stores, tmp_path: Path) -> None:
    marks, gallery = stores
    images = mark_people(marks, gallery)
    same = ask(marks, images, "another way to say it", user="cy")
    marks.mark_many("cy", same, [images[0].id, images[1].id], "hit")
    disputed = ask(marks, images, "person number 0 in a coat", user="cy")
    marks.mark("cy", disputed, images[1].id, "miss")
    without = ask(marks, images, "a man", user="cy", negative="a hat")
    marks.mark("cy", without, images[4].id, "hit")

    report = export_marks(marks, gallery, tmp_path / "out", format="cuhk-pedes")
    rows = json.loads((tmp_path / "out" / "reid_raw.json").read_text())
    assert all(set(row) == {"split", "captions", "file_path", "processed_tokens", "id"} for row in rows)
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    train = [row["id"] - 1 for row in rows if row["split"] == "train"]
    assert sorted(set(train)) == list(range(len(set(train)))), "the loaders want train ids from 1, without gaps"
    splits: dict[int, set[str]] = {}
    for row in rows:
        splits.setdefault(row["id"], set()).add(row["split"])
        assert len(row["captions"]) == len(row["processed_tokens"]) > 0
        assert (tmp_path / "out" / "imgs" / row["file_path"]).is_file()
    assert all(len(found) == 1 for found in splits.values()), "nobody is in two splits"
    by_file = {Path(row["file_path"]).stem: row for row in rows}
    assert set(by_file) == {image.id for image in images}
    first, second = by_file[images[0].id], by_file[images[1].id]
    assert first["captions"] == ["another way to say it", "Person number 0, in a coat."]
    assert first["processed_tokens"][1] == ["person", "number", "0", "in", "a", "coat"]
    assert second["captions"] == ["another way to say it"], "one said hit, one said miss"
    assert second["id"] == first["id"]
    assert (tmp_path / "out" / "imgs" / first["file_path"]).read_bytes() == images[0].data
    assert report.rows == sum(len(row["captions"]) for row in rows)


def irra_reads(root: Path) -> dict[str, Any]:
    """What the loader of IRRA, which UP-Person uses, makes of a data set (its datasets/cuhkpedes.py, in our words).

    `<root>/CUHK-PEDES/reid_raw.json` is read in the system's encoding. Rows of `train` become one (identity from 0,
    number of the picture, file below imgs/, caption) for each caption, and identities must count up without a gap; of
    the others, `test` and whatever else there is for validation, identities stay as they are.
    """
    folder = root / "CUHK-PEDES"
    with (folder / "reid_raw.json").open(encoding="ascii") as file:
        rows = json.load(file)
    found: dict[str, Any] = {"train": [], "test": [], "val": []}
    number = 0
    for row in rows:
        split, pid, path = row["split"], int(row["id"]), folder / "imgs" / row["file_path"]
        if split == "train":
            found["train"] += [(pid - 1, number, path, caption) for caption in row["captions"]]
            number += 1
        else:
            found["test" if split == "test" else "val"].append((pid, path, row["captions"]))
    assert [*dict.fromkeys(pid for pid, *_ in found["train"])] == list(range(len({pid for pid, *_ in found["train"]})))
    for path in {path for _, _, path, _ in found["train"]} | {path for _, path, _ in found["test"] + found["val"]}:
        with Image.open(path) as opened:
            opened.convert("RGB")
    return found


def test_cuhk_pedes_is_read_by_the_procedure_of_irra(stores: Stores, tmp_path: Path) -> None:
    marks, gallery = stores
    images = mark_people(marks, gallery, 12)
    marks.mark("cy", ask(marks, images, "un garçon à 中文", user="cy"), images[3].id, "hit")
    report = export_marks(marks, gallery, tmp_path / "CUHK-PEDES", format="cuhk-pedes")
    found = irra_reads(tmp_path)
    assert all(found.values())
    read = {(path.stem, caption) for _, _, path, caption in found["train"]}
    read |= {(path.stem, caption) for _, path, captions in found["test"] + found["val"] for caption in captions}
    assert read == {(mark.image_id, mark.caption) for mark in marks.current() if mark.verdict == "hit"}
    assert len(read) == report.rows
    people = [{pid for pid, *_ in found["train"]}, *({pid - 1 for pid, *_ in found[name]} for name in ("test", "val"))]
    assert sum(map(len, people)) == len(set.union(*people)), "nobody is in two splits"
    by_picture = {path.stem: pid for pid, _, path, _ in found["train"]}
    by_picture |= {path.stem: pid - 1 for pid, path, _ in found["test"] + found["val"]}
    for n in range(12):
        assert by_picture[images[2 * n].id] == by_picture[images[2 * n + 1].id], "pictures of one caption, one person"


def odd_pictures() -> list[NewImage]:
    """Pictures that cameras and tools make, of which some people are known by ids that look like numbers."""
    pixels = np.random.default_rng(0).integers(0, 256, (36, 12, 3), dtype=np.uint8)
    plain, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6
    clear = plain.copy()
    clear.putalpha(Image.linear_gradient("L").resize(plain.size))
    grey = Image.fromarray(np.linspace(0, 65535, 36 * 12).reshape(36, 12).astype(np.uint16))
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (plain, "PNG", {}), (plain, "JPEG", {"exif": exif.tobytes()}), (clear, "PNG", {}), (grey, "PNG", {}),
        (plain.quantize(4), "GIF", {}), (grey, "TIFF", {}),
    ]  # fmt: skip
    made = []
    for number, (one, kind, options) in enumerate(kinds):
        file = io.BytesIO()
        one.save(file, kind, **options)
        seen = open_picture(file.getvalue())
        facts = {"pid": "0012", "camera": "c1", "captured_at": datetime(2024, 5, 6, tzinfo=UTC)} if number == 5 else {}
        made.append(
            NewImage(data=file.getvalue(), uri="x", width=seen.width, height=seen.height, source="own", **facts)
        )  # type: ignore[arg-type]
    return made


@pytest.fixture
def odd(stores: Stores) -> dict[str, NDArray[np.uint8]]:
    """What the marker of each of these pictures saw, by its id. Only one person is known, in one split."""
    marks, gallery = stores
    images = odd_pictures()
    gallery.add(images)
    for number, image in enumerate(images):
        marks.mark("ada", ask(marks, images, f"Person number {number}"), image.id, "hit")
    return {image.id: np.asarray(open_picture(image.data)) for image in images}


@pytest.mark.parametrize("format", ["parquet", "imagefolder", "jsonl"])
def test_datasets_and_pandas_read_what_the_marker_saw(
    stores: Stores, odd: dict[str, NDArray[np.uint8]], tmp_path: Path, format: str
) -> None:
    datasets = pytest.importorskip("datasets", reason="pip install -r requirements-dev.txt")
    pandas = pytest.importorskip("pandas", reason="pip install -r requirements-dev.txt")
    marks, gallery = stores
    export_marks(marks, gallery, tmp_path / "out", format=format)
    known = {image_id: gallery.get(image_id).pid for image_id in odd}
    opened = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    rows = [row for split in opened.values() for row in split]
    assert {row["image_id"]: row["pid"] for row in rows} == known
    if format == "jsonl":
        table = pandas.read_json(tmp_path / "out" / "marks.jsonl", lines=True, dtype={"pid": object})
        assert table["pid"].iloc[0] == "0012"
        assert table["pid"].isna().sum() == 5
        return
    for row in rows:
        assert row["image"].mode == "RGB"
        assert np.array_equal(np.asarray(row["image"]), odd[row["image_id"]])
    for file in sorted((tmp_path / "out").rglob("*.parquet")):
        table = pandas.read_parquet(file)
        pids = [pid if isinstance(pid, str) else None for pid in table["pid"]]
        assert dict(zip(table["image_id"], pids, strict=True)).items() <= known.items()
        assert str(table["marked_at"].dtype).endswith("UTC]")


def test_loaders_of_the_field_read_what_the_marker_saw(
    stores: Stores, odd: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    export_marks(*stores, tmp_path / "CUHK-PEDES", format="cuhk-pedes")
    rows = json.loads((tmp_path / "CUHK-PEDES" / "reid_raw.json").read_text(encoding="ascii"))
    assert len(rows) == len(odd)
    for row in rows:
        file = tmp_path / "CUHK-PEDES" / "imgs" / row["file_path"]
        with Image.open(file) as loaded:
            assert np.array_equal(np.asarray(loaded.convert("RGB")), odd[file.stem])


def test_known_people_come_first_for_loaders_that_guess_types(stores: Stores, tmp_path: Path) -> None:
    """The first ten megabytes of a file decide for `datasets` what a column holds: nobody known, and it is null."""
    datasets = pytest.importorskip("datasets", reason="pip install -r requirements-dev.txt")
    marks, gallery = stores
    mark_people(marks, gallery, 6)
    export_marks(marks, gallery, tmp_path / "out", format="jsonl")
    written = lines(tmp_path / "out" / "marks.jsonl")
    assert written[0]["pid"] is not None
    opened = datasets.load_dataset(
        "json", data_files=str(tmp_path / "out" / "marks.jsonl"), chunksize=600, cache_dir=str(tmp_path / "cache")
    )
    assert [row["pid"] for row in opened["train"]] == [row["pid"] for row in written]


def test_jsonl_holds_every_mark(stores: Stores, tmp_path: Path) -> None:
    marks, gallery = stores
    images = mark_people(marks, gallery, 3)
    gallery.forget([images[0].id])
    report = export_marks(marks, gallery, tmp_path / "out", format="jsonl")
    rows = lines(tmp_path / "out" / "marks.jsonl")
    assert report.rows == len(rows) == len(marks.current())
    assert list(rows[0]) == NAMES


def test_people_stay_in_one_split_and_no_split_is_empty(stores: Stores) -> None:
    marks, gallery = stores
    images = mark_people(marks, gallery, 12)
    joined = ask(marks, images, "both of them", user="cy")
    marks.mark_many("cy", joined, [images[0].id, images[2].id], "hit")
    pids = {image.id: image.pid for image in images}
    splits = split_by_person(marks.current(), pids)
    assert splits["person number 0 in a coat"] == splits["person number 1 in a coat"] == splits["both of them"]
    assert set(splits.values()) == {"train", "validation", "test"}
    three = tuple(f"Person number {n}," for n in "345")
    few = split_by_person([mark for mark in marks.current() if mark.caption.startswith(three)], pids)
    assert sorted(few.values()) == ["test", "train", "validation"]


def test_captions_that_share_half_of_their_hits_are_one_person(stores: Stores) -> None:
    marks, gallery = stores
    images = [picture(2 * n) for n in range(6)]
    gallery.add(images)
    ids = [image.id for image in images]
    for caption, hits in (("one", [0, 1]), ("two", [1, 2]), ("three", [2, 3, 4, 5]), ("four", [5])):
        marks.mark_many("ada", ask(marks, images, caption), [ids[n] for n in hits], "hit")
    found = positives(marks.current())
    named = persons(found, dict.fromkeys(ids))
    assert len({named[ids[n]] for n in (0, 1)}) == 1
    assert named[ids[3]] == named[ids[5]]
    known = persons(found, dict.fromkeys(ids) | {ids[3]: "bob"})
    assert known[ids[4]] == known[ids[3]] == "pid bob"


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_the_same_marks_give_the_same_bytes(stores: Stores, tmp_path: Path, format: str) -> None:
    marks, gallery = stores
    images = mark_people(marks, gallery)
    one, two = (export_marks(marks, gallery, tmp_path / name, format=format) for name in ("one", "two"))
    assert contents(one.path) == contents(two.path)
    named = export_marks(marks, gallery, tmp_path / "exports", format=format, named=True)
    again = export_marks(marks, gallery, tmp_path / "exports", format=format, named=True)
    assert named.path == again.path
    assert named.path.name.endswith(f"-{format}-{named.sha256[:12]}")
    assert contents(named.path) == contents(one.path)
    marks.mark("ada", ask(marks, images), images[0].id, "hit")
    more = export_marks(marks, gallery, tmp_path / "exports", format=format, named=True)
    assert more.sha256 != named.sha256
    assert sorted(path.name for path in (tmp_path / "exports").iterdir()) == sorted([named.path.name, more.path.name])


def test_the_card_has_counts_and_nothing_that_users_typed(stores: Stores, tmp_path: Path) -> None:
    marks, gallery = stores
    gallery.add([picture(1), picture(2)])
    marks.mark_many("ada", ask(marks, [picture(1), picture(2)], "${evil} <b>"), [picture(1).id, picture(2).id], "hit")
    gallery.forget([picture(2).id])
    report = export_marks(marks, gallery, tmp_path / "out")
    assert (report.rows, report.counts.skipped) == (1, 1)
    card = (tmp_path / "out" / "README.md").read_text()
    front = card.split("---\n")[1]
    assert "path: data/" in front
    assert "license: unknown" in front
    assert "n<1K" in front
    assert "1 marks on 1 pictures for 1 captions by 1 annotators" in card
    assert "`mini-v0`" in card
    assert "1 marks are left out" in card
    assert all(f"| `{name}` |" in card for name in ["image", *NAMES])
    for hidden in ("evil", "ada", "secret"):
        assert hidden not in card
    for name, data in contents(tmp_path / "out").items():
        assert b"/home/ada" not in data, name


def test_users_leave_as_keyed_pseudonyms(stores: Stores, tmp_path: Path) -> None:
    marks, gallery = stores
    gallery.add([picture(1)])
    marks.mark("ada", ask(marks, [picture(1)]), picture(1).id, "hit")
    export_marks(marks, gallery, tmp_path / "out", format="jsonl")
    (row,) = lines(tmp_path / "out" / "marks.jsonl")
    assert row["annotator"] == pseudonym("ada", marks.database.setting("export_key", lambda: "").encode())
    assert row["annotator"] != pseudonym("ada", b"another key")


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_no_marks_are_reported(stores: Stores, tmp_path: Path, format: str) -> None:
    marks, gallery = stores
    gallery.add([picture(1)])
    marks.mark("ada", ask(marks, [picture(1)]), picture(1).id, "hit")
    marks.undo("ada")
    with pytest.raises(ExportError, match="at least one mark to export; there are none"):
        export_marks(marks, gallery, tmp_path / "out", format=format)
    assert not (tmp_path / "out").exists()


def test_what_a_format_cannot_hold_is_reported(stores: Stores, tmp_path: Path) -> None:
    marks, gallery = stores
    marks.mark("ada", ask(marks, [picture(1)]), picture(1).id, "hit")
    with pytest.raises(ExportError, match="the gallery has none of them"):
        export_marks(marks, gallery, tmp_path / "exports" / "out")
    gallery.add([picture(1)])
    with pytest.raises(ExportError, match="at least three people"):
        export_marks(marks, gallery, tmp_path / "exports" / "out", format="cuhk-pedes")
    with pytest.raises(ExportError, match="one of parquet, cuhk-pedes, imagefolder, jsonl; 'csv' came"):
        export_marks(marks, gallery, tmp_path / "exports" / "out", format="csv")
    assert list((tmp_path / "exports").iterdir()) == [], "nothing half written is left"


@pytest.mark.parametrize("taken", ["file", "folder", "below a file"])
def test_a_target_that_is_taken_is_left_alone(stores: Stores, tmp_path: Path, taken: str) -> None:
    marks, gallery = stores
    gallery.add([picture(1)])
    marks.mark("ada", ask(marks, [picture(1)]), picture(1).id, "hit")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    target = tmp_path / "file" / "out" if taken == "below a file" else tmp_path / taken
    with pytest.raises(ExportError, match="Choose a"):
        export_marks(marks, gallery, target)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "mine").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_an_empty_folder_will_do(stores: Stores, tmp_path: Path) -> None:
    marks, gallery = stores
    gallery.add([picture(1)])
    marks.mark("ada", ask(marks, [picture(1)]), picture(1).id, "hit")
    (tmp_path / "out").mkdir()
    assert export_marks(marks, gallery, tmp_path / "out").rows == 1


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_a_disk_that_is_full_leaves_nothing(stores: Stores, tmp_path: Path, format: str) -> None:
    marks, gallery = stores
    images = [NewImage(data=os.urandom(200_000), uri=f"{n}.jpg", width=9, height=9, source="own") for n in range(3)]
    gallery.add(images)
    for n, image in enumerate(images):
        marks.mark("ada", ask(marks, images, f"a man {n} {'x' * 300}"), image.id, "hit")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    marks.database.setting("export_key", lambda: "a key")
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limit[1]))  # a write that passes it fails as on a full disk
    try:
        with pytest.raises(ExportError, match="with enough room"):
            export_marks(marks, gallery, tmp_path / "out", as_seen=bytes, format=format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*.partial"))


def test_large_pictures_make_small_row_groups(stores: Stores, tmp_path: Path) -> None:
    marks, gallery = stores
    images: list[NewImage] = []
    for number in range(16):
        data = number.to_bytes(4, "big") + os.urandom(5 * 2**20)
        images.append(NewImage(data=data, uri=f"{number}.jpg", width=9, height=9, source="own"))
        gallery.add(images[-1:])
    ids = [image.id for image in images]
    marks.mark_many("ada", ask(marks, images), ids, "miss")
    (file,) = (export_marks(marks, gallery, tmp_path / "out", as_seen=bytes).path / "data").iterdir()
    written = pq.ParquetFile(file)
    assert [written.metadata.row_group(n).num_rows for n in range(written.num_row_groups)] == [7, 7, 2]
    assert written.read(columns=["image_id"])["image_id"].to_pylist() == sorted(ids)


def test_an_export_that_holds_a_forgotten_picture_is_withdrawn(stores: Stores, tmp_path: Path) -> None:
    marks, gallery = stores
    images = mark_people(marks, gallery, 3)
    exports = tmp_path / "exports"
    old = [export_marks(marks, gallery, exports, format=format, named=True).path for format in ("parquet", "jsonl")]
    marks.forget_images([images[0].id])
    gallery.forget([images[0].id])
    new = export_marks(marks, gallery, exports, named=True)
    (exports / "mine").mkdir()
    assert sorted(withdraw(exports, [images[0].id])) == sorted(path.name for path in old)
    assert sorted(exports.iterdir()) == sorted([new.path, exports / "mine"])
    assert all(images[0].data not in data for data in contents(new.path).values())


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_picture_that_is_forgotten_during_an_export_is_in_none(stores: Stores, tmp_path: Path, format: str) -> None:
    """Forgotten when the marks have been read: a look through the exports then finds nothing that is whole."""
    marks, gallery = stores
    images = mark_people(marks, gallery, 3)
    forgetting = Deletion(gallery, marks, tmp_path / "exports", tmp_path / "tmp")

    class Slow(Gallery):
        def rows(self, ids: Sequence[str]) -> list[ImageRow]:
            found = super().rows(ids)
            if gallery.count() == len(images):
                forgetting.forget([images[0].id])
            return found

    with pytest.raises(ExportError, match="A picture was removed"):
        export_marks(marks, Slow(tmp_path / "gallery"), tmp_path / "exports", format=format, named=True)
    assert list((tmp_path / "exports").iterdir()) == []
    report = export_marks(marks, gallery, tmp_path / "exports", format=format, named=True)
    assert not any(images[0].id.encode() in data for data in contents(report.path).values())
