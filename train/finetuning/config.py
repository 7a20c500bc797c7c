"""Settings of a round: which weights it trains, and how they learn from marks.

In mode "text" only the text tower's weights are trained, so every stored image vector stays right and promotion is
instant, whatever the gallery's size. In mode "full" the search learns more, and every picture is embedded again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

Mode = Literal["full", "text"]
WantedMode = Literal["auto", "full", "text"]

PATIENCE = 3600.0
"""Seconds that embedding the gallery again may take; where it takes longer, "auto" trains the text tower alone."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a step takes.

    `queries` captions with a hit, each with up to `hits` of its hits and `misses` of its explicit misses;
    `negative_only` captions that have misses but no hit; `replay` pairs that the served version knew before the marks.
    Replayed pictures stay as they are: the gallery's style is learnt by adaptation, and in a round it would be learnt
    from shuffled marks too. A share `occluded` of the marked pictures has a strip of another gallery picture over one
    edge. A share `hidden_words` of the words is left out. `relearn` is the chance that a caption which the served
    version has learnt from takes part in a pass.
    `safe_negatives`: pictures hit for another person only count as negatives.
    """

    queries: int = 48
    hits: int = 3
    misses: int = 2
    negative_only: int = 8
    replay: int = 104
    occluded: float = 0.5
    hidden_words: float = 0.15
    relearn: float = 0.5
    safe_negatives: bool = True

    def __post_init__(self) -> None:
        _at_least(self, 1, "queries", "hits")
        _at_least(self, 0, "misses", "negative_only", "replay")
        _share(self, "occluded", "hidden_words", "relearn")
        if self.hidden_words == 1:
            raise ValueError("Sampling.hidden_words is below 1: a caption without words teaches nothing")


@dataclass(frozen=True, slots=True)
class Optimisation:
    """How weights move.

    `passes` through the captions, between `min_steps` and `max_steps` steps; folds and their controls, which only have
    to show that the marks teach, make `fold_passes`. `lr` peaks after a tenth of the steps and falls to 0 as a cosine.
    `average` is the decay of the running mean of the weights. The loop returns that mean mixed with the weights it
    began with (WiSE-FT, arXiv 2109.01903); `mix` is the mean's share. `person` weighs the image-image loss, `push` the
    loss of captions with misses alone (`train.losses`).
    """

    lr: float = 2e-3
    weight_decay: float = 4e-5
    passes: float = 80.0
    fold_passes: float = 40.0
    min_steps: int = 40
    max_steps: int = 80
    average: float = 0.95
    mix: float = 0.8
    person: float = 0.5
    push: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least(self, 1, "max_steps")
        _at_least(self, 0, "passes", "fold_passes", "min_steps", "weight_decay", "person", "push")
        if not 0 < self.lr < 1 or not 0 <= self.average < 1:
            raise ValueError(f"Optimisation needs 0 < lr < 1 and 0 <= average < 1, not {self.lr} and {self.average}")
        if not 0 < self.mix <= 1:
            raise ValueError(f"Optimisation.mix is a share in (0, 1], not {self.mix}")

    def steps(self, captions: int, queries: int) -> int:
        """Number of steps for so many captions with a hit, `queries` of them in a step."""
        return min(self.max_steps, max(self.min_steps, math.ceil(self.passes * captions / max(1, queries))))


@dataclass(frozen=True, slots=True)
class Retention:
    """What must not be forgotten.

    `distil` weighs the mean of |E(a(x)) - E_served(x)|^2 over the replayed pairs x, where a(x) is x as the batch has
    it: augmented, with words left out. Without replayed pairs, `drift` weighs
    |E(x) - E_served(x)|^2 over `anchors` of the captions and as many unmarked gallery pictures. `mix` is reduced while
    more is forgotten than `forget`, a fraction of the softmax that falls on other people (`round.confusion`).
    """

    distil: float = 100.0
    drift: float = 3.0
    anchors: int = 16
    forget: float = 0.02

    def __post_init__(self) -> None:
        _at_least(self, 0, "distil", "drift", "forget")
        _at_least(self, 1, "anchors")


@dataclass(frozen=True, slots=True)
class LearnConfig:
    """How PETL weights learn from marks."""

    sampling: Sampling = field(default_factory=Sampling)
    optimisation: Optimisation = field(default_factory=Optimisation)
    retention: Retention = field(default_factory=Retention)

    def of_fold(self) -> LearnConfig:
        """The settings of a fold and of its control."""
        return replace(self, optimisation=replace(self.optimisation, passes=self.optimisation.fold_passes))


def _at_least(config: object, bound: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not bound <= value < math.inf:
            raise ValueError(f"{type(config).__name__}.{name} is at least {bound}, not {value}")


def _share(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{type(config).__name__}.{name} is a share in [0, 1], not {value}")


LEARNING: Mapping[Mode, LearnConfig] = {
    "full": LearnConfig(),
    "text": LearnConfig(Sampling(occluded=0.0), Optimisation(person=0.0), Retention(distil=0.0)),
}
"""The settings of each mode, chosen on validation people of the street."""


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
        return Choice("text", "Only the text tower was trained, as asked: no picture has to be embedded again.")
    seconds = pictures / per_second
    cost = f"embedding {pictures:,} pictures again takes about {format_duration(seconds)} on {device}"
    if seconds <= PATIENCE:
        return Choice("full", f"All PETL weights were trained: {cost}.")
    return Choice("text", f"Only the text tower was trained: {cost}, more than {format_duration(PATIENCE)}.")


def format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.0f} hours"
