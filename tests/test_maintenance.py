from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest

import store.gallery.indexes
from app.maintenance import Maintenance
from app.search.views import SearchRequest
from app.services import Services
from store import GalleryError, NewImage
from store.deletion_log import begin
from store.gallery.image_table import ImageTable
from store.gallery.lance_folder import LanceFolder
from store.gallery.table import Table
from store.gallery.vector_table import VectorTable


def test_the_index_is_brought_up_to_date(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, retriever = services.state.gallery, services.retriever
    gallery.add([NewImage(data=b"%d" % n, uri="x", width=1, height=1, source="own") for n in range(600)])
    dim = retriever.serving.encoder.dim

    def embed(data: Sequence[bytes]) -> np.ndarray:
        rows = np.stack([np.random.default_rng(int(item)).normal(size=dim) for item in data])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    gallery.fill("mini-v0", embed, dim=dim, batch_size=300)
    table = Table(LanceFolder(services.settings.gallery_dir), "vectors_mini-v0")
    assert table.index_of("vector") is None
    monkeypatch.setattr(store.gallery.indexes, "INDEX_FROM", 500)
    Maintenance(services.state, retriever).update_index()
    assert table.index_of("vector") is not None
    assert gallery.search("mini-v0", embed([b"7"])[0], 1)[0].score == pytest.approx(1)


def test_maintenance_ends_with_the_services(services: Services) -> None:
    names = {"maintenance", "deleting old searches", "following the active version"}

    def running() -> set[str]:
        return names & {thread.name for thread in threading.enumerate()}

    assert running() == names
    services.close()
    assert running() == set()


def test_vectors_that_are_gone_are_embedded_again(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, retriever = services.state.gallery, services.retriever
    gallery.drop_version(retriever.serving.vectors)
    with pytest.raises(GalleryError, match="no embeddings"):
        services.search(SearchRequest("a man in red"), "me")

    def full(*_: object, **__: object) -> int:
        raise GalleryError("no room")

    maintenance = Maintenance(services.state, retriever)
    with monkeypatch.context() as patch:
        patch.setattr(VectorTable, "insert", full)
        with pytest.raises(GalleryError, match="no room"):
            maintenance.update_index()
    assert gallery.versions() == ["mini-v0"], "the table is there again, without all of its rows"
    assert not gallery.complete("mini-v0")
    maintenance.update_index()
    assert gallery.complete("mini-v0")
    assert len(services.search(SearchRequest("a man in red", k=10), "me").candidates) == 10


def test_an_interrupted_deletion_is_completed(services: Services) -> None:
    state = services.state
    image_id = state.gallery.ids()[0]
    with state.database.write() as connection:
        begin(connection, [image_id])
    Maintenance(state, services.retriever).complete_deletion()
    assert state.deletion.pending() == []
    assert image_id not in state.gallery.ids()


def test_a_deletion_that_fails_is_tried_less_and_less_often(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, tries = services.state, []
    with state.database.write() as connection:
        begin(connection, [state.gallery.ids()[0]])

    def full(*_: object) -> int:
        tries.append(threading.current_thread())
        raise GalleryError("no room")

    maintenance = Maintenance(state, services.retriever)
    with monkeypatch.context() as patch:
        patch.setattr(VectorTable, "erase", full)
        patch.setattr(ImageTable, "erase", full)
        for _ in range(63):
            with suppress(GalleryError):
                maintenance.complete_deletion()
    assert tries.count(threading.current_thread()) == 6, "in rounds 1, 3, 7, 15, 31, 63"


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
    assert "could not be completed: no room" in caplog.text
    again = Services.open(services.settings)
    try:
        assert again.state.deletion.pending() == []
        assert image_id not in again.state.gallery.ids()
    finally:
        again.close()
