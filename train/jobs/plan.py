"""How long a round or an adaptation will take on this machine, and how deep a round may tune within its budget.

A few steps on random activations are timed; from their speed and the number of steps follows the time of the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.backbones import device_of
from core.encoder import normalise
from core.model import UPPerson
from train.embed import Embedding
from train.finetuning.activations import ToKeep
from train.finetuning.adaptation import Adaptation
from train.finetuning.config import LearnConfig, Sampling, format_duration
from train.finetuning.gate import GateConfig
from train.finetuning.loop import at_once, encode, trainable
from train.finetuning.pairs import Pairs, halves
from train.finetuning.round import CONTROLLED
from train.finetuning.start import held_back, start_model
from train.precision import kernels

DEPTHS = (6, 4, 3, 2, 1)
"""Of the last blocks of each tower, where all would take too long."""
_PICTURES, _CAPTIONS = 8, 16
_CALLS, _TRYING = 8, 2.0
"""At most so many calls are timed, and none begins after so many seconds."""
_MEASURED = 2
"""Blocks of each tower that learn in the longer of the measured steps."""
_AGAIN = 1.4
"""How much longer a step takes whose forward pass is computed a second time."""
_MIXES = 2
"""Times that forgetting is measured after each training, as a rule."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds: `embed` a picture without gradients; of a training step `last`, `block` and `text`: a picture in the
    last block, in each further one, and a caption."""

    embed: float
    last: float
    block: float
    text: float


@dataclass(frozen=True, slots=True)
class Work:
    """What a round has to do: `steps` of all trainings together with so many `pictures` and `captions` each; pictures
    that pass the lower blocks once where those are kept; pictures that are embedded again by each model, and by the
    candidate alone; how many trainings there are, and the blocks of the image tower. Where more than `at_once` pictures
    times tuned blocks are in a step, they go through in parts that are computed once more."""

    steps: int
    pictures: float
    captions: float
    kept: int
    ranked: int
    judged: int
    trainings: int
    blocks: int
    at_once: float = float("inf")

    def seconds(self, speed: Speed, depth: int | None) -> float:
        """Estimated seconds of a round that tunes the last `depth` blocks, or all."""
        tuned = self.blocks if depth is None else depth
        share = tuned / self.blocks
        # Of a caption, all blocks are computed, and the backward pass, twice as long, goes through those that learn.
        text = speed.text * (1 + 2 * share) / (1 + 2 * min(_MEASURED, self.blocks) / self.blocks)
        step = self.pictures * (speed.last + speed.block * (tuned - 1)) + self.captions * text
        step *= 1 if self.pictures * tuned <= self.at_once else _AGAIN
        embedded = (1 + self.trainings) * self.ranked + 2 * self.judged
        return self.steps * step + speed.embed * (embedded * share + (1 - share) * self.kept)

    def seconds_of_text(self, speed: Speed) -> float:
        """Estimated seconds of a round in mode "text", which embeds each picture once; `kept` has the altered ones
        too."""
        return self.steps * self.captions * speed.text + speed.embed * self.kept


@dataclass(frozen=True, slots=True)
class Plan:
    """How many of the last blocks of each tower are tuned (None: all), estimated seconds, why, in words, and the speed
    that it follows from."""

    depth: int | None
    seconds: float
    reason: str
    speed: Speed

    def to_json(self) -> dict[str, Any]:
        """Return the plan as it is stored with the job and the version."""
        return {"depth": self.depth, "seconds": round(self.seconds, 1), "reason": self.reason}


def check_minutes(minutes: float) -> float:
    """Return the budget. Raises ValueError unless it is more than 0."""
    if not 0 < minutes < float("inf"):
        raise ValueError(
            f"UPPERSON_TRAIN_MINUTES is {minutes:g}: a round takes time, so give it more than 0 minutes (30 by default)"
        )
    return minutes


def choose_depth(work: Work, speed: Speed, minutes: float, device: str) -> Plan:
    """The deepest tuning whose estimate is within the budget; the last block alone where none is."""
    budget = 60 * check_minutes(minutes)
    every = work.seconds(speed, None)
    if every <= budget:
        return Plan(None, every, f"All {work.blocks} blocks of each tower are tuned.", speed)
    depths = [depth for depth in DEPTHS if depth < work.blocks]
    depth = next((depth for depth in depths if work.seconds(speed, depth) <= budget), 1)
    seconds = work.seconds(speed, depth)
    blocks = f"the last {depth} of {work.blocks} blocks" if depth > 1 else f"the last of {work.blocks} blocks"
    reason = (
        f"Only {blocks} of each tower {'are' if depth > 1 else 'is'} tuned: all would take about "
        f"{format_duration(every)} on {device}, and UPPERSON_TRAIN_MINUTES is {minutes:g}."
    )
    if seconds > budget:
        reason += " Even that takes longer; UPPERSON_TRAIN_MODE=text is quicker still."
    return Plan(depth, seconds, reason, speed)


def estimate(plan: Plan, embedding: float) -> str:
    """The sentence that is shown before a training; `embedding`: seconds to embed the gallery if it is promoted."""
    after = f", and {format_duration(embedding)} to embed the gallery if it is promoted" if embedding >= 1 else ""
    return f"About {format_duration(plan.seconds)} on this machine{after}. {plan.reason}"


def work_of(pairs: Pairs, given: ToKeep, learning: LearnConfig, gate: GateConfig, served: UPPerson) -> Work:
    """Count what a round that starts from `served` has to do."""
    blocks = len(served.blocks("image"))
    sampling = learning.sampling
    folds = [training for training, _ in halves(pairs, seed=gate.seed)]
    taught = [fold for number, fold in enumerate(folds) for _ in range(1 + (number < CONTROLLED))]
    trained = [(fold, learning.of_fold().optimisation) for fold in taught] + [(pairs, learning.optimisation)]
    known, watched = held_back(given.known)
    replayed = 0 if known is None else min(sampling.replay, len(known.pids))
    steps, pictures, captions = 0, 0.0, 0.0
    for part, optimisation in trained:
        hit = np.asarray((part.judged > 0).any(axis=1))
        count = optimisation.steps(int(hit.sum()), sampling.queries)
        queries = min(sampling.queries, int(hit.sum()))
        steps += count
        pictures += count * (replayed + queries * _shown(part, hit, sampling))
        captions += count * (replayed + queries + min(sampling.negative_only, int((~hit).sum())))
    ranked = len(given.shown) + (0 if watched is None else _MIXES * len(watched.pids))
    judged = 0 if given.base is None else len(given.base.pids)
    return Work(
        steps,
        pictures / steps,
        captions / steps,
        given.passes(),
        ranked,
        judged,
        len(trained),
        blocks,
        at_once(served, 1),
    )


def work_of_adaptation(given: Adaptation) -> Work:
    """Count what an adaptation has to do: teach, and measure what serves and what came of it."""
    config, blocks = given.config, len(given.served.blocks("image"))
    batch, steps = min(config.batch, len(given.known.pids)), config.optimisation.max_steps
    ranked, judged = len(given.watched.pids) + 2 * len(given.gallery), len(given.base.pids) + len(given.known.pids) // 2
    return Work(steps, batch, batch, 0, ranked, judged, 1, blocks, at_once(given.served, 1))


def measure(served: UPPerson, pixels: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> Speed:
    """Time a few passes of `served`, and training steps of a copy of it on one block and on two."""
    backbone, device = served.backbone, device_of(served.clip)
    some = [pixels[number % len(pixels)] for number in range(_PICTURES)]
    inputs = normalise(torch.from_numpy(np.stack(some)), mean=backbone.mean, std=backbone.std)
    tokens = backbone.tokenize([captions[number % len(captions)] for number in range(_CAPTIONS)])
    passes = Embedding(served)
    embed = _timed(lambda: passes.rows(passes.model.encode_image, inputs)) / _PICTURES
    deepest = min(_MEASURED, len(served.blocks("image")))
    model = start_model(served, depth=deepest)
    model.train()
    parameters = trainable(model, ("image", "text"))

    def step(depth: int, pictures: int) -> None:
        with torch.no_grad():
            begin = torch.zeros(pictures, *backbone.image_tokens)
        with kernels(device.type):
            rows = encode(model, begin, tokens, depth=depth)
            (rows[0].sum() + rows[1].sum()).backward()  # type: ignore[no-untyped-call]
        for parameter in parameters:
            parameter.grad = None
        float(rows[1].detach().sum())  # waits for the device

    none, one, two = (_timed(lambda d=d, n=n: step(d, n)) for d, n in ((1, 1), (1, _PICTURES), (deepest, _PICTURES)))  # type: ignore[misc]
    last = max(1e-9, (one - none) / (_PICTURES - 1))
    block = max(1e-9, (two - one) / _PICTURES) if deepest > 1 else last
    return Speed(embed, last, block, max(1e-9, (none - last) / _CAPTIONS))


def _timed(call: Callable[[], object]) -> float:
    """Seconds of the quickest of a few calls, after one that warms up: other programs only ever make a call longer."""
    call()
    found: list[float] = []
    while len(found) < 2 or (len(found) < _CALLS and sum(found) < _TRYING):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def _shown(pairs: Pairs, hit: NDArray[np.bool_], sampling: Sampling) -> float:
    """Mean number of marked pictures that a caption with a hit brings into a step."""
    judged = pairs.judged[hit]
    taken = np.minimum((judged > 0).sum(axis=1), sampling.hits) + np.minimum((judged < 0).sum(axis=1), sampling.misses)
    return float(taken.mean()) if len(judged) else 0.0
