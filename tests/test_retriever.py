from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from app.app_errors import RequestError, StartError
from app.doctor import check_state
from app.search.retriever import Retriever
from app.search.views import SearchRequest
from app.services import Services
from app.settings import Settings
from core import Encoder, UPPerson, save_petl
from core.core_errors import CheckpointError
from core.petl import PetlConfig
from store import VersionRow
from tests.conftest import SAMPLE, add_version
from tests.small_clip import stir

CAPTION = "a woman in a red coat with a black backpack"


def test_version_zero_is_the_plain_backbone(services: Services) -> None:
    serving = services.retriever.serving
    assert serving.version == "mini-v0"
    assert serving.encoder.model.config is None
    assert services.retriever.problem is None


def test_a_new_pointer_is_noticed_and_its_vectors_are_completed_first(services: Services) -> None:
    name = add_version(services)
    services.state.versions.promote(name, by="test", reason="test")
    deadline = time.monotonic() + 30
    while services.retriever.serving.version != name:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert services.state.gallery.complete(name)
    result = services.search(SearchRequest(CAPTION, k=1), "me")
    encoder = services.retriever.serving.encoder
    best = result.candidates[0]
    _, rows = services.state.gallery.vectors(name, [best.image_id])
    assert best.score == pytest.approx(float(rows[0] @ encoder.encode_texts([CAPTION])[0]), abs=1e-5)
    assert result.version == name


def test_a_search_gets_one_version_wholly_while_versions_are_swapped(services: Services) -> None:
    name = add_version(services)
    versions = ("mini-v0", name)
    expected = {}
    for version in versions:
        serving = services.retriever.prepare(version)
        found = services.state.gallery.search(version, serving.encoder.encode_texts([CAPTION])[0], SAMPLE)
        expected[version] = [(c.image_id, pytest.approx(c.score, abs=1e-5)) for c in found]
    assert expected[versions[0]] != expected[versions[1]]
    stop = threading.Event()

    def swap() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            services.promote(versions[turn % 2], "admin")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        seen = set()
        deadline = time.monotonic() + 60
        while seen != set(versions) and time.monotonic() < deadline:
            result = services.search(SearchRequest(CAPTION, k=SAMPLE), "me")
            assert [(c.image_id, c.score) for c in result.candidates] == expected[result.version]
            seen.add(result.version)
    finally:
        stop.set()
        swapper.join()
    assert seen == set(versions)


def test_more_goes_on_under_the_version_that_began(services: Services) -> None:
    first = services.search(SearchRequest(CAPTION, k=5), "me")
    whole = services.search(SearchRequest(CAPTION, k=12), "me")
    services.promote(add_version(services), "admin")
    more = services.more(first.query_id, "me", 7)
    assert [c.image_id for c in (*first.candidates, *more)] == [c.image_id for c in whole.candidates]
    assert [c.rank for c in more] == list(range(6, 13))


def test_more_neither_repeats_nor_leaves_out_when_pictures_went_meanwhile(services: Services) -> None:
    first = services.search(SearchRequest(CAPTION, k=5), "me")
    services.forget([first.candidates[1].image_id], "admin")
    pages = [services.more(first.query_id, "me", 10) for _ in range(5)]
    seen = [candidate for page in (first.candidates, *pages) for candidate in page]
    assert [candidate.rank for candidate in seen] == list(range(1, SAMPLE + 1))
    assert len({candidate.image_id for candidate in seen}) == SAMPLE
    assert pages[-1] == ()


def test_a_version_that_shares_vectors_serves_without_one_written(services: Services) -> None:
    state = services.state
    model = stir(
        UPPerson(services.retriever.backbone, PetlConfig(prefix_length=2, lora_rank=2, towers=("text",))), seed=3
    )
    save_petl(model, state.settings.models_dir / "mini-v1")
    state.versions.add(VersionRow(id="mini-v1", backbone="mini", folder="models/mini-v1", vectors="mini-v0"))
    before = services.search(SearchRequest(CAPTION, k=SAMPLE), "me")
    services.promote("mini-v1", "admin")
    assert state.gallery.versions() == ["mini-v0"]
    assert services.retriever.embed_new() == 0
    assert not [f for f in check_state(state, services.retriever.backbone).findings if "vectors" in f.about]
    after = services.search(SearchRequest(CAPTION, k=SAMPLE), "me")
    assert after.version == "mini-v1"
    ids = [c.image_id for c in after.candidates]
    _, rows = state.gallery.vectors("mini-v0", ids)
    expected = rows @ Encoder(model).encode_texts([CAPTION])[0]
    np.testing.assert_allclose([c.score for c in after.candidates], expected, atol=1e-5)
    assert [c.score for c in after.candidates] != [c.score for c in before.candidates]
    assert len(services.more(after.query_id, "me", 5)) == 0  # it showed all there are


