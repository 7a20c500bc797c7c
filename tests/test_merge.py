"""The serving form: the same embeddings, and nothing shared is changed."""

from __future__ import annotations

import pytest
import torch

from core.backbones import Backbone
from core.merge import merge
from core.model import UPPerson
from core.petl import PetlConfig
from tests.small_clip import VARIANTS, small_backbone, stir

CONFIGS = [PetlConfig(prefix_length=3, lora_rank=4), *VARIANTS]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone()


@pytest.mark.parametrize("config", CONFIGS)
def test_a_merged_model_gives_the_same_embeddings(backbone: Backbone, config: PetlConfig | None) -> None:
    model = stir(UPPerson(backbone, config))
    tokens = backbone.tokenize(["a woman in a red coat", "man", "shoes " * 90])
    pictures = torch.randn(3, 3, *backbone.image_size, generator=torch.Generator().manual_seed(0))
    merged = merge(model)
    with torch.inference_mode():
        for encode, inputs in (("encode_image", pictures), ("encode_text", tokens)):
            expected, found = getattr(model, encode)(inputs), getattr(merged, encode)(inputs)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
            plain = getattr(backbone.clip, encode)(inputs)
            assert torch.allclose(found, plain, atol=1e-5) == (
                config is None or (encode == "encode_image" and "image" not in config.towers)
            )


def test_nothing_shared_is_changed_and_little_is_copied(backbone: Backbone) -> None:
    model = stir(UPPerson(backbone, CONFIGS[0]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merged = merge(model)
    with torch.inference_mode():
        merged.encode_text(backbone.tokenize(["a man"]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.state_dict().keys() == before.keys()
    frozen = {id(t) for t in (*backbone.clip.parameters(), *backbone.clip.buffers())}
    own = [t for t in (*merged.parameters(), *merged.buffers()) if id(t) not in frozen]
    # two blocks of each tower: K and V, three prefix rows of each, two adapters (down with bias, up, the norm's bias)
    most = sum(2 * (2 * d * d + 6 * d + 2 * (2 * d * d // 8 + d // 8 + d)) for d in (128, 64))
    assert sum(t.numel() for t in own) == most


def test_training_further_leaves_a_merged_model_as_it_was(backbone: Backbone) -> None:
    model = stir(UPPerson(backbone, CONFIGS[0]))
    tokens = backbone.tokenize(["a man in a coat"])
    merged = merge(model)
    with torch.inference_mode():
        before = merged.encode_text(tokens)
        stir(model, seed=5)
        assert torch.equal(merged.encode_text(tokens), before)
        assert not torch.allclose(model.encode_text(tokens), before)


def test_a_merged_model_recomputes_no_activations(backbone: Backbone) -> None:
    model = stir(UPPerson(backbone, CONFIGS[0])).train()
    model.gradient_checkpointing(True)
    merged = merge(model)
    transformers = [(m.clip.visual.transformer, m.clip.transformer) for m in (model, merged)]
    assert [[t.grad_checkpointing for t in towers] for towers in transformers] == [[True, True], [False, False]]
