"""Indexing: pictures from a folder, a zip, a table or an annotation file become a part of the gallery.

What needs the model is imported where it is used, so that a wrong place is refused at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from app.app_errors import IndexingError
from app.indexing.annotations import AnnotationSource
from app.indexing.archive import ZipSource
from app.indexing.entries import Entry, Listing, Source, file_entry, printable
from app.indexing.folder import TABLES, FolderSource
from app.indexing.hub_set import PREFIX as HUB
from app.indexing.hub_set import HubSource
from app.indexing.report import IndexReport, SkipList, Skipped
from app.indexing.tables import TableSource
from app.progress import Report, silent, staged
from core.images import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from app.indexing.pipeline import Job
    from app.search.retriever import Retriever
    from store import Gallery

__all__ = [
    "SAMPLE",
    "IndexOptions",
    "IndexReport",
    "Skipped",
    "UploadLimits",
    "check_place",
    "index_pictures",
    "index_upload",
]

SAMPLE = "sample"
"""Source of the sample gallery, which steps aside when own pictures are indexed."""
UPLOADS = "uploads"
"""Source of what was added on the page."""
MOST_BYTES = 200_000_000
"""Of one picture's file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How to index a place: `source` names the collection (default: the place's name); `root` is the folder that a
    table's paths start from and must stay in; `by_reference` keeps the files' addresses instead of their bytes;
    `report_file` (.json or .csv) takes the list of everything skipped. `columns`: those of a Hub data set, by what they
    are."""

    source: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None
    by_reference: bool = False
    report_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """What an uploaded picture or zip may be at most; the bytes of all pictures count unpacked."""

    pictures: int = 10_000
    picture_bytes: int = 50_000_000
    all_bytes: int = 2_000_000_000
    directory_bytes: int = 8_000_000


def index_pictures(
    place: Path,
    gallery: Gallery,
    retriever: Retriever,
    options: IndexOptions | None = None,
    *,
    report: Report = silent,
) -> IndexReport:
    """Add every picture of a folder, zip, table, annotation file or Hub data set, embedded under the active version.

    Memory is bounded whatever the place holds; interrupted, it goes on where it was when run again. Files that cannot
    be used are skipped and listed. The sample gallery is hidden once there are others. Raises IndexingError when the
    place cannot be read or holds no usable picture; the gallery then is as it was.
    """
    from app.indexing.pipeline import Job

    options = options or IndexOptions()
    source = _source_at(place, options)
    job = Job(
        source=_source_name(options.source or source.name), most_bytes=MOST_BYTES, by_reference=options.by_reference
    )
    return _index(source, job, gallery, retriever, report=report, report_file=options.report_file)


def index_upload(
    path: Path,
    gallery: Gallery,
    retriever: Retriever,
    *,
    limits: UploadLimits | None = None,
    report: Report = silent,
) -> IndexReport:
    """Add a picture or the pictures of a zip that somebody uploaded, as the source `uploads`.

    What it is follows from its first bytes, not from its name. Raises IndexingError when it is beyond the limits or
    holds no usable picture; the gallery then is as it was. The sample gallery is hidden once there are others.
    """
    from app.indexing.pipeline import Job

    limits = limits or UploadLimits()
    source: Source = PictureSource(path)
    if _begins_as_zip(path):
        source = ZipSource(path, most_directory=limits.directory_bytes)
        pictures, size = source.count(), source.picture_bytes()
        if pictures > limits.pictures or size > limits.all_bytes:
            raise IndexingError(
                f"{path.name} holds {pictures:,} pictures of {size:,} bytes; at most {limits.pictures:,} pictures of "
                f"{limits.all_bytes:,} bytes are taken at once: split it, or use `python app.py index` on the server"
            )
    job = Job(source=UPLOADS, most_bytes=limits.picture_bytes)
    return _index(source, job, gallery, retriever, report=report)


def check_place(place: Path, options: IndexOptions) -> None:
    """Raise IndexingError where `index_pictures` would before it looks at a picture, without loading a model."""
    _source_at(place, options)


class PictureSource:
    """One picture file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return self._path.stem

    def count(self) -> int:
        return 1

    def entries(self, listing: Listing) -> Iterator[Entry]:  # noqa: ARG002 - nothing to leave out
        yield file_entry(self._path, printable(self._path.name))


def _index(
    source: Source,
    job: Job,
    gallery: Gallery,
    retriever: Retriever,
    *,
    report: Report,
    report_file: Path | None = None,
) -> IndexReport:
    from app.indexing.pipeline import Pipeline

    with SkipList(report_file) as skipped:
        serving = retriever.serving
        counts = Pipeline(job, gallery, serving, skipped).run(source, report)
        if not counts.added + counts.known:
            raise IndexingError(_nothing(source, skipped))
        embedded = counts.embedded + retriever.embed_new(progress=staged(report, "Embedding pictures"))
        if gallery.sources().keys() - {SAMPLE}:  # else all that came is in the sample already
            gallery.hide_source(SAMPLE)
        return skipped.finish(
            IndexReport(
                source=job.source,
                found=counts.added + counts.known + skipped.count,
                added=counts.added,
                known=counts.known,
                embedded=embedded,
                version=retriever.serving.version,
                skipped_count=skipped.count,
                skipped=tuple(skipped.first),
                notes=skipped.notes,
            )
        )


def _source_at(place: Path, options: IndexOptions) -> Source:
    """Return the source of pictures at `place`, by its kind and suffix. Raises IndexingError."""
    if str(place).startswith(HUB):
        if options.root is not None or options.by_reference:
            raise IndexingError("a data set of the Hub is streamed: omit --root and --reference")
        return HubSource(str(place), options.columns)
    if options.columns:
        raise IndexingError(f"--columns is for data sets of the Hub (hub:user/name); {place.name} is none: omit it")
    kind = "" if place.is_dir() else place.suffix.lower()
    if options.root is not None:
        if kind not in (*TABLES, ".json"):
            raise IndexingError(
                f"--root is for the paths in a table or annotation file; {place.name} is neither: omit it"
            )
        if not options.root.is_dir():
            raise IndexingError(f"--root {options.root} is no folder: name the folder that the paths start from")
    if kind == ".zip":
        if options.by_reference:
            raise IndexingError(f"{place.name} is a zip, whose pictures have no files: unpack it, or omit --reference")
        return ZipSource(place)
    if kind in TABLES:
        return TableSource(place, options.root)
    if kind == ".json":
        return AnnotationSource(place, options.root)
    if place.is_file():
        raise IndexingError(
            f"{place} is no source of pictures: expected a folder, a .zip, a .csv, .parquet or .jsonl, or an "
            "annotation file like reid_raw.json"
        )
    return FolderSource(place)


def _source_name(name: str) -> str:
    name = re.sub(r"\s+", " ", printable(name)).strip()[:64] or "pictures"
    if name == SAMPLE:
        raise IndexingError(f"the source name {SAMPLE!r} belongs to the sample gallery: choose another with --source")
    return name


def _begins_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _nothing(source: Source, skipped: SkipList) -> str:
    if not skipped.count:
        return (
            f"no pictures in {source.name}: expected files ending in {', '.join(sorted(PICTURE_SUFFIXES))}, "
            f"in it or anywhere below it{''.join(f'; {note}' for note in skipped.notes)}"
        )
    examples: dict[str, str] = {}
    for one in skipped.first:
        examples.setdefault(one.reason, one.path)
    reasons = "; ".join(f"{path}: {reason}" for reason, path in list(examples.items())[:3])
    return f"none of the {skipped.count} pictures in {source.name} could be used, for example {reasons}"
