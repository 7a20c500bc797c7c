"""Erased rows are in no file any more, whatever is there twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pytest

import store.gallery.erase
from store import Gallery, GalleryError, NewImage
from store.gallery.table import Table
from tests.factories import embedder, picture

DIM = 8
embed = embedder(DIM)


def test_pictures_there_more_than_once_can_be_forgotten(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    gallery.add([picture(n) for n in range(6)])
    gallery.fill("mini-v1", embed, dim=DIM)
    raw = lancedb.connect(gallery.uri).open_table("images")
    raw.add(raw.search().where(f"id IN ('{picture(1).id}', '{picture(2).id}')").to_arrow())
    assert gallery.forget([picture(1).id]) == 2, "both rows"
    assert sorted(gallery.ids()) == sorted(picture(n).id for n in (0, 2, 3, 4, 5)), "of another one row stays"
    assert gallery.data(picture(2).id) == picture(2).data
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(picture(1).id.encode() in data for data in files)
    assert any(picture(2).id.encode() in data for data in files)


def test_rows_moved_by_another_machine_are_not_reported_as_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = Gallery(tmp_path)
    for n in range(4):
        gallery.add([picture(2 * n), picture(2 * n + 1)])
    found = store.gallery.erase.repeated_rows

    def joined(table: Table, key: str, *, spare: Sequence[str]) -> list[int]:
        lancedb.connect(gallery.uri).open_table(table.name).optimize()  # as one that knows of no turn
        return found(table, key, spare=spare)

    with monkeypatch.context() as patch:
        patch.setattr(store.gallery.erase, "repeated_rows", joined)
        with pytest.raises(GalleryError, match="some are left"):
            gallery.forget([picture(3).id])
    assert gallery.forget([picture(3).id]) == 1
    assert sorted(gallery.ids()) == sorted(picture(n).id for n in range(8) if n != 3)


def test_rows_are_moved_a_few_at_a_time_by_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = Gallery(tmp_path)
    images = [NewImage(data=f"{n:04d}".encode() * 2000, uri="x", width=1, height=1, source="own") for n in range(40)]
    gallery.add(images)
    monkeypatch.setattr("store.gallery.erase.BYTES_AT_ONCE", 5 * 8000)
    moved: list[int] = []
    read = Table.read

    def counted(self: Table, columns: list[str], where: Any = None) -> pa.Table:
        rows = read(self, columns, where)
        if "data" in columns:
            moved.append(len(rows))
        return rows

    monkeypatch.setattr(Table, "read", counted)
    assert gallery.forget([images[7].id]) == 1
    assert sum(moved) == 39
    assert max(moved) <= 5
    assert gallery.datas([images[8].id]) == {images[8].id: images[8].data}
