"""SigLIP as open_clip builds it: a timm vision transformer with attention pooling, and a text tower without a mask.

Source: Tschannen et al., "SigLIP 2", arXiv 2502.14786. The PETL modules go into its blocks as into CLIP's: timm keeps
W_q, W_k and W_v in one matrix in the order of `nn.MultiheadAttention`, so open_clip's residual block computes the same
from the same tensors. The pooling head, itself an attention with a learnt query, stays frozen and has no PETL modules.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import open_clip
import torch
from open_clip.model import CustomTextCLIP
from open_clip.transformer import ResidualAttentionBlock
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from core.core_errors import BackboneError


def is_siglip(clip: Any) -> bool:
    """Return whether the model has SigLIP's towers, not CLIP's."""
    return isinstance(clip, CustomTextCLIP)


def residual_blocks(clip: Any, tower: str) -> nn.ModuleList | nn.Sequential:
    """Return the residual blocks of the `"image"` or `"text"` tower of a CLIP or SigLIP, in order."""
    if is_siglip(clip):
        blocks = clip.visual.trunk.blocks if tower == "image" else clip.text.transformer.resblocks
    else:
        blocks = (clip.visual if tower == "image" else clip).transformer.resblocks
    assert isinstance(blocks, nn.ModuleList | nn.Sequential)
    return blocks


def use_residual_blocks(clip: Any, name: str) -> None:
    """Put open_clip's residual blocks in the place of timm's, over the same tensors, for PETL modules to be attached.

    Raises BackboneError where a block does more than open_clip's.
    """
    blocks = clip.visual.trunk.blocks
    for index, block in enumerate(blocks):
        if not _is_plain(block):
            raise BackboneError(
                f"block {index} of the image tower of {name!r} is not timm's plain pre-norm block, which the PETL "
                f"modules are made for: {type(block).__name__} with {type(block.attn).__name__}"
            )
        blocks[index] = _residual_block(block)


def _is_plain(block: Any) -> bool:
    """Return whether the block is attention with biases and an MLP, each after its norm, and nothing beside."""
    if type(block) is not Block or type(block.attn) is not Attention:
        return False
    attention = block.attn
    beside = (
        attention.q_norm,
        attention.k_norm,
        getattr(attention, "norm", nn.Identity()),
        block.drop_path1,
        block.drop_path2,
    )
    gate = getattr(attention, "gate", None)
    return attention.qkv.bias is not None and gate is None and all(type(each) is nn.Identity for each in beside)


def _residual_block(block: Any) -> Any:
    """Return open_clip's block with the tensors of timm's."""
    with torch.device("meta"):
        same = ResidualAttentionBlock(block.attn.qkv.in_features, block.attn.num_heads)
    same.attn.in_proj_weight, same.attn.in_proj_bias = block.attn.qkv.weight, block.attn.qkv.bias
    same.attn.out_proj.weight, same.attn.out_proj.bias = block.attn.proj.weight, block.attn.proj.bias
    same.ln_1, same.ls_1 = block.norm1, block.ls1
    same.ln_2, same.ls_2, same.mlp = block.norm2, block.ls2, block.mlp
    return same.train(block.training)


def siglip_tokens(visual: Any, pixels: Tensor) -> Tensor:
    """Return what the first block of the image tower begins with, (B, T, D), for pixels (B, 3, H, W)."""
    trunk = visual.trunk
    tokens: Tensor = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(pixels))))
    return tokens


def pooled(visual: Any, tokens: Tensor) -> Tensor:
    """Return the embeddings (B, E) of what the last block ends with, (B, T, D)."""
    embeddings: Tensor = visual.head(visual.trunk.forward_head(visual.trunk.norm(tokens)))
    return embeddings


def siglip_tokenizer(name: str, architecture: str) -> Callable[[list[str]], Tensor]:
    """Return open_clip's tokenizer of a SigLIP, which may be called from several threads. Raises BackboneError.

    The package transformers reads it from the Hub. It is no requirement: only SigLIP needs it, and open_clip imports it
    at every start where it is installed.
    """
    try:
        tokenizer = open_clip.get_tokenizer(architecture)
    except ImportError as error:
        raise BackboneError(
            f"backbone {name!r} reads captions with a tokenizer of the package transformers, which is not installed: "
            "pip install 'transformers>=5,<6'"
        ) from error
    except Exception as error:
        raise BackboneError(
            f"the tokenizer of backbone {name!r} could not be read from the Hugging Face Hub or its cache "
            f"({type(error).__name__}). Start once with a network connection so that it is cached, or put it into the "
            "Hub cache (HF_HOME) by hand"
        ) from error
    lock = Lock()  # the padding is a state of the tokenizer

    def tokenize(captions: list[str]) -> Tensor:
        with lock:
            tokens: Tensor = tokenizer(captions)
            return tokens

    return tokenize
