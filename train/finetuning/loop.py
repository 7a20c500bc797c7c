"""The learning loop: pairs in, PETL weights moved. Knows nothing of files, versions or galleries."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.encoder import normalise
from core.model import UPPerson
from core.petl import Tower
from train.augment import augment_pixels, drop_words
from train.captioned_images import CaptionedPictures
from train.embed import embed_captions, embed_pixels
from train.finetuning.pairs import NEGATIVE, POSITIVE, SAFE, UNKNOWN, Pairs
from train.losses import masked_sdm, misses_alone
from train.precision import kernels, quick_on_cpu

MIXES = (0.8, 0.6, 0.4, 0.2)
"""Shares of what was learnt that are tried in turn while too much is forgotten. The last comes back whatever it
forgets: what may serve is the gate's to say."""

LARGE = 512
"""From this width on a model computes each block once more for its gradient: a batch's pictures would not fit into
memory otherwise."""

ANCHORS = 128
"""At most so many captions, and so many pictures, are looked at to see how far a model drifts."""


@dataclass(frozen=True, slots=True)
class LearnConfig:
    """How PETL weights are moved by pairs.

    A step takes `queries` captions with a hit, one hit and up to `misses` explicit misses of each, `hitless` captions
    with misses alone, and `replay` base pairs that the model knew before. The loss is masked SDM and `push` times what
    misses alone cost (`train.losses`). `passes` times through the captions, between `min_steps` and `max_steps` steps.
    `lr` peaks after a tenth of the steps and falls to 0 as a cosine; `average` is the decay of the running mean of the
    weights. Pictures are augmented, and a share `hidden_words` of the words left out. A share `look` of the replayed
    pairs, at most half, wears the look of the gallery (`train.finetuning.adaptation`).

    The loop returns the running mean mixed with the weights it began with (WiSE-FT, arXiv 2109.01903). `mix` is the
    mean's share; it becomes less, one of `MIXES` after the other, while more is forgotten than `forget`, a fraction,
    where that can be told.

    What was known shall stay near where it was: `hold` weighs the mean of |E(a(x)) - E_old(x)|^2 over the replayed
    pairs, where a(x) is x as the batch has it: augmented, with words left out, in the look of the gallery. Where
    nothing is replayed, `drift` weighs |E(x) - E_old(x)|^2 over `anchors` of the captions and as many gallery pictures
    that nobody marked, where there are any.
    """

    lr: float = 2.5e-3
    weight_decay: float = 4e-5
    queries: int = 24
    misses: int = 2
    hitless: int = 8
    push: float = 0.2
    replay: int = 104
    passes: float = 15.0
    min_steps: int = 40
    max_steps: int = 100
    average: float = 0.95
    safe_negatives: bool = True
    hidden_words: float = 0.15
    look: float = 0.33
    mix: float = 0.8
    forget: float = 0.02
    hold: float = 300.0
    drift: float = 3.0
    anchors: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        least = dict.fromkeys(("queries", "max_steps", "anchors"), 1)
        least |= dict.fromkeys(("misses", "hitless", "push", "replay", "passes", "min_steps"), 0)
        least |= dict.fromkeys(("weight_decay", "forget", "hold", "drift"), 0)
        for name, bound in least.items():
            if not bound <= getattr(self, name) < math.inf:
                raise ValueError(f"LearnConfig.{name} is at least {bound}, not {getattr(self, name)}")
        if not 0 < self.lr < 1 or not 0 <= self.average < 1:
            raise ValueError(f"LearnConfig needs 0 < lr < 1 and 0 <= average < 1, not {self.lr} and {self.average}")
        if not 0 <= self.hidden_words < 1:
            raise ValueError(f"LearnConfig.hidden_words is a share in [0, 1), not {self.hidden_words}")
        if not 0 < self.mix <= 1:
            raise ValueError(f"LearnConfig.mix is a share in (0, 1], not {self.mix}")
        if not 0 <= self.look <= 0.5:
            raise ValueError(f"LearnConfig.look is a share in [0, 0.5], not {self.look}")

    def steps(self, pairs: Pairs) -> int:
        """Number of steps for these pairs."""
        captions = int((pairs.judged > 0).any(axis=1).sum())
        return min(self.max_steps, max(self.min_steps, math.ceil(self.passes * captions / self.queries)))


