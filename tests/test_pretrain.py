"""Making `mini`: its small vocabulary, its own batches, and that what was trained is what the file holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from core.backbones import WEIGHTS, Backbone, build_clip, load_mini, save_mini
from core.core_errors import BackboneError
from core.encoder import Encoder
from core.model import UPPerson
from train import pedestrians
from train.metrics import rank_metrics
from train.pedestrians.captions import vocabulary
from train.pedestrians.people import visible
from train.studies.pretrain import (
    END_TOKEN,
    MINI_CONFIG,
    START_TOKEN,
    PretrainConfig,
    _answers,
    _encode_rows,
    _hide_words,
    _rate,
    _Words,
    measure_encoder,
    pretrain,
)

SMALL = PretrainConfig(people=8, shots=1, captions=1, steps=2, batch=4, warmup=1, judged=4)


@pytest.fixture(scope="module")
def words() -> _Words:
    return _Words("studio")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("pretrained") / "mini.safetensors"
    return out, pretrain(out, SMALL, progress=False)


def test_the_file_is_a_backbone_with_its_facts(trained: tuple[Path, dict[str, Any]]) -> None:
    out, facts = trained
    backbone = load_mini(out)
    assert backbone.image_size == (128, 48)
    assert backbone.known_words == vocabulary("studio")
    assert facts == json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert facts["generator"] == pedestrians.VERSION
    assert facts["pretrain"]["steps"] == 2
    assert {domain: m["queries"] for domain, m in facts["metrics"].items()} == {"studio": 8, "street": 8}
    assert out.stat().st_size <= 10_000_000


def test_its_metrics_are_those_of_the_file(trained: tuple[Path, dict[str, Any]]) -> None:
    out, facts = trained
    encoder = Encoder(UPPerson(load_mini(out)))
    found = measure_encoder(encoder, pedestrians.takes("studio", "test", 4, 2))
    assert found.mean_ap == pytest.approx(facts["metrics"]["studio"]["mean_ap"], abs=1e-6)


def test_the_same_seed_makes_the_same_file_and_another_start_another(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, _ = trained
    again = tmp_path / "again.safetensors"
    pretrain(again, replace(SMALL, judged=1), progress=False)
    assert again.read_bytes() == out.read_bytes()
    further = tmp_path / "street.safetensors"
    pretrain(further, replace(SMALL, judged=1, domain="street", lr=1e-6), start=out, progress=False)
    moved, known = load_mini(further), load_mini(out)
    for name in ("visual.proj", "text_projection"):  # it went on from `out`: at this rate hardly anything moves
        assert (moved.clip.state_dict()[name] - known.clip.state_dict()[name]).abs().max() < 1e-3
    assert moved.known_words == vocabulary("street")


# Words


def test_rows_stand_for_clips_tokens(words: _Words) -> None:
    captions = ["a man in a red coat.", "zeppelin"]
    rows = words.rows(captions)
    tokens = open_clip.SimpleTokenizer()(captions)[:, : rows.shape[1]]
    start, end = words.row_of[START_TOKEN], words.row_of[END_TOKEN]
    assert (int(start), int(end)) == (len(words.ids) - 1, len(words.ids))
    assert rows[:, 0].tolist() == [int(start)] * 2
    first = rows[0, 1:-1]
    assert torch.equal(words.ids[first - 1], tokens[0, 1:-1])
    assert (first > 0).all()
    assert 0 in rows[1]  # a word it never learns is neutral
    assert rows.argmax(dim=1).tolist() == tokens.argmax(dim=1).tolist()


def test_every_word_that_annotators_use_is_known(words: _Words) -> None:
    takes = pedestrians.takes("studio", "training", 40, 1)
    rows = words.rows([take.caption(annotator) for take in takes for annotator in range(3)])
    end = rows.argmax(dim=1)
    inside = torch.arange(rows.shape[1])[None] <= end[:, None]
    assert (rows[inside] > 0).all()


def test_hiding_words_leaves_start_and_end(words: _Words) -> None:
    rows = words.rows(["a man in a red coat with a black bag"] * 200)
    hidden = _hide_words(rows, 0.3, np.random.default_rng(0), end=len(words.ids))
    assert torch.equal(hidden[:, 0], rows[:, 0])
    assert torch.equal(hidden.argmax(dim=1), rows.argmax(dim=1))
    changed = hidden != rows
    assert (hidden[changed] == 0).all()
    assert float(changed[:, 1:-1].float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(_hide_words(rows, 0.0, np.random.default_rng(0), end=len(words.ids)), rows)


def test_training_and_serving_encode_a_caption_alike(words: _Words, tmp_path: Path) -> None:
    """The small table that is trained and CLIP's full one, read back from the file, give the same embedding."""
    torch.manual_seed(0)
    text = MINI_CONFIG["text_cfg"] | {"vocab_size": len(words.ids) + 1, "layers": 2}
    config = MINI_CONFIG | {"text_cfg": text, "vision_cfg": MINI_CONFIG["vision_cfg"] | {"layers": 1}}
    clip = build_clip(config).eval()
    rows = clip.token_embedding.weight.detach()
    full = config | {"text_cfg": text | {"vocab_size": 49408}}
    out = tmp_path / "mini.safetensors"
    save_mini(clip, out, rows=rows, ids=words.ids, facts={"config": full, "known_words": words.known})
    captions = ["a man in a red coat.", "a woman with a zeppelin, wearing jeans", "x"]
    with torch.no_grad():
        expected = F.normalize(_encode_rows(clip, words.rows(captions)), dim=-1)
    found = Encoder(UPPerson(load_mini(out))).encode_texts(captions)
    assert np.abs(found - expected.numpy()).max() < 5e-3  # half precision on disk
    unseen = Encoder(UPPerson(load_mini(out))).encode_texts(["a man with a zeppelin", "a man with a xylophone"])
    same_length = len({len(open_clip.SimpleTokenizer().encode(w)) for w in ("zeppelin", "xylophone")}) == 1
    assert np.allclose(unseen[0], unseen[1], atol=1e-6) == same_length


