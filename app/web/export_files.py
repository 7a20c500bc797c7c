"""Exports as one file that may be served: Parquet and JSON lines as such, folders of pictures as an archive.

An export is a process of its own, at a low priority, so that nobody who searches waits for it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from uuid import uuid4

from app.app_errors import known_errors
from app.process.priority import lower_priority
from app.settings import load_settings
from app.state import State
from core.images import as_loaders_read
from store.deletion_log import guard_deletion
from store.export import MARKS_FILE, REMOVED, ExportReport, export_marks, join_parquet
from store.records import ExportFormat
from store.store_errors import ExportError

_ROOT = Path(__file__).resolve().parents[2]
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def export_file(state: State, format: str) -> Path:
    """As `write_export`, in a process of its own."""
    command = [sys.executable, "-m", "app.web.export_files", str(state.settings.data_dir), format]
    with subprocess.Popen(
        command,
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            lower_priority(process.pid)  # here, not there: its start takes both cores for a second
            out, err = process.communicate()
        except BaseException:
            process.kill()
            raise
    try:
        said = json.loads(out)
    except ValueError:
        last = err.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise ExportError(
            f"The export ended before it was done ({last[0][:300]}). Nothing is kept. Try again."
        ) from None
    if "error" in said:
        raise ExportError(said["error"])
    return Path(said["file"])


def write_export(state: State, format: ExportFormat) -> Path:
    """Export all current marks below `exports/` and hand back a file below `tmp/`, from where Gradio serves.

    Raises ExportError on an unknown format, when there are no marks, when a picture is forgotten meanwhile, and when
    the disk is full.
    """
    clear_downloads(state.settings.tmp_dir / "downloads")
    served = state.settings.tmp_dir / "downloads" / uuid4().hex
    try:
        with guard_deletion(state.database, refuse=ExportError(REMOVED)):
            report = export_marks(
                state.marks, state.gallery, state.settings.exports_dir, as_seen=as_loaders_read, format=format,
                named=True,
            )  # fmt: skip
            served.mkdir(parents=True)
            try:
                return pack(report, served)
            except OSError as fault:
                raise ExportError(
                    f"The export is written, but it cannot be packed for downloading: {fault}. Make room and export "
                    "again."
                ) from fault
    except BaseException:
        shutil.rmtree(served, ignore_errors=True)
        raise


def pack(report: ExportReport, served: Path) -> Path:
    """Write an export to one file in the folder `served`, and return it."""
    name = report.path.name
    if report.format == "jsonl":
        target = served / f"{name}.jsonl"
        try:
            os.link(report.path / MARKS_FILE, target)
        except OSError:  # a file system without hard links
            shutil.copyfile(report.path / MARKS_FILE, target)
        return target
    if report.format == "parquet":
        join_parquet(report.path, served / f"{name}.parquet")
        return served / f"{name}.parquet"
    target = served / f"{name}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # pictures are compressed already
        for file in sorted(path for path in report.path.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(f"{name}/{file.relative_to(report.path).as_posix()}", _NO_TIME)
            entry.external_attr = 0o644 << 16
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as copy:
                shutil.copyfileobj(source, copy, 2**20)
    return target


def clear_killed(exports: Path) -> int:
    """Delete what exports left that were killed in the middle, a day ago or earlier; how many."""
    return _clear_old(exports, ".*.partial")


def clear_downloads(downloads: Path) -> int:
    """Delete the files that were packed for downloading a day ago or earlier; how many exports these were."""
    return _clear_old(downloads, "*")


def _clear_old(folder: Path, pattern: str) -> int:
    left = [part for part in folder.glob(pattern) if part.stat().st_mtime < time.time() - 24 * 3600]
    for part in left:
        shutil.rmtree(part, ignore_errors=True)
    return len(left)


def main(data_dir: str, format: ExportFormat) -> None:
    """The process: prints {"file": ...} or {"error": ...}."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was begun is cleared away
    try:
        state = State(load_settings(data_dir=Path(data_dir)))
        try:
            said = {"file": str(write_export(state, format))}
        finally:
            state.close()
    except known_errors() as error:
        said = {"error": str(error)}
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type] # `export_marks` checks it
