"""The data folder: its folders, its lock, and the stores in it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from app.app_errors import StartError, TrainingError
from app.settings import Settings
from store import Gallery
from store.values import utc_now
from store.workspace import Workspace

log = logging.getLogger(__name__)


class State(Workspace):
    """The data folder of the app: its stores and its settings."""

    def __init__(self, settings: Settings) -> None:
        """Open what is in `settings.data_dir`, or create it. Raises StartError when the folder cannot be written."""
        make_folders(settings)
        _check_not_lost(settings.database, Gallery(settings.gallery_dir))
        super().__init__(settings.data_dir)
        self.settings = settings

    def prune_searches(self) -> int:
        """Delete searches that nobody marked and that are older than the settings keep, and return how many."""
        before = utc_now() - timedelta(hours=self.settings.keep_searches_hours)
        return self.marks.prune_searches(before=before, keep=self.settings.kept_searches)

    def remove_version(self, version: str) -> None:
        """Delete a version that nothing depends on. Marks keep the name of the version that ranked them.

        Raises TrainingError while a run is under way, VersionError where the version is needed, see `Versions.delete`.
        """
        if self.jobs.current() is not None:
            raise TrainingError("a run is under way, which may need this version: wait for its end, then delete")
        folder = self.version_folder(self.versions.get(version))
        row = self.versions.delete(version)  # first: a row always has its file
        if row.vectors == row.id:
            self.gallery.drop_version(row.id)
        shutil.rmtree(folder, ignore_errors=True)


def _check_not_lost(database: Path, gallery: Gallery) -> None:
    """Warn if the database is missing beside a gallery with pictures: the app starts without marks and versions.

    Raises StartError if it is there and empty, which no stop of this app leaves.
    """
    empty = database.exists() and not database.stat().st_size
    if (database.exists() and not empty) or not gallery.count():
        return
    said = f"the gallery holds {gallery.count():,} pictures, but {database} with their marks and versions"
    if empty:
        raise StartError(f"{said} is empty: restore it from a copy, or delete it to go on without marks and versions")
    log.warning("%s is gone: it is made again, without any. Restore it from a copy if that was not meant", said)


def make_folders(settings: Settings) -> None:
    """Create the data folder and check that it can be written. Raises StartError."""
    try:
        for folder in (settings.models_dir, settings.exports_dir, settings.logs_dir, settings.tmp_dir):
            folder.mkdir(parents=True, exist_ok=True)
        if settings.backup_repo:
            settings.backup_dir.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.data_dir):
            pass
    except OSError as error:
        raise StartError(
            f"the data folder {settings.data_dir} cannot be written ({error.strerror or error}): make it writable, "
            "or choose another one with --data-dir or UPPERSON_DATA_DIR"
        ) from error


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Hold the data folder for one serving process. Raises StartError when another one holds it."""
    make_folders(settings)
    who = settings.data_dir / "app.pid"
    lock = FileLock(settings.data_dir / "app.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StartError(
            f"the data folder {settings.data_dir} is in use by another app (process {_read(who)}): "
            "stop that one first, or choose another folder with --data-dir"
        ) from error
    try:
        who.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        who.unlink(missing_ok=True)
        lock.release()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip() or "unknown"
    except OSError:
        return "unknown"
