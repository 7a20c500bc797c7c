"""Deleting a model version: its row, its embeddings and its weights."""

from __future__ import annotations

import shutil

from app.app_errors import TrainingError
from app.state import State


def remove_version(state: State, version: str) -> None:
    """Delete a version that nothing depends on. Marks keep the name of the version that ranked them.

    Raises TrainingError while a run is under way, VersionError where the version is needed, see `Versions.delete`.
    """
    if state.jobs.current() is not None:
        raise TrainingError("a run is under way, which may need this version: wait for its end, then delete")
    folder = state.version_folder(state.versions.get(version))
    row = state.versions.delete(version)  # first: a row always has its file
    if row.vectors == row.id:
        state.gallery.drop_version(row.id)
    shutil.rmtree(folder, ignore_errors=True)
