"""`UPPerson`: a frozen CLIP or SigLIP with PETL modules in every block of both towers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from core.backbones import Backbone, device_of
from core.core_errors import BackboneError
from core.petl import PLACES, LAdapter, PetlAttention, PetlConfig, SequentialAdapter, attach, project
from core.towers.siglip import pooled, residual_blocks, siglip_tokens, use_residual_blocks

PETL_SEED = 2504_10084
"""The default seed of fresh PETL weights, so that every model starts the same."""


class ClassTokenBlock(nn.Module):
    """The last block of the image tower for token 0 alone, since CLIP reads no other: the same sum, less work."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ls_1 = block.ln_1, block.attn, block.ls_1
        self.ln_2, self.mlp, self.ls_2 = block.ln_2, block.mlp, block.ls_2

    def forward(self, x: Tensor, _k: None = None, _v: None = None, attn_mask: Tensor | None = None) -> Tensor:
        """x (B, T, D) -> (B, 1, D)."""
        assert attn_mask is None
        tokens = self.ln_1(x)
        first = x[:, :1] + self.ls_1(self.attn(tokens[:, :1], tokens, tokens, need_weights=False)[0])
        out: Tensor = first + self.ls_2(self.mlp(self.ln_2(first)))
        return out


class UPPerson(nn.Module):
    """CLIP of `backbone`, frozen, with trainable PETL modules as `config` says; None is plain CLIP (version 0).

    Its tensors are shared with the backbone (never copied, never changed); the block structure is its own,
    so several models can stand on one backbone at once. Raises BackboneError when the image tower of a CLIP reads more
    than its class token, or a block of a SigLIP does more than timm's plain one.
    """

    def __init__(self, backbone: Backbone, config: PetlConfig | None = None, *, seed: int = PETL_SEED) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        # A copy of the module tree over the same parameters: deepcopy asks the memo first.
        shared = {id(t): t for t in (*backbone.clip.parameters(), *backbone.clip.buffers())}
        self.clip = copy.deepcopy(backbone.clip, shared)
        if backbone.siglip:
            use_residual_blocks(self.clip, backbone.name)
        else:
            self._read_class_token_alone()
        if config is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                for tower in config.towers:
                    config.of(tower).check_depth(tower, len(self.blocks(tower)))
                    for index, block in enumerate(self.blocks(tower)):
                        attach(block, config.of(tower), index)
                self.to(device_of(backbone.clip))  # drawn on CPU, so that the start is the same on every device
                self._start_prefixes(config)

    def blocks(self, tower: str) -> nn.ModuleList | nn.Sequential:
        """Return the residual blocks of the `"image"` or `"text"` tower, in order."""
        return residual_blocks(self.clip, tower)

    def _read_class_token_alone(self) -> None:
        """Raises BackboneError when the image tower of a CLIP reads more than its class token."""
        visual = self.clip.visual
        if visual.pool_type != "tok" or visual.attn_pool is not None:
            raise BackboneError(
                f"{self.backbone.name!r} pools its picture tokens ({visual.pool_type}"
                f"{', by attention' if visual.attn_pool is not None else ''}): expected one that reads the class token"
            )
        blocks = self.blocks("image")
        blocks[-1] = ClassTokenBlock(blocks[-1])

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return unnormalised embeddings (B, E) of pixels (B, 3, H, W), normalised with the backbone's mean and std.

        Raises ValueError on pixels of another size than the backbone's.
        """
        wanted = (3, *self.backbone.image_size)
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != wanted:
            raise ValueError(
                f"{self.backbone.name!r} takes pixels (B, {', '.join(map(str, wanted))}), not {tuple(pixels.shape)}: "
                "scale them to its image_size"
            )
        embeddings: Tensor = self.clip.visual(pixels)
        return embeddings

    def image_tokens(self, pixels: Tensor, depth: int) -> Tensor:
        """Return what the last `depth` blocks begin with, (B, T, D), for pixels as `encode_image` takes them."""
        visual = self.clip.visual
        x: Tensor = siglip_tokens(visual, pixels) if self.backbone.siglip else visual._embeds(pixels)
        for block in self.blocks("image")[:-depth]:
            x = block(x)
        return x

    def encode_image_from(self, tokens: Tensor, depth: int) -> Tensor:
        """Return the embeddings (B, E) that `encode_image` returns, from `image_tokens` (B, T, D)."""
        visual, x = self.clip.visual, tokens
        for block in self.blocks("image")[-depth:]:
            x = block(x)
        if self.backbone.siglip:
            return pooled(visual, x)
        embeddings: Tensor = visual._pool(x)[0] @ visual.proj
        return embeddings

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Return unnormalised embeddings (B, E) of token_ids (B, T) at the end-of-text position.

        CLIP's attention is causal, so what follows end-of-text changes nothing: the batch is cut to its longest
        caption. SigLIP reads its last token, which sees all others: token_ids are as long as its context.
        """
        clip = self.clip
        if self.backbone.siglip:
            whole: Tensor = clip.text(token_ids)
            return whole
        end = token_ids.argmax(dim=-1)  # end-of-text is the largest id
        length = int(end.max()) + 1
        token_ids = token_ids[:, :length]
        x = clip.token_embedding(token_ids) + clip.positional_embedding[:length]
        # The mask is no parameter: it stays behind when another model takes the shared backbone to a device.
        x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length].to(x.device))
        x = clip.ln_final(x[torch.arange(x.shape[0], device=x.device), end])
        embeddings: Tensor = x @ clip.text_projection
        return embeddings

    def gradient_checkpointing(self, enabled: bool) -> None:
        """Keep only each block's input for the backward pass and compute the rest again: less memory, more time."""
        self.clip.set_grad_checkpointing(enabled)

    def petl_parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters by stable names, e.g. `image.0.attn.lora.a_k`, `text.3.ln_2.up.weight`."""
        return dict(self._petl())

    def _petl(self) -> Iterator[tuple[str, nn.Parameter]]:
        for tower in self.config.towers if self.config else ():
            for index, block in enumerate(self.blocks(tower)):
                for place in PLACES:
                    module = getattr(block, place)
                    if isinstance(module, PetlAttention | LAdapter | SequentialAdapter):
                        for name, parameter in module.named_parameters():
                            if not name.startswith(("base.", "norm.")):
                                yield f"{tower}.{index}.{place}.{name}", parameter

    @torch.no_grad()
    def _start_prefixes(self, config: PetlConfig) -> None:
        """Start every prefix where the frozen tower's queries score it low, so that attaching changes little.

        The queries come from a probe that needs no data: smooth random pictures and random captions.
        """
        generator = torch.Generator().manual_seed(0)
        height, width = self.backbone.image_size
        coarse = torch.randn(8, 3, 6, 2, generator=generator)
        pixels = nn.functional.interpolate(coarse, (height, width), mode="bicubic") * 0.8
        captions = self._random_captions(generator)
        pixels, captions = pixels.to(device_of(self.clip)), captions.to(device_of(self.clip))
        for tower in config.towers:
            if not config.of(tower).prefix_length:
                continue
            hooks = [
                attention.register_forward_pre_hook(_repel_own_queries)
                for attention in self.blocks(tower).modules()
                if isinstance(attention, PetlAttention) and attention.prefix is not None
            ]
            try:
                self.encode_image(pixels) if tower == "image" else self.encode_text(captions)
            finally:
                for hook in hooks:
                    hook.remove()

    def _random_captions(self, generator: torch.Generator) -> Tensor:
        """Return token ids (8, T) of captions of random words, as long as captions mostly are."""
        length, whole = 24, self.clip.context_length
        if self.backbone.siglip:  # the padding is read as well: there is some in every caption
            words = torch.randint(3, self.clip.vocab_size, (8, min(length, whole // 2) - 1), generator=generator)
            end = self.backbone.tokenize([""])[:, : whole - words.shape[1]]  # what ends a caption and fills it up
            return torch.cat([words, end.expand(8, -1)], dim=1)
        length = min(length, whole)
        captions = torch.randint(1, self.clip.vocab_size - 2, (8, length), generator=generator)
        captions[:, 0], captions[:, -1] = self.clip.vocab_size - 2, self.clip.vocab_size - 1
        known = self.backbone.known_tokens
        if known is not None:  # elsewhere all rows are the same: draw from those that mean something
            captions[:, 1:-1] = known[captions[:, 1:-1] % len(known)]
        return captions


def _repel_own_queries(attention: PetlAttention, inputs: tuple[Tensor, ...]) -> None:
    """Forward pre-hook: this block's prefix is set before it runs, so later blocks see undisturbed inputs.

    Queries are those of all tokens, in the last block of the image tower too.
    """
    base = attention.base
    assert attention.prefix is not None
    q, _, _ = project(inputs[1], inputs[1], base)
    attention.prefix.repel(q.reshape(-1, base.num_heads, base.embed_dim // base.num_heads))
