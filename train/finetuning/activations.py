"""What the last blocks of the image tower begin with, computed once and kept, where only those blocks learn.

The blocks below never change in a round: the folds, the control, the candidate and the version that serves share them,
in training and in ranking. Pictures are altered for training before they pass these blocks, a few times each.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.backbones import Backbone
from core.encoder import normalise
from core.model import UPPerson
from train.augment import augment_pixels, occlude
from train.captioned_images import CaptionedPictures
from train.embed import Embedding, embed_captions
from train.finetuning.config import Sampling
from train.finetuning.sampler import Replay
from train.finetuning.start import held_back

ALTERED = 2
"""Altered copies of each marked picture, beside the picture itself."""
REPLAYED = 1000
"""At most so many known pairs are replayed: each costs a forward pass before the first step."""
_AT_ONCE = 100
_LEFT_FREE = 500_000_000


class Activations:
    """Inputs of the last `depth` blocks of `model`'s image tower, fp16, in a file below `folder` until `close`.

    `capacity` pictures have room; of ViT-B-16 each takes 0.3 MB. The file has no name where the system allows that, so
    nothing is left of it even if the process is killed. Raises ValueError where the disk is too full.
    """

    def __init__(self, model: UPPerson, depth: int, folder: Path, capacity: int) -> None:
        self.backbone, self.depth = model.backbone, depth
        self._passes = Embedding(model, batch=_AT_ONCE)
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = bytes_of(self.backbone, capacity), shutil.disk_usage(folder).free
        if free < needed + _LEFT_FREE:
            raise ValueError(
                f"tuning the last blocks keeps {needed / 1e9:.1f} GB on the disk for a while. There, "
                f"{free / 1e9:.1f} GB are free, of which {_LEFT_FREE / 1e9:.1f} must stay so: make room, or use "
                "UPPERSON_TRAIN_MODE=text"
            )
        handle, name = tempfile.mkstemp(prefix="activations-", dir=folder)
        if hasattr(os, "posix_fallocate"):  # writing to a file with holes on a full disk would kill the process
            os.posix_fallocate(handle, 0, needed)
        os.close(handle)
        self.file, self.count = Path(name), 0
        self._kept = np.memmap(self.file, np.float16, "w+", shape=(capacity, *self.backbone.image_tokens))
        with suppress(OSError):  # Windows keeps the name of a file in use
            self.file.unlink()

    def add(
        self, pixels: NDArray[np.uint8], *, progress: Callable[[float], None] = lambda _: None
    ) -> NDArray[np.int64]:
        """Keep those of pixels (N, H, W, 3); return their places (N,)."""
        places = np.arange(self.count, self.count + len(pixels))
        for start in range(0, len(pixels), _AT_ONCE):
            some = torch.from_numpy(pixels[start : start + _AT_ONCE])
            inputs = normalise(some, mean=self.backbone.mean, std=self.backbone.std)
            tokens = self._passes.encode(lambda part: self._passes.model.image_tokens(part, self.depth), inputs)
            self._kept[places[start : start + _AT_ONCE]] = tokens.clamp(-65504, 65504).half().cpu().numpy()
            progress(min(1.0, (start + _AT_ONCE) / len(pixels)))
        self.count += len(pixels)
        return places

    def tokens(self, places: NDArray[np.int64]) -> Tensor:
        """fp32 (N, T, D)."""
        return torch.from_numpy(self._kept[places]).float()

    def rows(self, model: UPPerson, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Unit rows (N, E) of pictures under a model that has the blocks below in common."""
        passes = Embedding(model, batch=_AT_ONCE)
        parts = [
            passes.rows(
                lambda part: passes.model.encode_image_from(part, self.depth),
                self.tokens(places[start : start + _AT_ONCE]),
            )
            for start in range(0, len(places), _AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.backbone.embed_dim), np.float32)

    def close(self) -> None:
        """Delete what was kept."""
        del self._kept
        self.file.unlink(missing_ok=True)


def bytes_of(backbone: Backbone, pictures: int) -> int:
    """Size of the file for so many pictures."""
    tokens, width = backbone.image_tokens
    return 2 * pictures * tokens * width


@dataclass(frozen=True, slots=True)
class KeptRound:
    """All pictures of a round in one `Activations`, by their places there.

    `places`: of each shown picture (1,), or of a marked one (1 + ALTERED,), first as it is, then altered as in
    training. `known`: the pairs to replay and to watch: `replayed` (M,) are pictures of the
    first, `watched` (W,) of the second. `base` (B,): pictures of the base set.
    """

    activations: Activations
    places: dict[str, NDArray[np.int64]]
    known: CaptionedPictures | None
    replayed: NDArray[np.int64]
    watched: NDArray[np.int64]
    base: NDArray[np.int64]

    def rows(self, model: UPPerson, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Activations.rows`."""
        return self.activations.rows(model, places)

    def replay(self, served: UPPerson) -> Replay:
        """The pairs to replay, as the served version sees them."""
        pairs, _ = held_back(self.known)
        assert pairs is not None
        captions, pictures = embed_captions(served, pairs.captions), self.rows(served, self.replayed)
        return Replay(pairs, captions, pictures, places=self.replayed)


@dataclass(frozen=True, slots=True)
class ToKeep:
    """What `keep` needs: pixels by id, the ids that anything is judged by, those of them that are marked, pairs that
    are known, and the base set."""

    pixels: Mapping[str, NDArray[np.uint8]]
    shown: Sequence[str]
    marked: Sequence[str]
    known: CaptionedPictures | None
    base: CaptionedPictures | None

    def known_part(self) -> CaptionedPictures | None:
        """As many of the known pairs as are used."""
        return None if self.known is None else self.known.part(slice(REPLAYED))

    def passes(self) -> int:
        """Pictures that pass the lower blocks once."""
        known, base = self.known_part(), self.base
        count = len(self.shown) + ALTERED * len(self.marked)
        count += 0 if known is None else len(known.pids)
        return count + (0 if base is None else len(base.pids))


def keep(
    served: UPPerson,
    depth: int,
    folder: Path,
    given: ToKeep,
    sampling: Sampling,
    *,
    progress: Callable[[], None] = lambda: None,
) -> KeptRound:
    """Compute what the last `depth` blocks begin with for all pictures of a round."""
    activations = Activations(served, depth, folder, given.passes())

    def added(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        return activations.add(pixels, progress=lambda _: progress())

    plain = added(np.stack([given.pixels[image] for image in given.shown]))
    places = {image: plain[number : number + 1] for number, image in enumerate(given.shown)}
    rng, own = np.random.default_rng(29), np.stack([given.pixels[image] for image in given.marked])
    for _ in range(ALTERED):
        altered = added(augment_pixels(occlude(own, own, sampling.occluded, rng), rng))
        for image, place in zip(given.marked, altered, strict=True):
            places[image] = np.append(places[image], place)
    known, none = given.known_part(), np.empty(0, np.int64)
    pairs, watched = held_back(known)
    return KeptRound(
        activations,
        places,
        known,
        none if pairs is None else added(pairs.pixels),
        none if watched is None else added(watched.pixels),
        none if given.base is None else added(given.base.pixels),
    )
