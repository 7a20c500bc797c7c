"""Synthetic pedestrians: pictures with captions of people who do not exist, in three domains.

`studio` is clean and described in plain words; `street` is dark, tinted, blurred, noisy and occluded, and its
annotators use other words; `foreign` is drawn and described otherwise, and no setting is chosen on it. Identities come
from disjoint seeds, one for each use, so that nothing that is reported was ever trained on. The generators were fixed
before anything was tuned on them; every learning figure carries its `VERSION`.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.captioned_images import CaptionedPictures
from train.pedestrians import foreign
from train.pedestrians.captions import describe, facts
from train.pedestrians.drawing import draw
from train.pedestrians.foreign import ForeignTake
from train.pedestrians.people import SEEDS, Domain, Person, Shot, Use, sample_person, sample_shot

VERSION = "2"
"""Of the generator of `studio` and `street`; that of `foreign` has its own."""

AnyDomain = Literal[Domain, "foreign"]
"""Every drawn domain: those of `people`, and `foreign`."""

Job = TypeVar("Job")
Result = TypeVar("Result")


class Drawn(Protocol):
    """One picture to be made, of any domain."""

    @property
    def domain(self) -> AnyDomain: ...
    @property
    def version(self) -> str: ...
    @property
    def use(self) -> Use: ...
    @property
    def pid(self) -> int: ...
    @property
    def number(self) -> int: ...
    def picture(self) -> Image.Image: ...
    def caption(self, annotator: int = 0) -> str: ...


@dataclass(frozen=True, slots=True)
class Take:
    """One picture to be made: picture `number` of person `pid` of the population `use`."""

    domain: Domain
    use: Use
    pid: int
    number: int

    @property
    def version(self) -> str:
        return VERSION

    def person(self) -> Person:
        return sample_person(SEEDS[self.use], self.pid)

    def shot(self) -> Shot:
        return sample_shot(SEEDS[self.use], self.pid, self.number, self.domain)

    def picture(self) -> Image.Image:
        """The picture, RGB, 384 x 128 (height x width)."""
        return draw(self.person(), self.shot())

    def caption(self, annotator: int = 0) -> str:
        """What annotator number `annotator` says of this picture."""
        return describe(self.person(), self.shot(), self._voice(annotator))

    def said(self, annotator: int = 0) -> frozenset[str]:
        """The attributes that `caption(annotator)` names."""
        return frozenset(facts(self.person(), self.shot(), self._voice(annotator)))

    def _voice(self, annotator: int) -> np.random.Generator:
        domain = 0 if self.domain == "studio" else 1
        return np.random.default_rng([SEEDS[self.use], self.pid, 4, self.number, annotator, domain])


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticSet(CaptionedPictures):
    """Drawn pictures with the takes (N) that they show."""

    takes: tuple[Drawn, ...]


@overload
def takes(domain: Domain, use: Use, people: int, shots: int, *, first: int = 0) -> list[Take]: ...
@overload
def takes(domain: Literal["foreign"], use: Use, people: int, shots: int, *, first: int = 0) -> list[ForeignTake]: ...
@overload
def takes(
    domain: AnyDomain, use: Use, people: int, shots: int, *, first: int = 0
) -> list[Take] | list[ForeignTake]: ...
def takes(domain: AnyDomain, use: Use, people: int, shots: int, *, first: int = 0) -> list[Take] | list[ForeignTake]:
    """`shots` takes of each of `people` identities, counted from number `first`; takes of a person adjoin."""
    if domain == "foreign":
        return foreign.takes(use, people, shots, first=first)
    return [Take(domain, use, pid, number) for pid in range(first, first + people) for number in range(shots)]


def load(
    which: Sequence[Drawn], size: tuple[int, int], *, workers: int | None = None, cache: Path | None = None
) -> SyntheticSet:
    """Draw `which` at `size` (H, W), scaled as `core.encoder` scales pictures. Deterministic.

    With a `cache` folder the pixels are drawn once and kept there.
    """
    kept = None if cache is None else cache / f"{_name(which, size)}.npy"
    pixels = None if kept is None else _read(kept, (len(which), *size, 3))
    if pixels is None:
        pixels = np.empty((len(which), *size, 3), np.uint8)
        for index, picture in enumerate(parallel(_small, [(take, size) for take in which], workers=workers)):
            pixels[index] = picture
        if kept is not None:
            _write(kept, pixels)
    return SyntheticSet(
        takes=tuple(which),
        pixels=pixels,
        captions=tuple(take.caption() for take in which),
        pids=np.array([take.pid for take in which], np.int64),
    )


def _name(which: Sequence[Drawn], size: tuple[int, int]) -> str:
    """A file name for the pixels of these takes at this size, by this version of their generators."""
    versions = "+".join(sorted({take.version for take in which}))
    key = f"{versions} {size} {[(take.domain, take.use, take.pid, take.number) for take in which]}"
    return f"synthetic-{hashlib.sha256(key.encode()).hexdigest()[:24]}"


def _read(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Pixels kept in a file; None where there is none or it is damaged."""
    try:
        pixels = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if isinstance(pixels, np.ndarray) and (pixels.shape, pixels.dtype) == (shape, np.uint8) else None


def _write(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Whole or not at all; a full disk only means that they are drawn again."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as out:
                np.save(out, pixels, allow_pickle=False)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)


def _small(job: tuple[Drawn, tuple[int, int]]) -> NDArray[np.uint8]:
    take, (height, width) = job
    return np.asarray(take.picture().resize((width, height), Image.Resampling.BICUBIC))


def parallel(work: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int | None = None) -> Iterator[Result]:
    """`map(work, jobs)` in order, over `workers` spawned processes (None: one per core; few jobs: this one)."""
    count = min(workers or os.cpu_count() or 1, len(jobs) // 200)
    if count < 2:
        yield from map(work, jobs)
        return
    # Spawned, not forked: the caller may hold an open LanceDB connection or running threads.
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, jobs, chunksize=16)
