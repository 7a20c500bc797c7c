"""The three PETL methods of UP-Person and how they are attached to an open_clip residual block.

Source: Liu et al., "UP-Person", arXiv 2504.10084, section III. A block keeps its frozen weights; three of
its sub-modules are wrapped: `attn` (S-Prefix and LoRA), `ln_1` and `ln_2` (L-Adapter).
Shape letters: B batch, T tokens, D width, H heads, L prefix length, R LoRA rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Tower = Literal["image", "text"]
MOST_SIZE = 4096
"""Of a prefix, a rank or a reduction: no published setting comes near, and a config from elsewhere may say 10**9."""
TOWERS: tuple[Tower, ...] = ("image", "text")
AdapterKind = Literal["l_adapter", "sequential"]
Layers = tuple[int, int] | None
"""Blocks `first` to before `end`, counted from 0 as Python's `range` does; None: all."""

# method -> (the option that gives its size, 0 for none; the option that says in which blocks)
METHODS = {
    "prefix": ("prefix_length", "prefix_layers"),
    "LoRA": ("lora_rank", "lora_layers"),
    "adapter": ("adapter_reduction", "adapter_layers"),
}


@dataclass(frozen=True, slots=True)
class TowerPetl:
    """Which PETL modules a tower gets, how large they are, and in which of its blocks.

    `prefix_length` 0, `lora_rank` 0 or `adapter_reduction` 0 leaves that method out, in every block.
    `prefix_gain` is where S_p starts (10 in the paper; the released code's 100 wrecks the text features); it is learnt
    unless `learn_gain` is False, and None is the vanilla prefix, which has no gain. `adapter` is the paper's
    L-Adapter beside the LayerNorms, or for comparison the vanilla one, in sequence after attention and MLP.
    """

    prefix_length: int = 10
    prefix_gain: float | None = 10.0
    lora_rank: int = 32
    adapter_reduction: int = 8
    learn_gain: bool = True
    adapter: AdapterKind = "l_adapter"
    prefix_layers: Layers = None
    lora_layers: Layers = None
    adapter_layers: Layers = None

    def __post_init__(self) -> None:
        for size_name, layers_name in METHODS.values():
            size, layers = getattr(self, size_name), getattr(self, layers_name)
            if not _is_whole(size) or size < 0:
                raise ValueError(
                    f"PetlConfig.{size_name} must be a whole number of 0 or more (0: leave it out), not {size!r}"
                )
            if size > MOST_SIZE:
                raise ValueError(f"PetlConfig.{size_name} is at most {MOST_SIZE:,}, not {size:,}")
            if layers is not None and not _is_range(layers):
                raise ValueError(
                    f"PetlConfig.{layers_name} must be (first, end) with 0 <= first < end, or None, not {layers!r}"
                )
            if layers is not None and size == 0:
                raise ValueError(f"PetlConfig.{layers_name} is {layers}, but {size_name} 0 leaves the method out")
        gain = self.prefix_gain
        if gain is not None and (
            isinstance(gain, bool) or not isinstance(gain, int | float) or not math.isfinite(gain)
        ):
            raise ValueError(f"PetlConfig.prefix_gain must be a finite number, not {gain!r}")
        if not isinstance(self.learn_gain, bool) or (gain is None and not self.learn_gain):
            raise ValueError(
                f"PetlConfig.learn_gain must be True or False (False fixes a prefix_gain, and needs one), "
                f"not {self.learn_gain!r} with prefix_gain {gain!r}"
            )
        if self.adapter not in get_args(AdapterKind):
            raise ValueError(f"PetlConfig.adapter is {' or '.join(get_args(AdapterKind))}, not {self.adapter!r}")

    def has(self, method: str, block: int) -> bool:
        """Return whether block number `block` gets this method: "prefix", "LoRA" or "adapter"."""
        size, layers = (getattr(self, name) for name in METHODS[method])
        return size > 0 and (layers is None or layers[0] <= block < layers[1])

    def check_depth(self, tower: str, blocks: int) -> None:
        """Raise ValueError if a layer range goes beyond a tower of so many blocks."""
        for _, name in METHODS.values():
            layers = getattr(self, name)
            if layers is not None and layers[1] > blocks:
                raise ValueError(f"PetlConfig.{name} {layers} goes beyond the {blocks} blocks of the {tower} tower")

    def to_json(self) -> dict[str, Any]:
        """Return the options by name; those unknown to version 0.1.0 only where they differ from their default."""
        names = (
            field.name for field in fields(self) if field.name in _FIRST or getattr(self, field.name) != field.default
        )
        return {name: _plain(getattr(self, name)) for name in names}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read the options `to_json` wrote. Raises ValueError on unknown options."""
        if not isinstance(data, dict):
            raise ValueError(f"expected PETL options by name, got {type(data).__name__}")
        unknown = set(data) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown PETL options: {', '.join(sorted(unknown))}")
        return cls(**{name: _parsed(name, value) for name, value in data.items()})


@dataclass(frozen=True, slots=True)
class PetlConfig(TowerPetl):
    """The options of both towers; `image` or `text`, where given, replace all of them for that tower."""

    towers: tuple[Tower, ...] = TOWERS
    image: TowerPetl | None = None
    text: TowerPetl | None = None

    def __post_init__(self) -> None:
        TowerPetl.__post_init__(self)
        if self.towers not in (("image",), ("text",), TOWERS):
            raise ValueError(f"PetlConfig.towers is ('image',), ('text',) or ('image', 'text'), not {self.towers!r}")
        for tower in TOWERS:
            own = getattr(self, tower)
            if own is None:
                continue
            if type(own) is not TowerPetl:
                raise ValueError(f"PetlConfig.{tower} is a TowerPetl or None, not {own!r}")
            if tower not in self.towers:
                raise ValueError(f"PetlConfig.{tower} has options, but towers {self.towers} leaves that tower out")
        if not any(getattr(self.of(tower), size) for tower in self.towers for size, _ in METHODS.values()):
            raise ValueError("PetlConfig leaves out prefix, LoRA and adapter: there is nothing to train")

    def of(self, tower: str) -> TowerPetl:
        """Return the options of the tower `"image"` or `"text"`."""
        own: TowerPetl | None = getattr(self, tower)
        return self if own is None else own


_FIRST = ("prefix_length", "prefix_gain", "lora_rank", "adapter_reduction", "towers")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_range(layers: object) -> bool:
    return isinstance(layers, tuple) and len(layers) == 2 and all(map(_is_whole, layers)) and 0 <= layers[0] < layers[1]


def _plain(value: object) -> object:
    if isinstance(value, TowerPetl):
        return value.to_json()
    return list(value) if isinstance(value, tuple) else value


def _parsed(name: str, value: Any) -> Any:
    if name in TOWERS and value is not None:
        return TowerPetl.from_json(value)
    return tuple(value) if name == "towers" or isinstance(value, list) else value


PRESETS = {
    "cuhk-pedes": PetlConfig(prefix_length=10, lora_rank=32),
    "icfg-pedes": PetlConfig(prefix_length=14, lora_rank=32),
    "rstpreid": PetlConfig(prefix_length=2, lora_rank=16),
}
"""The paper's sizes for each benchmark data set (section IV)."""


