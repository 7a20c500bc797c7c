"""The state directory: its folders, its lock, and the stores in it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from app.app_errors import StartError
from app.settings import Settings
from store import Database, Forgetting, Gallery, Jobs, Marks, Versions


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
        db = Database(settings.database)
        return cls(settings, db, Gallery(settings.gallery_dir), Marks(db), Versions(db), Jobs(db))

    def close(self) -> None:
        """Close the database; the gallery holds nothing open."""
        self.db.close()

    @property
    def forgetting(self) -> Forgetting:
        """What erases pictures from all of this."""
        settings = self.settings
        return Forgetting(self.gallery, self.marks, settings.exports_dir, settings.tmp_dir, settings.backup_dir)

    def folder_of(self, version: str) -> Path:
        """Where the PETL weights of `version` lie."""
        return self.settings.data_dir / (self.versions.get(version).folder or Path("models", version))


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
