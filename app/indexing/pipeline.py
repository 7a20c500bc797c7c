"""From entries to the gallery in three stages at once: read and decode, encode, write.

Each picture is read once and decoded once, and only if the gallery lacks it. What is held at a time is bounded: a few
blocks, by number and by bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import OrderedDict, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.indexing.crops import doubts
from app.indexing.entries import Entry, Facts, Source, too_many_bytes
from app.indexing.report import SkipList
from app.progress import Report
from app.search.retriever import Serving
from core import Backbone
from core.core_errors import PictureError
from core.encoder import small_pixels
from core.images import open_picture
from store import Gallery, NewImage
from store.values import as_utc

_BLOCK, _BLOCK_BYTES = 256, 32_000_000
_WRITE, _WRITE_BYTES, _WRITE_S = 512, 64_000_000, 5.0
"""Pictures, bytes or seconds after which what was encoded is written: the most work that a power cut costs."""
_RECENT = 8 * (_BLOCK + _WRITE)
_MAINTAIN_EVERY = 32  # writes
_WORKERS = min(16, os.cpu_count() or 1)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to index and how: `by_reference` keeps the addresses of files instead of their bytes."""

    source: str
    most_bytes: int
    by_reference: bool = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture to add, and its pixels uint8 (H, W, 3) at the backbone's size."""

    image: NewImage
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Block:
    """Pictures that the gallery lacks, with uint8 pixels (B, H, W, 3), later float32 rows (B, E).

    `known`: how many others were looked at, which are in the gallery already.
    """

    images: list[NewImage]
    made: NDArray[Any] | None
    known: int = 0


@dataclass(slots=True)
class Counts:
    """How far it has come."""

    added: int = 0
    known: int = 0
    embedded: int = 0


class Known(Protocol):
    """What is known of a picture that is there: `Facts`, or a row of the gallery."""

    @property
    def pid(self) -> str | None: ...
    @property
    def camera(self) -> str | None: ...
    @property
    def captured_at(self) -> datetime | None: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...


