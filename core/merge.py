"""A model with its PETL weights merged for inference: the same embeddings for less work."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.model import UPPerson
from core.petl import LAdapter, PetlAttention, attend


@torch.no_grad()
def merge(model: UPPerson) -> UPPerson:
    """Return a copy of `model` for inference only, with LoRA merged into W_k and W_v and every scale into its matrix.

    The copy shares the frozen tensors of the backbone, which do not change. It owns its PETL weights, so training
    `model` further does not change it, and 2 D x D numbers a block for keys and values in place of LoRA.
    """
    frozen: dict[int, object] = {id(t): t for t in (*model.backbone.clip.parameters(), *model.backbone.clip.buffers())}
    merged = copy.deepcopy(model, frozen | {id(model.backbone): model.backbone})
    merged.gradient_checkpointing(False)
    for tower in ("image", "text"):
        for block in merged.blocks(tower):
            if isinstance(block.attn, PetlAttention):
                block.attn = MergedAttention(block.attn)
            for place in ("ln_1", "ln_2"):
                norm = getattr(block, place)
                if isinstance(norm, LAdapter):
                    setattr(block, place, MergedAdapter(norm))
    return merged.eval()


class MergedAttention(nn.Module):
    """`PetlAttention` with W + s B A in one matrix and the prefix ready to be joined."""

    kv_weight: Tensor
    prefix: Tensor | None

    def __init__(self, attention: PetlAttention) -> None:
        super().__init__()
        base, lora = attention.base, attention.lora
        width = base.embed_dim
        weight = base.in_proj_weight[width:]
        if lora is not None:
            change = torch.cat([lora.scale_k * lora.b_k @ lora.a_k, lora.scale_v * lora.b_v @ lora.a_v])
            weight = weight + change
        self.base = base
        self.register_buffer("kv_weight", weight)
        self.register_buffer("prefix", None if attention.prefix is None else torch.cat(attention.prefix(), dim=1)[None])

    def forward(
        self, query: Tensor, x: Tensor, _v: Tensor, *, attn_mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, None]:
        """Return the same as `PetlAttention`."""
        assert not need_weights
        base, width = self.base, self.base.embed_dim
        q = F.linear(query, base.in_proj_weight[:width], base.in_proj_bias[:width])
        kv = F.linear(x, self.kv_weight, base.in_proj_bias[width:])
        if self.prefix is not None:
            kv = torch.cat([self.prefix.to(kv.dtype).expand(len(x), -1, -1), kv], dim=1)
        k, v = kv.chunk(2, dim=-1)
        return attend(q, k, v, base, attn_mask), None


class MergedAdapter(nn.Module):
    """`LAdapter` with s merged into `up`, and the bias of `up` into that of the norm: two passes less over x."""

    bias: Tensor
    up: Tensor

    def __init__(self, adapter: LAdapter) -> None:
        super().__init__()
        self.norm, self.down = adapter.norm, adapter.down
        self.register_buffer("bias", adapter.norm.bias + adapter.scale * adapter.up.bias)
        self.register_buffer("up", (adapter.scale * adapter.up.weight).T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        out = F.layer_norm(x, self.norm.normalized_shape, self.norm.weight, self.bias, self.norm.eps)
        narrow = F.relu(self.down(x), inplace=True).flatten(0, 1)
        return torch.addmm(out.flatten(0, 1), narrow, self.up).view_as(out)
