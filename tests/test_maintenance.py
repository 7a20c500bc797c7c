from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import store.gallery.indexes
from app.maintenance import Tender
from app.search.views import SearchRequest
from app.services import Services
from store import Gallery, GalleryError, NewImage
from store.deletion_log import begin
from store.gallery.image_table import ImageTable
from store.gallery.lance_folder import LanceFolder
from store.gallery.table import Table
from store.gallery.vector_table import VectorTable
from tests.conftest import SAMPLE

DIM, TABLE = 8, "vectors_mini-v0"


def embed(data: Sequence[bytes]) -> np.ndarray:
    rows = np.stack([np.random.default_rng(int(item)).normal(size=DIM) for item in data])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_index_is_brought_up_to_date_beside_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gallery, table = Gallery(tmp_path), Table(LanceFolder(tmp_path), TABLE)
    gallery.add([NewImage(data=b"%d" % n, uri="x", width=1, height=1, source="own") for n in range(600)])
    gallery.fill("mini-v0", embed, dim=DIM, batch_size=300)
    assert table.index_of("vector") is None
    monkeypatch.setattr(store.gallery.indexes, "INDEX_FROM", 500)
    names = iter(["no such name!"])
    tender = Tender(gallery, lambda: next(names, "mini-v0"), every=0.05)
    try:
        until(lambda: table.index_of("vector") is not None)
    finally:
        tender.close()
    assert "could not be tended, trying again" in caplog.text, "the fault of the first round is told"
    assert gallery.search("mini-v0", embed([b"7"])[0], 1)[0].score == pytest.approx(1)


def test_it_lives_as_long_as_the_services(services: Services) -> None:
    def there() -> bool:
        return any(thread.name == "tender" for thread in threading.enumerate())

    assert there()
    services.close()
    assert not there()


def test_it_embeds_anew_what_a_served_table_has_lost(services: Services, caplog: pytest.LogCaptureFixture) -> None:
    gallery, retriever = services.state.gallery, services.retriever
    gallery.drop_version(retriever.serving.vectors)
    with pytest.raises(GalleryError, match="no embeddings"):
        services.search(SearchRequest("a man in red"), "me")
    tries = iter(["no room"])

    def embed_again(cancelled: Callable[[], bool]) -> None:
        if next(tries, None):  # half done
            encoder = retriever.serving.encoder
            gallery.fill("mini-v0", encoder.encode_images, dim=encoder.dim, batch_size=5, cancelled=half)
            raise GalleryError("no room")
        retriever.embed_anew(cancelled)

    def half() -> bool:
        return gallery.versions() == ["mini-v0"] and gallery.missing("mini-v0") < SAMPLE

    tender = Tender(gallery, lambda: retriever.serving.vectors, embed=embed_again, every=0.05)
    try:
        until(lambda: gallery.complete(retriever.serving.vectors))
    finally:
        tender.close()
    assert "no room" in caplog.text
    assert len(services.search(SearchRequest("a man in red", k=10), "me").candidates) == 10


def test_it_ends_what_was_left_half_forgotten(services: Services) -> None:
    state = services.state
    image_id = state.gallery.ids()[0]
    with state.database.write() as connection:
        begin(connection, [image_id])
    tender = Tender(state.gallery, lambda: "mini-v0", forgetting=state.deletion, every=0.05)
    try:
        until(lambda: not state.deletion.pending())
    finally:
        tender.close()
    assert image_id not in state.gallery.ids()


def test_what_cannot_be_forgotten_is_tried_ever_more_seldom(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, tries = services.state, []
    with state.database.write() as connection:
        begin(connection, [state.gallery.ids()[0]])

    def full(*_: object) -> int:
        tries.append(1)
        raise GalleryError("no room")

    tender = Tender(state.gallery, lambda: "mini-v0", forgetting=state.deletion, every=3600)
    tender.close()
    with monkeypatch.context() as patch:
        patch.setattr(VectorTable, "erase", full)
        patch.setattr(ImageTable, "erase", full)
        for _ in range(63):
            with suppress(GalleryError):
                tender._finish()
    assert len(tries) == 6, "in rounds 1, 3, 7, 15, 31, 63"


def test_the_app_starts_while_a_picture_cannot_be_forgotten(
    services: Services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = services.state
    image_id = state.gallery.ids()[0]
    with state.database.write() as connection:
        begin(connection, [image_id])
    services.close()

    def full(*_: object, **__: object) -> int:
        raise GalleryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(VectorTable, "erase", full)
        patch.setattr(ImageTable, "erase", full)
        again = Services.open(services.settings)
        again.close()
    assert "could not be ended: no room" in caplog.text
    again = Services.open(services.settings)
    try:
        assert again.state.deletion.pending() == []
        assert image_id not in again.state.gallery.ids()
    finally:
        again.close()
