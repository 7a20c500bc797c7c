from __future__ import annotations

import io

from PIL import Image

from app.sample_gallery import draw_sample, show_sample, wanted
from app.search.views import SearchRequest
from app.services import Services
from app.settings import Settings
from tests.conftest import SAMPLE
from train import pedestrians


def test_the_first_start_draws_people_with_their_facts(services: Services) -> None:
    gallery = services.state.gallery
    rows = gallery.rows(gallery.ids())
    assert len(rows) == SAMPLE == gallery.count(source="sample")
    assert len({row.pid for row in rows}) == SAMPLE // 4
    assert all(row.camera and row.camera.startswith("camera ") for row in rows)
    assert [row.metadata for row in rows] == [
        {"domain": "street", "generator": pedestrians.VERSION, "view": take.shot().view}
        for take in pedestrians.takes("street", "users", SAMPLE // 4, 4)
    ]
    with Image.open(io.BytesIO(gallery.data(rows[0].id))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (128, 384))
    assert gallery.complete("mini-v0")


def test_a_second_start_draws_nothing(services: Services, settings: Settings) -> None:
    ids = services.state.gallery.ids()
    services.close()
    stages: list[str] = []
    again = Services.open(settings, progress=lambda stage, *_: stages.append(stage))
    try:
        assert again.state.gallery.ids() == ids
        assert stages == []
    finally:
        again.close()


def test_an_interrupted_drawing_is_finished(services: Services, settings: Settings) -> None:
    gallery = services.state.gallery
    gone = gallery.ids()[10:]
    gallery.forget(gone)
    (settings.data_dir / "sample.json").unlink()
    assert wanted(services.state)
    assert draw_sample(services.state) == len(gone)
    assert gallery.count() == SAMPLE
    assert not wanted(services.state)


def test_it_comes_back_when_asked(services: Services) -> None:
    services.state.gallery.hide_source("sample")
    assert services.search(SearchRequest("a man"), "me").total == 0
    assert show_sample(services.state, services.retriever) == SAMPLE
    assert services.search(SearchRequest("a man"), "me").total == SAMPLE


def test_none_is_drawn_where_own_pictures_came_first(services: Services, settings: Settings) -> None:
    services.state.gallery.hide_source("sample")
    (settings.data_dir / "sample.json").unlink()
    assert not wanted(services.state)