@dataclass(frozen=True, slots=True)
class Memory:
    """Unit rows of the version that training starts from: of pictures (E,) by id, and of the replayed pictures (M, E),
    None where nothing is replayed."""

    pictures: Mapping[str, NDArray[np.float32]]
    replayed: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Unit rows (M, E) that the replayed captions and pictures are held near."""

    captions: NDArray[np.float32]
    pictures: NDArray[np.float32]


class Cancelled(Exception):
    """Raised by a progress callback's owner to stop the loop; nothing has been written."""


def learn(
    model: UPPerson,
    pairs: Pairs,
    pictures: Mapping[str, NDArray[np.uint8]],
    replay: CaptionedPictures | None,
    config: LearnConfig,
    *,
    frozen: Memory | None = None,
    held: Held | None = None,
    unmarked: Sequence[str] = (),
    forgotten: Callable[[UPPerson], float] | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> float:
    """Move `model`'s PETL parameters so that hits rank above misses; only they change, in place.

    `pictures` gives the pixels uint8 (H, W, 3) of every picture in `pairs` at the backbone's size. With `frozen` the
    image tower stays as it is: its rows are taken from there, and only the text tower learns. A model without PETL
    modules learns with all of its parameters that want a gradient. `held` says where the replayed pairs were; without
    it nothing holds them. `unmarked` are pictures, by id, that no mark at all is on: they are held where nothing is
    replayed. `forgotten` says how much worse a model does what it did before, and must not look at what a gate judges
    by. `progress` is told the share done in [0, 1] and may raise to stop. Returns the share of what was learnt in what
    comes back. Raises ValueError when no pair is a hit.
    """
    if pairs.hits == 0:
        raise ValueError("there is no hit among the marks: mark at least one picture as a hit")
    rng = np.random.default_rng(config.seed)
    towers: tuple[Tower, ...] = ("text",) if frozen else ("image", "text")
    parameters = trainable(model, towers)
    optimiser = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    steps = config.steps(pairs)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    averaged, began = ([p.detach().clone() for p in parameters] for _ in range(2))
    batches = _Batches(model, pairs, pictures, replay, config, rng, frozen, held)
    others = [] if frozen else [pictures[image] for image in unmarked]
    anchors = None if batches.replays or not config.drift else _Anchors(model, pairs.captions, others, config, rng)
    model.train()
    model.gradient_checkpointing(model.clip.visual.conv1.out_channels >= LARGE)
    for step in range(steps):
        batch = batches.next()
        with kernels("cpu"):  # around the backward pass too: checkpointing computes there once more
            loss = _loss(model, batch, config)
            if anchors is not None:
                loss = loss + config.drift * anchors.moved(model)
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        decay = min(config.average, step / (step + 1))
        for mean, parameter in zip(averaged, parameters, strict=True):
            mean.lerp_(parameter.detach(), 1 - decay)
        progress((step + 1) / steps)
    model.gradient_checkpointing(False)
    model.eval()
    shares = (config.mix, *(share for share in MIXES if share < config.mix))
    for share in shares if forgotten else shares[:1]:
        with torch.no_grad():
            for mean, start, parameter in zip(averaged, began, parameters, strict=True):
                parameter.copy_(start.lerp(mean, share))
        if forgotten is None or forgotten(model) <= config.forget:
            break
        progress(1.0)
    return share


def trainable(model: UPPerson, towers: Collection[Tower]) -> list[torch.nn.Parameter]:
    """What learns: the PETL parameters of these towers, or without PETL modules all that want a gradient."""
    if model.config is None:
        return [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [p for name, p in model.petl_parameters().items() if name.startswith(tuple(f"{t}." for t in towers))]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Pictures as pixels (N, 3, H, W) or, where their tower is frozen, as unit rows (N, E); tokens (Q, T); relation
    int8 (Q, N) as in `Pairs`, and what each counts in the loss (Q, N), from 0 to 1; of the misses of a caption without
    hits alone what they count (Q, N), 0 for all else, and the mean score that such a caption's misses had before
    training (Q,), 0 for the others. The last captions and pictures are replayed; where `held`, these are unit rows
    (R, E) that the captions and the pictures stay near."""

    pictures: Tensor
    tokens: Tensor
    relation: Tensor
    weight: Tensor
    alone: Tensor
    threshold: Tensor
    held: tuple[Tensor, Tensor] | None


class _Batches:
    """Deals out batches: captions with hits in shuffled rounds, each with one of its hits and some of its misses, and
    some captions with misses alone."""

    def __init__(
        self,
        model: UPPerson,
        pairs: Pairs,
        pictures: Mapping[str, NDArray[np.uint8]],
        replay: CaptionedPictures | None,
        config: LearnConfig,
        rng: np.random.Generator,
        frozen: Memory | None = None,
        held: Held | None = None,
    ) -> None:
        self.held = held
        self.backbone, self.pairs, self.config, self.rng = model.backbone, pairs, config, rng
        known: Mapping[str, NDArray[Any]] = pictures if frozen is None else frozen.pictures
        self.pictures = np.stack([known[image] for image in pairs.image_ids])
        self.replayed: NDArray[Any] | None = None if replay is None else replay.pixels
        self.replay, self.frozen = replay, frozen is not None
        if frozen is not None:
            self.replayed = frozen.replayed
        self.relation = pairs.relation if config.safe_negatives else np.where(pairs.relation == SAFE, 0, pairs.relation)
        self.weight = np.where(pairs.judged != 0, pairs.agreement, 1) * (self.relation != UNKNOWN).astype(np.float32)
        self.replays = replay is not None and config.replay > 0
        self.with_hits = np.flatnonzero((pairs.judged > 0).any(axis=1))
        self.hitless = np.flatnonzero(~(pairs.judged > 0).any(axis=1) & (pairs.judged < 0).any(axis=1))
        self.thresholds = self._thresholds(model)
        self.waiting: list[int] = []

    def next(self) -> _Batch:
        captions = self._captions()
        hitless = self.rng.choice(self.hitless, min(self.config.hitless, len(self.hitless)), replace=False)
        captions = np.concatenate([captions, hitless])
        images = self._images(captions)
        relation = self.relation[np.ix_(captions, images)]
        weight = self.weight[np.ix_(captions, images)]
        pictures, texts = self.pictures[images], [self.pairs.captions[caption] for caption in captions]
        held = None
        if self.replay is not None and self.replays:
            old = self.rng.choice(len(self.replay.pids), min(self.config.replay, len(self.replay.pids)), replace=False)
            same = self.replay.pids[old][:, None] == self.replay.pids[old][None, :]
            # Replayed pictures are none of the gallery's (`replay`). So all crossed pairs are negatives.
            crossed = np.full((len(captions), len(old)), NEGATIVE, np.int8)
            back = np.full((len(old), len(images)), NEGATIVE, np.int8)
            known = np.where(same, POSITIVE, NEGATIVE).astype(np.int8)
            relation = np.block([[relation, crossed], [back, known]])
            weight = np.pad(weight, (0, len(old)), constant_values=1)
            assert self.replayed is not None
            pictures = np.concatenate([pictures, self.replayed[old]])
            texts += [self.replay.captions[index] for index in old]
            if self.held is not None and self.config.hold:
                held = torch.from_numpy(self.held.captions[old]), torch.from_numpy(self.held.pictures[old])
        if not self.frozen:
            pictures = augment_pixels(pictures, self.rng)
        tokens = self.backbone.tokenize([drop_words(text, self.config.hidden_words, self.rng) for text in texts])
        inputs = torch.from_numpy(pictures)
        if not self.frozen:
            inputs = normalise(inputs, mean=self.backbone.mean, std=self.backbone.std)
        rows = slice(len(captions) - len(hitless), len(captions))
        alone, threshold = np.zeros(relation.shape, np.float32), np.zeros(len(relation), np.float32)
        here = rows, slice(len(images))
        alone[here] = np.where(relation[here] == NEGATIVE, weight[here], 0)
        threshold[rows] = self.thresholds[hitless]
        return _Batch(
            inputs,
            tokens,
            relation=torch.from_numpy(relation),
            weight=torch.from_numpy(weight),
            alone=torch.from_numpy(alone),
            threshold=torch.from_numpy(threshold),
            held=held,
        )

    def _thresholds(self, model: UPPerson) -> NDArray[np.float32]:
        """Of each caption without hits the mean score of its misses by the model as it is, 0 for the others (C,).

        Not their scores when they were marked: these may be another version's, or another backbone's.
        """
        found = np.zeros(len(self.pairs.captions), np.float32)
        if not len(self.hitless) or not self.config.hitless or not self.config.push:
            return found
        misses = self.pairs.judged[self.hitless] < 0
        columns = np.flatnonzero(misses.any(axis=0))
        rows = self.pictures[columns] if self.frozen else embed_pixels(model, self.pictures[columns])
        scores = embed_captions(model, [self.pairs.captions[caption] for caption in self.hitless]) @ rows.T
        found[self.hitless] = scores.mean(axis=1, where=misses[:, columns])
        return found

    def _captions(self) -> NDArray[np.int64]:
        while len(self.waiting) < min(self.config.queries, len(self.with_hits)):
            self.waiting += self.rng.permutation(self.with_hits).tolist()
        chosen = list(dict.fromkeys(self.waiting))[: self.config.queries]
        for caption in chosen:
            self.waiting.remove(caption)
        return np.array(chosen)

    def _images(self, captions: NDArray[np.int64]) -> NDArray[np.int64]:
        chosen: set[int] = set()
        for caption in captions:
            hits = np.flatnonzero(self.pairs.judged[caption] > 0)
            if len(hits):
                chosen.add(int(self.rng.choice(hits)))
            misses = np.flatnonzero(self.pairs.judged[caption] < 0)
            if len(misses):
                chosen.update(self.rng.choice(misses, min(self.config.misses, len(misses)), replace=False).tolist())
        return np.array(sorted(chosen))


class _Anchors:
    """Captions and pictures with the unit rows that they have before training."""

    def __init__(
        self,
        model: UPPerson,
        captions: Sequence[str],
        pictures: Sequence[NDArray[np.uint8]],
        config: LearnConfig,
        rng: np.random.Generator,
    ) -> None:
        self.backbone, self.count, self.rng = model.backbone, config.anchors, rng
        self.captions = [captions[index] for index in self._some(len(captions), ANCHORS)]
        self.texts = torch.from_numpy(embed_captions(model, self.captions))
        chosen = [pictures[index] for index in self._some(len(pictures), ANCHORS)]
        self.pixels = np.stack(chosen) if chosen else None
        self.images = None if self.pixels is None else torch.from_numpy(embed_pixels(model, self.pixels))

    def moved(self, model: UPPerson) -> Tensor:
        """How far some of them are from where they were: the mean squared distance of each kind, added up."""
        some = self._some(len(self.captions), self.count)
        with quick_on_cpu():
            rows = model.encode_text(self.backbone.tokenize([self.captions[index] for index in some]))
        moved = _distance(F.normalize(rows.float(), dim=-1), self.texts[some])
        if self.pixels is not None and self.images is not None:
            some = self._some(len(self.pixels), self.count)
            inputs = normalise(torch.from_numpy(self.pixels[some]), mean=self.backbone.mean, std=self.backbone.std)
            with quick_on_cpu():
                rows = model.encode_image(inputs)
            moved = moved + _distance(F.normalize(rows.float(), dim=-1), self.images[some])
        return moved

    def _some(self, count: int, most: int) -> NDArray[np.int64]:
        return self.rng.choice(count, min(count, most), replace=False)


def _distance(rows: Tensor, others: Tensor) -> Tensor:
    """Mean squared distance of rows (N, E)."""
    return (rows - others).square().sum(dim=-1).mean()


def _loss(model: UPPerson, batch: _Batch, config: LearnConfig) -> Tensor:
    with quick_on_cpu():
        images = model.encode_image(batch.pictures) if batch.pictures.ndim == 4 else batch.pictures
        texts = model.encode_text(batch.tokens)
    texts, images = F.normalize(texts.float(), dim=-1), F.normalize(images.float(), dim=-1)
    scores = texts @ images.T
    loss = masked_sdm(scores, (batch.relation == POSITIVE).float(), weight=batch.weight)
    if config.push:
        loss = loss + config.push * misses_alone(scores, batch.alone, batch.threshold)
    if batch.held is not None:
        for rows, unit in zip((texts, images), batch.held, strict=True):
            loss = loss + config.hold * _distance(rows[-len(unit) :], unit)
    return loss


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 10)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
