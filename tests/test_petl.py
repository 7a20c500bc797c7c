"""PETL modules against naive references written from the paper's formulas."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.petl import (
    PRESETS,
    KVLoRA,
    LAdapter,
    PetlAttention,
    PetlConfig,
    SequentialAdapter,
    SPrefix,
    TowerPetl,
    attach,
)
from tests.small_clip import small_clip

WIDTH, HEADS, TOKENS, LENGTH = 32, 4, 7, 3


def attention(config: PetlConfig, *, seed: int = 0) -> PetlAttention:
    """Attention in double precision, every parameter away from its start."""
    torch.manual_seed(seed)
    module = PetlAttention(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), config).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module


def causal_mask(tokens: int) -> Tensor:
    return torch.full((tokens, tokens), -math.inf, dtype=torch.float64).triu(1)


def naive_attention(x: Tensor, module: PetlAttention, prefix: SPrefix, mask: Tensor | None) -> Tensor:
    """One query, one head at a time: the prefix stands after token 0, its columns are scaled after the softmax."""
    base = module.base
    w_q, w_k, w_v = base.in_proj_weight.chunk(3)
    b_q, b_k, b_v = base.in_proj_bias.chunk(3)
    out = torch.zeros_like(x)
    size = WIDTH // HEADS
    for b, row in enumerate(x):
        q, k, v = row @ w_q.T + b_q, row @ w_k.T + b_k, row @ w_v.T + b_v
        k = torch.cat([k[:1], prefix.keys * prefix.scale_k, k[1:]])
        v = torch.cat([v[:1], prefix.values * prefix.scale_v, v[1:]])
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            for t in range(len(row)):
                logits = k[:, part] @ q[t, part] / math.sqrt(size)
                if mask is not None:
                    logits = logits + torch.cat([mask[t, :1], torch.zeros(LENGTH, dtype=x.dtype), mask[t, 1:]])
                weights = logits.softmax(0)
                weights = torch.cat([weights[:1], weights[1 : 1 + LENGTH] * prefix.gain, weights[1 + LENGTH :]])
                out[b, t, part] = weights @ v[:, part]
    return out @ base.out_proj.weight.T + base.out_proj.bias


@pytest.mark.parametrize("causal", [False, True])
def test_prefix_gain_acts_after_the_softmax_and_nothing_is_renormalised(causal: bool) -> None:
    module = attention(PetlConfig(prefix_length=LENGTH, lora_rank=0, prefix_gain=4.0))
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    mask = causal_mask(TOKENS) if causal else None
    assert module.prefix is not None
    expected = naive_attention(x, module, module.prefix, mask)
    out, weights = module(x, x, x, attn_mask=mask)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    assert weights is None


def test_the_causal_mask_hides_later_tokens_but_never_the_prefix() -> None:
    module = attention(PetlConfig(prefix_length=LENGTH, lora_rank=2))
    x = torch.randn(1, TOKENS, WIDTH, dtype=torch.float64)
    before = module(x, x, x, attn_mask=causal_mask(TOKENS))[0]
    later = x.clone()
    later[:, 4:] += 1
    after = module(later, later, later, attn_mask=causal_mask(TOKENS))[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.isclose(before[:, 4:], after[:, 4:]).all()
    assert module.prefix is not None
    module.prefix.values.data += 1
    moved = module(x, x, x, attn_mask=causal_mask(TOKENS))[0]
    assert (moved - before).abs().amax(dim=-1).min() > 1e-6  # every query, the first too, sees the prefix


def test_lora_equals_weights_with_the_product_folded_in() -> None:
    module = attention(PetlConfig(prefix_length=0, lora_rank=5))
    lora, base = module.lora, module.base
    assert lora is not None
    folded = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    folded.load_state_dict(base.state_dict())
    with torch.no_grad():
        folded.in_proj_weight[WIDTH : 2 * WIDTH] += lora.scale_k * (lora.b_k @ lora.a_k)
        folded.in_proj_weight[2 * WIDTH :] += lora.scale_v * (lora.b_v @ lora.a_v)
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    expected = folded(x, x, x, need_weights=False, attn_mask=causal_mask(TOKENS))[0]
    torch.testing.assert_close(module(x, x, x, attn_mask=causal_mask(TOKENS))[0], expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(expected, base(x, x, x, need_weights=False, attn_mask=causal_mask(TOKENS))[0])


def test_adapter_is_the_norm_plus_a_scaled_bottleneck_on_its_input() -> None:
    torch.manual_seed(0)
    adapter = LAdapter(nn.LayerNorm(WIDTH), 8).double()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter))
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64) * 3 + 1
    centred = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    bottleneck = (x @ adapter.down.weight.T + adapter.down.bias).clamp(min=0)
    expected = centred * adapter.norm.weight + adapter.norm.bias
    expected = expected + adapter.scale * (bottleneck @ adapter.up.weight.T + adapter.up.bias)
    torch.testing.assert_close(adapter(x), expected, rtol=1e-10, atol=1e-10)
    assert adapter.down.weight.shape == (WIDTH // 8, WIDTH)


def test_starting_values_are_those_of_the_paper() -> None:
    torch.manual_seed(0)
    modules = KVLoRA(64, 8), SPrefix(64, 5, 10.0), LAdapter(nn.LayerNorm(64), 8)
    lora, prefix, adapter = (module.requires_grad_(False) for module in modules)
    for a in (lora.a_k, lora.a_v):
        assert a.shape == (8, 64)
        assert 0.9 / 8 < float(a.abs().max()) <= 1 / 8  # Kaiming-uniform(sqrt 5): the bound is 1 / sqrt(D)
    for zero in (lora.b_k, lora.b_v, adapter.up.weight, adapter.up.bias, adapter.down.bias):
        assert torch.count_nonzero(zero) == 0
    assert float(adapter.down.weight.abs().max()) > 0
    for rows in (prefix.keys, prefix.values):
        assert rows.shape == (5, 64)
        assert float(rows.min()) >= 0
        assert 0.009 < float(rows.max()) <= 0.01
    for one in (lora.scale_k, lora.scale_v, prefix.scale_k, prefix.scale_v, adapter.scale):
        assert float(one) == 1
    assert float(prefix.gain) == 10


def test_fresh_lora_and_adapter_change_nothing() -> None:
    block = small_clip().transformer.resblocks[0]
    x, mask = torch.randn(2, TOKENS, 64), causal_mask(TOKENS).float()
    with torch.no_grad():
        before = block(x, attn_mask=mask)
        attach(block, PetlConfig(prefix_length=0))
        torch.testing.assert_close(block(x, attn_mask=mask), before, rtol=1e-5, atol=1e-5)


def test_repel_takes_the_attention_away_from_the_prefix() -> None:
    torch.manual_seed(0)
    heads, size = 4, 16
    prefix = SPrefix(heads * size, 10, 10.0).requires_grad_(False)
    queries = torch.randn(500, heads, size) * 1.5 + torch.randn(heads, size)
    values = prefix.values.clone()

    def logits() -> Tensor:
        keys = prefix()[0].view(10, heads, size)
        return torch.einsum("nhd,lhd->nhl", queries, keys) / math.sqrt(size)

    assert float(logits().abs().mean()) < 0.1  # the paper's start: each column gets as much as an average token
    prefix.repel(queries)
    assert float(logits().mean()) < -4
    assert float((logits() < 0).float().mean()) > 0.95
    assert torch.equal(prefix.values, values)


def test_attach_wraps_only_what_the_config_asks_for() -> None:
    def kinds(config: PetlConfig) -> tuple[str, str, str]:
        block = small_clip().transformer.resblocks[0]
        attach(block, config)
        return type(block.attn).__name__, type(block.ln_1).__name__, type(block.ln_2).__name__

    assert kinds(PetlConfig(adapter_reduction=0)) == ("PetlAttention", "LayerNorm", "LayerNorm")
    assert kinds(PetlConfig(lora_rank=0, prefix_length=0)) == ("MultiheadAttention", "LAdapter", "LAdapter")
    assert kinds(PetlConfig()) == ("PetlAttention", "LAdapter", "LAdapter")
    only_lora = attention(PetlConfig(prefix_length=0))
    assert only_lora.prefix is None
    only_prefix = attention(PetlConfig(lora_rank=0))
    assert only_prefix.lora is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prefix_length": -1}, r"prefix_length must be a whole number .* not -1"),
        ({"lora_rank": 2.5}, r"lora_rank must be a whole number .* not 2\.5"),
        ({"lora_rank": True}, "lora_rank must be a whole number .* not True"),
        ({"adapter_reduction": "8"}, "adapter_reduction must be a whole number .* not '8'"),
        ({"prefix_gain": math.nan}, "prefix_gain must be a finite number, not nan"),
        ({"prefix_gain": "10"}, "prefix_gain must be a finite number, not '10'"),
        ({"prefix_gain": True}, "prefix_gain must be a finite number, not True"),
        ({"towers": ()}, r"towers is .* not \(\)"),
        ({"towers": ("audio",)}, r"towers is .* not \('audio',\)"),
        ({"towers": ("image", "image")}, "towers is .* not"),
        ({"towers": ["image"]}, r"towers is .* not \['image'\]"),
        ({"towers": "image"}, "towers is .* not 'image'"),
        ({"prefix_length": 0, "lora_rank": 0, "adapter_reduction": 0}, "nothing to train"),
        ({"prefix_gain": None, "learn_gain": False}, "learn_gain must be True or False .* with prefix_gain None"),
        ({"learn_gain": 1}, "learn_gain must be True or False .* not 1 with"),
        ({"adapter": "houlsby"}, "adapter is l_adapter or sequential, not 'houlsby'"),
        ({"lora_layers": (2, 2)}, r"lora_layers must be \(first, end\) .* not \(2, 2\)"),
        ({"lora_layers": (0, 1.5)}, "lora_layers must be"),
        ({"lora_layers": 3}, "lora_layers must be .* not 3"),
        ({"prefix_layers": (0, 1), "prefix_length": 0}, "prefix_layers is .* but prefix_length 0 leaves"),
        ({"towers": ("text",), "image": TowerPetl()}, "image has options, but towers .* leaves that tower out"),
        ({"text": {"lora_rank": 4}}, "text is a TowerPetl or None, not"),
    ],
)
def test_config_refuses_what_cannot_be_built(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PetlConfig(**options)


def test_an_adapter_without_any_width_is_refused() -> None:
    with pytest.raises(ValueError, match="adapter_reduction 33 leaves nothing of a block 32 wide"):
        LAdapter(nn.LayerNorm(32), 33)


def test_config_survives_json_and_refuses_unknown_options() -> None:
    for config in (
        PetlConfig(),
        PetlConfig(prefix_length=2, lora_rank=0, prefix_gain=0.5, towers=("text",)),
        PetlConfig(prefix_gain=None, adapter="sequential", lora_layers=(1, 3)),
        PetlConfig(learn_gain=False, image=TowerPetl(lora_rank=4, adapter_layers=(0, 2)), text=TowerPetl(lora_rank=0)),
    ):
        assert PetlConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(ValueError, match="unknown PETL options: depth, rank"):
        PetlConfig.from_json({"rank": 8, "depth": 0, "lora_rank": 4})
    with pytest.raises(ValueError, match="expected PETL options by name, got list"):
        PetlConfig.from_json([])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown PETL options: towers"):
        PetlConfig.from_json({"image": {"towers": ["image"]}})
    with pytest.raises(ValueError, match="expected PETL options by name, got int"):
        PetlConfig.from_json({"text": 3})


def test_files_of_the_first_release_still_load_and_are_still_written() -> None:
    old = {"prefix_length": 3, "prefix_gain": 10.0, "lora_rank": 4, "adapter_reduction": 8, "towers": ["image", "text"]}
    assert PetlConfig.from_json(old) == PetlConfig(prefix_length=3, lora_rank=4)
    assert PetlConfig(prefix_length=3, lora_rank=4).to_json() == old


@pytest.mark.parametrize(("gain", "times"), [(None, 1.0), (7.0, 7.0)])
def test_a_gain_that_is_fixed_or_left_out_is_no_parameter(gain: float | None, times: float) -> None:
    prefix = SPrefix(WIDTH, LENGTH, gain, learn_gain=False)
    assert set(dict(prefix.named_parameters())) == {"keys", "values", "scale_k", "scale_v"}
    torch.testing.assert_close(prefix()[1], prefix.values * times)
    assert "gain" in dict(SPrefix(WIDTH, LENGTH, 7.0).named_parameters())
    assert "gain" not in dict(SPrefix(WIDTH, LENGTH, None).named_parameters())


def test_the_sequential_adapter_works_on_what_a_sublayer_gives() -> None:
    torch.manual_seed(0)
    block = small_clip().transformer.resblocks[0].double()
    x = torch.randn(2, TOKENS, 64, dtype=torch.float64)
    plain = block(x)
    attach(block, PetlConfig(prefix_length=0, lora_rank=0, adapter="sequential"))
    block.double()
    assert torch.equal(block(x), plain)  # `up` starts at 0
    assert type(block.ln_1) is type(small_clip().transformer.resblocks[0].ln_1)
    with torch.no_grad():
        for place in (block.ls_1, block.ls_2):
            assert isinstance(place, SequentialAdapter)
            for parameter in place.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)

    def adapted(y: Tensor, place: Any) -> Tensor:
        narrow = (y @ place.down.weight.T + place.down.bias).clamp(min=0)
        return y + narrow @ place.up.weight.T + place.up.bias

    normed = block.ln_1(x)
    middle = x + adapted(block.attn(normed, normed, normed, need_weights=False)[0], block.ls_1)
    expected = middle + adapted(block.mlp(block.ln_2(middle)), block.ls_2)
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


def test_queries_of_some_tokens_get_what_they_get_among_all() -> None:
    module = attention(PetlConfig(prefix_length=LENGTH, lora_rank=2))
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    some = module(x[:, :1], x, x)[0]
    torch.testing.assert_close(some, module(x, x, x)[0][:, :1], rtol=1e-12, atol=1e-12)


def test_presets_are_the_paper_s_table() -> None:
    sizes = {name: (config.lora_rank, config.prefix_length) for name, config in PRESETS.items()}
    assert sizes == {"cuhk-pedes": (32, 10), "icfg-pedes": (32, 14), "rstpreid": (16, 2)}
    assert {config.prefix_gain for config in PRESETS.values()} == {10.0}
