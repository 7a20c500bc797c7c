"""The embeddings of one model version, each beside the facts that searches filter by."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import col

from store.gallery import indexes, integrity
from store.gallery.arrow_schema import FACT_NAMES, TAGS, TAGS_FIELD, vectors_schema
from store.gallery.embedding import Embeddings, Encode, FillPlan, checked
from store.gallery.erase import erase
from store.gallery.filters import tags_column
from store.gallery.image_table import DATA_NAMES, ImageTable, chunks, image_bytes
from store.gallery.table import Table
from store.gallery.vector_search import Candidate, VectorQuery, candidates
from store.store_errors import GalleryError

log = logging.getLogger(__name__)
_COMPACT_EVERY = 64  # writes; a search over 160 fragments took twice as long as over one


class VectorTable(Table):
    """A table of embeddings (E,) of pictures of `images`; it need not exist yet."""

    def __init__(self, images: ImageTable, name: str) -> None:
        super().__init__(images.folder, name)
        self.images = images

    # Fill

    def dim(self) -> int:
        """Return E. Raises GalleryError if there is no table."""
        table = self.existing()
        known = self.folder.dims.get(self.name)
        if known is None or known[0] is not table:
            with self.folder.faults("read", self.name):
                known = self.folder.dims[self.name] = table, int(table.schema.field("vector").type.list_size)
        return known[1]

    def ids(self) -> list[str]:
        """Return the ids that have an embedding; none if there is no table."""
        return list(self.read(["id"])["id"].to_pylist()) if self.exists() else []

    def missing(self) -> list[str]:
        """Return the pictures that have no embedding, in the order they were added."""
        ids = self.images.ids()
        embedded = set(self.ids())
        return [image_id for image_id in ids if image_id not in embedded]

    def orphans(self) -> list[str]:
        """Return the ids of embeddings without a picture, which older programs could leave."""
        embedded = self.ids()  # first: what is added in between has its picture already
        return sorted(set(embedded) - set(self.images.ids()))

    def fill(self, encode: Encode, plan: FillPlan) -> int:
        """Embed the pictures that have no embedding, in batches that are transactions, and return how many.

        Pictures added in between are embedded, too; embeddings without a picture are erased. Stopped anywhere, the
        next call continues with what is missing. Raises GalleryError if `encode` returns anything but unit rows.
        """
        self._prepare(plan.dim)
        added, tried = 0, dict[str, None]()
        while todo := [image_id for image_id in self.missing() if image_id not in tried]:
            done = len(tried)
            tried.update(dict.fromkeys(todo))
            for number, start in enumerate(range(0, len(todo), plan.batch_size), start=1):
                plan.report(done + start, len(tried))
                if plan.stopped():
                    return added
                added += self._fill_batch(encode, plan, todo[start : start + plan.batch_size])
                if number % _COMPACT_EVERY == 0:
                    self.compact()
            plan.report(len(tried), len(tried))
        with self.folder.writing():
            if orphans := self.orphans():
                self.erase(orphans)
        return added

    def embed(self, ids: Sequence[str], rows: Embeddings) -> int:
        """Keep embeddings made elsewhere, unit rows (B, E) of these ids, and return how many are new."""
        self._prepare(rows.shape[-1])
        place = {image_id: number for number, image_id in enumerate(ids)}
        batch = self.images.read(["id", *FACT_NAMES, "metadata"], col("id").isin(list(place)))
        if not batch.num_rows:
            return 0
        return self._insert(batch, rows[[place[image_id] for image_id in batch["id"].to_pylist()]], rows.shape[-1])

    def _prepare(self, dim: int) -> None:
        """Create the table if there is none. Raises GalleryError if E is not `dim`."""
        self.create(vectors_schema(dim))
        width = self.dim()
        if width != dim:
            raise GalleryError(
                f"Table {self.name!r} has embeddings of {width} values each; {dim} came. "
                "Give the new model another version name, or drop this version first."
            )
        self._write_tags()

    def _write_tags(self) -> None:
        """Write the tags into a table that an older program filled without them."""
        self.add_column(TAGS_FIELD)
        untagged = self.read(["id"], f"{TAGS} IS NULL")["id"]
        if len(untagged):
            known = self.images.read(["id", "metadata"])
            known = known.filter(pc.is_in(known["id"], value_set=untagged.combine_chunks()))
            schema = pa.schema([known.schema.field("id"), TAGS_FIELD])
            self.update(pa.table([known["id"], tags_column(known["metadata"])], schema=schema))

    def _fill_batch(self, encode: Encode, plan: FillPlan, ids: list[str]) -> int:
        batch = self.images.read([*DATA_NAMES, *FACT_NAMES, "metadata"], col("id").isin(ids))
        batch, files = _readable(batch)
        if not files:  # all were removed in between, or none can be read
            return 0
        return self._insert(batch, encode(files), plan.dim)

    def _insert(self, batch: pa.Table, rows: np.ndarray, dim: int) -> int:
        """Add the embeddings of a batch of pictures with their facts, and return how many are new."""
        rows = checked(rows, batch["id"].to_pylist(), dim)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dim)
        columns = [batch["id"], vectors, *(batch[fact] for fact in FACT_NAMES), tags_column(batch["metadata"])]
        return self.insert(pa.table(columns, schema=vectors_schema(dim)), known_in=self.images)

    # Search

    def vectors(self, ids: Sequence[str]) -> tuple[list[str], Embeddings]:
        """Return the ids that have an embedding, in the order given, and these as float32 (n, E)."""
        dim = self.dim()
        found: dict[str, Embeddings] = {}
        for chunk in chunks(list(dict.fromkeys(ids))):
            part = self.read(["id", "vector"], col("id").isin(chunk))
            found.update(zip(part["id"].to_pylist(), _matrix(part["vector"], dim), strict=True))
        kept = [image_id for image_id in dict.fromkeys(ids) if image_id in found]
        return kept, np.array([found[image_id] for image_id in kept], dtype=np.float32).reshape(len(kept), dim)

    def search(self, query: VectorQuery, offset: int, k: int) -> list[Candidate]:
        """Return the `k` nearest pictures after the first `offset`; see `vector_search.ranked` for their order."""
        return candidates(self, query, offset, k)

    # Care

    def due(self) -> bool:
        """Return whether the indexes are to be built, or brought up to date."""
        return indexes.due(self) is not None

    def maintain(self) -> bool:
        """Build the indexes if they are due, or bring them up to date; return whether anything was done."""
        return indexes.maintain(self)

    def check(self) -> dict[str, list[str]]:
        """Return the ids of the pictures whose embeddings are wrong, by what is wrong; empty if nothing is."""
        return integrity.faults_of(self, self.images)

    def repair(self) -> dict[str, list[str]]:
        """Repair what `check` finds, and return that; what is erased, `fill` adds again."""
        return integrity.repair(self, self.images)

    def erase(self, ids: Sequence[str]) -> int:
        """Erase embeddings from all files of the table and return how many there were."""
        return erase(self, ids)


def _readable(batch: pa.Table) -> tuple[pa.Table, list[bytes]]:
    """Return the pictures whose file can be read, and their files; log those by reference whose file is gone."""
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


def _matrix(column: pa.ChunkedArray, dim: int) -> Embeddings:
    """Return a column of vectors as float32 (n, dim)."""
    flat = column.combine_chunks().flatten() if column.num_chunks != 1 else column.chunk(0).flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, dim)