# Batches


def test_attributes_asked_for_are_those_seen_and_mentioned() -> None:
    takes = pedestrians.takes("street", "training", 10, 2)
    answers, mentioned = _answers(takes, 2)
    assert answers.values.shape == (20, len(answers.sizes))
    assert mentioned.shape == (20, 2, len(answers.sizes))
    for row, take in enumerate(takes):
        assert (answers.values[row] >= 0).sum() == len(visible(take.person(), take.shot()))
        assert (mentioned[row] <= (answers.values[row] >= 0)[None]).all()  # nothing is mentioned that is not seen
        assert mentioned[row, 0].sum() == len(take.said(1))
    assert (answers.values < np.array(answers.sizes)).all()


def test_the_attribute_loss_is_the_mean_over_what_is_given() -> None:
    answers, _ = _answers(pedestrians.takes("studio", "training", 4, 1), 1)
    values = torch.from_numpy(answers.values)
    logits = torch.randn(4, answers.classes, generator=torch.Generator().manual_seed(0))
    parts = []
    for row in range(4):
        for column, part in enumerate(logits[row].split(answers.sizes)):
            if values[row, column] >= 0:
                parts.append(-float(torch.log_softmax(part, 0)[values[row, column]]))
    assert float(answers.loss(logits, values)) == pytest.approx(np.mean(parts), rel=1e-5)
    assert float(answers.loss(logits, torch.full_like(values, -1))) == 0.0


def test_the_rate_climbs_and_falls() -> None:
    config = PretrainConfig(steps=100, warmup=10)
    rates = [_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert 0 < rates[-1] < 0.02


@pytest.mark.parametrize(
    ("wrong", "words_"),
    [
        ({"people": 0}, "people must be at least 1, not 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"judged": 0}, "judged must be at least 1"),
        ({"batch": 9}, "a batch of 9 does not fit into 8 pictures"),
    ],
)
def test_a_config_that_cannot_be_is_refused(wrong: dict[str, int], words_: str) -> None:
    with pytest.raises(ValueError, match=words_):
        replace(SMALL, **wrong)  # type: ignore[arg-type]


# The bundled weights


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return json.loads((WEIGHTS / "mini.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_the_bundled_weights_are_what_was_promised(facts: dict[str, Any]) -> None:
    """Measured when they were made, on 500 unseen identities x 2 of each domain; `python -m train pretrain`."""
    assert facts["generator"] == pedestrians.VERSION
    assert (WEIGHTS / "mini.safetensors").stat().st_size <= 10_000_000
    studio, street = facts["metrics"]["studio"], facts["metrics"]["street"]
    assert (studio["queries"], street["queries"]) == (1000, 1000)
    assert studio["r1"] >= 0.72
    assert studio["r5"] >= 0.96
    assert 0.15 <= street["r1"] <= 0.40


def test_the_bundled_weights_find_people_even_by_words_they_never_saw(mini: Backbone, facts: dict[str, Any]) -> None:
    """60 of those identities: a smaller gallery is easier, so R@1 is no lower than the figure of all 500."""
    data = pedestrians.load(pedestrians.takes("studio", "test", 60, 2), mini.image_size)
    encoder = Encoder(UPPerson(mini), batch_size=60)
    images = encoder.encode_images([Image.fromarray(pixels) for pixels in data.pixels])

    def r1(captions: list[str]) -> float:
        return rank_metrics(encoder.encode_texts(captions) @ images.T, data.pids, data.pids).r1

    plain = r1(list(data.captions))
    odd = [f"Hello, {caption.rstrip('.')}, near the zeppelin quay." for caption in data.captions]
    assert mini.unknown_words(odd[0])
    assert plain >= facts["metrics"]["studio"]["r1"]
    assert r1(odd) >= plain - 0.15


def test_a_file_that_is_no_mini_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="could not be read"):
        load_mini(tmp_path / "nothing.safetensors")
