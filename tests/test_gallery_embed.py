"""Embeddings that come from elsewhere, and pictures whose bytes stay in their files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from store import Filters, Gallery, GalleryError, NewImage
from tests.factories import embedder, picture

DIM = 16
embed = embedder(DIM)


def test_embeddings_made_elsewhere_are_those_that_filling_makes(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    images = [picture(number, pid=str(number % 2), metadata={"gate": "north"}) for number in range(6)]
    gallery.add(images)
    ids = [image.id for image in images]
    rows = embed([image.data for image in images])
    assert gallery.embed("mini-v0", [*ids[:4], "gone"], rows[[0, 1, 2, 3, 5]]) == 4
    assert gallery.embed("mini-v0", ids[2:4], rows[2:4]) == 0
    assert gallery.missing("mini-v0") == 2
    gallery.fill("mini-v0", embed, dim=DIM)
    kept, stored = gallery.vectors("mini-v0", ids)
    assert kept == ids
    assert np.array_equal(stored, rows)
    found = gallery.search("mini-v0", rows[1], 6, filters=Filters(pid=("1",)))
    assert found[0].image_id == ids[1]
    assert len(found) == 3


def test_embeddings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    gallery.add([picture(1)])
    rows = embed([picture(1).data])
    with pytest.raises(GalleryError, match="rows of another norm"):
        gallery.embed("mini-v0", [picture(1).id], 2 * rows)
    assert gallery.missing("mini-v0") == 1
    gallery.embed("mini-v0", [picture(1).id], rows)
    with pytest.raises(GalleryError, match="embeddings of 16 values each; 8 came"):
        gallery.embed("mini-v0", [picture(1).id], rows[:, :8])
    assert gallery.embed("mini-v0", ["gone"], rows) == 0


def test_a_picture_by_reference_is_read_only_if_its_file_is_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "odd ü%20#?.jpg"
    file.write_bytes(b"picture by reference")
    image = NewImage(data=file.read_bytes(), uri=file.as_uri(), width=8, height=8, source="own", by_reference=True)
    gallery = Gallery(tmp_path / "gallery")
    gallery.add([image, picture(2)])
    assert image.id == hashlib.sha256(b"picture by reference").hexdigest()
    assert gallery.datas([image.id, picture(2).id]) == {image.id: image.data, picture(2).id: picture(2).data}
    assert gallery.fill("mini-v0", embed, dim=DIM) == 2
    file.write_bytes(b"something else")
    with pytest.raises(GalleryError, match=r"by reference, but its file .*\.jpg has changed since.*forget"):
        gallery.data(image.id)
    file.unlink()
    assert gallery.fill("mini-v1", embed, dim=DIM) == 1, "the others are embedded"
    assert "cannot be read (No such file" in caplog.text
    assert gallery.missing("mini-v1") == 1
    assert gallery.forget([image.id]) == 1
    assert gallery.complete("mini-v1")


def test_a_reference_is_the_address_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="needs a file:// address"):
        NewImage(data=b"x", uri="a.jpg", width=8, height=8, source="own", by_reference=True)
    assert not list(tmp_path.iterdir())
