"""The learning loop: pairs in, PETL weights moved. Knows nothing of files, versions or galleries."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from core.backbones import device_of
from core.device import BatchSize, half_type
from core.encoder import normalise
from core.model import UPPerson
from core.petl import Tower
from train.embed import embed_captions, embed_pixels
from train.finetuning.activations import Activations
from train.finetuning.config import LearnConfig, Optimisation
from train.finetuning.controls import LENGTHS, best_length
from train.finetuning.pairs import POSITIVE, Pairs
from train.finetuning.sampler import Batch, Replay, Sampler, ahead
from train.losses import masked_sdm, negative_only_loss, person_loss
from train.memory import give_back_memory
from train.precision import kernels, quick_step

MIXES = (0.8, 0.6, 0.4, 0.2)
"""Shares of the new weights that are tried in turn while too much is forgotten. The last is returned whatever it
forgets: the gate decides what serves."""

MOST_AT_ONCE = 1024
"""Pictures that go through a model at once; no batch has more."""
BLOCKS_AT_ONCE = 256
"""Of a large model on a processor, whose memory has no end that could be noticed in time: pictures times blocks that
are trained. They keep 12 MB each for the backward pass, in fp32."""

ANCHORS = 128
"""At most this many captions, and this many pictures, show how far a model drifts."""
GIVEN_BACK_EVERY = 8
"""Steps after which freed memory goes back to the system, which takes 0.1 s."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """A step that was taken: its number from 1, of how many, and the loss before it."""

    number: int
    steps: int
    loss: float


@dataclass(frozen=True, slots=True)
class Learnt:
    """The share `mix` of new weights in the model that `learn` left, and the share `length` of the steps after which
    these weights were taken."""

    mix: float
    length: float = 1.0


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
    kept: Activations | None = None,
    unmarked: Sequence[str] = (),
    tracks: Mapping[str, str] = MappingProxyType({}),
    forgotten: Callable[[UPPerson], float] | None = None,
    held_out: Callable[[UPPerson], NDArray[np.float64]] | None = None,
    length: float = 1.0,
    progress: Callable[[float], None] = lambda _: None,
    note: Callable[[Step], None] = lambda _: None,
) -> Learnt:
    """Move `model`'s PETL parameters in place so that hits rank above misses; nothing else changes.

    `pictures` maps every picture of `pairs` to pixels uint8 (H, W, 3) at the backbone's size. With `frozen` the image
    tower stays as it is: `pictures` then maps to its unit rows (E,), and only the text tower learns. With `kept` its
    last blocks alone learn, as `start_model` prepared them: `pictures` then maps to places (V,) in it. A model without
    PETL modules learns with all parameters that want a gradient. `unmarked` are ids of pictures without any mark, which
    are held in place where nothing is replayed. `tracks` says of some pictures which track of a camera they are of: two
    of one track show one person. `forgotten` says how much worse a model does what it did before. `held_out` says how
    well a model ranks the pictures of other people (P,): the weights after the best of `LENGTHS` are taken. `length`:
    stop after this share of the steps, with the rates that all of them would have. `progress` gets the share done in
    [0, 1] and may raise to stop, `note` each step.

    Raises ValueError when no pair is a hit.
    """
    if pairs.hits == 0:
        raise ValueError("there is no hit among the marks: mark at least one picture as a hit")
    rng = np.random.default_rng(config.optimisation.seed)
    towers: tuple[Tower, ...] = ("text",) if frozen else ("image", "text")
    sampler = Sampler(model, pairs, pictures, replay, config.sampling, rng, frozen=frozen, kept=kept, tracks=tracks)
    anchors = None
    if sampler.replay is None and config.retention.drift:
        others = [] if frozen else [pictures[image] for image in unmarked]
        anchors = _Anchors(model, pairs.captions, others, config.retention.anchors, rng, kept)

    device, depth = device_of(model.clip), None if kept is None else kept.depth

    def draw() -> tuple[Batch, Held | None]:
        return sampler.next(), None if anchors is None else anchors.draw()

    def loss(drawn: tuple[Batch, Held | None], most: int) -> Tensor:
        batch, held = drawn
        found = _loss(model, batch.to(device), config, most, depth)
        return found if held is None else found + config.retention.drift * _moved(model, held, most, depth)

    steps = config.optimisation.steps(len(sampler.with_hits), config.sampling.queries)
    run = Descent(model, trainable(model, towers), config.optimisation, steps, depth=depth)
    if held_out is None:
        run.until(max(1, round(length * steps)), draw, loss, progress=progress, note=note)
    else:
        measured = []
        for share in LENGTHS:
            run.until(max(1, round(share * steps)), draw, loss, progress=progress, note=note)
            measured.append(run.measure(config.optimisation.mix, held_out))
        place = best_length(np.stack([found for found, _ in measured]))
        length, run.averaged = LENGTHS[place], measured[place][1]
    shares = (config.optimisation.mix, *(share for share in MIXES if share < config.optimisation.mix))
    for share in shares if forgotten else shares[:1]:
        run.finish(share)
        if forgotten is None or forgotten(model) <= config.retention.forget:
            break
        progress(1.0)
    return Learnt(share, length)


class Descent:
    """AdamW on some parameters of a model, with the running mean of the weights. Ends with `finish`."""

    def __init__(
        self,
        model: UPPerson,
        parameters: list[torch.nn.Parameter],
        config: Optimisation,
        steps: int,
        *,
        depth: int | None = None,
    ) -> None:
        self.model, self.parameters, self.config, self.steps = model, parameters, config, steps
        self.optimiser = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda step: _rate(step, steps))
        self.averaged, self.began = ([p.detach().clone() for p in parameters] for _ in range(2))
        self.step = 0
        self.device = device_of(model.clip)
        self.batch = BatchSize(at_once(model, depth), self.device)
        # fp16 has too few small numbers for gradients; bf16 and fp32 have enough, and then this does nothing.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half_type(self.device) == torch.float16)

    def until(
        self,
        stop: int,
        draw: Callable[[], T],
        loss: Callable[[T, int], Tensor],
        *,
        progress: Callable[[float], None] = lambda _: None,
        note: Callable[[Step], None] = lambda _: None,
    ) -> None:
        """Take steps until `stop` of them are done.

        `draw` makes the inputs of a step; on a GPU those of the next are made while this one is computed. `loss` gets
        them and how many pictures may go through the model at once: fewer each time that memory runs out. The loss
        itself is of the whole batch.
        """
        self.model.train()
        for inputs in ahead(draw, stop - self.step, threaded=self.device.type != "cpu"):
            value = self.batch.fit(lambda most, inputs=inputs: self._backward(loss, inputs, most))  # type: ignore[misc]
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.scaler.step(self.optimiser)
            self.scaler.update()
            self.optimiser.zero_grad()
            self.schedule.step()
            decay = min(self.config.average, self.step / (self.step + 1))
            for mean, parameter in zip(self.averaged, self.parameters, strict=True):
                mean.lerp_(parameter.detach(), 1 - decay)
            self.step += 1
            note(Step(self.step, self.steps, float(value)))
            progress(self.step / self.steps)
            if self.step % GIVEN_BACK_EVERY == 0:
                give_back_memory()
        self.model.eval()

    def _backward(self, loss: Callable[[T, int], Tensor], inputs: T, most: int) -> Tensor:
        self.optimiser.zero_grad()  # of an attempt that ran out of memory
        with kernels(self.device.type):  # around the backward pass too, where parts are computed once more
            value = loss(inputs, most)
            self.scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        return value.detach()

    def measure(self, share: float, judge: Callable[[UPPerson], T]) -> tuple[T, list[Tensor]]:
        """What `judge` says of the model as `finish(share)` would leave it now, and the running mean of its weights.
        Training can go on."""
        now = [parameter.detach().clone() for parameter in self.parameters]
        self.finish(share)
        found = judge(self.model)
        with torch.no_grad():
            for parameter, value in zip(self.parameters, now, strict=True):
                parameter.copy_(value)
        return found, [mean.clone() for mean in self.averaged]

    def finish(self, share: float) -> None:
        """Leave the running mean, mixed with the weights that the loop began with."""
        with torch.no_grad():
            for mean, start, parameter in zip(self.averaged, self.began, self.parameters, strict=True):
                parameter.copy_(start.lerp(mean, share))


def trainable(model: UPPerson, towers: Collection[Tower]) -> list[torch.nn.Parameter]:
    """The PETL parameters of these towers, as far as they want a gradient; without PETL modules all that do."""
    if model.config is None:
        return [parameter for parameter in model.parameters() if parameter.requires_grad]
    named, ours = model.petl_parameters().items(), tuple(f"{tower}." for tower in towers)
    return [parameter for name, parameter in named if name.startswith(ours) and parameter.requires_grad]


def at_once(model: UPPerson, depth: int | None = None) -> int:
    """How many pictures go through a model at once in training, where `depth` blocks of it learn (None: all)."""
    if not model.backbone.large or device_of(model.clip).type != "cpu":
        return MOST_AT_ONCE
    return max(1, BLOCKS_AT_ONCE // (depth or len(model.blocks("image"))))


def encode(
    model: UPPerson, pictures: Tensor, tokens: Tensor, most: int = MOST_AT_ONCE, depth: int | None = None
) -> tuple[Tensor, Tensor]:
    """Unit rows of pictures (N, E), which may be rows already, and of captions (Q, E), with gradients.

    More than `most` pictures or captions are encoded in parts, each of which the backward pass computes once more: the
    same gradient in less memory. With `depth`, pictures (N, T, D) are what the last `depth` blocks begin with.
    """
    device = device_of(model.clip)
    with quick_step(device):
        if pictures.ndim == 2:
            images = pictures.to(device)
        elif pictures.ndim == 3:
            assert depth is not None
            images = _in_parts(lambda part: model.encode_image_from(part, depth), pictures.to(device), most)
        else:
            images = _in_parts(model.encode_image, pictures.to(device), most)
        texts = _in_parts(model.encode_text, tokens.to(device), most)
    return F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)


def _in_parts(encode: Callable[[Tensor], Tensor], inputs: Tensor, most: int) -> Tensor:
    if len(inputs) <= most:
        return encode(inputs)
    return torch.cat([checkpoint(encode, part, use_reentrant=False) for part in torch.split(inputs, most)])


def distance(rows: Tensor, others: Tensor) -> Tensor:
    """Mean squared distance of rows (N, E)."""
    return (rows - others).square().sum(dim=-1).mean()


def _loss(
    model: UPPerson, batch: Batch, config: LearnConfig, most: int = MOST_AT_ONCE, depth: int | None = None
) -> Tensor:
    images, texts = encode(model, batch.pictures, batch.tokens, most, depth)
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


@dataclass(frozen=True, slots=True)
class Held:
    """Captions (A, T) and pictures (B, 3, H, W) with the unit rows (A, E) and (B, E) that they had before training."""

    tokens: Tensor
    texts: Tensor
    pictures: Tensor | None = None
    images: Tensor | None = None


def _moved(model: UPPerson, held: Held, most: int, depth: int | None = None) -> Tensor:
    """How far they have moved: the mean squared distance of each kind, added up."""
    pictures = torch.empty(0, held.texts.shape[1]) if held.pictures is None else held.pictures
    images, texts = encode(model, pictures, held.tokens, most, depth)
    moved = distance(texts, held.texts.to(texts.device))
    return moved if held.images is None else moved + distance(images, held.images.to(images.device))


class _Anchors:
    """Captions and pictures with the unit rows that they have before training."""

    def __init__(
        self,
        model: UPPerson,
        captions: Sequence[str],
        pictures: Sequence[NDArray[np.uint8]],
        count: int,
        rng: np.random.Generator,
        kept: Activations | None = None,
    ) -> None:
        self.backbone, self.count, self.rng, self.kept = model.backbone, count, rng, kept
        self.captions = [captions[index] for index in self._some(len(captions), ANCHORS)]
        self.texts = torch.from_numpy(embed_captions(model, self.captions))
        chosen = [pictures[index] for index in self._some(len(pictures), ANCHORS)]
        self.pixels = np.stack(chosen) if chosen else None
        self.images = None
        if self.pixels is not None:
            rows = embed_pixels(model, self.pixels) if kept is None else kept.rows(model, self.pixels[:, 0])
            self.images = torch.from_numpy(rows)

    def draw(self) -> Held:
        """Some of them."""
        some = self._some(len(self.captions), self.count)
        tokens = self.backbone.tokenize([self.captions[index] for index in some])
        if self.pixels is None or self.images is None:
            return Held(tokens, self.texts[some])
        shown = self._some(len(self.pixels), self.count)
        if self.kept is None:
            inputs = normalise(torch.from_numpy(self.pixels[shown]), mean=self.backbone.mean, std=self.backbone.std)
        else:
            inputs = self.kept.tokens(self.pixels[shown][:, 0])
        return Held(tokens, self.texts[some], inputs, self.images[shown])

    def _some(self, count: int, most: int) -> NDArray[np.int64]:
        return self.rng.choice(count, min(count, most), replace=False)


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 10)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
