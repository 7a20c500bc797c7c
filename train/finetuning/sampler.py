"""Batches for the learning loop: marked captions and pictures, and replayed pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.encoder import normalise
from core.model import UPPerson
from train.augment import augment_pixels, drop_words, occlude
from train.captioned_images import CaptionedPictures
from train.embed import embed_captions, embed_pixels
from train.finetuning.config import Sampling
from train.finetuning.pairs import NEGATIVE, POSITIVE, SAFE, UNKNOWN, Pairs, image_relation

if TYPE_CHECKING:
    from train.finetuning.activations import Activations

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Replay:
    """Pairs (M) that the served version knows, with its unit rows (M, E) of their captions and pictures.

    `places` (M,): where their activations are kept.
    """

    pairs: CaptionedPictures
    captions: NDArray[np.float32]
    pictures: NDArray[np.float32]
    places: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's inputs: Q captions, of which the last R are replayed, and N pictures, of which the last R are.

    `pictures` are normalised pixels (N, 3, H, W), unit rows (N, E) where their tower is frozen, or what its last blocks
    begin with (N, T, D) where only those learn; `tokens` (Q, T).
    `relation` int8 (Q, N) as in `Pairs`, `weight` (Q, N) in [0, 1]. `people` int8 (P, P) relates the P marked pictures
    to each other. `pushed` (Q, N) weighs the misses of captions without hits, 0 elsewhere; `threshold` (Q,) is the mean
    score that these misses had before training. `teacher`: unit rows (R, E) of the replayed captions and pictures.
    """

    pictures: Tensor
    tokens: Tensor
    relation: Tensor
    weight: Tensor
    people: Tensor
    pushed: Tensor
    threshold: Tensor
    teacher: tuple[Tensor, Tensor] | None

    def to(self, device: torch.device) -> Batch:
        """The same on `device`, copied while that still computes."""
        if device.type == "cpu":
            return self

        def moved(tensor: Tensor) -> Tensor:
            return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)

        named = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: moved(value) for name, value in named.items() if isinstance(value, Tensor)}
        teacher = None if self.teacher is None else (moved(self.teacher[0]), moved(self.teacher[1]))
        return replace(self, **tensors, teacher=teacher)


