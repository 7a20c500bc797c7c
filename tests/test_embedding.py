"""Filling beside writers: what is added or forgotten meanwhile is right, and what has no picture goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from store import Gallery
from store.gallery.arrow_schema import vectors_schema
from store.gallery.image_table import ImageTable
from store.gallery.integrity import ORPHANS
from store.gallery.lance_folder import LanceFolder
from store.gallery.vector_table import VectorTable
from tests.factories import embedder, picture

DIM, TABLE = 8, "vectors_mini-v1"
embed = embedder(DIM)


def test_what_is_added_or_forgotten_meanwhile_is_right_in_both_tables(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    gallery.add([picture(n) for n in range(20)])
    gallery.fill("mini-v0", embed, dim=DIM)
    other, came = Gallery(tmp_path), iter(range(100, 104))

    def encode(data: list[bytes]) -> np.ndarray:
        """Every batch sees one picture come and one, of those not embedded yet or of those that were, go."""
        new = next(came, None)
        if new is not None:
            other.add([picture(new)])
            other.fill("mini-v0", embed, dim=DIM)
            other.forget([picture(new - 100 if new % 2 else 119 - new).id])
        return embed(data)

    said: list[tuple[int, int]] = []
    gallery.fill("mini-v1", encode, dim=DIM, batch_size=5, progress=lambda a, b: said.append((a, b)))
    expected = {picture(n).id for n in (*range(20), *range(100, 104))} - {picture(n).id for n in (19, 1, 17, 3)}
    assert set(gallery.ids()) == expected
    for version in ("mini-v0", "mini-v1"):
        assert gallery.complete(version)
        assert gallery.check(version) == {}
        assert {c.image_id for c in gallery.search(version, embed([b"a 1"])[0], 50)} == expected
    assert said[-1] == (24, 24)


def test_embeddings_without_a_picture_are_found_and_erased(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    table = VectorTable(ImageTable(LanceFolder(tmp_path)), TABLE)
    gallery.add([picture(1), picture(2)])
    assert table.missing() == [picture(1).id, picture(2).id]
    gallery.fill("mini-v1", embed, dim=DIM)
    lost = pa.table(
        [["f" * 64], embed([b"lost 9"]).tolist(), ["own"], [None], [None], [None], [""]], schema=vectors_schema(DIM)
    )
    table.insert(lost)
    assert gallery.check("mini-v1") == {ORPHANS: ["f" * 64]}
    assert gallery.fill("mini-v1", embed, dim=DIM) == 0
    assert gallery.check("mini-v1") == {}
    assert {c.image_id for c in gallery.search("mini-v1", embed([b"a 1"])[0], 9)} == {picture(1).id, picture(2).id}
