"""What the commands of the studies take, checked without torch: simulated users, policies, rows of the ablation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Behaviour = Literal["truthful", "random", "inverted"]
Policy = Literal["none", "rerank", "adapted", "sdm", "misses", "shuffled", "full", "suggest", "text", "backbone"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
FULL = "full tuning"
ROW_NAMES = (
    "frozen", "S-Prefix", "LoRA", "L-Adapter", "S-Prefix + LoRA", "S-Prefix + L-Adapter", "LoRA + L-Adapter",
    "all three", "image tower alone", "text tower alone", "prefix without gain", "vanilla adapter", FULL,
)  # fmt: skip
"""Rows of the ablation, in the order of its table."""


@dataclass(frozen=True, slots=True)
class UserConfig:
    """`captions` searched, `top` results of each marked; a share `flip` of the verdicts is turned round."""

    behaviour: Behaviour = "truthful"
    captions: int = 100
    top: int = 10
    flip: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.behaviour not in get_args(Behaviour):
            raise ValueError(f"a user is {', '.join(get_args(Behaviour))}, not {self.behaviour!r}")
        if self.captions < 1 or self.top < 1 or not 0 <= self.flip <= 1:
            raise ValueError(f"UserConfig is out of range: {self}")


def named(policies: str) -> list[Policy]:
    """Policies by name, separated by commas; "all" for every one. Raises ValueError on others."""
    if policies == "all":
        return list(POLICIES)
    names = [name.strip() for name in policies.split(",") if name.strip()]
    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        raise ValueError(f"unknown policy {', '.join(unknown)}: choose among {', '.join(POLICIES)}, or all")
    return [policy for policy in POLICIES if policy in names]


def check_rows(rows: tuple[str, ...]) -> tuple[str, ...]:
    """Return the rows of the ablation. Raises ValueError for a name that it does not have, or has twice, or none."""
    if unknown := [name for name in rows if name not in ROW_NAMES]:
        raise ValueError(f"unknown row {', '.join(unknown)}: choose among {', '.join(ROW_NAMES)}")
    if not rows or len(set(rows)) < len(rows):
        raise ValueError(f"name each row once, and at least one; {', '.join(rows) or 'none'} came")
    return rows
