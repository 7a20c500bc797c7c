"""One version of a comparison: its encoder, and embeddings of pictures in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.app_errors import RequestError
from app.search.retriever import Retriever
from app.state import State
from core import Encoder
from store import Gallery
from store.store_errors import GalleryError

DEPTH = 200
"""Results that `searching` returns."""
_AT_ONCE = 32


@dataclass(slots=True)
class Side:
    """A version with the rows (E,) known of it so far; `vectors` names its table, which need not exist or be full."""

    version: str
    encoder: Encoder
    vectors: str
    gallery: Gallery
    rows: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def searchable(self) -> bool:
        """Whether the gallery keeps embeddings of every picture under this version."""
        return self.vectors in self.gallery.versions() and self.gallery.complete(self.vectors)

    def searching(self, row: NDArray[np.float32]) -> list[str]:
        """Return the first `DEPTH` pictures for a query (E,); none where there are no vectors to search."""
        if not self.searchable():
            return []
        return [candidate.image_id for candidate in self.gallery.search(self.vectors, row, DEPTH)]

    def embed(self, ids: Sequence[str], until: float) -> None:
        """Make the rows of these pictures known, from the table or computed until the time `until` of the monotonic
        clock; at least one batch is. Pictures whose file cannot be read are left out."""
        missing = [image_id for image_id in ids if image_id not in self.rows]
        if missing and self.vectors in self.gallery.versions():
            self.rows.update(zip(*self.gallery.vectors(self.vectors, missing), strict=True))
            missing = [image_id for image_id in missing if image_id not in self.rows]
        for start in range(0, len(missing), _AT_ONCE):
            files = self._files(missing[start : start + _AT_ONCE])
            if files:
                self.rows.update(zip(files, self.encoder.encode_images(list(files.values())), strict=True))
            if time.monotonic() >= until:
                return

    def matrix(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the rows (N, E) of pictures that are known."""
        if not ids:
            return np.empty((0, self.encoder.dim), np.float32)
        return np.stack([self.rows[image_id] for image_id in ids])

    def _files(self, ids: Sequence[str]) -> dict[str, bytes]:
        try:
            return self.gallery.datas(ids)
        except GalleryError:  # one of them is gone from where it was
            found = dict[str, bytes]()
            for image_id in ids:
                try:
                    found |= self.gallery.datas([image_id])
                except GalleryError:
                    continue
            return found


def open_side(state: State, retriever: Retriever, version: str) -> Side:
    """Read a version's weights. Raises RequestError where it belongs to another backbone, VersionError where there is
    none, CheckpointError where its weights are damaged."""
    row, backbone, serving = state.versions.get(version), retriever.backbone, retriever.serving
    if row.backbone != backbone.name:
        raise RequestError(
            f"version {version} belongs to backbone {row.backbone}, but {backbone.name} is loaded: "
            f"choose versions of {backbone.name}"
        )
    if version == serving.version:
        return Side(version, serving.encoder, serving.vectors, state.gallery)
    return Side(version, retriever.encoder_of(version), row.vectors, state.gallery)