def test_a_damaged_active_version_leaves_version_zero_serving_and_says_so(
    services: Services, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    name = add_version(services)
    services.promote(name, "admin")
    services.close()
    weights = settings.models_dir / name / "petl.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    again = Services.open(settings)
    try:
        assert again.retriever.serving.version == "mini-v0"
        assert len(again.search(SearchRequest(CAPTION), "me").candidates) == 24
        problem = again.learning_view("me").problem
        assert name in problem
        assert "mini-v0 serves in its place" in problem
        assert str(settings.data_dir) not in problem
        assert name in caplog.text
        weights.write_bytes(whole)
        again.retriever.refresh()
        assert again.retriever.serving.version == name
        assert again.retriever.problem is None
        again.rollback("admin")
        assert again.learning_view("me").problem == ""
    finally:
        again.close()


def test_vectors_are_kept_for_three_versions_and_else_embedded_again(services: Services) -> None:
    gallery = services.state.gallery
    names = [add_version(services) for _ in range(5)]
    services.retriever.prepare(names[4])
    for name in names[:4]:
        services.promote(name, "admin")
    assert gallery.versions() == sorted(names), "v0 is four versions back; a candidate's table is not touched"
    for name in (names[2], names[1], names[0]):
        services.rollback("admin")
        assert services.retriever.serving.version == name
        assert gallery.complete(name)
    services.rollback("admin")
    assert services.retriever.serving.version == "mini-v0"
    assert len(services.search(SearchRequest(CAPTION, k=SAMPLE), "me").candidates) == SAMPLE


def test_a_rolled_back_version_still_answers_and_returns_at_once(services: Services) -> None:
    name = add_version(services)
    services.promote(name, "admin")
    first = services.search(SearchRequest(CAPTION, k=5), "me")
    services.rollback("admin")
    assert [one.rank for one in services.more(first.query_id, "me", 5)] == list(range(6, 11))
    gallery = services.state.gallery
    assert gallery.complete(name), "promoting it again embeds nothing"
    assert services.promote(name, "admin").serving


def test_a_search_whose_vectors_are_gone_says_so(services: Services) -> None:
    first = services.search(SearchRequest(CAPTION, k=5), "me")
    for _ in range(4):
        services.promote(add_version(services), "admin")
    assert "mini-v0" not in services.state.gallery.versions()
    for ask in (services.more, services.rerank, services.duplicates):
        with pytest.raises(RequestError, match="from mini-v0, whose vectors are no longer kept: search once more"):
            ask(first.query_id, "me")


def test_a_damaged_candidate_cannot_be_promoted(services: Services, settings: Settings) -> None:
    name = add_version(services)
    (settings.models_dir / name / "petl.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError):
        services.promote(name, "admin")
    assert services.state.versions.active("mini").id == services.retriever.serving.version == "mini-v0"


def test_a_version_of_another_backbone_is_not_promoted(services: Services) -> None:
    other = services.state.versions.ensure_base("ViT-B-16")
    with pytest.raises(RequestError, match="--backbone ViT-B-16"):
        services.promote(other.id, "admin")


def test_serving_changes_no_weight_of_the_backbone(services: Services) -> None:
    clip = services.retriever.backbone.clip
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    services.promote(add_version(services), "admin")
    services.search(SearchRequest(CAPTION), "me")
    assert all(torch.equal(before[name], value) for name, value in clip.state_dict().items())


def test_scores_are_true_cosines(services: Services) -> None:
    result = services.search(SearchRequest(CAPTION, negative="a hat"), "me")
    scores = np.array([c.score for c in result.candidates])
    assert np.all(np.diff(scores) <= 0)
    assert np.all(np.abs(scores) <= 1)


def test_a_data_folder_of_other_weights_is_refused(services: Services) -> None:
    before = services.state.versions.list()
    with services.state.database.write() as connection:
        connection.exec_driver_sql("UPDATE settings SET value = 'another' WHERE key = 'weights of mini'")
    with pytest.raises(StartError, match=r"other weights of 'mini' \(fingerprint another, these have [0-9a-f]{16}\)"):
        Retriever(services.state, services.retriever.backbone)
    assert services.state.versions.list() == before
