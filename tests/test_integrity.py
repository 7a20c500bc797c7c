"""Embeddings that are not as they must be are found and repaired."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import lancedb
import pyarrow as pa

from store import Filters, Gallery, NewImage
from store.gallery.arrow_schema import TAGS, vectors_schema
from store.gallery.filters import tags_of
from store.gallery.integrity import DIFFERING, DUPLICATES, NON_UNIT, ORPHANS
from store.gallery.lance_folder import LanceFolder
from store.gallery.table import Table
from tests.factories import embedder, picture

DIM, TABLE = 8, "vectors_mini-v1"
embed = embedder(DIM)


def test_rows_that_are_no_unit_rows_are_found(tmp_path: Path) -> None:
    gallery, table = Gallery(tmp_path), Table(LanceFolder(tmp_path), TABLE)
    gallery.add([picture(n) for n in range(5)])
    gallery.fill("mini-v1", embed, dim=DIM)
    spoilt = table.read(["id"])[:2]
    rows = [[2.0] * DIM, [0.0] * DIM]
    schema = pa.schema([vectors_schema(DIM).field(name) for name in ("id", "vector")])
    table.update(pa.table([spoilt["id"], rows], schema=schema))
    spoilt_ids = sorted(spoilt["id"].to_pylist())
    assert gallery.check("mini-v1") == {NON_UNIT: spoilt_ids}
    assert gallery.repair("mini-v1") == {NON_UNIT: spoilt_ids}
    assert gallery.fill("mini-v1", embed, dim=DIM) == 2
    assert gallery.check("mini-v1") == {}


NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def test_facts_that_are_not_those_of_the_picture_are_found(tmp_path: Path) -> None:
    gallery, table = Gallery(tmp_path), Table(LanceFolder(tmp_path), TABLE)
    images = [
        NewImage(
            data=b"a %d" % n, uri="x", width=1, height=1, source="own", camera=camera, captured_at=taken,
            metadata={"n": n},
        )
        for n, (camera, taken) in enumerate([("c1", NOON), (None, NOON), ("c1", None), (None, None), (None, NOON)])
    ]  # fmt: skip
    gallery.add(images)
    gallery.fill("mini-v1", embed, dim=DIM)
    assert gallery.check("mini-v1") == {}
    rows = table.read(["id", "camera", TAGS])
    of = {image.id: n for n, image in enumerate(images)}
    said = [("c2", 0), ("c1", 1), (None, 2), (None, None), (None, 7)]  # the fourth: not written yet
    wrong = [said[of[image_id]] for image_id in rows["id"].to_pylist()]
    tags = [None if n is None else tags_of({"n": n}) for _, n in wrong]
    schema = pa.schema([vectors_schema(DIM).field(name) for name in ("id", "camera", TAGS)])
    table.update(pa.table([rows["id"], [camera for camera, _ in wrong], tags], schema=schema))
    found = gallery.check("mini-v1")
    assert found == {DIFFERING: sorted(images[n].id for n in (0, 1, 2, 4))}
    assert gallery.repair("mini-v1") == found
    assert gallery.check("mini-v1") == {}
    assert gallery.complete("mini-v1"), "nothing needs a new embedding"
    search = partial(gallery.search, "mini-v1", embed([images[0].data])[0], 9)
    assert {c.image_id for c in search(filters=Filters(camera=("c1",)))} == {images[0].id, images[2].id}
    assert [c.image_id for c in search(filters=Filters(metadata=(("n", "4"),)))] == [images[4].id]


def test_the_same_embedding_twice_is_found(tmp_path: Path) -> None:
    gallery, table = Gallery(tmp_path), Table(LanceFolder(tmp_path), TABLE)
    gallery.add([picture(n) for n in range(5)])
    gallery.fill("mini-v1", embed, dim=DIM)
    again = table.read(vectors_schema(DIM).names)[:2]
    lost = pa.table(
        [["f" * 64], embed([b"lost 9"]).tolist(), ["own"], [None], [None], [None], [""]], schema=vectors_schema(DIM)
    )
    lancedb.connect(gallery.uri).open_table(TABLE).add(pa.concat_tables([again.cast(lost.schema), lost]))
    found = {DUPLICATES: sorted(again["id"].to_pylist()), ORPHANS: ["f" * 64]}
    assert gallery.check("mini-v1") == found
    assert gallery.repair("mini-v1") == found
    assert gallery.check("mini-v1") == {}
    assert gallery.complete("mini-v1")
