"""The retriever: encoder and vectors of the active version, swapped as one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.app_errors import StartError
from app.state import State
from core import Backbone, Encoder, UPPerson, load_version
from core.core_errors import CoreError
from store.store_errors import StoreError

RETRY = 10.0
"""Seconds between tries at a version that could not be read."""

KEPT = 3
"""Versions before the present one whose vectors are kept, so that rolling back to them is instant."""

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Serving:
    """A version that can answer: its encoder, and the name under which the gallery keeps its vectors."""

    version: str
    encoder: Encoder
    vectors: str


class Retriever:
    """Follows the pointer to the active version of one backbone.

    `serving` is replaced as a whole once the new version's weights are read and its vectors are complete;
    requests under way finish with the old one. A version that cannot be read never replaces one that can: `problem`
    names it, and version 0 serves if nothing else did.
    """

    def __init__(self, state: State, backbone: Backbone, *, progress: Progress | None = None) -> None:
        self._state = state
        self.backbone = backbone
        self.problem: str | None = None
        _require_same_weights(state, backbone)
        self._base = state.versions.ensure_base(backbone.name, metrics=dict(backbone.facts.get("metrics", {}))).id
        self._base_encoder = Encoder(UPPerson(backbone, None))
        self._turn = threading.Lock()
        self._again = 0.0
        self._wanted = state.versions.active(backbone.name).id
        self.serving = self._first(progress)

    def _first(self, progress: Progress | None) -> Serving:
        try:
            return self.prepare(self._wanted, progress=progress)
        except CoreError as error:
            self._report(error, instead=self._base)
            return self.prepare(self._base, progress=progress)

    def prepare(self, version: str, *, progress: Progress | None = None) -> Serving:
        """Read `version` and embed every picture it has no vector for yet.

        Raises CheckpointError when its weights are damaged, VersionError when there is no such version.
        """
        vectors, encoder = self._state.versions.get(version).vectors, self.encoder_of(version)
        self._state.gallery.fill(vectors, encoder.encode_images, dim=encoder.dim, progress=progress)
        return Serving(version, encoder, vectors)

    def encoder_of(self, version: str) -> Encoder:
        """Read the encoder of a version, in use or not. Raises as `prepare` does."""
        if version == self._base:
            return self._base_encoder
        row = self._state.versions.get(version)
        return Encoder(load_version(self.backbone, self._state.version_folder(row)))

    def embed_again(self, cancelled: Callable[[], bool]) -> None:
        """Embed what the serving version's table lacks; `cancelled` is asked before each batch."""
        serving = self.serving
        encode, dim = serving.encoder.encode_images, serving.encoder.dim
        self._state.gallery.fill(serving.vectors, encode, dim=dim, cancelled=cancelled)

    def embed_new(self, *, progress: Progress | None = None) -> int:
        """Embed the pictures that were added since, under whatever version serves in the end; returns how many."""
        embedded = 0
        while True:
            serving = self.serving
            encode, dim = serving.encoder.encode_images, serving.encoder.dim
            embedded += self._state.gallery.fill(serving.vectors, encode, dim=dim, progress=progress)
            self.refresh()
            if self.serving.version == serving.version:  # else a promotion passed by: its table may lack the newest
                return embedded

    def refresh(self, *, patient: bool = False) -> bool:
        """Swap if another version is to serve; True if it does now. After a fault it tries again whenever it is asked,
        `patient` at most once in `RETRY` seconds."""
        with self._turn:
            wanted = self._state.versions.active(self.backbone.name).id
            if wanted == self.serving.version:
                self._wanted, self.problem = wanted, None
                return False
            if patient and wanted == self._wanted and time.monotonic() < self._again:
                return False
            self._wanted = wanted
            try:
                self.serving = self.prepare(wanted)
            except (CoreError, StoreError) as error:
                self._again = time.monotonic() + RETRY
                self._report(error, instead=self.serving.version)
                return False
            self.problem = None
            log.info("version %s serves now", wanted)
            try:
                self._drop_old()
            except StoreError as error:
                log.error("old vectors could not be deleted, the next version's turn comes to it: %s", error)
            return True

    def _drop_old(self) -> None:
        """Delete the vectors of versions that served longer ago than the last `KEPT` before the present one.

        Kept are those that rolling back leads to, and those that served last: after a rollback, open searches go on
        with what was rolled back from. Only of versions that served once: those of a candidate may be on their way to
        serving. Should one of these be promoted again, `prepare` embeds the pictures again.
        """
        versions = self._state.versions
        served = dict.fromkeys(change.version for change in reversed(versions.history(self.backbone.name)))
        line = versions.line(self.backbone.name)
        recent = {*line[-1 - KEPT :], *list(served)[: 1 + KEPT], self.serving.version}
        rows = versions.list(self.backbone.name)
        old = {row.id for row in rows if row.status in ("retired", "base")} - recent
        kept = {row.vectors for row in rows if row.id not in old}  # several versions may share one table
        tables = {row.vectors for row in rows if row.id in old}.intersection(self._state.gallery.versions())
        for name in sorted(tables - kept):
            self._state.gallery.drop_version(name)
            log.info("the vectors %s were deleted: %d versions have served since", name, KEPT + 1)

    def _report(self, error: CoreError | StoreError, *, instead: str) -> None:
        self.problem = (
            f"Version {self._wanted} is active but cannot be read, so {instead} serves in its place. "
            f"Roll back, promote another version or restore the file. The fault: {error}"
        )
        log.error("%s", self.problem)


def _require_same_weights(state: State, backbone: Backbone) -> None:
    """Scores of vectors and captions from different weights would mean nothing. Raises StartError."""
    weights = backbone.fingerprint()
    found = state.database.setting(f"weights of {backbone.name}", lambda: weights)
    if found != weights:
        raise StartError(
            f"the data folder {state.settings.data_dir} was made with other weights of {backbone.name!r} (fingerprint "
            f"{found}, these have {weights}), so its vectors and versions do not fit: restore those weights, or "
            "start with another folder by --data-dir"
        )
