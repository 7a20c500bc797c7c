"""Exports as one file that may be served: Parquet and JSON lines as such, folders of pictures as an archive."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from uuid import uuid4

from app.state import State
from store.errors import ExportError
from store.export import FORMATS, MARKS_FILE, export_marks, join_parquet

EXPORT_FORMATS = FORMATS
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def write_export(state: State, format: str) -> Path:
    """Export all current marks below `exports/` and hand back a file below `tmp/`, from where Gradio serves.

    Raises ExportError on an unknown format, when there are no marks, and when the disk is full.
    """
    report = export_marks(state.marks, state.gallery, state.settings.exports_dir, format=format, named=True)
    served = state.settings.tmp_dir / "downloads" / uuid4().hex
    served.mkdir(parents=True)
    if format == "jsonl":
        target = served / f"{report.path.name}.jsonl"
        try:
            os.link(report.path / MARKS_FILE, target)
        except OSError:  # a file system without hard links
            shutil.copyfile(report.path / MARKS_FILE, target)
        return target
    target = served / f"{report.path.name}.{'parquet' if format == 'parquet' else 'zip'}"
    try:
        if format == "parquet":
            join_parquet(report.path, target)
            return target
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # pictures and Parquet are compressed already
            for file in sorted(path for path in report.path.rglob("*") if path.is_file()):
                entry = zipfile.ZipInfo(f"{report.path.name}/{file.relative_to(report.path).as_posix()}", _NO_TIME)
                entry.external_attr = 0o644 << 16
                with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as copy:
                    shutil.copyfileobj(source, copy, 2**20)
    except OSError as fault:
        shutil.rmtree(served, ignore_errors=True)
        raise ExportError(
            f"The export is written, but it cannot be packed for downloading: {fault}. Make room and export again."
        ) from fault
    return target