class Pipeline:
    """One run: `entries` of a source under the version that serves now."""

    def __init__(self, job: Job, gallery: Gallery, serving: Serving, skipped: SkipList) -> None:
        self._job, self._gallery, self._serving, self._skipped = job, gallery, serving, skipped
        self._backbone: Backbone = serving.encoder.backbone
        self._recent: OrderedDict[str, Facts] = OrderedDict()

    def run(self, source: Source, report: Report) -> Counts:
        """Add and embed everything; what is done stays when it is stopped anywhere."""
        counts, total = Counts(), source.count()
        with ThreadPoolExecutor(_WORKERS, "decode") as pool:
            blocks = ahead(self._encoded(ahead(self._prepared(source, pool), 1)), 8)
            with closing(blocks):
                for number, several in enumerate(_to_write(blocks), start=1):
                    self._write(several, counts)
                    done = counts.added + counts.known + self._skipped.count
                    report("Indexing pictures", done, max(total, done))
                    if number % _MAINTAIN_EVERY == 0:
                        self._gallery.maintain(self._serving.vectors)
        return counts

    def _prepared(self, source: Source, pool: ThreadPoolExecutor) -> Generator[Block, None, None]:
        for entries in _grouped(source.entries(self._skipped)):
            read = [
                (entry, data, hashlib.sha256(data).hexdigest())
                for entry, data in zip(entries, pool.map(self._read, entries), strict=True)
                if data is not None
            ]
            there: dict[str, Known] = {row.id: row for row in self._gallery.rows([image_id for _, _, image_id in read])}
            there |= {image_id: self._recent[image_id] for _, _, image_id in read if image_id in self._recent}
            fresh = {image_id: (entry, data) for entry, data, image_id in reversed(read) if image_id not in there}
            made = dict(zip(fresh, pool.map(self._decoded, fresh.values()), strict=True))
            block, known = list[Decoded](), 0
            for entry, _, image_id in read:
                result = made.get(image_id)
                if isinstance(result, str):
                    self._skipped.skip(entry.name, result)
                elif result is not None and fresh[image_id][0] is entry:
                    block.append(result)
                    there[image_id] = self._remember(image_id, entry.facts)
                elif fault := differing(there[image_id], entry.facts):
                    self._skipped.skip(entry.name, fault)
                else:
                    known += 1
            yield Block([one.image for one in block], np.stack([one.pixels for one in block]) if block else None, known)

    def _remember(self, image_id: str, facts: Facts) -> Facts:
        """Pictures on their way into the gallery, so that none is made twice."""
        self._recent[image_id] = facts
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        return facts

    def _read(self, entry: Entry) -> bytes | None:
        """Its bytes, or None where it cannot be taken."""
        most = self._job.most_bytes
        try:
            if entry.size > most:
                raise PictureError(too_many_bytes(entry.size, most))
            return entry.read(most)
        except PictureError as error:
            self._skipped.skip(entry.name, str(error))
        except OSError as error:
            self._skipped.skip(entry.name, f"the file could not be read ({error.strerror or error})")
        return None

    def _decoded(self, what: tuple[Entry, bytes]) -> Decoded | str:
        """The picture and its pixels, or why it is not taken."""
        entry, data = what
        uri = entry.name
        if self._job.by_reference:
            if entry.path is None:
                return "lies in an archive: only files of their own can be kept by reference"
            uri = entry.path.resolve().as_uri()
        facts = entry.facts
        try:
            json.dumps([facts.pid, facts.camera, facts.metadata], ensure_ascii=False, allow_nan=False).encode()
            with open_picture(data) as picture:
                image = NewImage(
                    data=data,
                    uri=uri,
                    width=picture.width,
                    height=picture.height,
                    source=self._job.source,
                    by_reference=self._job.by_reference,
                    **{field.name: getattr(facts, field.name) for field in fields(Facts)},
                )
                for one, many in doubts(picture):
                    self._skipped.note(one, many)
                return Decoded(image, small_pixels(picture, self._backbone))
        except PictureError as error:
            return str(error)
        except ValueError:
            return "what is said about it holds broken characters or numbers that are not finite"

    def _encoded(self, blocks: Generator[Block, None, None]) -> Generator[Block, None, None]:
        """The blocks in batches of the encoder, with rows in place of pixels."""
        encoder = self._serving.encoder
        with closing(blocks):
            for block in blocks:
                yield Block([], None, block.known)
                for start in range(0, len(block.images), encoder.batch_size):
                    stop = start + encoder.batch_size
                    assert block.made is not None
                    yield Block(block.images[start:stop], encoder.encode_pixels(block.made[start:stop]))

    def _write(self, blocks: Sequence[Block], counts: Counts) -> None:
        counts.known += sum(block.known for block in blocks)
        images = [image for block in blocks for image in block.images]
        if not images:
            return
        added = len(self._gallery.add(images))
        rows = np.concatenate([block.made for block in blocks if block.made is not None])
        counts.embedded += self._gallery.embed(self._serving.vectors, [image.id for image in images], rows)
        counts.added += added
        counts.known += len(images) - added  # another process was faster


def ahead(items: Generator[T, None, None], most: int) -> Generator[T, None, None]:
    """The same items, made by a thread of their own, at most so many before they are asked for."""
    thread = ThreadPoolExecutor(1, "ahead")
    try:
        coming = deque(thread.submit(next, items, None) for _ in range(most))
        while (item := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, items, None))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
        items.close()


def differing(known: Known, given: Facts) -> str:
    """Why facts that came later are not taken; empty where they say nothing else."""
    moment = given.captured_at and as_utc(given.captured_at)
    said = {"pid": given.pid, "camera": given.camera, "captured_at": moment, **given.metadata}
    kept = {"pid": known.pid, "camera": known.camera, "captured_at": known.captured_at, **known.metadata}
    for name, value in said.items():
        if value is not None and kept.get(name) != value:
            there = f"without a {name}" if kept.get(name) is None else f"with {name} {kept[name]!r}"
            return (
                f"the same picture is there {there}, and this says {value!r}. What came first stays. To change that, "
                "forget the picture and index it again"
            )
    return ""


def _grouped(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    block, size = list[Entry](), 0
    for entry in entries:
        block.append(entry)
        size += entry.size
        if len(block) == _BLOCK or size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _to_write(blocks: Iterator[Block]) -> Iterator[list[Block]]:
    several, pictures, size, began = list[Block](), 0, 0, time.monotonic()
    for block in blocks:
        several.append(block)
        pictures += len(block.images) + block.known
        size += sum(len(image.data) for image in block.images)
        if pictures >= _WRITE or size >= _WRITE_BYTES or time.monotonic() - began >= _WRITE_S:
            yield several
            several, pictures, size, began = [], 0, 0, time.monotonic()
    if several:
        yield several
