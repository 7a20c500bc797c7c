"""Heat maps and words that matter, under the bundled model."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from app.app_errors import NotAllowedError, RequestError
from app.search.views import SearchRequest
from app.services import Services
from core import Backbone, Encoder, UPPerson
from core.encoder import pixels_of
from core.explain import covered, explain, heat_map
from store import DatabaseError
from train import pedestrians

CAPTION = "a man in a black jacket"


@pytest.fixture(scope="module")
def encoder(mini: Backbone) -> Encoder:
    return Encoder(UPPerson(mini, None))


def picture() -> bytes:
    file = io.BytesIO()
    pedestrians.takes("studio", "validation", 1, 1)[0].picture().save(file, "PNG")
    return file.getvalue()


def test_heat_sums_to_what_covering_all_takes_away(encoder: Encoder) -> None:
    pixels = pixels_of(picture(), encoder.backbone)
    text = encoder.encode_texts([CAPTION])[0]
    heat = heat_map(encoder.model, pixels, text, steps=64)
    assert heat.shape == (16, 6)
    assert heat.dtype == np.float32
    with torch.inference_mode():
        both = torch.cat([pixels[None], covered(pixels[None])])
        rows = torch.nn.functional.normalize(encoder.model.encode_image(both), dim=-1).numpy()
    lost = float((rows[0] - rows[1]) @ text)
    assert abs(float(heat.sum()) - lost) < 0.1 * abs(lost) + 0.01


def test_words_that_matter_lower_the_score_when_left_out(encoder: Encoder) -> None:
    found = explain(encoder, picture(), CAPTION)
    assert [word for word, _ in found.words] == CAPTION.split()
    row = encoder.encode_images([picture()])[0]
    texts = encoder.encode_texts([CAPTION, "a man in a jacket"])
    assert found.score == pytest.approx(float(texts[0] @ row), abs=1e-5)
    assert dict(found.words)["black"] == pytest.approx(float((texts[0] - texts[1]) @ row), abs=1e-5)
    with pytest.raises(ValueError, match="at least one word"):
        explain(encoder, picture(), " ")


def test_explaining_leaves_the_model_as_it_was(encoder: Encoder) -> None:
    before = encoder.encode_images([picture()])
    explain(encoder, picture(), CAPTION)
    assert np.array_equal(encoder.encode_images([picture()]), before)
    assert all(parameter.grad is None for parameter in encoder.model.parameters())


def test_results_of_ones_own_search_are_explained(services: Services) -> None:
    result = services.search(SearchRequest(CAPTION + " zzyzx"), "me")
    image = result.candidates[0].image_id
    found = services.explaining.explain(result.query_id, image, "me")
    assert found.version == "mini-v0"
    assert found.score == pytest.approx(result.candidates[0].score, abs=1e-4)
    assert max(map(max, found.heat)) == 1
    assert min(map(min, found.heat)) == 0
    assert [(one.word, one.known) for one in found.words][-2:] == [("jacket", True), ("zzyzx", False)]
    with pytest.raises(NotAllowedError):
        services.explaining.explain(result.query_id, image, "you")
    alike = services.search(SearchRequest(like=image), "me")
    with pytest.raises(RequestError, match="no description"):
        services.explaining.explain(alike.query_id, image, "me")


def test_what_could_not_be_recorded_is_explained(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise DatabaseError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(services.state.marks, "record_search", full)
        result = services.search(SearchRequest(CAPTION), "me")
    assert "could not be recorded" in result.warning
    found = services.explaining.explain(result.query_id, result.candidates[0].image_id, "me")
    assert [one.word for one in found.words] == CAPTION.split()
