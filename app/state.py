"""The state directory: its folders, its lock, and the stores in it."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from app.app_errors import StartError
from app.settings import Settings
from store import Database, Deletion, Gallery, Jobs, Marks, Versions
from store.pruning import prune_searches
from store.values import utc_now

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """Everything that outlives a process: pictures, vectors, marks, versions, jobs."""

    settings: Settings
    db: Database
    gallery: Gallery
    marks: Marks
    versions: Versions
    jobs: Jobs

    @classmethod
    def open(cls, settings: Settings) -> State:
        """Open what lies in `settings.data_dir`, or make it. Raises StartError when the folder cannot be written."""
        make_folders(settings)
        gallery = Gallery(settings.gallery_dir)
        _check_not_lost(settings.database, gallery)
        db = Database(settings.database)
        return cls(settings, db, gallery, Marks(db), Versions(db), Jobs(db))

    def close(self) -> None:
        """Close the database; the gallery holds nothing open."""
        self.db.close()

    @property
    def deletion(self) -> Deletion:
        """What erases pictures from all of this."""
        settings = self.settings
        return Deletion(self.gallery, self.marks, settings.exports_dir, settings.tmp_dir, settings.backup_dir)

    def prune_searches(self) -> int:
        """Delete searches that nobody marked and that are not to be kept any longer; how many."""
        before = utc_now() - timedelta(hours=self.settings.keep_searches_hours)
        return prune_searches(self.db, before=before, keep=self.settings.kept_searches)

    def folder_of(self, version: str) -> Path:
        """Where the PETL weights of `version` lie."""
        return self.settings.data_dir / (self.versions.get(version).folder or Path("models", version))


def _check_not_lost(database: Path, gallery: Gallery) -> None:
    """Warn if the database is gone beside a gallery with pictures, for that starts without marks and versions.

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
    """Make the state directory and see that it can be written. Raises StartError."""
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
