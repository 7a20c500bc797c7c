"""Which weights a round of fine-tuning trains: all PETL weights, or the text tower's alone. Pure.

With the text tower's alone every stored image vector stays right: promotion is instant, whatever the gallery's size.
With all of them the search learns more, and every picture is embedded anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Mode = Literal["full", "text"]
WantedMode = Literal["auto", "full", "text"]

PATIENCE = 3600.0
"""Seconds that embedding the gallery anew may take; where it takes longer, "auto" trains the text tower alone."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The mode of a round, and why, in words."""

    mode: Mode
    reason: str


def choose_mode(wanted: WantedMode, pictures: int, per_second: float, device: str) -> Choice:
    """The mode for a gallery of so many `pictures` of which `device` embeds so many a second; by hand unless "auto"."""
    if wanted not in get_args(WantedMode):
        raise ValueError(f"a mode is {', '.join(get_args(WantedMode))}, not {wanted!r}")
    if wanted == "full":
        return Choice("full", "All PETL weights were trained, as asked.")
    if wanted == "text":
        return Choice("text", "Only the text tower was trained, as asked: no picture has to be embedded anew.")
    seconds = pictures / per_second
    cost = f"embedding {pictures:,} pictures anew takes about {_told(seconds)} on {device}"
    if seconds <= PATIENCE:
        return Choice("full", f"All PETL weights were trained: {cost}.")
    return Choice("text", f"Only the text tower was trained: {cost}, more than {_told(PATIENCE)}.")


def _told(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.0f} hours"
