"""The learning loop: pairs in, PETL weights moved. Knows nothing of files, versions or galleries."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.encoder import normalise
from core.model import UPPerson
from core.petl import Tower
from train.embed import embed_captions, embed_pixels
from train.finetuning.config import LearnConfig, Optimisation
from train.finetuning.pairs import POSITIVE, Pairs
from train.finetuning.sampler import Batch, Replay, Sampler
from train.losses import masked_sdm, negative_only_loss, person_loss
from train.precision import kernels, quick_on_cpu

MIXES = (0.8, 0.6, 0.4, 0.2)
"""Shares of the new weights that are tried in turn while too much is forgotten. The last is returned whatever it
forgets: the gate decides what serves."""

LARGE = 512
"""From this width on, blocks are computed a second time for their gradient: a batch would not fit into memory."""

ANCHORS = 128
"""At most this many captions, and this many pictures, show how far a model drifts."""


class Cancelled(Exception):
    """Raised by a progress callback's owner to stop the loop; nothing has been written."""


def learn(
    model: UPPerson,
    pairs: Pairs,
    pictures: Mapping[str, NDArray[Any]],
    replay: Replay | None,
    config: LearnConfig,
    *,
    frozen: bool = False,
    unmarked: Sequence[str] = (),
    forgotten: Callable[[UPPerson], float] | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> float:
    """Move `model`'s PETL parameters in place so that hits rank above misses; nothing else changes.

    `pictures` maps every picture of `pairs` to pixels uint8 (H, W, 3) at the backbone's size. With `frozen` the image
    tower stays as it is: `pictures` then maps to its unit rows (E,), and only the text tower learns. A model without
    PETL modules learns with all parameters that want a gradient. `unmarked` are ids of pictures without any mark, which
    are held in place where nothing is replayed. `forgotten` says how much worse a model does what it did before.
    `progress` gets the share done in [0, 1] and may raise to stop. Returns the share of new weights in what comes back.

    Raises ValueError when no pair is a hit.
    """
    if pairs.hits == 0:
        raise ValueError("there is no hit among the marks: mark at least one picture as a hit")
    rng = np.random.default_rng(config.optimisation.seed)
    towers: tuple[Tower, ...] = ("text",) if frozen else ("image", "text")
    sampler = Sampler(model, pairs, pictures, replay, config.sampling, rng, frozen=frozen)
    anchors = None
    if sampler.replay is None and config.retention.drift:
        others = [] if frozen else [pictures[image] for image in unmarked]
        anchors = _Anchors(model, pairs.captions, others, config.retention.anchors, rng)

    def loss() -> Tensor:
        found = _loss(model, sampler.next(), config)
        return found if anchors is None else found + config.retention.drift * anchors.moved(model)

    steps = config.optimisation.steps(len(sampler.with_hits), config.sampling.queries)
    run = Descent(model, trainable(model, towers), config.optimisation, steps)
    run.until(steps, loss, progress=progress)
    shares = (config.optimisation.mix, *(share for share in MIXES if share < config.optimisation.mix))
    for share in shares if forgotten else shares[:1]:
        run.finish(share)
        if forgotten is None or forgotten(model) <= config.retention.forget:
            break
        progress(1.0)
    return share


class Descent:
    """AdamW on some parameters of a model, with the running mean of the weights. Ends with `finish`."""

    def __init__(self, model: UPPerson, parameters: list[torch.nn.Parameter], config: Optimisation, steps: int) -> None:
        self.model, self.parameters, self.config, self.steps = model, parameters, config, steps
        self.optimiser = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda step: _rate(step, steps))
        self.averaged, self.began = ([p.detach().clone() for p in parameters] for _ in range(2))
        self.step = 0

    def until(
        self, stop: int, loss: Callable[[], Tensor], *, progress: Callable[[float], None] = lambda _: None
    ) -> None:
        """Take steps until `stop` of them are done."""
        self.model.train()
        self.model.gradient_checkpointing(self.model.clip.visual.conv1.out_channels >= LARGE)
        while self.step < stop:
            with kernels("cpu"):  # around the backward pass too: checkpointing computes forward passes there
                loss().backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimiser.step()
            self.optimiser.zero_grad()
            self.schedule.step()
            decay = min(self.config.average, self.step / (self.step + 1))
            for mean, parameter in zip(self.averaged, self.parameters, strict=True):
                mean.lerp_(parameter.detach(), 1 - decay)
            self.step += 1
            progress(self.step / self.steps)
        self.model.gradient_checkpointing(False)
        self.model.eval()

    def finish(self, share: float) -> None:
        """Leave the running mean, mixed with the weights that the loop began with."""
        with torch.no_grad():
            for mean, start, parameter in zip(self.averaged, self.began, self.parameters, strict=True):
                parameter.copy_(start.lerp(mean, share))