class KVLoRA(nn.Module):
    """LoRA on W_k and W_v (not W_q): adds s (B A) x to keys and values, with a learnable s for each.

    A (R, D) starts Kaiming-uniform(a=sqrt 5), B (D, R) at 0 and s at 1, so that nothing changes at first.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.a_k, self.a_v = nn.Parameter(torch.empty(rank, width)), nn.Parameter(torch.empty(rank, width))
        self.b_k, self.b_v = nn.Parameter(torch.zeros(width, rank)), nn.Parameter(torch.zeros(width, rank))
        self.scale_k, self.scale_v = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
        for a in (self.a_k, self.a_v):
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to add to the keys and to the values of x (B, T, D).

        s multiplies B, which is small, and not the outcome, which training would have to keep for s's gradient.
        """
        add_k = F.linear(F.linear(x, self.a_k), self.b_k * self.scale_k)
        add_v = F.linear(F.linear(x, self.a_v), self.b_v * self.scale_v)
        return add_k, add_v


class SPrefix(nn.Module):
    """S-Prefix: L learnt rows joined to keys and values, their attention multiplied by a gain S_p.

    The gain acts after the softmax and nothing is renormalised, so it may as well multiply the value rows:
    that is what `forward` does, and why fused attention serves S-Prefix unchanged. `gain` None is the vanilla
    prefix, `learn_gain` False keeps the gain where it starts.

    The paper starts all rows at U(0, 0.01). Keys near 0 give every prefix column the logit 0, which takes
    attention away from the real tokens before anything is learnt. `core.model` therefore moves the key rows
    to where the backbone's own queries score them low (`repel`): same formula, harmless start.
    """

    def __init__(self, width: int, length: int, gain: float | None, *, learn_gain: bool = True) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.empty(length, width).uniform_(0, 0.01))
        self.values = nn.Parameter(torch.empty(length, width).uniform_(0, 0.01))
        self.scale_k, self.scale_v = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
        start = 1.0 if gain is None else float(gain)
        self.gain = nn.Parameter(torch.tensor(start)) if gain is not None and learn_gain else start

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return prefix keys (L, D) and values (L, D), all scalars applied."""
        return self.keys * self.scale_k, self.values * (self.scale_v * self.gain)

    @torch.no_grad()
    def repel(self, queries: Tensor, *, logit: float = -8.0) -> None:
        """Move the key rows so that queries (N, H, D/H) score about `logit` on them.

        Least squares per head: min_k |Q k / sqrt(D/H) - logit|^2 + ridge |k|^2.
        """
        _, heads, head_width = queries.shape
        q = queries.double().transpose(0, 1) / math.sqrt(head_width)  # (H, N, D/H)
        gram = q.transpose(1, 2) @ q
        ridge = 1e-2 * gram.diagonal(dim1=1, dim2=2).mean(-1)[:, None, None] * torch.eye(head_width).to(q)
        k = torch.linalg.solve(gram + ridge, (q * logit).sum(1)[..., None])  # (H, D/H, 1)
        self.keys.add_(k.reshape(1, heads * head_width).to(self.keys))


def project(query: Tensor, x: Tensor, base: nn.MultiheadAttention) -> tuple[Tensor, Tensor, Tensor]:
    """Apply the frozen projections of CLIP: queries of `query` (B, Q, D), keys and values of x (B, T, D)."""
    weight, bias, width = base.in_proj_weight, base.in_proj_bias, base.embed_dim
    if query is x:
        q, k, v = F.linear(x, weight, bias).chunk(3, dim=-1)
    else:
        q = F.linear(query, weight[:width], bias[:width])
        k, v = F.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
    return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor, base: nn.MultiheadAttention, attn_mask: Tensor | None) -> Tensor:
    """Attend from q (B, Q, D) to k and v (B, T, D), then apply CLIP's frozen output projection; (B, Q, D).

    `attn_mask` (Q, T') is additive and concerns the last T' columns: every query sees those before, a prefix.
    """
    if attn_mask is not None:
        attn_mask = F.pad(attn_mask, (k.shape[1] - attn_mask.shape[1], 0))
    heads, width = base.num_heads, base.embed_dim
    q, k, v = (t.view(*t.shape[:2], heads, width // heads).transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
    return F.linear(out.transpose(1, 2).flatten(2), base.out_proj.weight, base.out_proj.bias)


class PetlAttention(nn.Module):
    """Self-attention of a CLIP block with S-Prefix and LoRA; replaces `nn.MultiheadAttention`."""

    def __init__(self, base: nn.MultiheadAttention, config: TowerPetl, index: int = 0) -> None:
        super().__init__()
        assert base.batch_first
        width = base.embed_dim
        self.base = base
        self.lora = KVLoRA(width, config.lora_rank) if config.has("LoRA", index) else None
        self.prefix = (
            SPrefix(width, config.prefix_length, config.prefix_gain, learn_gain=config.learn_gain)
            if config.has("prefix", index)
            else None
        )

    def forward(
        self, query: Tensor, x: Tensor, _v: Tensor, *, attn_mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, None]:
        """Attend from queries (B, Q, D), which are x or some of its tokens, to x (B, T, D)."""
        assert not need_weights
        q, k, v = project(query, x, self.base)
        if self.lora is not None:
            add_k, add_v = self.lora(x)
            k, v = k + add_k, v + add_v
        if self.prefix is not None:
            prefix_k, prefix_v = (rows.to(k.dtype).expand(len(x), -1, -1) for rows in self.prefix())
            k, v = torch.cat([prefix_k, k], dim=1), torch.cat([prefix_v, v], dim=1)
        return attend(q, k, v, self.base, attn_mask), None


class SequentialAdapter(nn.Module):
    """The vanilla adapter, for comparison: y + up(ReLU(down(y))) on the output y of attention or MLP.

    Houlsby et al., arXiv 1902.00751, with the starts of `LAdapter`; `base` is what the block has in that place.
    """

    def __init__(self, base: nn.Module, width: int, reduction: int) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = bottleneck(width, reduction)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        return y + self.up(F.relu(self.down(y)))


def bottleneck(width: int, reduction: int) -> tuple[nn.Linear, nn.Linear]:
    """down (D -> D/reduction), Kaiming-uniform, and up, which starts at 0 like both biases."""
    if reduction > width:
        raise ValueError(f"PetlConfig.adapter_reduction {reduction} leaves nothing of a block {width} wide")
    down, up = nn.Linear(width, width // reduction), nn.Linear(width // reduction, width)
    nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
    for zero in (down.bias, up.weight, up.bias):
        nn.init.zeros_(zero)
    return down, up


class LAdapter(nn.Module):
    """L-Adapter: LN(x) + s up(ReLU(down(x))), beside a LayerNorm; the branch sees x *before* the norm.

    `down` starts Kaiming-uniform, `up` and both biases at 0, s at 1: at first only the norm remains.
    """

    def __init__(self, norm: nn.LayerNorm, reduction: int) -> None:
        super().__init__()
        self.norm = norm
        self.down, self.up = bottleneck(norm.normalized_shape[0], reduction)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x) + self.up(F.relu(self.down(x))) * self.scale
        return out


PLACES = ("attn", "ln_1", "ln_2", "ls_1", "ls_2")
"""The sub-modules of a residual block that PETL modules replace."""


def attach(block: nn.Module, config: TowerPetl, index: int = 0) -> None:
    """Wrap sub-modules of one open_clip residual block, number `index` of its tower, in place."""
    if config.has("LoRA", index) or config.has("prefix", index):
        block.attn = PetlAttention(block.attn, config, index)  # type: ignore[arg-type]
    if not config.has("adapter", index):
        return
    for place in ("1", "2"):
        norm = getattr(block, f"ln_{place}")
        if config.adapter == "l_adapter":
            setattr(block, f"ln_{place}", LAdapter(norm, config.adapter_reduction))
        else:  # `ls` is what open_clip applies to the output of attention (1) and of the MLP (2): nothing, mostly
            base = getattr(block, f"ls_{place}")
            setattr(block, f"ls_{place}", SequentialAdapter(base, norm.normalized_shape[0], config.adapter_reduction))
