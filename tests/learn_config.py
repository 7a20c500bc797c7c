"""Settings of a round for tests, changed by flat names."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from train.finetuning.config import LearnConfig


def altered(config: LearnConfig, **changes: Any) -> LearnConfig:
    """`config` with these settings changed, whichever of its parts they are in."""
    found, left = {}, dict(changes)
    for part in fields(LearnConfig):
        settings = getattr(config, part.name)
        theirs = {one.name: left.pop(one.name) for one in fields(settings) if one.name in left}
        found[part.name] = replace(settings, **theirs)
    assert not left, f"unknown settings {sorted(left)}"
    return LearnConfig(**found)


def learning(steps: int, **changes: Any) -> LearnConfig:
    """The default settings with this number of steps and these changes."""
    return altered(LearnConfig(), min_steps=steps, max_steps=steps, **changes)
