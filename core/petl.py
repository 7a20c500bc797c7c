"""The three PETL methods of UP-Person and how they take their place in an open_clip residual block.

Source: Liu et al., "UP-Person", arXiv 2504.10084, section III. A block keeps its frozen weights; three of
its sub-modules are wrapped: `attn` (S-Prefix and LoRA), `ln_1` and `ln_2` (L-Adapter).
Shape letters: B batch, T tokens, D width, H heads, L prefix length, R LoRA rank.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Tower = Literal["image", "text"]


@dataclass(frozen=True, slots=True)
class PetlConfig:
    """Which PETL modules are attached and how large they are.

    `prefix_length` 0, `lora_rank` 0 or `adapter_reduction` 0 leaves that method out, in every block.
    `prefix_gain` is where S_p starts (10 in the paper; the released code's 100 wrecks the text features).
    """

    prefix_length: int = 10
    prefix_gain: float = 10.0
    lora_rank: int = 32
    adapter_reduction: int = 8
    towers: tuple[Tower, ...] = ("image", "text")

    def __post_init__(self) -> None:
        for name in ("prefix_length", "lora_rank", "adapter_reduction"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(
                    f"PetlConfig.{name} must be a whole number of 0 or more (0: leave it out), not {value!r}"
                )
        gain = self.prefix_gain
        if not isinstance(gain, int | float) or isinstance(gain, bool) or not math.isfinite(gain):
            raise ValueError(f"PetlConfig.prefix_gain must be a finite number, not {gain!r}")
        if self.towers not in (("image",), ("text",), ("image", "text")):
            raise ValueError(f"PetlConfig.towers is ('image',), ('text',) or ('image', 'text'), not {self.towers!r}")
        if not (self.prefix_length or self.lora_rank or self.adapter_reduction):
            raise ValueError("PetlConfig leaves out prefix, LoRA and adapter: there is nothing to train")

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"towers": list(self.towers)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PetlConfig:
        """The reverse of `to_json`; raises ValueError on options nobody knows."""
        if not isinstance(data, dict):
            raise ValueError(f"expected PETL options by name, got {type(data).__name__}")
        unknown = set(data) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown PETL options: {', '.join(sorted(unknown))}")
        return cls(**(data | {"towers": tuple(data.get("towers", ("image", "text")))}))


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
        """What to add to the keys and to the values of x (B, T, D)."""
        add_k = F.linear(F.linear(x, self.a_k), self.b_k) * self.scale_k
        add_v = F.linear(F.linear(x, self.a_v), self.b_v) * self.scale_v
        return add_k, add_v


class SPrefix(nn.Module):
    """S-Prefix: L learnt rows joined to keys and values, their attention multiplied by a learnable gain S_p.

    The gain acts after the softmax and nothing is renormalised, so it may as well multiply the value rows:
    that is what `forward` does, and why fused attention serves S-Prefix unchanged.

    The paper starts all rows at U(0, 0.01). Keys near 0 give every prefix column the logit 0, which takes
    attention away from the real tokens before anything is learnt. `core.model` therefore moves the key rows
    to where the backbone's own queries score them low (`repel`): same formula, harmless start.
    """

    def __init__(self, width: int, length: int, gain: float) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.empty(length, width).uniform_(0, 0.01))
        self.values = nn.Parameter(torch.empty(length, width).uniform_(0, 0.01))
        self.scale_k, self.scale_v = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
        self.gain = nn.Parameter(torch.tensor(float(gain)))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Prefix keys (L, D) and values (L, D), all scalars applied."""
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


class PetlAttention(nn.Module):
    """Self-attention of a CLIP block with S-Prefix and LoRA; stands in for `nn.MultiheadAttention`."""

    def __init__(self, base: nn.MultiheadAttention, config: PetlConfig) -> None:
        super().__init__()
        assert base.batch_first
        width = base.embed_dim
        self.base = base
        self.lora = KVLoRA(width, config.lora_rank) if config.lora_rank else None
        self.prefix = SPrefix(width, config.prefix_length, config.prefix_gain) if config.prefix_length else None

    def forward(
        self, x: Tensor, _k: Tensor, _v: Tensor, *, attn_mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, None]:
        """Self-attention of x (B, T, D); `attn_mask` (T, T) is additive and concerns the real tokens only."""
        assert not need_weights
        batch, tokens, width = x.shape
        q, k, v = F.linear(x, self.base.in_proj_weight, self.base.in_proj_bias).chunk(3, dim=-1)
        if self.lora is not None:
            add_k, add_v = self.lora(x)
            k, v = k + add_k, v + add_v
        if self.prefix is not None:
            prefix_k, prefix_v = self.prefix()
            k = torch.cat([prefix_k.to(k.dtype).expand(batch, -1, -1), k], dim=1)
            v = torch.cat([prefix_v.to(v.dtype).expand(batch, -1, -1), v], dim=1)
            if attn_mask is not None:  # every token sees the whole prefix, under the causal mask too
                attn_mask = F.pad(attn_mask, (prefix_k.shape[0], 0))
        heads, head_width = self.base.num_heads, width // self.base.num_heads
        q, k, v = (t.view(batch, -1, heads, head_width).transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        out = out.transpose(1, 2).reshape(batch, tokens, width)
        return F.linear(out, self.base.out_proj.weight, self.base.out_proj.bias), None


class LAdapter(nn.Module):
    """L-Adapter: LN(x) + s up(ReLU(down(x))), beside a LayerNorm; the branch sees x *before* the norm.

    `down` starts Kaiming-uniform, `up` and both biases at 0, s at 1: at first only the norm remains.
    """

    def __init__(self, norm: nn.LayerNorm, reduction: int) -> None:
        super().__init__()
        width = norm.normalized_shape[0]
        if reduction > width:
            raise ValueError(f"PetlConfig.adapter_reduction {reduction} leaves nothing of a block {width} wide")
        self.norm = norm
        self.down = nn.Linear(width, width // reduction)
        self.up = nn.Linear(width // reduction, width)
        self.scale = nn.Parameter(torch.ones(()))
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x) + self.up(F.relu(self.down(x))) * self.scale
        return out


def attach(block: nn.Module, config: PetlConfig) -> None:
    """Wrap `attn`, `ln_1` and `ln_2` of one open_clip residual block in place."""
    if config.lora_rank or config.prefix_length:
        block.attn = PetlAttention(block.attn, config)  # type: ignore[arg-type]
    if config.adapter_reduction:
        block.ln_1 = LAdapter(block.ln_1, config.adapter_reduction)  # type: ignore[arg-type]
        block.ln_2 = LAdapter(block.ln_2, config.adapter_reduction)  # type: ignore[arg-type]
