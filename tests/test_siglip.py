"""SigLIP's towers: open_clip's own sums without PETL, the PETL modules inside, weights on disk, search, a round."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from timm.layers import RmsNorm
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

from core.backbones import PERSON_SIZE, Backbone, ClipName, _from_file, at_person_size, backbone_names, load_backbone
from core.checkpoints import load_version, save_petl, save_released
from core.core_errors import BackboneError, CheckpointError
from core.encoder import Encoder
from core.explain import explain
from core.merge import merge
from core.model import UPPerson
from core.petl import PRESETS, KVLoRA, LAdapter, PetlAttention, PetlConfig
from tests.coloured import known_before, people
from tests.learn_config import learning
from tests.small_clip import VARIANTS, stir
from tests.small_siglip import CONFIG, END, PAD, SIZE, small_siglip, small_siglip_backbone, tokenize
from train.captioned_images import CaptionedPictures
from train.datasets import Split
from train.embed import embed_captions, embed_pixels
from train.finetuning.activations import Activations
from train.finetuning.gate import GateConfig, hits_over_misses
from train.finetuning.loop import learn
from train.finetuning.pairs import build
from train.finetuning.round import Round, fine_tune
from train.studies.params import count
from train.supervised.batches import BatchConfig, Batches

PETL = PetlConfig(prefix_length=3, lora_rank=4, adapter_reduction=4)
CONFIGS = [PETL, *VARIANTS]
HERE = people()
QUICK = learning(2, lr=3e-3, queries=8, replay=4)
CAPTIONS = ["a woman in a red coat", "man", "shoes " * 90]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_siglip_backbone()


def inputs() -> dict[str, Tensor]:
    pictures = torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return {"encode_image": pictures, "encode_text": tokenize(CAPTIONS)}


def test_without_petl_the_towers_are_open_clips(backbone: Backbone) -> None:
    plain = UPPerson(backbone)
    with torch.inference_mode():
        for encode, given in inputs().items():
            expected = getattr(backbone.clip, encode)(given)
            torch.testing.assert_close(getattr(plain, encode)(given), expected, rtol=1e-5, atol=1e-5)
            assert float(cosine_similarity(expected[:1], expected[1:2])) < 0.99, "inputs are distinguished"
    assert (backbone.embed_dim, backbone.image_tokens, backbone.patch_size) == (64, (12, 64), (8, 8))
    assert not backbone.large


def test_frozen_tensors_are_shared_with_the_backbone_and_stay(backbone: Backbone) -> None:
    names = backbone.clip.state_dict().keys()
    before = {id(t) for t in backbone.clip.parameters()}
    model = stir(UPPerson(backbone, PETL))
    petl = {id(t) for t in model.petl_parameters().values()}
    assert {id(t) for t in model.parameters()} == before | petl
    assert backbone.clip.state_dict().keys() == names, "the backbone keeps timm's blocks"
    assert not any(parameter.requires_grad for parameter in backbone.clip.parameters())


@pytest.mark.parametrize("config", CONFIGS)
def test_a_merged_siglip_gives_the_same_embeddings(backbone: Backbone, config: PetlConfig | None) -> None:
    model = stir(UPPerson(backbone, config))
    merged = merge(model)
    with torch.inference_mode():
        for encode, given in inputs().items():
            expected, found = getattr(model, encode)(given), getattr(merged, encode)(given)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
            plain = getattr(backbone.clip, encode)(given)
            untouched = config is None or (encode == "encode_image" and "image" not in config.towers)
            assert torch.allclose(found, plain, atol=1e-5) == untouched


def naive(block: Any, attention: PetlAttention, adapters: tuple[LAdapter, LAdapter], x: Tensor) -> Tensor:
    """One of timm's blocks with the three modules, from the formulas: LoRA in its weights, the prefix by hand."""
    first, second = (lambda y, a=a, norm=norm: norm(y) + a.scale * a.up(torch.relu(a.down(y)))
                     for a, norm in zip(adapters, (block.norm1, block.norm2), strict=True))  # fmt: skip
    lora, prefix = attention.lora, attention.prefix
    assert isinstance(lora, KVLoRA)
    assert prefix is not None
    y, own = first(x), block.attn
    w_q, w_k, w_v = own.qkv.weight.chunk(3)
    b_q, b_k, b_v = own.qkv.bias.chunk(3)
    q = y @ w_q.T + b_q
    k = y @ (w_k + lora.scale_k * lora.b_k @ lora.a_k).T + b_k
    v = y @ (w_v + lora.scale_v * lora.b_v @ lora.a_v).T + b_v
    k = torch.cat([(prefix.keys * prefix.scale_k).expand(len(x), -1, -1), k], dim=1)
    v = torch.cat([(prefix.values * prefix.scale_v).expand(len(x), -1, -1), v], dim=1)
    q, k, v = (t.unflatten(2, (own.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(2, 3) * own.scale).softmax(-1)
    gain = torch.ones(weights.shape[-1])
    gain[: len(prefix.keys)] = prefix.gain
    x = x + own.proj(((weights * gain) @ v).transpose(1, 2).flatten(2))
    return x + block.mlp(second(x))


@torch.inference_mode()
def test_a_timm_block_with_petl_follows_the_formulas(backbone: Backbone) -> None:
    model = stir(UPPerson(backbone, PETL))
    x = torch.randn(2, *backbone.image_tokens)
    for block, frozen in zip(model.blocks("image"), backbone.clip.visual.trunk.blocks, strict=True):
        expected = naive(frozen, block.attn, (block.ln_1, block.ln_2), x)  # type: ignore[arg-type]
        torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_fresh_petl_weights_change_little_in_both_towers(backbone: Backbone) -> None:
    plain, fresh = UPPerson(backbone), UPPerson(backbone, PetlConfig())
    with torch.inference_mode():
        for encode, given in inputs().items():
            near = cosine_similarity(getattr(fresh, encode)(given), getattr(plain, encode)(given)).mean()
            assert float(near) > 0.9, encode  # 0.977 and 0.927: random weights have no direction that all queries share
    keys = [value for name, value in fresh.petl_parameters().items() if name.endswith("prefix.keys")]
    assert len(keys) == 4
    moved = [float(value.detach().abs().max()) > 0.1 for value in keys]
    assert all(moved), "keys lie where the tower's queries score them low"


def test_blocks_that_do_more_are_refused_by_name(backbone: Backbone) -> None:
    odd = copy.deepcopy(backbone.clip)
    odd.visual.trunk.blocks[1].attn.q_norm = RmsNorm(32)
    with pytest.raises(BackboneError, match="block 1 of the image tower of 'odd' is not timm's plain pre-norm block"):
        UPPerson(replace(backbone, name="odd", clip=odd), PETL)


def test_petl_weights_of_a_siglip_survive_their_file(backbone: Backbone, tmp_path: Path) -> None:
    model = stir(UPPerson(backbone, PETL))
    save_petl(model, tmp_path)
    loaded = load_version(small_siglip_backbone(), tmp_path)
    mine, theirs = model.petl_parameters(), loaded.petl_parameters()
    assert mine.keys() == theirs.keys()
    assert {"image.0.attn.lora.a_k", "image.1.ln_2.up.weight", "text.1.attn.prefix.keys"} < mine.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    with pytest.raises(CheckpointError, match="made for other weights of 'small-siglip'"):
        load_version(small_siglip_backbone(seed=1), tmp_path)
    with pytest.raises(CheckpointError, match="this model has the towers of SigLIP: save it by `save_petl`"):
        save_released(model, tmp_path / "released.pt")


def test_recomputed_activations_give_the_same_gradients(backbone: Backbone) -> None:
    found = []
    for recompute in (False, True):
        model = stir(UPPerson(backbone, PETL)).train()
        model.gradient_checkpointing(recompute)
        given = inputs()
        loss = model.encode_image(given["encode_image"]).square().sum()
        (loss + model.encode_text(given["encode_text"]).square().sum()).backward()  # type: ignore[no-untyped-call]
        found.append({name: p.grad for name, p in model.petl_parameters().items()})
        assert merge(model).clip.visual.trunk.grad_checkpointing is False
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


def test_a_siglip_searches_and_explains(backbone: Backbone) -> None:
    encoder = Encoder(stir(UPPerson(backbone, PETL)))
    pictures = [Image.fromarray(pixels) for pixels in HERE.pixels.values()]
    rows, texts = encoder.encode_images(pictures), encoder.encode_texts(HERE.captions)
    assert (rows.shape, texts.shape) == ((32, 64), (16, 64))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    found = explain(encoder, pictures[0], HERE.captions[0])
    assert found.heat.shape == (12, 4)
    assert found.score == pytest.approx(float(rows[0] @ texts[0]), abs=1e-5)
    covered = float(found.heat.sum())
    assert np.isfinite(covered)
    assert covered != 0


def test_kept_activations_give_the_rows_of_the_pixels(backbone: Backbone, tmp_path: Path) -> None:
    model, pixels = stir(UPPerson(backbone, PETL)), np.stack(list(HERE.pixels.values()))
    kept = Activations(model, 1, tmp_path, len(pixels))
    places = kept.add(pixels)
    np.testing.assert_allclose(kept.rows(model, places), embed_pixels(model, pixels), atol=2e-3)  # fp16
    kept.close()


def test_learning_moves_only_petl_weights_and_hits_climb(backbone: Backbone) -> None:
    model, pairs = UPPerson(backbone, PETL), build(HERE.marks())
    frozen = {name: value.clone() for name, value in backbone.clip.state_dict().items()}
    before = {name: value.detach().clone() for name, value in model.petl_parameters().items()}

    def in_order() -> float:
        """Mean share of (hit, miss) pairs in order."""
        images = embed_pixels(model, np.stack([HERE.pixels[image] for image in pairs.image_ids]))
        return float(np.nanmean(hits_over_misses(pairs.judged, embed_captions(model, pairs.captions) @ images.T)))

    was = in_order()
    settings = {"lr": 3e-3, "queries": 8, "hits": 1, "misses": 3, "hidden_words": 0.0, "occluded": 0.0, "mix": 0.9}
    learn(model, pairs, HERE.pixels, None, learning(60, **settings))
    assert in_order() > was + 0.15
    assert {name for name, value in model.petl_parameters().items() if torch.equal(value, before[name])} == set()
    assert all(torch.equal(value, frozen[name]) for name, value in backbone.clip.state_dict().items())


@pytest.mark.parametrize("mode", ["full", "text"])
def test_a_round_on_a_siglip_makes_a_candidate(backbone: Backbone, mode: str) -> None:
    served, known, base = stir(UPPerson(backbone, PETL), seed=4), known_before(8), known_before(40)
    here = Round(
        served, HERE.marks(), HERE.pixels, rest=sorted(HERE.pixels), origin=UPPerson(backbone), learning=QUICK,
        gate=GateConfig(resamples=500, base_least=0.0), known=known, base=base, mode=mode,
    )  # type: ignore[arg-type]  # fmt: skip
    outcome = fine_tune(here)
    assert outcome.model is not None
    assert outcome.verdict.decision in ("promoted", "rejected")
    pixels = np.stack(list(HERE.pixels.values()))
    same = np.array_equal(embed_pixels(outcome.model, pixels), embed_pixels(served, pixels))
    assert same == (mode == "text")


def test_masked_captions_keep_their_end_and_padding(backbone: Backbone) -> None:
    known: CaptionedPictures = known_before(16)
    split = Split(known.pixels, known.pids, known.captions, np.arange(len(known.pids)))
    plain = tokenize(list(known.captions))
    config = BatchConfig(len(known.pids), masked=0.5)
    batches = Batches(split, backbone, config)
    hidden = torch.cat([next(batches.epoch(epoch)).tokens for epoch in range(4)])
    words = plain > 2
    assert int((hidden == END).sum()) == 4 * len(plain)
    assert int((hidden == PAD).sum()) == 4 * int((plain == PAD).sum())
    assert 0.3 < int((hidden == 511).sum()) / (4 * int(words.sum())) < 0.5
    first = hidden[:, 0]
    assert int((first == 511).sum()) > 0, "no token begins a caption: its first word is hidden as others are"


# Names, files, the Hub


def test_every_siglip_of_open_clip_has_a_name_and_weights() -> None:
    names = [name for name in backbone_names() if "SigLIP" in name]
    assert {"ViT-B-16-SigLIP2-256", "ViT-B-16-SigLIP2-384", "ViT-B-16-SigLIP", "ViT-SO400M-14-SigLIP2"} < set(names)
    assert [name for name in names if ClipName.parse(name) != ClipName(name, "webli", False)] == []
    assert ClipName.parse("ViT-B-16-SigLIP2-256.webli").tag == "webli"


def test_parameters_of_both_towers_are_those_of_clips_width() -> None:
    rows = {row.component: row for row in count("ViT-B-16-SigLIP2-256", PRESETS["cuhk-pedes"])}
    assert rows["trained"].image == rows["trained"].text == 4_923_732  # CLIP's image tower is as wide and as deep
    assert rows["frozen"].both == 375_184_896  # 24 x 8 places of a picture, not 16 x 16


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name in open_clip's registry, as its `add_model_config` would put it there."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-test-SigLIP", CONFIG)
    backbone_names.cache_clear()
    return "ViT-test-SigLIP"


@pytest.fixture(autouse=True)
def forget_names() -> Any:
    yield
    backbone_names.cache_clear()


def test_a_file_of_a_siglip_is_read_and_scaled_to_a_person(named: str, tmp_path: Path) -> None:
    clip, path = small_siglip(), tmp_path / "siglip.pt"
    state = clip.state_dict()
    torch.save({"state_dict": state | {"logit_scale": state["logit_scale"].reshape(1)}}, path)
    loaded = at_person_size(_from_file(named, ClipName.parse(named), path))
    square = state["visual.trunk.pos_embed"].reshape(1, 4, 4, 64).permute(0, 3, 1, 2)
    scaled = interpolate(square, (48, 16), mode="bicubic", antialias=True, align_corners=False)  # as open_clip for CLIP
    for name, value in loaded.state_dict().items():
        if name == "visual.trunk.pos_embed":
            torch.testing.assert_close(value, scaled.permute(0, 2, 3, 1).reshape(1, 48 * 16, 64))
        else:
            assert torch.equal(value, state[name]), name
    assert loaded.visual(torch.zeros(1, 3, *PERSON_SIZE)).shape == (1, 64)


def test_a_file_of_another_siglip_is_refused(named: str, tmp_path: Path) -> None:
    state = small_siglip().state_dict()
    state["visual.trunk.pos_embed"] = torch.zeros(1, 12, 64)
    state["text.ln_final.bias"][0] = torch.nan
    torch.save(state, tmp_path / "siglip.pt")
    with pytest.raises(BackboneError, match=r"pos_embed is \(1, 12, 64\), expected \(1, 16, 64\)") as caught:
        _from_file(named, ClipName.parse(named), tmp_path / "siglip.pt")
    assert "text.ln_final.bias holds NaN" in str(caught.value)


def test_without_transformers_the_way_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackboneError, match=r"of the package transformers, .*: pip install 'transformers>=5,<6'"):
        load_backbone("ViT-B-16-SigLIP2-256")


def test_a_siglip_is_loaded_with_its_tokenizer_offline(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer of a few words in the format of the Hub, found where open_clip's config says."""
    pytest.importorskip("transformers", reason="pip install 'transformers>=5,<6'")
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<pad>": PAD, "<eos>": END, "<unk>": 2, "a": 3, "red": 4, "coat": 5}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", END)])
    made.save(str(tmp_path / "tokenizer.json"))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<eos>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(facts | {"padding_side": "right"}))
    local = CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"hf_tokenizer_name": str(tmp_path)}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, named, local)
    torch.save(small_siglip().state_dict(), tmp_path / "siglip.pt")
    backbone = load_backbone(named, weights=tmp_path / "siglip.pt")
    assert backbone.tokenize(["A red, red coat!", ""]).tolist() == [[3, 4, 4, 5, END] + [PAD] * 11, [END] + [PAD] * 15]
    assert (backbone.image_size, backbone.image_tokens, backbone.embed_dim) == (PERSON_SIZE, (48 * 16, 64), 64)
    assert backbone.words_read("red " * 20) == 15
    assert not any(parameter.requires_grad for parameter in backbone.clip.parameters())
    encoder = Encoder(UPPerson(backbone, PETL))
    assert encoder.encode_texts(["a red coat"]).shape == (1, 64)
