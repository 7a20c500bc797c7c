"""UPPerson: what is trainable, what is frozen, and that it equals CLIP where it should."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from core.backbones import PERSON_SIZE, Backbone, build_clip, clip_config, freeze
from core.core_errors import BackboneError
from core.model import PETL_SEED, UPPerson
from core.petl import PRESETS, LAdapter, PetlAttention, PetlConfig, TowerPetl, attach
from tests.small_clip import CONFIG, small_backbone, stir

SMALL = PetlConfig(prefix_length=3, lora_rank=4, adapter_reduction=8)
CAPTIONS = ["a woman in a red coat", "man", "a person with a green backpack, black shoes and a very long blue scarf"]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone()


def pixels(backbone: Backbone, count: int = 4, *, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, *backbone.image_size, generator=torch.Generator().manual_seed(seed))


def numbers(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def test_vit_b_16_has_the_papers_number_of_trainable_parameters() -> None:
    torch.manual_seed(0)
    architecture = "ViT-B-16-quickgelu"
    clip = freeze(open_clip.create_model(architecture, pretrained=None, force_image_size=PERSON_SIZE))
    backbone = Backbone("ViT-B-16", clip, open_clip.get_tokenizer(architecture), PERSON_SIZE)
    model = UPPerson(backbone, PetlConfig())
    petl = model.petl_parameters()

    assert numbers(petl.values()) == 7_419_816
    assert numbers(p for name, p in petl.items() if name.startswith("image.")) == 4_923_732
    assert numbers(p for name, p in petl.items() if name.startswith("text.")) == 2_496_084
    assert numbers(p for name, p in petl.items() if ".prefix." in name) == 307_272
    assert numbers(p for name, p in petl.items() if ".lora." in name) == 1_966_128
    assert numbers(p for name, p in petl.items() if ".ln_" in name) == 5_146_416
    assert numbers(model.parameters()) - clip.logit_scale.numel() == 157_037_480  # the paper counts no temperature
    assert numbers(petl.values()) / numbers(model.parameters()) < 0.05
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in petl.values()}
    assert all(p.dtype == torch.float32 for p in petl.values())
    assert backbone.embed_dim == 512

    plain, tokens, picture = UPPerson(backbone), backbone.tokenize(CAPTIONS), pixels(backbone, 1)
    with torch.inference_mode():
        assert (plain.encode_image(picture) - clip.encode_image(picture)).abs().max() < 1e-5
        assert (plain.encode_text(tokens) - clip.encode_text(tokens)).abs().max() < 1e-5


def test_the_names_of_the_petl_parameters(backbone: Backbone) -> None:
    lora = {f"attn.lora.{name}" for name in ("a_k", "a_v", "b_k", "b_v", "scale_k", "scale_v")}
    prefix = {f"attn.prefix.{name}" for name in ("keys", "values", "scale_k", "scale_v", "gain")}
    adapter = {
        f"{place}.{name}"
        for place in ("ln_1", "ln_2")
        for name in ("down.weight", "down.bias", "up.weight", "up.bias", "scale")
    }

    def expected(parts: set[str], towers: tuple[str, ...] = ("image", "text")) -> set[str]:
        return {f"{tower}.{index}.{part}" for tower in towers for index in (0, 1) for part in parts}

    def names(config: PetlConfig) -> set[str]:
        return set(UPPerson(backbone, config).petl_parameters())

    assert names(SMALL) == expected(lora | prefix | adapter)
    assert names(PetlConfig(prefix_length=0, adapter_reduction=0)) == expected(lora)
    assert names(PetlConfig(lora_rank=0, adapter_reduction=0)) == expected(prefix)
    assert names(PetlConfig(lora_rank=0, prefix_length=0)) == expected(adapter)
    assert names(PetlConfig(towers=("text",))) == expected(lora | prefix | adapter, ("text",))
    assert UPPerson(backbone).petl_parameters() == {}


def test_each_tower_and_each_block_gets_what_its_options_say(backbone: Backbone) -> None:
    config = PetlConfig(
        prefix_gain=None,
        lora_layers=(1, 2),
        image=TowerPetl(prefix_length=0, lora_rank=2, adapter="sequential", adapter_layers=(0, 1)),
    )
    petl = UPPerson(backbone, config).petl_parameters()
    places = {".".join(name.split(".")[:4]).removesuffix(".weight").removesuffix(".bias") for name in petl}
    sequential = {f"image.0.{place}.{name}" for place in ("ls_1", "ls_2") for name in ("down", "up")}
    adapters = {f"text.{n}.{p}.{w}" for n in (0, 1) for p in ("ln_1", "ln_2") for w in ("down", "up", "scale")}
    assert places == {
        *sequential, *adapters, "image.0.attn.lora", "image.1.attn.lora",
        "text.0.attn.prefix", "text.1.attn.prefix", "text.1.attn.lora",
    }  # fmt: skip
    assert petl["image.0.attn.lora.a_k"].shape == (2, 128)
    assert petl["text.1.attn.lora.a_k"].shape == (32, 64)
    assert not [name for name in petl if name.endswith("gain")]
    with pytest.raises(ValueError, match=r"lora_layers \(1, 3\) goes beyond the 2 blocks of the image tower"):
        UPPerson(backbone, PetlConfig(lora_layers=(1, 3)))


def by_formula(width: int, blocks: int, config: PetlConfig) -> int:
    """Prefix rows with two scalars and a gain, LoRA of K and V with a scalar each, two adapters with a scalar each."""
    narrow = width // config.adapter_reduction
    prefix = 2 * config.prefix_length * width + 3
    lora = 4 * config.lora_rank * width + 2
    adapter = 2 * (2 * width * narrow + narrow + width + 1)
    return blocks * (prefix + lora + adapter)


@pytest.mark.parametrize("config", [*PRESETS.values(), PetlConfig(prefix_length=1, lora_rank=5, adapter_reduction=16)])
def test_parameters_are_as_many_as_the_formula_says(backbone: Backbone, config: PetlConfig) -> None:
    found = numbers(UPPerson(backbone, config).petl_parameters().values())
    assert found == by_formula(128, 2, config) + by_formula(64, 2, config)


def test_the_formula_gives_the_papers_number_and_vit_l_14s() -> None:
    paper = PRESETS["cuhk-pedes"]
    assert by_formula(768, 12, paper) + by_formula(512, 12, paper) == 7_419_816
    with torch.device("meta"):
        clip = freeze(build_clip(clip_config("ViT-L-14")))
        for tower in (clip.visual.transformer, clip.transformer):
            for index, block in enumerate(tower.resblocks):
                attach(block, paper, index)
    petl = numbers(parameter for parameter in clip.parameters() if parameter.requires_grad)
    assert petl == by_formula(1024, 24, paper) + by_formula(768, 12, paper)


def test_plain_up_person_is_open_clip(backbone: Backbone) -> None:
    plain, tokens, pictures = UPPerson(backbone), backbone.tokenize(CAPTIONS), pixels(backbone)
    with torch.inference_mode():
        assert (plain.encode_image(pictures) - backbone.clip.encode_image(pictures)).abs().max() < 1e-5
        assert (plain.encode_text(tokens) - backbone.clip.encode_text(tokens)).abs().max() < 1e-5
    assert not [p for p in plain.parameters() if p.requires_grad]


@pytest.mark.parametrize("config", [None, SMALL])
def test_text_cut_to_the_longest_caption_equals_uncut(backbone: Backbone, config: PetlConfig | None) -> None:
    model = stir(UPPerson(backbone, config))
    full = "coat " * 100  # fills the context, so nothing is cut from its batch
    tokens = backbone.tokenize([*CAPTIONS, full])
    assert int(tokens[-1].argmax()) == 76
    with torch.inference_mode():
        uncut = model.encode_text(tokens)[:-1]
        cut = model.encode_text(tokens[:-1])
        alone = torch.cat([model.encode_text(row[None]) for row in tokens[:-1]])
    torch.testing.assert_close(cut, uncut, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone, uncut, rtol=1e-5, atol=1e-5)


def train_a_little(model: UPPerson, steps: int = 3) -> None:
    tokens, pictures = model.backbone.tokenize(CAPTIONS), pixels(model.backbone, 3)
    optimiser = torch.optim.Adam(model.petl_parameters().values(), lr=1e-2)
    model.train()
    for _ in range(steps):
        scores = normalize(model.encode_text(tokens), dim=-1) @ normalize(model.encode_image(pictures), dim=-1).T
        loss = torch.nn.functional.cross_entropy(scores / 0.02, torch.arange(3))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def test_training_leaves_backbone_and_other_models_bitwise_alone() -> None:
    backbone = small_backbone(seed=3)
    before = {name: value.clone() for name, value in backbone.clip.state_dict().items()}
    structure = str(backbone.clip)
    trained, other = UPPerson(backbone, SMALL), stir(UPPerson(backbone, PetlConfig(lora_rank=2)))
    plain = UPPerson(backbone)
    start = {name: value.detach().clone() for name, value in trained.petl_parameters().items()}
    tokens, pictures = backbone.tokenize(CAPTIONS), pixels(backbone)
    with torch.no_grad():
        outputs = [model.encode_image(pictures) for model in (other, plain)]
        outputs += [model.encode_text(tokens) for model in (other, plain)]

    train_a_little(trained)

    after = backbone.clip.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(p.grad is None and not p.requires_grad for p in backbone.clip.parameters())
    assert not backbone.clip.training
    assert str(backbone.clip) == structure
    for name, parameter in trained.petl_parameters().items():
        assert not torch.equal(parameter, start[name]), f"{name} did not learn"
    with torch.no_grad():
        again = [model.encode_image(pictures) for model in (other, plain)]
        again += [model.encode_text(tokens) for model in (other, plain)]
    assert all(torch.equal(a, b) for a, b in zip(outputs, again, strict=True))


def test_the_backbone_is_shared_not_copied(backbone: Backbone) -> None:
    frozen = {id(p) for p in backbone.clip.parameters()}
    model = UPPerson(backbone, SMALL)
    assert {id(p) for p in model.parameters() if not p.requires_grad} == frozen
    assert not any(isinstance(module, PetlAttention | LAdapter) for module in backbone.clip.modules())


def test_fresh_lora_and_adapters_change_nothing(backbone: Backbone) -> None:
    fresh, plain = UPPerson(backbone, PetlConfig(prefix_length=0)), UPPerson(backbone)
    tokens, pictures = backbone.tokenize(CAPTIONS), pixels(backbone)
    with torch.inference_mode():
        torch.testing.assert_close(fresh.encode_image(pictures), plain.encode_image(pictures), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fresh.encode_text(tokens), plain.encode_text(tokens), rtol=1e-5, atol=1e-5)


def test_the_prefix_starts_harmless_where_the_papers_start_does_not(backbone: Backbone) -> None:
    config = PetlConfig(lora_rank=0, adapter_reduction=0)
    plain, ours, papers = UPPerson(backbone), UPPerson(backbone, config), UPPerson(backbone, config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in papers.petl_parameters().items():
        if name.endswith("prefix.keys"):
            parameter.data.uniform_(0, 0.01, generator=generator)
    tokens, pictures = backbone.tokenize(CAPTIONS), pixels(backbone, 16, seed=5)
    with torch.inference_mode():
        for encode, inputs in (("encode_image", pictures), ("encode_text", tokens)):
            target = getattr(plain, encode)(inputs)
            near, far = (cosine_similarity(getattr(m, encode)(inputs), target).mean() for m in (ours, papers))
            assert float(near) > 0.995, encode
            assert 1 - float(near) < (1 - float(far)) / 2, encode


def test_a_fresh_start_is_the_same_and_keeps_the_random_state(backbone: Backbone) -> None:
    torch.manual_seed(7)
    first, state = UPPerson(backbone, SMALL).petl_parameters(), torch.get_rng_state()
    torch.manual_seed(7)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(8)
    second = UPPerson(backbone, SMALL, seed=PETL_SEED).petl_parameters()
    other = UPPerson(backbone, SMALL, seed=1).petl_parameters()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["image.0.attn.lora.a_k"], other["image.0.attn.lora.a_k"])


def test_only_the_named_tower_is_changed(backbone: Backbone) -> None:
    model, plain = stir(UPPerson(backbone, PetlConfig(towers=("text",)))), UPPerson(backbone)
    tokens, pictures = backbone.tokenize(CAPTIONS), pixels(backbone)
    with torch.inference_mode():
        assert torch.equal(model.encode_image(pictures), plain.encode_image(pictures))
        assert not torch.allclose(model.encode_text(tokens), plain.encode_text(tokens))


def test_gradient_checkpointing_gives_the_same_gradients(backbone: Backbone) -> None:
    tokens, pictures = backbone.tokenize(CAPTIONS), pixels(backbone, 3)

    def gradients(model: UPPerson) -> dict[str, Tensor]:
        (model.encode_image(pictures).sum() + model.encode_text(tokens).square().sum()).backward()
        return {name: p.grad for name, p in model.petl_parameters().items() if p.grad is not None}

    plain, kept = (stir(UPPerson(backbone, SMALL)) for _ in range(2))
    kept.gradient_checkpointing(True)
    calls = []
    for block in kept.blocks("image"):
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    expected, found = gradients(plain), gradients(kept)
    assert len(calls) == 2 * len(kept.blocks("image"))  # forward, and once more on the way back
    assert expected.keys() == found.keys() == plain.petl_parameters().keys()
    assert all(torch.equal(found[name], grad) for name, grad in expected.items())
    assert not backbone.clip.visual.transformer.grad_checkpointing
    assert not plain.clip.transformer.grad_checkpointing
    kept.gradient_checkpointing(False)
    kept.encode_image(pictures).sum().backward()
    assert len(calls) == 3 * len(kept.blocks("image"))


@pytest.mark.parametrize("shape", [(2, 3, 16, 48), (3, 48, 16), (1, 1, 48, 16)])
def test_pictures_of_another_size_are_refused(backbone: Backbone, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"'small' takes pixels \(B, 3, 48, 16\), not .*: scale them to its image_size"
    ):
        UPPerson(backbone).encode_image(torch.zeros(shape))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_second_model_follows_its_backbone_to_the_gpu() -> None:
    backbone = small_backbone("moved")
    tokens = backbone.tokenize(CAPTIONS)
    with torch.inference_mode():
        before = UPPerson(backbone, SMALL).encode_text(tokens)
        UPPerson(backbone, SMALL).to("cuda")
        after = UPPerson(backbone, SMALL).to("cuda").encode_text(tokens.to("cuda"))
        assert (after.cpu() - before).abs().max() < 1e-3
        plain = UPPerson(backbone)  # nothing of its own has to be moved
        assert plain.encode_text(tokens.to("cuda")).is_cuda


def test_petl_weights_are_made_where_the_backbone_lies() -> None:
    elsewhere = small_backbone("elsewhere")
    elsewhere.clip.to("meta")
    model = UPPerson(elsewhere, replace(SMALL, towers=("image",)))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model.encode_image(torch.empty(2, 3, *elsewhere.image_size, device="meta")).shape == (2, 32)


@pytest.mark.parametrize("vision", [{"pool_type": "avg"}, {"attentional_pool": True, "attn_pooler_heads": 2}])
def test_an_image_tower_that_reads_more_than_its_class_token_is_refused(vision: dict[str, object]) -> None:
    clip = build_clip(CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | vision})
    odd = replace(small_backbone("odd"), clip=freeze(clip))
    with pytest.raises(
        BackboneError, match=r"'odd' pools its picture tokens .*expected one that reads the class token"
    ):
        UPPerson(odd, SMALL)
