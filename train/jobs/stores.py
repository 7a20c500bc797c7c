"""The stores of a state directory, as the training process opens them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from store import Database, Gallery, Jobs, Marks, StoreError, VersionRow, Versions


@dataclass(frozen=True, slots=True)
class Stores:
    """The state directory, opened by the training process."""

    folder: Path
    gallery: Gallery
    marks: Marks
    versions: Versions
    jobs: Jobs


@contextmanager
def open_stores(folder: Path) -> Iterator[Stores]:
    """Open the stores in an existing state directory. Raises StoreError."""
    if not (folder / "app.db").exists():
        raise StoreError(
            f"there is no state directory at {folder}: start `python app.py` once, or name it by --data-dir"
        )
    database = Database(folder / "app.db")
    try:
        yield Stores(folder, Gallery(folder / "gallery"), Marks(database), Versions(database), Jobs(database))
    finally:
        database.close()


def folder_of(stores: Stores, row: VersionRow) -> Path:
    """Where a version's PETL weights lie."""
    return stores.folder / (row.folder or f"models/{row.id}")