class Sampler:
    """Deals out batches: captions with hits in shuffled passes, each with some of its hits and misses.

    `pictures` maps ids to pixels uint8 (H, W, 3), with `frozen` to unit rows (E,), and with `kept` to places (V,) of
    its activations, of which each batch takes one. `tracks` says of some pictures which track of a camera they are of.
    """

    def __init__(
        self,
        model: UPPerson,
        pairs: Pairs,
        pictures: Mapping[str, NDArray[Any]],
        replay: Replay | None,
        config: Sampling,
        rng: np.random.Generator,
        *,
        frozen: bool = False,
        kept: Activations | None = None,
        tracks: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.kept = kept
        self.backbone, self.pairs, self.config, self.rng = model.backbone, pairs, config, rng
        self.frozen, self.replay = frozen, replay if config.replay else None
        self.pictures = np.stack([pictures[image] for image in pairs.image_ids])
        self.relation = pairs.relation if config.safe_negatives else np.where(pairs.relation == SAFE, 0, pairs.relation)
        self.weight = np.where(pairs.judged != 0, pairs.agreement, 1) * (self.relation != UNKNOWN).astype(np.float32)
        self.people = join_tracks(image_relation(pairs), [tracks.get(image, "") for image in pairs.image_ids])
        hit = (pairs.judged > 0).any(axis=1)
        self.with_hits = np.flatnonzero(hit)
        missed = (pairs.judged < 0).any(axis=1) & bool(config.negative_only)
        self.negative_only = np.flatnonzero(~hit & missed)
        self.thresholds = self._thresholds(model)
        self.waiting: list[int] = []

    def next(self) -> Batch:
        """The next batch."""
        captions = self._captions()
        count = min(self.config.negative_only, len(self.negative_only))
        without = self.rng.choice(self.negative_only, count, replace=False) if count else np.empty(0, np.int64)
        captions = np.concatenate([captions, without]).astype(np.int64)
        images = self._images(captions)
        relation, weight = self.relation[np.ix_(captions, images)], self.weight[np.ix_(captions, images)]
        texts, pictures = [self.pairs.captions[caption] for caption in captions], self.pictures[images]
        if self.kept is not None:
            pictures = pictures[np.arange(len(pictures)), self.rng.integers(pictures.shape[1], size=len(pictures))]
        elif not self.frozen:
            pictures = occlude(pictures, self.pictures, self.config.occluded, self.rng)
        teacher = None
        if self.replay is not None:
            relation, weight, texts, pictures, teacher = self._replayed(relation, weight, texts, pictures)
        rows = slice(len(captions) - count, len(captions))
        pushed, threshold = np.zeros(relation.shape, np.float32), np.zeros(len(relation), np.float32)
        here = rows, slice(len(images))
        pushed[here] = np.where(relation[here] == NEGATIVE, weight[here], 0)
        threshold[rows] = self.thresholds[without]
        texts = [drop_words(text, self.config.hidden_words, self.rng) for text in texts]
        return Batch(
            self._inputs(pictures),
            self.backbone.tokenize(texts),
            relation=torch.from_numpy(relation),
            weight=torch.from_numpy(weight.astype(np.float32)),
            people=torch.from_numpy(self.people[np.ix_(images, images)]),
            pushed=torch.from_numpy(pushed),
            threshold=torch.from_numpy(threshold),
            teacher=teacher,
        )

    def _inputs(self, pictures: NDArray[Any]) -> Tensor:
        if self.kept is not None:
            return self.kept.tokens(pictures)
        if self.frozen:
            return torch.from_numpy(pictures)
        pixels = torch.from_numpy(augment_pixels(pictures, self.rng))
        return normalise(pixels, mean=self.backbone.mean, std=self.backbone.std)

    def _replayed(
        self, relation: NDArray[np.int8], weight: NDArray[np.float32], texts: list[str], pictures: NDArray[Any]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32], list[str], NDArray[Any], tuple[Tensor, Tensor]]:
        """The batch with replayed pairs at its end."""
        assert self.replay is not None
        known, count = self.replay.pairs, min(self.config.replay, len(self.replay.pairs.pids))
        chosen = self.rng.choice(len(known.pids), count, replace=False)
        same = known.pids[chosen][:, None] == known.pids[chosen][None, :]
        # Replayed pictures are not in the gallery (`train.finetuning.replay`), so all crossed pairs are negatives.
        crossed = np.full((len(texts), count), NEGATIVE, np.int8)
        back = np.full((count, len(pictures)), NEGATIVE, np.int8)
        relation = np.block([[relation, crossed], [back, np.where(same, POSITIVE, NEGATIVE).astype(np.int8)]])
        weight = np.pad(weight, (0, count), constant_values=1)
        teacher = torch.from_numpy(self.replay.captions[chosen]), torch.from_numpy(self.replay.pictures[chosen])
        added: NDArray[Any]
        if self.kept is not None:
            assert self.replay.places is not None
            added = self.replay.places[chosen]
        else:
            added = self.replay.pictures[chosen] if self.frozen else known.pixels[chosen]
        texts = texts + [known.captions[index] for index in chosen]
        return relation, weight, texts, np.concatenate([pictures, added]), teacher

    def _thresholds(self, model: UPPerson) -> NDArray[np.float32]:
        """The mean score of the misses of each caption without hits under `model`, 0 for the others (C,).

        Scores at marking time may be another version's, or another backbone's.
        """
        found = np.zeros(len(self.pairs.captions), np.float32)
        if not len(self.negative_only):
            return found
        misses = self.pairs.judged[self.negative_only] < 0
        columns = np.flatnonzero(misses.any(axis=0))
        if self.kept is not None:
            rows = self.kept.rows(model, self.pictures[columns][:, 0])
        else:
            rows = self.pictures[columns] if self.frozen else embed_pixels(model, self.pictures[columns])
        scores = embed_captions(model, [self.pairs.captions[caption] for caption in self.negative_only]) @ rows.T
        found[self.negative_only] = scores.mean(axis=1, where=misses[:, columns])
        return found

    def _captions(self) -> NDArray[np.int64]:
        """The next captions with hits; those learnt before take part in a share `relearn` of the passes."""
        fresh = self.pairs.fresh[self.with_hits]
        chance = np.where(fresh, 1.0, self.config.relearn) if fresh.any() else np.ones(len(fresh))
        while len(self.waiting) < min(self.config.queries, max(1, int(chance.sum()))):
            taken = self.with_hits[self.rng.random(len(chance)) < chance]
            self.waiting += self.rng.permutation(taken).tolist()
        batch = list(dict.fromkeys(self.waiting))[: self.config.queries]
        for caption in batch:
            self.waiting.remove(caption)
        return np.array(batch)

    def _images(self, captions: NDArray[np.int64]) -> NDArray[np.int64]:
        chosen: set[int] = set()
        for caption in captions:
            for wanted, most in ((1, self.config.hits), (-1, self.config.misses)):
                found = np.flatnonzero(self.pairs.judged[caption] == wanted)
                chosen.update(self.rng.choice(found, min(most, len(found)), replace=False).tolist())
        return np.array(sorted(chosen))


def join_tracks(relation: NDArray[np.int8], tracks: Sequence[str]) -> NDArray[np.int8]:
    """`image_relation` (N, N) in which two pictures of one track show one person; `tracks` (N) are "" where unknown.

    Where the marks say that they show two people, nobody can say.
    """
    names = np.array(tracks, dtype=np.str_)
    same = (names[:, None] == names[None, :]) & (names != "")[:, None]
    np.fill_diagonal(same, False)
    joined = np.where(same, np.where(relation == NEGATIVE, UNKNOWN, POSITIVE), relation)
    return joined.astype(np.int8)


def ahead(draw: Callable[[], T], count: int, *, threaded: bool) -> Iterator[T]:
    """What `count` calls of `draw` return, in their order; `threaded`: the next one is made while one is used."""
    if not threaded:
        for _ in range(count):
            yield draw()
        return
    with ThreadPoolExecutor(1, "batches") as thread:
        coming = thread.submit(draw) if count else None
        for left in range(count - 1, -1, -1):
            assert coming is not None
            drawn = coming.result()
            coming = thread.submit(draw) if left else None
            yield drawn
