"""Marks as a data set, opened as its users open it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from store import Database, ExportError, Gallery, Marks, NewImage, Search, Shown
from store.export import export_parquet, export_schema, pseudonym

# Before `datasets` is imported: it would ask the Hub who it is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

COLUMNS = [
    "image", "caption", "verdict", "pid", "image_id", "query_id", "rank", "score", "model_version", "annotator",
    "marked_at", "negative", "image_query",
]  # fmt: skip


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 36), (number * 10, 100, 50)).save(file, "PNG")
    return file.getvalue()


def picture(number: int) -> NewImage:
    pid = f"p{number}" if number % 2 else None
    return NewImage(data=png(number), uri=f"/home/ada/secret/{number}.PNG", width=12, height=36, source="own", pid=pid)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Marks, Gallery]]:
    database = Database(tmp_path / "app.db")
    yield Marks(database), Gallery(tmp_path / "gallery")
    database.close()


def ask(marks: Marks, images: list[NewImage], caption: str = "a man, in RED", user: str = "ada") -> str:
    search = Search(user=user, caption=caption, version="mini-v0", backbone="mini", negative="a hat")
    return marks.record_search(search, [Shown(image.id, rank, 1 / rank) for rank, image in enumerate(images, 1)])


def test_datasets_opens_it_with_pictures(stores: tuple[Marks, Gallery], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="pip install -r requirements-dev.txt")
    marks, gallery = stores
    images = [picture(n) for n in range(6)]
    gallery.add(images)
    first = ask(marks, images)
    marks.mark_many("ada", first, [image.id for image in images[:4]], "miss")
    marks.mark("ada", first, images[1].id, "hit")
    second = ask(marks, images, "a woman", user="bob")
    marks.mark("bob", second, images[1].id, "wrong_person")

    report = export_parquet(marks, gallery, tmp_path / "out")
    assert report.path == tmp_path / "out" / "marks.parquet"
    assert (report.rows, report.images, report.captions, report.annotators, report.skipped) == (5, 4, 2, 2, 0)
    assert report.verdicts == {"hit": 1, "miss": 3, "wrong_person": 1}

    rows = datasets.load_dataset("parquet", data_files=str(report.path), split="train", cache_dir=str(tmp_path / "c"))
    assert rows.column_names == COLUMNS
    assert isinstance(rows.features["image"], datasets.Image)
    assert rows.features["score"].dtype == "float32"
    current = marks.current()
    assert len(rows) == len(current) == 5
    names = {}
    for row, mark in zip(rows, current, strict=True):
        known = gallery.get(mark.image_id)
        assert (row["image"].size, row["image"].format) == ((12, 36), "PNG")
        assert row["image"].getpixel((0, 0)) == Image.open(io.BytesIO(gallery.data(mark.image_id))).getpixel((0, 0))
        assert (row["caption"], row["verdict"], row["pid"]) == (mark.caption, mark.verdict, known.pid)
        assert (row["image_id"], row["query_id"], row["rank"]) == (mark.image_id, mark.query_id, mark.rank)
        assert row["score"] == pytest.approx(mark.score, abs=1e-6)
        assert (row["model_version"], row["marked_at"]) == ("mini-v0", mark.marked_at)
        assert (row["negative"], row["image_query"]) == ("a hat", False)
        names[mark.user] = row["annotator"]
    assert names["ada"] != names["bob"]
    raw = rows.cast_column("image", datasets.Image(decode=False))
    assert raw[0]["image"] == {"bytes": images[0].data, "path": f"{images[0].id}.png"}, "no path of ours"

    folder = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "c"))
    assert folder.column_names == COLUMNS, "the card names the file"


def test_the_card_tells_counts_and_nothing_that_users_typed(stores: tuple[Marks, Gallery], tmp_path: Path) -> None:
    marks, gallery = stores
    gallery.add([picture(1), picture(2)])
    marks.mark_many("ada", ask(marks, [picture(1), picture(2)], "${evil} <b>"), [picture(1).id, picture(2).id], "hit")
    gallery.forget([picture(2).id])
    report = export_parquet(marks, gallery, tmp_path / "out")
    assert (report.rows, report.skipped) == (1, 1)
    card = report.card.read_text()
    assert report.card == tmp_path / "out" / "README.md"
    front = card.split("---\n")[1]
    assert "path: marks.parquet" in front
    assert "n<1K" in front
    assert "1 marks on 1 pictures for 1 captions by 1 annotators" in card
    assert "1 marks are left out" in card
    assert all(f"| `{name}` |" in card for name in COLUMNS)
    for hidden in ("evil", "ada", "secret"):
        assert hidden not in card
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["README.md", "marks.parquet"]


def test_users_leave_as_keyed_pseudonyms(stores: tuple[Marks, Gallery], tmp_path: Path) -> None:
    marks, gallery = stores
    gallery.add([picture(1)])
    marks.mark("ada", ask(marks, [picture(1)]), picture(1).id, "hit")
    tables = [pq.read_table(export_parquet(marks, gallery, tmp_path / name).path) for name in ("one", "two")]
    assert tables[0] == tables[1], "the same each time"
    assert tables[0].schema == export_schema()
    annotator = tables[0]["annotator"][0].as_py()
    assert annotator == pseudonym("ada", marks.database.setting("export_key", lambda: "").encode())
    assert annotator != pseudonym("ada", b"another key")
    assert b"/home/ada" not in (tmp_path / "one" / "marks.parquet").read_bytes()


def test_no_marks_are_told(stores: tuple[Marks, Gallery], tmp_path: Path) -> None:
    marks, gallery = stores
    gallery.add([picture(1)])
    query = ask(marks, [picture(1)])
    marks.mark("ada", query, picture(1).id, "hit")
    marks.undo("ada")
    with pytest.raises(ExportError, match="at least one mark to export; there are none"):
        export_parquet(marks, gallery, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_marks_without_pictures_are_told(stores: tuple[Marks, Gallery], tmp_path: Path) -> None:
    marks, gallery = stores
    marks.mark("ada", ask(marks, [picture(1)]), picture(1).id, "hit")
    with pytest.raises(ExportError, match="the gallery has none of them"):
        export_parquet(marks, gallery, tmp_path / "exports" / "out")
    assert list((tmp_path / "exports").iterdir()) == [], "nothing half written is left"


@pytest.mark.parametrize("taken", ["file", "folder", "below a file"])
def test_a_target_that_is_taken_is_left_alone(stores: tuple[Marks, Gallery], tmp_path: Path, taken: str) -> None:
    marks, gallery = stores
    gallery.add([picture(1)])
    marks.mark("ada", ask(marks, [picture(1)]), picture(1).id, "hit")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    target = tmp_path / "file" / "out" if taken == "below a file" else tmp_path / taken
    with pytest.raises(ExportError, match="Choose a"):
        export_parquet(marks, gallery, target)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "mine").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_an_empty_folder_will_do(stores: tuple[Marks, Gallery], tmp_path: Path) -> None:
    marks, gallery = stores
    gallery.add([picture(1)])
    marks.mark("ada", ask(marks, [picture(1)]), picture(1).id, "hit")
    (tmp_path / "out").mkdir()
    assert export_parquet(marks, gallery, tmp_path / "out").path.exists()


def test_large_pictures_make_small_row_groups(stores: tuple[Marks, Gallery], tmp_path: Path) -> None:
    marks, gallery = stores
    images: list[NewImage] = []
    for number in range(20):
        data = number.to_bytes(4, "big") + os.urandom(5 * 2**20)
        images.append(NewImage(data=data, uri=f"{number}.jpg", width=9, height=9, source="own"))
        gallery.add(images[-1:])
    ids = [image.id for image in images]
    marks.mark_many("ada", ask(marks, images), ids, "miss")
    written = pq.ParquetFile(export_parquet(marks, gallery, tmp_path / "out").path)
    assert [written.metadata.row_group(n).num_rows for n in range(written.num_row_groups)] == [8, 8, 4]
    assert written.read(columns=["image_id"])["image_id"].to_pylist() == ids