def trainable(model: UPPerson, towers: Collection[Tower]) -> list[torch.nn.Parameter]:
    """The PETL parameters of these towers; without PETL modules all parameters that want a gradient."""
    if model.config is None:
        return [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [p for name, p in model.petl_parameters().items() if name.startswith(tuple(f"{t}." for t in towers))]


def encode(model: UPPerson, pictures: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows of pictures (N, E), which may be rows already, and of captions (Q, E), with gradients."""
    with quick_on_cpu():
        images = model.encode_image(pictures) if pictures.ndim == 4 else pictures
        texts = model.encode_text(tokens)
    return F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)


def distance(rows: Tensor, others: Tensor) -> Tensor:
    """Mean squared distance of rows (N, E)."""
    return (rows - others).square().sum(dim=-1).mean()


def _loss(model: UPPerson, batch: Batch, config: LearnConfig) -> Tensor:
    images, texts = encode(model, batch.pictures, batch.tokens)
    scores = texts @ images.T
    loss = masked_sdm(scores, (batch.relation == POSITIVE).float(), weight=batch.weight)
    if config.optimisation.push:
        loss = loss + config.optimisation.push * negative_only_loss(scores, batch.pushed, batch.threshold)
    if config.optimisation.person:
        loss = loss + config.optimisation.person * person_loss(images[: len(batch.people)], batch.people)
    if batch.teacher is not None and config.retention.distil:
        for rows, unit in zip((texts, images), batch.teacher, strict=True):
            loss = loss + config.retention.distil * distance(rows[-len(unit) :], unit)
    return loss


class _Anchors:
    """Captions and pictures with the unit rows that they have before training."""

    def __init__(
        self,
        model: UPPerson,
        captions: Sequence[str],
        pictures: Sequence[NDArray[np.uint8]],
        count: int,
        rng: np.random.Generator,
    ) -> None:
        self.backbone, self.count, self.rng = model.backbone, count, rng
        self.captions = [captions[index] for index in self._some(len(captions), ANCHORS)]
        self.texts = torch.from_numpy(embed_captions(model, self.captions))
        chosen = [pictures[index] for index in self._some(len(pictures), ANCHORS)]
        self.pixels = np.stack(chosen) if chosen else None
        self.images = None if self.pixels is None else torch.from_numpy(embed_pixels(model, self.pixels))

    def moved(self, model: UPPerson) -> Tensor:
        """How far some of them have moved: the mean squared distance of each kind, added up."""
        some = self._some(len(self.captions), self.count)
        with quick_on_cpu():
            rows = model.encode_text(self.backbone.tokenize([self.captions[index] for index in some]))
        moved = distance(F.normalize(rows.float(), dim=-1), self.texts[some])
        if self.pixels is not None and self.images is not None:
            some = self._some(len(self.pixels), self.count)
            inputs = normalise(torch.from_numpy(self.pixels[some]), mean=self.backbone.mean, std=self.backbone.std)
            with quick_on_cpu():
                rows = model.encode_image(inputs)
            moved = moved + distance(F.normalize(rows.float(), dim=-1), self.images[some])
        return moved

    def _some(self, count: int, most: int) -> NDArray[np.int64]:
        return self.rng.choice(count, min(count, most), replace=False)


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 10)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
