"""The gallery: pictures in one LanceDB table, their embeddings in one table per model version."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import col

from store.errors import GalleryError
from store.images import (
    DATA_NAMES,
    FACT_NAMES,
    HIDDEN_SCHEMA,
    IMAGES_SCHEMA,
    ROW_NAMES,
    SCHEMA_VERSION,
    TAGS,
    TAGS_FIELD,
    Candidate,
    Facets,
    Filters,
    ImageRow,
    NewImage,
    facets_of,
    image_bytes,
    image_rows,
    images_table,
    tags_column,
    vectors_schema,
)
from store.lance import LanceFolder
from store.values import check_version

_IMAGES = "images"
_HIDDEN = "hidden_sources"
_VECTORS = "vectors_"
_UNIT_TOLERANCE = 1e-3
_COMPACT_EVERY = 64  # writes; a search over 160 fragments took twice as long as over one
_ID_BATCH = 1000
INDEX_FROM = 10_000
"""Vectors from which on a search uses an index. Below, comparing all takes about 10 ms (2 cores, 512 values)."""
_STALE_SHARE = 20  # the index takes new rows in once they are a twentieth of all, and at least …
_STALE_ROWS = 1000  # … this many; until then LanceDB compares them one by one
# Measured in tests/benchmarks/gallery.py. The index keeps each value in 8 bits, so distances are taken anew from
# the vectors of the ten times as many that it finds: scores are true cosines, with or without an index.
_PROBES = 24
_REFINE = 10
_DEEPEST = 1000  # results; beyond, everything is compared

Embeddings = npt.NDArray[np.float32]
Encode = Callable[[list[bytes]], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class FillPlan:
    """How `Gallery.fill` goes about it: `dim` is E, `progress` gets (done, all), `cancelled` says when to stop."""

    dim: int
    batch_size: int = 64
    progress: Callable[[int, int], None] | None = None
    cancelled: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        if self.dim < 1 or self.batch_size < 1:
            raise GalleryError(f"dim and batch_size are at least 1; {self.dim} and {self.batch_size} came.")


class Gallery:
    """Pictures and their embeddings at a path or at any object-store URI LanceDB takes.

    Several threads and several processes may use it at once. Never fork after opening one: spawn.
    Raises GalleryError where the root cannot be used, or was written by a newer program.
    """

    def __init__(self, uri: str | Path) -> None:
        self._lance = LanceFolder(uri)
        images = self._lance.create(_IMAGES, IMAGES_SCHEMA)
        with self._lance.faults("read", _IMAGES):
            found = int((images.schema.metadata or {}).get(b"schema_version", b"0"))
        if found > SCHEMA_VERSION:
            raise GalleryError(
                f"The gallery at {uri} has schema {found}; this program knows schema {SCHEMA_VERSION} and older. "
                "Update the program, or point it at another data folder."
            )
        self._lance.create(_HIDDEN, HIDDEN_SCHEMA)
        self._hidden_lock = threading.Lock()
        self._hidden: tuple[int, tuple[str, ...]] = (-1, ())
        self._facets: tuple[tuple[int, tuple[str, ...]], Facets] | None = None

    @property
    def uri(self) -> str:
        """Where the gallery lies."""
        return self._lance.uri

    # Pictures

    def add(self, images: Sequence[NewImage]) -> list[str]:
        """Adds the pictures that are not there yet, all or none; their ids, in the order they came.

        The same bytes twice are one picture, with the facts that came first.
        """
        if not images:
            return []
        rows = images_table(images)
        ids = rows["id"].to_pylist()
        known = set(self._known(_IMAGES, ids))
        fresh = [image_id for image_id in ids if image_id not in known]
        if fresh:
            self._lance.insert(_IMAGES, rows)
        return fresh

    def count(self, source: str | None = None) -> int:
        """How many pictures there are, hidden ones too, or how many of one source."""
        if source is not None:
            return int(self._lance.read(_IMAGES, ["id"], col("source").isin([source])).num_rows)
        return self._rows_in(_IMAGES)

    def sources(self) -> dict[str, int]:
        """Every source with its number of pictures, by name."""
        column = self._lance.read(_IMAGES, ["source"])["source"]
        return {entry["values"]: entry["counts"] for entry in sorted(column.value_counts().to_pylist(), key=str)}

    def ids(self) -> list[str]:
        """The ids of all pictures, in the order they were added; those stored with a forgotten one come last."""
        return list(self._lance.read(_IMAGES, ["id"])["id"].to_pylist())

    def matching(self, filters: Filters) -> list[str]:
        """The ids of the pictures that pass the filters, hidden ones too."""
        where = filters.expression((), tagged=False)
        if not filters.metadata:
            return list(self._lance.read(_IMAGES, ["id"], where)["id"].to_pylist())
        rows = self._lance.read(_IMAGES, ["id", "metadata"], where)
        pairs = zip(rows["id"].to_pylist(), rows["metadata"].to_pylist(), strict=True)
        return [image_id for image_id, metadata in pairs if filters.passes_metadata(json.loads(metadata))]

    def facets(self) -> Facets:
        """What searches can be filtered by, hidden sources left out; counted anew only when something changed."""
        hidden = self.hidden_sources
        table = self._lance.create(_IMAGES, IMAGES_SCHEMA)
        with self._lance.faults("read", _IMAGES):
            state = (int(table.version), hidden)
        kept = self._facets
        if kept is None or kept[0] != state:
            where = Filters().expression(hidden)
            kept = (state, facets_of(self._lance.read(_IMAGES, [*FACT_NAMES, "metadata"], where)))
            self._facets = kept
        return kept[1]

    def get(self, image_id: str) -> ImageRow:
        """One picture without its bytes; raises GalleryError if there is none of this id."""
        rows = self.rows([image_id])
        if not rows:
            raise self._unknown(image_id)
        return rows[0]

    def rows(self, ids: Sequence[str]) -> list[ImageRow]:
        """The pictures of these ids, in the order asked; ids without a picture are left out."""
        found: dict[str, ImageRow] = {}
        for chunk in _chunks(list(dict.fromkeys(ids)), _ID_BATCH):
            table = self._lance.read(_IMAGES, ROW_NAMES, col("id").isin(chunk))
            found.update((row.id, row) for row in image_rows(table))
        return [found[image_id] for image_id in ids if image_id in found]

    def data(self, image_id: str) -> bytes:
        """The picture's encoded file; raises GalleryError if there is none of this id."""
        found = self.datas([image_id])
        if image_id not in found:
            raise self._unknown(image_id)
        return found[image_id]

    def datas(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The encoded files of these pictures by id; ids without a picture are left out.

        Raises GalleryError where the file of a picture by reference is gone or has changed.
        """
        if not ids:
            return {}
        table = self._lance.read(_IMAGES, DATA_NAMES, col("id").isin(list(dict.fromkeys(ids))))
        return dict(zip(table["id"].to_pylist(), image_bytes(table), strict=True))

    def forget(self, ids: Sequence[str]) -> int:
        """Erases pictures and their embeddings under every version from all files; how many pictures there were.

        Other pictures stay as they are, and searches go on. Indexes are built anew afterwards. Stopped anywhere,
        the next call with the same ids ends it, also when the pictures are no longer there.
        """
        erased = 0
        with self._lance.writing():
            for version in self.versions():
                self._lance.erase(_VECTORS + version, ids)
            # Last, so that after a stop there is still a picture to forget.
            erased = self._lance.erase(_IMAGES, ids)
        for version in self.versions():
            self.tend(version)
        return erased

    # Sources that step aside

    @property
    def hidden_sources(self) -> tuple[str, ...]:
        """The sources no search returns, sorted; the same for every process."""
        table = self._lance.create(_HIDDEN, HIDDEN_SCHEMA)
        with self._hidden_lock:
            with self._lance.faults("read", _HIDDEN):
                state = int(table.version)
            if state != self._hidden[0]:
                names = self._lance.read(_HIDDEN, ["source"])["source"].to_pylist()
                self._hidden = (state, tuple(sorted(names)))
            return self._hidden[1]

    def hide_source(self, source: str) -> None:
        """Leaves a source out of every search from now on; its pictures and embeddings stay."""
        if not source:
            raise GalleryError("Expected the name of a source to hide; '' came.")
        self._lance.insert(_HIDDEN, pa.table({"source": [source]}, schema=HIDDEN_SCHEMA))

    def show_source(self, source: str) -> None:
        """Brings a hidden source back; nothing happens if it is not hidden."""
        self._lance.delete(_HIDDEN, col("source").isin([source]))

    # Embeddings

    def versions(self) -> list[str]:
        """The versions that have a vector table, complete or not."""
        return [name.removeprefix(_VECTORS) for name in self._lance.names() if name.startswith(_VECTORS)]

    def missing(self, version: str) -> int:
        """How many pictures have no embedding under this version."""
        return len(self._missing_ids(check_version(version, GalleryError)))

    def complete(self, version: str) -> bool:
        """Whether the version has a vector table that covers every picture."""
        name = _VECTORS + check_version(version, GalleryError)
        return self._lance.has(name) and not self._missing_ids(version)

    def drop_version(self, version: str) -> None:
        """Deletes a version's embeddings; nothing happens if there are none."""
        self._lance.drop(_VECTORS + check_version(version, GalleryError))

    def fill(
        self,
        version: str,
        encode: Encode,
        *,
        dim: int,
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> int:
        """Embeds every picture that has no embedding under this version yet; how many were added.

        `encode` turns B encoded files into float32 (B, dim) unit rows. Each batch is one transaction: stopped
        anywhere, the next call goes on with what is missing, and two at once add nothing twice. `progress` gets
        (done, all); `cancelled` is asked before each batch. Memory is bounded by one batch of pictures.
        Raises GalleryError on rows of the wrong shape, not finite, or not of unit length within 1e-3.
        """
        plan = FillPlan(dim=dim, batch_size=batch_size, progress=progress, cancelled=cancelled)
        name = self._made(version, dim)
        added = sum(self._fill_batches(name, encode, plan, self._missing_ids(version)))
        self._drop_orphans(name)
        self._lance.compact(name)
        self.tend(version)
        return added

    def embed(self, version: str, ids: Sequence[str], rows: Embeddings) -> int:
        """Keeps embeddings made elsewhere, unit rows (B, E) of these ids; how many are new.

        One transaction. Ids without a picture are left out, and so are those that have an embedding. Raises
        GalleryError as `fill` does.
        """
        name = self._made(version, rows.shape[-1])
        place = {image_id: number for number, image_id in enumerate(ids)}
        batch = self._lance.read(_IMAGES, ["id", *FACT_NAMES, "metadata"], col("id").isin(list(place)))
        if not batch.num_rows:
            return 0
        rows = rows[[place[image_id] for image_id in batch["id"].to_pylist()]]
        return self._insert(name, batch, _checked(rows, batch, rows.shape[-1]))

    def tend(self, version: str) -> bool:
        """Builds the version's index if it is large enough for one, or brings it up to date; whether it did.

        Searches are right without this, only slower: rows that the index lacks are compared one by one.
        """
        name = _VECTORS + check_version(version, GalleryError)
        rows = self._rows_in(name)
        if rows < INDEX_FROM:
            return False
        unindexed = self._lance.unindexed(name, "vector")
        if unindexed is None:
            self._lance.index_vectors(name, "vector")
        elif unindexed >= max(_STALE_ROWS, rows // _STALE_SHARE):
            self._lance.compact(name)
        else:
            return False
        return True

    def vectors(self, version: str, ids: Sequence[str]) -> tuple[list[str], Embeddings]:
        """The ids that have an embedding under this version, in the order asked, and these as float32 (n, E)."""
        name, dim = self._vector_table(version)
        found: dict[str, npt.NDArray[np.float32]] = {}
        for chunk in _chunks(list(dict.fromkeys(ids)), _ID_BATCH):
            part = self._lance.read(name, ["id", "vector"], col("id").isin(chunk))
            found.update(zip(part["id"].to_pylist(), _matrix(part["vector"], dim), strict=True))
        kept = [image_id for image_id in dict.fromkeys(ids) if image_id in found]
        return kept, np.array([found[image_id] for image_id in kept], dtype=np.float32).reshape(len(kept), dim)

    def search(
        self,
        version: str,
        vector: npt.NDArray[np.float32],
        k: int,
        *,
        offset: int = 0,
        filters: Filters | None = None,
    ) -> list[Candidate]:
        """The k nearest pictures by cosine after the first `offset`, ties by id; fewer if there are no more.

        `vector` (E,) need not be of unit length. Every embedding that passes the filters is compared; only where
        none are given, and the version has `INDEX_FROM` embeddings or more, an index chooses what is compared.
        Scores are true cosines either way. Pages of one ranking are slices of one total order. Raises
        GalleryError if k < 1 or offset < 0, if the vector's length is not E or it has no direction, and if the
        version has no vector table.
        """
        if k < 1 or offset < 0:
            raise GalleryError(f"A search takes k of at least 1 and an offset of at least 0; {k} and {offset} came.")
        name, dim = self._vector_table(version)
        query = np.asarray(vector)
        if query.shape != (dim,):
            raise GalleryError(
                f"Version {version!r} has embeddings of length {dim}; a query of shape {query.shape} came. "
                "Encode the query with this version's model."
            )
        if not np.isfinite(query).all() or not np.any(query):
            raise GalleryError("A query must be finite and not all zero. Encode the caption again.")
        where = (filters or Filters()).expression(self.hidden_sources)
        # An index looks into the nearest parts only, and the pictures that pass may all lie in the others.
        exact = (filters is not None and filters != Filters()) or offset + k > _DEEPEST
        rows = self._nearest(name, query.astype(np.float32), offset + k, where, exact=exact)
        return [
            Candidate(
                image_id=row["id"],
                rank=rank,
                score=min(1.0, max(-1.0, 1.0 - row["_distance"])),
                pid=row["pid"],
                camera=row["camera"],
                captured_at=row["captured_at"],
            )
            for rank, row in enumerate(rows[offset:].to_pylist(), start=offset + 1)
        ]

    # Behind these

    def _unknown(self, image_id: str) -> GalleryError:
        return GalleryError(f"The gallery has no picture {image_id!r}. It may have been removed; search again.")

    def _rows_in(self, name: str) -> int:
        table = self._lance.table(name)
        if table is None:
            return 0
        with self._lance.faults("count", name):
            return int(table.count_rows())

    def _known(self, name: str, ids: list[str]) -> Iterator[str]:
        for chunk in _chunks(ids, _ID_BATCH):
            yield from self._lance.read(name, ["id"], col("id").isin(chunk))["id"].to_pylist()

    def _vector_table(self, version: str) -> tuple[str, int]:
        """The table's name and E."""
        name = _VECTORS + check_version(version, GalleryError)
        table = self._lance.table(name)
        if table is None:
            there = ", ".join(self.versions()) or "none"
            raise GalleryError(
                f"The gallery has no embeddings of version {version!r} (it has: {there}). Fill this version first."
            )
        with self._lance.faults("read", name):
            return name, int(table.schema.field("vector").type.list_size)

    def _made(self, version: str, dim: int) -> str:
        """The name of the version's vector table, made if there is none; raises GalleryError if E is not `dim`."""
        name = _VECTORS + check_version(version, GalleryError)
        table = self._lance.create(name, vectors_schema(dim))
        with self._lance.faults("read", name):
            width = table.schema.field("vector").type.list_size
        if width != dim:
            raise GalleryError(
                f"The embeddings of {version!r} have {width} values each; {dim} came. "
                "Give the new model another version name, or drop this version first."
            )
        self._write_tags(name)
        return name

    def _insert(self, name: str, batch: pa.Table, rows: Embeddings) -> int:
        """Adds the embeddings of a batch of pictures with their facts; how many are new."""
        dim = rows.shape[1]
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dim)
        made = [batch["id"], column, *(batch[fact] for fact in FACT_NAMES), tags_column(batch["metadata"])]
        return self._lance.insert(name, pa.table(made, schema=vectors_schema(dim)), known_in=_IMAGES)

    def _missing_ids(self, version: str) -> list[str]:
        name = _VECTORS + version
        ids = self.ids()
        if not self._lance.has(name):
            return ids
        embedded = set(self._lance.read(name, ["id"])["id"].to_pylist())
        return [image_id for image_id in ids if image_id not in embedded]

    def _fill_batches(self, name: str, encode: Encode, plan: FillPlan, todo: list[str]) -> Iterator[int]:
        """One number of rows added per batch."""
        _report(plan, 0, len(todo))
        for number, start in enumerate(range(0, len(todo), plan.batch_size), start=1):
            if plan.cancelled is not None and plan.cancelled():
                return
            wanted = col("id").isin(todo[start : start + plan.batch_size])
            batch = self._lance.read(_IMAGES, [*DATA_NAMES, *FACT_NAMES, "metadata"], wanted)
            if batch.num_rows:  # pictures may have been removed since
                yield self._insert(name, batch, _checked(encode(image_bytes(batch)), batch, plan.dim))
            if number % _COMPACT_EVERY == 0:
                self._lance.compact(name)
            _report(plan, min(start + plan.batch_size, len(todo)), len(todo))

    def _write_tags(self, name: str) -> None:
        """Writes the tags into a table that an older program filled without them."""
        self._lance.add_column(name, TAGS_FIELD)
        bare = self._lance.read(name, ["id"], f"{TAGS} IS NULL")["id"]
        if len(bare):
            known = self._lance.read(_IMAGES, ["id", "metadata"])
            known = known.filter(pc.is_in(known["id"], value_set=bare.combine_chunks()))
            schema = pa.schema([known.schema.field("id"), TAGS_FIELD])
            self._lance.update(name, pa.table([known["id"], tags_column(known["metadata"])], schema=schema))

    def _drop_orphans(self, name: str) -> None:
        """Erases embeddings without a picture, which older programs could leave."""
        orphans = set(self._lance.read(name, ["id"])["id"].to_pylist()) - set(self.ids())
        if orphans:
            self._lance.erase(name, sorted(orphans))

    def _nearest(
        self, name: str, query: npt.NDArray[np.float32], count: int, where: object, *, exact: bool
    ) -> pa.Table:
        """The first `count` rows of the total order (distance, id), all compared if `exact`.

        LanceDB breaks ties as it likes, also over which row is the last one returned. So one more row is asked
        for, and as long as a tie reaches the end, twice as many.
        """
        columns = ["id", "pid", "camera", "captured_at", "_distance"]

        def ask(table: Any) -> pa.Table:
            search = table.search(query, vector_column_name="vector").distance_type("cosine")
            if where is not None:
                search = search.where(where, prefilter=True)
            search = search.bypass_vector_index() if exact else search.nprobes(_PROBES).refine_factor(_REFINE)
            return search.limit(limit).select(columns).to_arrow()

        limit = count + 1
        while True:
            rows = self._lance.query(name, ask).sort_by([("_distance", "ascending"), ("id", "ascending")])
            if rows.num_rows < limit and not exact:
                exact = True  # the parts looked into may hold fewer rows than there are
                continue
            if rows.num_rows < limit or rows["_distance"][limit - 1] != rows["_distance"][count - 1]:
                return rows[:count]
            limit *= 2


def _report(plan: FillPlan, done: int, total: int) -> None:
    if plan.progress is not None:
        plan.progress(done, total)


def _chunks(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _matrix(column: pa.ChunkedArray, dim: int) -> npt.NDArray[np.float32]:
    """A column of vectors as float32 (n, dim)."""
    flat = column.combine_chunks().flatten() if column.num_chunks != 1 else column.chunk(0).flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, dim)


def _checked(rows: np.ndarray, batch: pa.Table, dim: int) -> npt.NDArray[np.float32]:
    """The rows as float32 (B, dim) if they are embeddings of this batch; raises GalleryError otherwise."""
    expected = f"Expected one float row of length {dim} and norm 1 for each of {batch.num_rows} pictures"
    advice = "Check the encoder and its weights; the gallery keeps what it had."
    if not isinstance(rows, np.ndarray) or rows.shape != (batch.num_rows, dim):
        raise GalleryError(f"{expected}; {getattr(rows, 'shape', type(rows).__name__)} came. {advice}")
    if not np.issubdtype(rows.dtype, np.floating):
        raise GalleryError(f"{expected}; values of type {rows.dtype} came. {advice}")
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1.0) <= _UNIT_TOLERANCE))  # a NaN compares as bad, too
    if bad.size:
        first = int(bad[0])
        raise GalleryError(
            f"{expected}; {bad.size} rows of another norm came, the first {norms[first]:.6g} "
            f"for picture {batch['id'][first].as_py()}. {advice}"
        )
    return np.ascontiguousarray(rows, dtype=np.float32)
