"""What a source of pictures gives: entries that can be read one by one, and what it had to leave out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from core.core_errors import PictureError
from train.picture_paths import PicturePaths


@dataclass(frozen=True, slots=True)
class Facts:
    """What a source knows about a picture; None and nothing where it knows nothing."""

    pid: str | None = None
    camera: str | None = None
    captured_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


NOTHING = Facts()


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture that can be read: its printable name, its size in bytes as far as its source says the truth.

    `read` gives its bytes, or raises PictureError or OSError when there are more than it may take. `path` is
    the file itself, where there is one of this picture alone.
    """

    name: str
    size: int
    read: Callable[[int], bytes]
    facts: Facts = NOTHING
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a list: its number from 1, the picture's path as written there, and what it says of the picture."""

    number: int
    path: str
    facts: Facts
    data: bytes | None = None
    """The picture itself, where the list holds it."""


class Listing(Protocol):
    """Where a source says what it leaves out, and what it noticed."""

    def skip(self, name: str, reason: str) -> None:
        """`name` is not taken."""

    def note(self, text: str, many: str | None = None) -> None:
        """Something that holds for many; said once, with its number before it. `many` reads so after a plural."""


class Source(Protocol):
    """Pictures in some place. Nothing but names is read before `entries` is asked for the next one."""

    @property
    def name(self) -> str:
        """What the collection is called unless somebody names it."""

    def count(self) -> int:
        """How many entries there may be at most; raises IndexingError when the place cannot be used at all."""

    def entries(self, listing: Listing) -> Iterator[Entry]:
        """The pictures, in the same order every time."""


class Notes(Counter[tuple[str, str]]):
    """Sentences after the number one, and after any other, with how often each was said."""

    def sentences(self) -> tuple[str, ...]:
        """As people read them."""
        return tuple(f"{number:,} {one if number == 1 else many}" for (one, many), number in self.items())


def file_entry(path: Path, name: str, facts: Facts = NOTHING) -> Entry:
    """An ordinary file. Raises OSError when it cannot be looked at."""
    return Entry(name, path.stat().st_size, partial(read_file, path), facts, path)


def listed_entries(paths: PicturePaths, row: Row, listing: Listing) -> Iterator[Entry]:
    """The entry of the file that a row names below the root of `paths`; none, and said so, where it is not there."""
    try:
        if row.data is not None:
            yield Entry(row.path, len(row.data), partial(_embedded, row.data), row.facts)
            return
        yield file_entry(inside(paths, row.path), row.path, row.facts)
    except (PictureError, OSError) as error:
        listing.skip(f"row {row.number}: {row.path}", str(error))


def _embedded(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise PictureError(too_many_bytes(len(data), most))
    return data


def read_file(path: Path, most: int) -> bytes:
    """The file's bytes; raises PictureError when there are more than `most`."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise PictureError(too_many_bytes(path.stat().st_size, most))
    return data


def too_many_bytes(size: int, most: int) -> str:
    """Why a file is not taken."""
    return f"the file has {size:,} bytes; at most {most:,} are taken"


def printable(name: str | bytes) -> str:
    """A file's name as text, also where the file system holds bytes that are no text."""
    return os.fsencode(name).decode("utf-8", "replace").replace(os.sep, "/")


def inside(paths: PicturePaths, text: str) -> Path:
    """The file that a list names, which has to lie below the root of `paths`, links followed. Raises PictureError."""
    root = paths.root.resolve()
    try:
        path = (paths.find(text) or paths.root / text).resolve()
        ordinary = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise PictureError("this is no path of a file") from error
    if not path.is_relative_to(root):
        raise PictureError(
            f"the path leads out of the folder {root.name!r}: name one that holds every picture by --root"
        )
    if not ordinary:
        raise PictureError("there is no such file")
    return path
