"""Exports as files that may be served: the data set itself, or it and its card in one archive."""

from __future__ import annotations

import os
import shutil
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from app.errors import RequestError
from app.state import State
from store.export import export_parquet

EXPORT_FORMATS = ("parquet", "zip")


def write_export(state: State, format: str) -> Path:
    """Export all current marks below `exports/` and hand back a copy below `tmp/`, from where Gradio serves.

    `parquet` is the data set; `zip` holds it with its data card. Raises RequestError on another format and
    ExportError when there are no marks.
    """
    if format not in EXPORT_FORMATS:
        raise RequestError(f"the format of an export is one of {', '.join(EXPORT_FORMATS)}, not {format!r}")
    now = datetime.now(UTC)
    folder = state.settings.exports_dir / f"{now:%Y%m%d-%H%M%S}-{uuid4().hex[:6]}"
    report = export_parquet(state.marks, state.gallery, folder)
    path = Path(report.path)
    served = state.settings.tmp_dir / "downloads" / uuid4().hex
    served.mkdir(parents=True)
    target = served / f"person-search-marks-{now:%Y%m%d-%H%M%S}.{format}"
    if format == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # Parquet is compressed already
            for file in sorted(path.parent.iterdir()):
                archive.write(file, file.name)
        return target
    try:
        os.link(path, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, target)
    return target
