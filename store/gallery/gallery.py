"""The gallery: pictures in one LanceDB table, their embeddings in one table per model version."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lancedb.expr import col

from store.gallery.embedding import (
    Encode,
    FillPlan,
    embed,
    fill,
    missing_ids,
)
from store.gallery.erase import erase
from store.gallery.image_rows import (
    DATA_NAMES,
    FACT_NAMES,
    HIDDEN_SCHEMA,
    IMAGES,
    IMAGES_SCHEMA,
    ROW_NAMES,
    SCHEMA_VERSION,
    Candidate,
    Facets,
    Filters,
    ImageRow,
    NewImage,
    facets_of,
    image_bytes,
    image_rows,
    images_table,
)  # fmt: skip
from store.gallery.integrity import mend, read_through, unsound
from store.gallery.lance_folder import LanceFolder
from store.gallery.vector_search import Ask, due, ranked, tend, tend_keys
from store.store_errors import GalleryError
from store.values import check_version

log = logging.getLogger(__name__)

_HIDDEN = "hidden_sources"
_VECTORS = "vectors_"
_ID_BATCH = 1000
_COUNTS_KEPT = 200  # of pictures that pass filters

Embeddings = npt.NDArray[np.float32]


class Gallery:
    """Pictures and their embeddings at a path or at any object-store URI LanceDB takes.

    Several threads and several processes may use it at once. Never fork after opening one: spawn.
    Raises GalleryError where the root cannot be used, or was written by a newer program.
    """

    def __init__(self, uri: str | Path) -> None:
        self._lance = LanceFolder(uri)
        images = self._lance.create(IMAGES, IMAGES_SCHEMA)
        with self._lance.faults("read", IMAGES):
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
        self._passing: dict[tuple[str, int, int, Filters | None, tuple[str, ...]], int] = {}

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
        known: set[str] = set()
        for chunk in _chunks(ids, _ID_BATCH):
            known.update(self._lance.read(IMAGES, ["id"], col("id").isin(chunk))["id"].to_pylist())
        fresh = [image_id for image_id in ids if image_id not in known]
        if fresh:
            self._lance.insert(IMAGES, rows)
        return fresh

    def count(self, source: str | None = None) -> int:
        """How many pictures there are, hidden ones too, or how many of one source."""
        if source is not None:
            return int(self._lance.read(IMAGES, ["id"], col("source").isin([source])).num_rows)
        return self._lance.rows(IMAGES)

    def sources(self) -> dict[str, int]:
        """Every source with its number of pictures, by name."""
        column = self._lance.read(IMAGES, ["source"])["source"]
        return {entry["values"]: entry["counts"] for entry in sorted(column.value_counts().to_pylist(), key=str)}

    def ids(self) -> list[str]:
        """The ids of all pictures, in the order they were added; those stored with a forgotten one come last."""
        return list(self._lance.read(IMAGES, ["id"])["id"].to_pylist())

    def passing(self, version: str, filters: Filters | None = None) -> int:
        """How many pictures a search under this version with these filters can return: `search`'s own condition on its
        own table. Counted anew only when something changed. Raises GalleryError if there is no such table."""
        name, _ = self._vector_table(version)
        hidden = self.hidden_sources
        where = (filters or Filters()).expression(hidden)
        if where is None:
            return self._lance.rows(name)
        # Rows, too: a table that was dropped and filled again counts its states from the first on.
        key = name, self._lance.version(name), self._lance.rows(name), filters, hidden
        count = self._passing.get(key)
        if count is None:
            count = int(self._lance.read(name, ["source"], where).num_rows)
            if len(self._passing) >= _COUNTS_KEPT:
                self._passing.clear()
            self._passing[key] = count
        return count

    def matching(self, filters: Filters) -> list[str]:
        """The ids of the pictures that pass the filters, hidden ones too."""
        where = filters.expression((), tagged=False)
        if not filters.metadata:
            return list(self._lance.read(IMAGES, ["id"], where)["id"].to_pylist())
        rows = self._lance.read(IMAGES, ["id", "metadata"], where)
        pairs = zip(rows["id"].to_pylist(), rows["metadata"].to_pylist(), strict=True)
        return [image_id for image_id, metadata in pairs if filters.passes_metadata(json.loads(metadata))]

    def facets(self) -> Facets:
        """What searches can be filtered by, hidden sources left out; counted anew only when something changed."""
        hidden = self.hidden_sources
        table = self._lance.create(IMAGES, IMAGES_SCHEMA)
        with self._lance.faults("read", IMAGES):
            state = (int(table.version), hidden)
        kept = self._facets
        if kept is None or kept[0] != state:
            where = Filters().expression(hidden)
            kept = (state, facets_of(self._lance.read(IMAGES, [*FACT_NAMES, "metadata"], where)))
            self._facets = kept
        return kept[1]

    def get(self, image_id: str) -> ImageRow:
        """One picture without its bytes; raises GalleryError if there is none of this id."""
        rows = self.rows([image_id])
        if not rows:
            raise self._unknown(image_id)
        return rows[0]

    def drop_repeated(self) -> None:
        """Deletes all rows but the first of each picture. Writers of an object store, where none can be kept waiting,
        may leave some."""
        erase(self._lance, IMAGES, [])
        tend_keys(self._lance, IMAGES)

    def rows(self, ids: Sequence[str]) -> list[ImageRow]:
        """The pictures of these ids, in the order asked; ids without a picture are left out."""
        found: dict[str, ImageRow] = {}
        for chunk in _chunks(list(dict.fromkeys(ids)), _ID_BATCH):
            table = self._lance.read(IMAGES, ROW_NAMES, col("id").isin(chunk))
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
        table = self._lance.read(IMAGES, DATA_NAMES, col("id").isin(list(dict.fromkeys(ids))))
        return dict(zip(table["id"].to_pylist(), image_bytes(table), strict=True))

    def forget(self, ids: Sequence[str]) -> int:
        """Erases pictures and their embeddings under every version from all files; how many pictures there were.

        Other pictures stay as they are, and searches go on. Indexes are built anew afterwards. Stopped anywhere,
        the next call with the same ids ends it, also when the pictures are no longer there. A table of vectors that
        cannot even be opened is deleted whole: nothing in it could be found, and it can be computed anew.
        """
        try:
            gone = self._erase(ids)
        except GalleryError:
            with suppress(GalleryError):
                self._tend_all()  # what failed may have dropped indexes
            raise
        self._tend_all()
        return gone

    def _erase(self, ids: Sequence[str]) -> int:
        with self._lance.writing():
            for version in self.versions():
                if not self._lance.local or self._lance.opens(_VECTORS + version):
                    erase(self._lance, _VECTORS + version, ids)
                else:
                    self._lance.reopen(IMAGES)  # or the fault is not the table's
                    log.warning("the vectors of %s cannot be opened: deleted, to be embedded anew", version)
                    self._lance.drop(_VECTORS + version)
            # Last, so that after a stop there is still a picture to forget.
            return erase(self._lance, IMAGES, ids)

    def _tend_all(self) -> None:
        for version in self.versions():
            tend(self._lance, self._name(version))
        tend_keys(self._lance, IMAGES)

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
        return len(missing_ids(self._lance, self._name(version)))

    def complete(self, version: str) -> bool:
        """Whether the version has a vector table that covers every picture."""
        name = self._name(version)
        return self._lance.has(name) and not missing_ids(self._lance, name)

    def drop_version(self, version: str) -> None:
        """Deletes a version's embeddings; nothing happens if there are none."""
        self._lance.drop(self._name(version))

    def drop_unreadable(self, version: str) -> GalleryError | None:
        """Deletes a version's embeddings if they cannot be read, twice, while nobody writes; the fault, if so.

        Never on an object store, where others may write meanwhile.
        """
        name = self._name(version)
        if not self._lance.local:
            return None
        with self._lance.writing():
            for last in (False, True):
                try:
                    read_through(self._lance, name)
                    due(self._lance, name)
                    break
                except GalleryError as fault:
                    if last:
                        self._lance.drop(name)
                        return fault
        return None

    def unsound(self, version: str) -> dict[str, list[str]]:
        """This version's embeddings that are at fault: what is wrong, and the pictures' ids; empty if nothing is.

        Raises GalleryError if the version's files are damaged.
        """
        return unsound(self._lance, self._name(version))

    def mend(self, version: str) -> dict[str, list[str]]:
        """Mends what `unsound` finds, and returns that; what it erases, `fill` makes anew. Raises GalleryError."""
        return mend(self._lance, self._name(version))

    def stale(self, version: str) -> bool:
        """Whether the version's index is to be built, or brought up to date."""
        return due(self._lance, self._name(version)) is not None

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
        (done, all); `cancelled` is asked before each batch and before the index is built. Memory is bounded by one
        batch of pictures. Pictures by reference whose file is gone are left out.
        Raises GalleryError on rows of the wrong shape, not finite, or not of unit length within 1e-3.
        """
        plan = FillPlan(dim=dim, batch_size=batch_size, progress=progress, cancelled=cancelled)
        name = self._name(version)
        added = fill(self._lance, name, encode, plan)
        if cancelled is None or not cancelled():
            self.tend(version)
        return added

    def embed(self, version: str, ids: Sequence[str], rows: Embeddings) -> int:
        """Keeps embeddings made elsewhere, unit rows (B, E) of these ids; how many are new.

        One transaction. Ids without a picture are left out, and so are those that have an embedding. Raises
        GalleryError as `fill` does.
        """
        return embed(self._lance, self._name(version), ids, rows)

    def tend(self, version: str) -> bool:
        """Builds the indexes of the version's embeddings and of the pictures' ids if these are many enough, or brings
        them up to date; whether it did.

        Everything is right without this, only slower: rows that an index lacks are compared one by one.
        """
        did = tend(self._lance, self._name(version))
        return tend_keys(self._lance, IMAGES) or did

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

        `vector` (E,) need not be of unit length. Every embedding that passes the filters is compared; where the
        version has `ranking.INDEX_FROM` of them or more, by an index of 8 bits a value that chooses which are
        compared exactly, and without filters only in the parts of it that lie nearest. Scores are true cosines
        either way, and while nothing is added or removed, pages are slices of one order. Raises
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
        where = (filters or Filters()).expression(())
        hidden = self.hidden_sources
        ask = Ask(vector=query.astype(np.float32), where=where, narrow=where is not None, hidden=hidden)
        rows = ranked(self._lance, name, ask, offset, k)
        return [
            Candidate(
                image_id=row["id"],
                rank=rank,
                score=min(1.0, max(-1.0, 1.0 - row["_distance"])),
                pid=row["pid"],
                camera=row["camera"],
                captured_at=row["captured_at"],
            )
            for rank, row in enumerate(rows.to_pylist(), start=offset + 1)
        ]

    # Behind these

    def _unknown(self, image_id: str) -> GalleryError:
        return GalleryError(f"The gallery has no picture {image_id!r}. It may have been removed; search again.")

    @staticmethod
    def _name(version: str) -> str:
        return _VECTORS + check_version(version, GalleryError)

    def _vector_table(self, version: str) -> tuple[str, int]:
        """The table's name and E."""
        name = self._name(version)
        table = self._lance.table(name)
        if table is None:
            there = ", ".join(self.versions()) or "none"
            raise GalleryError(
                f"The gallery has no embeddings of version {version!r} (it has: {there}). Fill this version first."
            )
        with self._lance.faults("read", name):
            return name, int(table.schema.field("vector").type.list_size)


def _chunks(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _matrix(column: pa.ChunkedArray, dim: int) -> npt.NDArray[np.float32]:
    """A column of vectors as float32 (n, dim)."""
    flat = column.combine_chunks().flatten() if column.num_chunks != 1 else column.chunk(0).flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, dim)
