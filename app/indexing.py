"""Indexing: a folder of pictures becomes a part of the gallery."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errors import IndexingError
from app.progress import Report, silent, staged
from app.retriever import Retriever
from core.errors import PictureError
from core.pictures import PICTURE_SUFFIXES, open_picture
from store import Gallery, NewImage

SAMPLE = "sample"
"""Source of the sample gallery, which steps aside when own pictures are indexed."""
_AT_ONCE = 64
MOST_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not in the gallery, relative to the folder, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What indexing did: `found` picture files = `added` + `known` (same picture already there) + skipped ones."""

    source: str
    found: int
    added: int
    known: int
    embedded: int
    version: str
    skipped: tuple[Skipped, ...]


def index_folder(
    folder: Path, gallery: Gallery, retriever: Retriever, *, source: str | None = None, report: Report = silent
) -> IndexReport:
    """Add every picture below `folder` to the gallery and embed it under the active version.

    Reads one batch at a time, so folders may be larger than memory; interrupted, it goes on where it was when
    run again. Files that cannot be used are skipped and listed. The sample gallery is hidden afterwards.
    Raises IndexingError when the folder cannot be read or holds no usable picture.
    """
    source = _source_name(source or folder.resolve().name)
    skipped: list[Skipped] = []
    files = list(_picture_files(folder, skipped))
    if not files:
        raise IndexingError(_nothing_in(folder, skipped))
    added = read = 0
    for start in range(0, len(files), _AT_ONCE):
        images = list(_read(folder, files[start : start + _AT_ONCE], source, skipped))
        read += len(images)
        added += len(gallery.add(images))
        report("Reading pictures", min(start + _AT_ONCE, len(files)), len(files))
    if not read:
        raise IndexingError(
            f"none of the {len(files)} picture files in {folder} could be used; the first one, "
            f"{skipped[0].path}: {skipped[0].reason}"
        )
    embedded = retriever.embed_new(progress=staged(report, "Embedding pictures"))
    gallery.hide_source(SAMPLE)
    return IndexReport(source, len(files), added, read - added, embedded, retriever.serving.version, tuple(skipped))


def _source_name(name: str) -> str:
    name = re.sub(r"\s+", " ", name).strip()[:64] or "pictures"
    if name == SAMPLE:
        raise IndexingError(f"the source name {SAMPLE!r} belongs to the sample gallery: choose another with --source")
    return name


def _picture_files(folder: Path, skipped: list[Skipped]) -> Iterator[Path]:
    """Picture files below `folder`, sorted; links that lead out of it are skipped and listed."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise IndexingError(f"{folder} {what}: expected a folder of pictures")
    root = folder.resolve()

    def unreadable(error: OSError) -> None:
        skipped.append(Skipped(_relative(error.filename, folder), f"the folder cannot be read ({error.strerror})"))

    for here, folders, names in os.walk(folder, onerror=unreadable, followlinks=False):
        folders.sort()
        for name in folders:
            if Path(here, name).is_symlink():
                skipped.append(Skipped(_relative(Path(here, name), folder), "links to folders are not followed"))
        for name in sorted(names):
            path = Path(here, name)
            if path.suffix.lower() not in PICTURE_SUFFIXES:
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                skipped.append(Skipped(_relative(path, folder), "links out of the folder are not followed"))
            elif path.is_file():
                yield path
            else:
                skipped.append(Skipped(_relative(path, folder), "is no ordinary file"))


def _read(folder: Path, files: Sequence[Path], source: str, skipped: list[Skipped]) -> Iterator[NewImage]:
    for path in files:
        name = _relative(path, folder)
        try:
            size = path.stat().st_size
            if size > MOST_BYTES:
                raise PictureError(f"the file has {size:,} bytes; at most {MOST_BYTES:,} are taken")
            data = path.read_bytes()
            with open_picture(data) as picture:
                width, height = picture.size
        except (PictureError, OSError) as error:
            skipped.append(Skipped(name, str(error)))
            continue
        yield NewImage(data=data, uri=name, width=width, height=height, source=source)


def _relative(path: str | Path, folder: Path) -> str:
    """The path below the folder, printable even where the file system holds bytes that are no text."""
    return os.fsencode(os.path.relpath(path, folder)).decode("utf-8", "replace").replace(os.sep, "/")


def _nothing_in(folder: Path, skipped: Sequence[Skipped]) -> str:
    more = f" ({len(skipped)} skipped, the first: {skipped[0].path}: {skipped[0].reason})" if skipped else ""
    return (
        f"no pictures in {folder}{more}: expected files ending in {', '.join(sorted(PICTURE_SUFFIXES))}, "
        "in the folder or anywhere below it"
    )
