"""A data folder with all its stores opened together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from store.database import Database
from store.deletion import Deletion
from store.gallery.gallery import Gallery
from store.jobs import Jobs
from store.marks import Marks
from store.values import DATABASE, check_data_folder
from store.versions import VersionRow, Versions


class ImageEncoder(Protocol):
    """Turns B encoded files into float (B, `dim`) unit rows."""

    @property
    def dim(self) -> int: ...

    def encode_images(self, images: list[bytes], /) -> np.ndarray: ...


class Workspace:
    """Pictures, vectors, marks, versions and jobs of one data folder, and the deletion of pictures from all of them.

    As a context manager it closes the database on exit; the gallery keeps nothing open.
    """

    def __init__(self, folder: Path) -> None:
        """Open the stores in `folder`, or create them. Raises StoreError."""
        self.folder = folder
        self.gallery = Gallery(folder / "gallery")
        self.database = Database(folder / DATABASE)
        self.marks, self.versions, self.jobs = Marks(self.database), Versions(self.database), Jobs(self.database)
        self.deletion = Deletion(self.gallery, self.marks, folder / "exports", folder / "tmp", folder / "backup")

    @classmethod
    def existing(cls, folder: Path) -> Workspace:
        """Open a data folder that is there already. Raises StoreError if it is not."""
        check_data_folder(folder)
        return Workspace(folder)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def version_folder(self, version: VersionRow) -> Path:
        """Return the folder with the PETL weights of a version."""
        return self.folder / (version.folder or f"models/{version.id}")

    def promote(
        self,
        version: VersionRow,
        encoder: ImageEncoder,
        *,
        by: str,
        reason: str,
        expected: str | None = None,
        progress: Callable[[str, float], None] = lambda _stage, _share: None,
    ) -> VersionRow:
        """Complete the vectors of the version that `encoder` is of, then make it the active one.

        `progress` gets (stage, share of all stages); what it raises before the end changes nothing that is served.
        Raises OvertakenError if another than the `expected` version is active by then.
        """
        self.gallery.fill(
            version.vectors,
            encoder.encode_images,
            dim=encoder.dim,
            progress=lambda done, total: progress("embedding the gallery", done / max(1, total)),
        )
        progress("promoting", 1.0)
        return self.versions.promote(version.id, by=by, reason=reason, expected=expected)
