"""How many parameters each PETL method adds to each tower: counted on modules without storage, no weights needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from core.backbones import at_person_size, build_clip, clip_config
from core.petl import TOWERS, PetlConfig, Tower, attach
from core.towers.siglip import is_siglip, residual_blocks, use_residual_blocks


@dataclass(frozen=True, slots=True)
class Row:
    """Parameters of one method, or of all, by tower; `share` is of the whole model with them, in [0, 1]."""

    component: str
    image: int
    text: int
    both: int
    share: float


def count(backbone: str, config: PetlConfig) -> list[Row]:
    """Rows for prefix, LoRA, adapter, all that is trained, the frozen backbone, and the whole.

    As in the paper CLIP's temperature is not counted, nor is SigLIP's bias. Raises BackboneError, ValueError.
    """
    counts = dict.fromkeys(((part, tower) for part in ("prefix", "LoRA", "adapter") for tower in TOWERS), 0)
    with torch.device("meta"):
        clip = at_person_size(build_clip(clip_config(backbone)))
        clip.requires_grad_(False)
        frozen: dict[Tower, int] = {"image": sum(p.numel() for p in clip.visual.parameters())}
        counted = (p for name, p in clip.named_parameters() if not name.startswith("logit_"))
        frozen["text"] = sum(p.numel() for p in counted) - frozen["image"]
        if is_siglip(clip):
            use_residual_blocks(clip, backbone)
        for tower in config.towers:
            blocks = residual_blocks(clip, tower)
            config.of(tower).check_depth(tower, len(blocks))
            for index, block in enumerate(blocks):
                attach(block, config.of(tower), index)
                for name, parameter in block.named_parameters():
                    if parameter.requires_grad:
                        part = "prefix" if ".prefix." in name else "LoRA" if ".lora." in name else "adapter"
                        counts[part, tower] += parameter.numel()
    trained = {tower: sum(counts[part, tower] for part in ("prefix", "LoRA", "adapter")) for tower in TOWERS}
    whole = sum(trained.values()) + sum(frozen.values())

    def row(name: str, by: dict[Tower, int]) -> Row:
        both = by["image"] + by["text"]
        return Row(name, by["image"], by["text"], both, both / whole)

    parts = [row(part, {tower: counts[part, tower] for tower in TOWERS}) for part in ("prefix", "LoRA", "adapter")]
    all_of_it = {tower: trained[tower] + frozen[tower] for tower in TOWERS}
    return [*parts, row("trained", trained), row("frozen", frozen), row("whole", all_of_it)]


def table(rows: list[Row]) -> Iterator[str]:
    """Yield the rows as lines of text."""
    yield f"{'':10}{'image':>14}{'text':>14}{'both':>14}{'of the whole':>14}"
    for row in rows:
        yield f"{row.component:10}{row.image:>14,}{row.text:>14,}{row.both:>14,}{row.share:>14.3%}"
