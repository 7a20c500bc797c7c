"""Filling a version's vector table: every picture embedded once, in batches that are transactions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import col

from store.gallery.erase import erase
from store.gallery.image_rows import (
    DATA_NAMES,
    FACT_NAMES,
    IMAGES,
    TAGS,
    TAGS_FIELD,
    image_bytes,
    tags_column,
    vectors_schema,
)
from store.gallery.lance_folder import LanceFolder
from store.store_errors import GalleryError

UNIT_TOLERANCE = 1e-3
"""How far the length of an embedding may be from 1."""
log = logging.getLogger(__name__)
_COMPACT_EVERY = 64  # writes; a search over 160 fragments took twice as long as over one

Encode = Callable[[list[bytes]], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class FillPlan:
    """How `fill` goes about it: `dim` is E, `progress` gets (done, all), `cancelled` says when to stop."""

    dim: int
    batch_size: int = 64
    progress: Callable[[int, int], None] | None = None
    cancelled: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        if self.dim < 1 or self.batch_size < 1:
            raise GalleryError(f"dim and batch_size are at least 1; {self.dim} and {self.batch_size} came.")


def missing_ids(lance: LanceFolder, name: str) -> list[str]:
    """The pictures that have no embedding in this table, which may not be there, in the order they were added."""
    ids = list(lance.read(IMAGES, ["id"])["id"].to_pylist())
    embedded = set(embedded_ids(lance, name))
    return [image_id for image_id in ids if image_id not in embedded]


def embedded_ids(lance: LanceFolder, name: str) -> list[str]:
    """The ids in a vector table; none if there is no such table."""
    return list(lance.read(name, ["id"])["id"].to_pylist()) if lance.has(name) else []


def fill(lance: LanceFolder, name: str, encode: Encode, plan: FillPlan) -> int:
    """Embeds what is missing, also what is added meanwhile, and erases what has no picture; how many were added."""
    _make(lance, name, plan.dim)
    added, tried = 0, dict[str, None]()
    while todo := [image_id for image_id in missing_ids(lance, name) if image_id not in tried]:
        done = len(tried)
        tried.update(dict.fromkeys(todo))
        for number, start in enumerate(range(0, len(todo), plan.batch_size), start=1):
            _report(plan, done + start, len(tried))
            if plan.cancelled is not None and plan.cancelled():
                return added
            added += _fill_batch(lance, name, encode, plan, todo[start : start + plan.batch_size])
            if number % _COMPACT_EVERY == 0:
                lance.compact(name)
        _report(plan, len(tried), len(tried))
    with lance.writing():
        if alone := orphans(lance, name):
            erase(lance, name, alone)
    return added


def _fill_batch(lance: LanceFolder, name: str, encode: Encode, plan: FillPlan, ids: list[str]) -> int:
    batch = lance.read(IMAGES, [*DATA_NAMES, *FACT_NAMES, "metadata"], col("id").isin(ids))
    batch, files = _readable(batch)
    if not files:  # removed since, too
        return 0
    return _insert(lance, name, batch, _checked(encode(files), batch, plan.dim))


def _readable(batch: pa.Table) -> tuple[pa.Table, list[bytes]]:
    """The pictures whose file is there, and these; those by reference whose file is gone are told and left out."""
    try:
        return batch, image_bytes(batch)
    except GalleryError:
        kept, files = list[int](), list[bytes]()
        for row in range(batch.num_rows):
            try:
                files += image_bytes(batch[row : row + 1])
                kept.append(row)
            except GalleryError as fault:
                log.warning("left without an embedding: %s", fault)
        return batch.take(kept), files


def embed(lance: LanceFolder, name: str, ids: Sequence[str], rows: npt.NDArray[np.float32]) -> int:
    """Keeps embeddings made elsewhere, unit rows (B, E) of these ids; how many are new."""
    _make(lance, name, rows.shape[-1])
    place = {image_id: number for number, image_id in enumerate(ids)}
    batch = lance.read(IMAGES, ["id", *FACT_NAMES, "metadata"], col("id").isin(list(place)))
    if not batch.num_rows:
        return 0
    rows = rows[[place[image_id] for image_id in batch["id"].to_pylist()]]
    return _insert(lance, name, batch, _checked(rows, batch, rows.shape[-1]))


def _make(lance: LanceFolder, name: str, dim: int) -> None:
    """Makes the vector table if there is none; raises GalleryError if E is not `dim`."""
    table = lance.create(name, vectors_schema(dim))
    with lance.faults("read", name):
        width = table.schema.field("vector").type.list_size
    if width != dim:
        raise GalleryError(
            f"Table {name!r} has embeddings of {width} values each; {dim} came. "
            "Give the new model another version name, or drop this version first."
        )
    _write_tags(lance, name)


def _insert(lance: LanceFolder, name: str, batch: pa.Table, rows: npt.NDArray[np.float32]) -> int:
    """Adds the embeddings of a batch of pictures with their facts; how many are new."""
    dim = rows.shape[1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dim)
    made = [batch["id"], column, *(batch[fact] for fact in FACT_NAMES), tags_column(batch["metadata"])]
    return lance.insert(name, pa.table(made, schema=vectors_schema(dim)), known_in=IMAGES)


def _write_tags(lance: LanceFolder, name: str) -> None:
    """Writes the tags into a table that an older program filled without them."""
    lance.add_column(name, TAGS_FIELD)
    bare = lance.read(name, ["id"], f"{TAGS} IS NULL")["id"]
    if len(bare):
        known = lance.read(IMAGES, ["id", "metadata"])
        known = known.filter(pc.is_in(known["id"], value_set=bare.combine_chunks()))
        schema = pa.schema([known.schema.field("id"), TAGS_FIELD])
        lance.update(name, pa.table([known["id"], tags_column(known["metadata"])], schema=schema))


def orphans(lance: LanceFolder, name: str) -> list[str]:
    """The ids of embeddings without a picture, which older programs could leave."""
    embedded = embedded_ids(lance, name)  # first: what is added in between has its picture already
    return sorted(set(embedded) - set(lance.read(IMAGES, ["id"])["id"].to_pylist()))


def _report(plan: FillPlan, done: int, total: int) -> None:
    if plan.progress is not None:
        plan.progress(done, total)


def _checked(rows: np.ndarray, batch: pa.Table, dim: int) -> npt.NDArray[np.float32]:
    """The rows as float32 (B, dim) if they are embeddings of this batch; raises GalleryError otherwise."""
    expected = f"Expected one float row of length {dim} and norm 1 for each of {batch.num_rows} pictures"
    advice = "Check the encoder and its weights; the gallery keeps what it had."
    if not isinstance(rows, np.ndarray) or rows.shape != (batch.num_rows, dim):
        raise GalleryError(f"{expected}; {getattr(rows, 'shape', type(rows).__name__)} came. {advice}")
    if not np.issubdtype(rows.dtype, np.floating):
        raise GalleryError(f"{expected}; values of type {rows.dtype} came. {advice}")
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1.0) <= UNIT_TOLERANCE))  # a NaN compares as bad, too
    if bad.size:
        first = int(bad[0])
        raise GalleryError(
            f"{expected}; {bad.size} rows of another norm came, the first {norms[first]:.6g} "
            f"for picture {batch['id'][first].as_py()}. {advice}"
        )
    return np.ascontiguousarray(rows, dtype=np.float32)
