"""Marks as a data set: an immutable folder in one of several formats, with a card that describes it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from store.deletion_log import guard_deletion
from store.export.cards import CARD_NAME, card
from store.export.formats import MARKS_FILE, WRITERS, export_schema, join_parquet, splits_of
from store.export.snapshot import COLUMNS, MANIFEST, REMOVED, Counts, Snapshot, pictures, pseudonym
from store.gallery.gallery import Gallery
from store.marks import Marks
from store.records import EXPORT_FORMATS, ExportFormat
from store.store_errors import ExportError
from store.values import utc_now

__all__ = [
    "CARD_NAME", "COLUMNS", "MANIFEST", "MARKS_FILE", "REMOVED", "Counts", "ExportReport", "export_marks",
    "export_schema", "join_parquet", "pseudonym",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export wrote and where; `sha256` is that of its contents, the same for the same marks and pictures."""

    path: Path
    format: str
    sha256: str
    counts: Counts

    @property
    def rows(self) -> int:
        """How many marks it holds."""
        return self.counts.rows


def export_marks(
    marks: Marks,
    gallery: Gallery,
    out_dir: Path,
    *,
    as_seen: Callable[[bytes], bytes],
    format: ExportFormat = "parquet",
    named: bool = False,
) -> ExportReport:
    """Write all current marks, as they are now, to the new folder `out_dir`.

    `as_seen` turns a picture's file into one that every loader shows as the pages do. `named`: to a folder below
    `out_dir` that is named by date, format and content; the one of the same content and day is kept if it is there. The
    folder appears complete or not at all; memory is bounded by the marks and some 30 MB of pictures. Raises ExportError
    on an unknown format, if there are no marks or none the format can hold, if `out_dir` holds anything already, if it
    cannot be written, and if a picture is removed meanwhile.
    """
    if format not in WRITERS:
        raise ExportError(
            f"The format of an export is one of {', '.join(EXPORT_FORMATS)}; {format!r} came. Choose one."
        )
    out_dir = Path(out_dir).absolute()
    if not named:
        _check_free(out_dir)
    parent = out_dir if named else out_dir.parent
    unfinished = parent / f".{uuid.uuid4().hex}.partial"
    try:
        with guard_deletion(marks.database, refuse=ExportError(REMOVED)) as undo:
            snapshot = Snapshot.take(marks, gallery)
            unfinished.mkdir(parents=True)
            written = WRITERS[format](snapshot, partial(pictures, gallery, as_seen), unfinished)
            counts = Counts.of(snapshot, written)
            (unfinished / CARD_NAME).write_text(card(format, counts, list(splits_of(unfinished))), encoding="utf-8")
            ids = sorted({mark.image_id for mark in written})
            digest = _write_manifest(unfinished, format, counts, ids)
            if format != "jsonl" and len(gallery.rows(ids)) < len(ids):
                raise ExportError(REMOVED)
            path = parent / f"{utc_now():%Y%m%d}-{format}-{digest[:12]}" if named else out_dir
            if not (named and path.exists()):
                os.rename(unfinished, path)  # fails if another export made the folder in between
                undo.append(partial(shutil.rmtree, path))
    except OSError as fault:
        raise ExportError(
            f"The export cannot be written to {out_dir}: {fault}. Choose a folder that can be written, with enough "
            "room."
        ) from fault
    finally:
        with contextlib.suppress(OSError):  # nothing is left of it after the rename, or it was never made
            shutil.rmtree(unfinished)
    return ExportReport(path=path, format=format, sha256=digest, counts=counts)


def _write_manifest(folder: Path, format: str, counts: Counts, ids: list[str]) -> str:
    """Write the manifest, with a checksum of every file, and return its own checksum."""
    files = {
        str(file.relative_to(folder).as_posix()): _sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()
    }
    facts = {"format": format, "counts": asdict(counts), "files": files, "image_ids": ids}
    text = json.dumps(facts, indent=1, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _check_free(out_dir: Path) -> None:
    try:
        taken = out_dir.is_dir() and any(out_dir.iterdir())
    except OSError as fault:
        raise ExportError(f"Expected to read {out_dir}, but: {fault}. Choose another folder.") from fault
    if taken or (out_dir.exists() and not out_dir.is_dir()):
        raise ExportError(f"Expected a new or empty folder for the export; {out_dir} is taken. Choose another one.")
