"""Batches of (caption, picture) pairs for `train.supervised.fit`: which, in which order, and how each is changed.

All of it follows from the seed, the epoch and the place in it. No generator is carried along, so a run goes on from any
step, with any number of processes and workers, as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from core.backbones import Backbone
from core.encoder import normalise
from core.images import open_picture
from train.augment import augment_person, mask_tokens
from train.datasets import Split

_PIXELS, _TOKENS, _ORDER = 0, 1, 2  # uses of randomness; each has numbers of its own


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """`size` pairs a step. With `instances` > 0 pairs come in groups of that many of one person (identity sampling).
    A share `masked` of the caption tokens is hidden."""

    size: int = 128
    instances: int = 0
    masked: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ValueError(f"a batch needs at least 2 pairs to distinguish, not {self.size}")
        if self.instances < 0 or (self.instances and self.size % self.instances):
            raise ValueError(f"a batch of {self.size} cannot be made of groups of {self.instances} pairs of one person")
        if not 0 <= self.masked < 1:
            raise ValueError(f"the share of masked caption tokens lies in [0, 1), not {self.masked}")


@dataclass(frozen=True, slots=True)
class Batch:
    """This process's part: pixels (B, 3, H, W) and tokens (B, T); and the pids (G,) of the whole batch, in order."""

    pixels: Tensor
    tokens: Tensor
    pids: Tensor


def epoch_pairs(pids: NDArray[np.int64], config: BatchConfig, epoch: int) -> NDArray[np.int64]:
    """Return which pairs the epoch takes, (steps, size); `pids` (Q,) says whose each pair is.

    What fills no batch waits for another epoch; a set smaller than a batch goes round and round until it fills one.
    """
    rng = np.random.default_rng([config.seed, _ORDER, epoch])
    order = _grouped(pids, config.instances, rng) if config.instances else rng.permutation(len(pids))
    if len(order) < config.size:
        order = np.resize(order, config.size)
    steps = len(order) // config.size
    return order[: steps * config.size].reshape(steps, config.size)


def _grouped(pids: NDArray[np.int64], instances: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return every pair once, in groups of one person; a person's last group is filled up with pairs of theirs."""
    by_person = np.argsort(pids, kind="stable")
    groups = []
    for own in np.split(by_person, np.flatnonzero(np.diff(pids[by_person])) + 1):
        mixed = rng.permutation(own)
        groups.append(np.resize(mixed, (-(-len(own) // instances), instances)))
    return np.concatenate(groups)[rng.permutation(sum(map(len, groups)))].ravel()


class Batches:
    """Deals out the batches of `split`; of each, the part of process `number` of `processes`."""

    def __init__(
        self, split: Split, backbone: Backbone, config: BatchConfig, *, number: int = 0, processes: int = 1,
        workers: int = 0,
    ) -> None:  # fmt: skip
        if config.size % processes:
            raise ValueError(f"a batch of {config.size} cannot be shared evenly among {processes} processes")
        self.split, self.backbone, self.config, self.workers = split, backbone, config, workers
        self._rows = backbone.tokenize(list(split.captions))
        part = config.size // processes
        self._own = slice(number * part, (number + 1) * part)
        size, known = backbone.clip.vocab_size, backbone.known_tokens
        # Neither CLIP nor SigLIP has a token that hides a word: the rarest one does, as usual in the field.
        if backbone.siglip:  # nothing begins a caption; padding, end of text and the unknown are the first ids
            self._start, self._end, self._mask = 0, int(backbone.tokenize([""])[0, 0]), size - 1
            self._words = np.arange(3, self._mask)
        else:  # start and end of text are the last ids
            self._start, self._end, self._mask = 1, size - 1, size - 3
            self._words = np.arange(1, self._mask) if known is None else known[known < size - 2].numpy()

    def steps(self) -> int:
        """Batches in an epoch."""
        return len(epoch_pairs(self.split.caption_pids, self.config, 0))

    def cut(self) -> int:
        """Return how many captions are longer than the backbone reads: of these the end is left out."""
        full = torch.nonzero(self._rows[:, -1]).flatten().tolist()
        return sum(self.backbone.words_read(self.split.captions[caption]) is not None for caption in full)

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step `first` on."""
        rows = epoch_pairs(self.split.caption_pids, self.config, epoch)
        places = np.arange(rows.size).reshape(rows.shape)
        own = [
            [(epoch, int(place), int(pair)) for place, pair in zip(at[self._own], row[self._own], strict=True)]
            for at, row in zip(places[first:], rows[first:], strict=True)
        ]
        pictures = _Pictures(self.split, self.backbone.image_size, self.backbone.mean, self.config.seed)
        # A generator of its own: the loader would draw from the global one.
        loader = DataLoader(
            pictures, batch_sampler=own, num_workers=self.workers, collate_fn=_stack, generator=torch.Generator()
        )
        for row, keys, pixels in zip(rows[first:], own, loader, strict=True):
            inputs = normalise(pixels, mean=self.backbone.mean, std=self.backbone.std)
            yield Batch(inputs, self._tokens(keys), torch.from_numpy(self.split.caption_pids[row]))

    def _tokens(self, keys: list[tuple[int, int, int]]) -> Tensor:
        tokens = self._rows[[pair for _, _, pair in keys]]
        if not self.config.masked:
            return tokens
        rows = tokens.numpy()
        for number, (epoch, place, _) in enumerate(keys):
            rng = np.random.default_rng([self.config.seed, _TOKENS, epoch, place])
            rows[number] = mask_tokens(
                rows[number], self.config.masked, rng,
                mask=self._mask, words=self._words, start=self._start, end=self._end,
            )  # fmt: skip
        return torch.from_numpy(rows)


class _Pictures(Dataset[NDArray[np.uint8]]):
    """Changed pictures by (epoch, place in it, pair); pickled to the workers."""

    def __init__(self, split: Split, size: tuple[int, int], fill: tuple[float, float, float], seed: int) -> None:
        self._pictures, self._of = split.pictures, split.of
        self._size, self._fill, self._seed = size, fill, seed

    def __getitem__(self, key: tuple[int, int, int]) -> NDArray[np.uint8]:
        epoch, place, pair = key
        rng = np.random.default_rng([self._seed, _PIXELS, epoch, place])
        return augment_person(self._read(int(self._of[pair])), rng, fill=self._fill)

    def _read(self, number: int) -> NDArray[np.uint8]:
        picture = self._pictures[number]
        if not isinstance(picture, Path):
            return picture
        height, width = self._size
        return np.array(open_picture(picture).resize((width, height), Image.Resampling.BICUBIC))


def _stack(pictures: list[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(pictures))
