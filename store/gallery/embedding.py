"""What filling a vector table takes: an encoder, a plan, and embeddings that are checked before they are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from store.store_errors import GalleryError

UNIT_TOLERANCE = 1e-3
"""How far the length of an embedding may be from 1."""

Encode: TypeAlias = Callable[[list[bytes]], np.ndarray]
"""Turns B encoded files into float (B, E) unit rows."""
Embeddings: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FillPlan:
    """How a table is filled: `dim` is E, `progress` gets (done, all), `cancelled` returns whether to stop."""

    dim: int
    batch_size: int = 64
    progress: Callable[[int, int], None] | None = None
    cancelled: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        if self.dim < 1 or self.batch_size < 1:
            raise GalleryError(f"dim and batch_size are at least 1; {self.dim} and {self.batch_size} came.")

    def report(self, done: int, total: int) -> None:
        """Report progress, if anybody listens."""
        if self.progress is not None:
            self.progress(done, total)

    def stopped(self) -> bool:
        """Return whether to stop now."""
        return self.cancelled is not None and self.cancelled()


def checked(rows: np.ndarray, ids: Sequence[str], dim: int) -> Embeddings:
    """Return the rows as float32 (B, dim). Raises GalleryError unless they are unit rows, one for each id."""
    expected = f"Expected one float row of length {dim} and norm 1 for each of {len(ids)} pictures"
    advice = "Check the encoder and its weights; the gallery keeps what it had."
    if not isinstance(rows, np.ndarray) or rows.shape != (len(ids), dim):
        raise GalleryError(f"{expected}; {getattr(rows, 'shape', type(rows).__name__)} came. {advice}")
    if not np.issubdtype(rows.dtype, np.floating):
        raise GalleryError(f"{expected}; values of type {rows.dtype} came. {advice}")
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1.0) <= UNIT_TOLERANCE))  # a NaN compares as bad, too
    if bad.size:
        first = int(bad[0])
        raise GalleryError(
            f"{expected}; {bad.size} rows of another norm came, the first {norms[first]:.6g} "
            f"for picture {ids[first]}. {advice}"
        )
    return np.ascontiguousarray(rows, dtype=np.float32)
