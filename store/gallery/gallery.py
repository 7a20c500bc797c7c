"""The gallery: pictures in one LanceDB table, their embeddings in one table per model version."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lancedb.expr import col

from store.gallery.arrow_schema import HIDDEN_SCHEMA
from store.gallery.embedding import Embeddings, Encode, FillPlan
from store.gallery.filters import Facets, Filters, facets_of
from store.gallery.image_table import ImageRow, ImageTable, NewImage
from store.gallery.lance_folder import LanceFolder
from store.gallery.table import Table
from store.gallery.vector_search import Candidate, VectorQuery
from store.gallery.vector_table import VectorTable
from store.store_errors import GalleryError
from store.values import check_version

log = logging.getLogger(__name__)

_HIDDEN, _VECTORS = "hidden_sources", "vectors_"
_COUNTS_KEPT = 200  # of pictures that pass filters


class Gallery:
    """Pictures and their embeddings at a path or at any object-store URI LanceDB takes.

    Several threads and several processes may use it at once. Never fork after opening one: spawn.
    Raises GalleryError if the root cannot be used, or was written by a newer program.
    """

    def __init__(self, uri: str | Path) -> None:
        self._folder = LanceFolder(uri)
        self._images = ImageTable(self._folder)
        self._hidden_table = Table(self._folder, _HIDDEN)
        self._hidden_table.create(HIDDEN_SCHEMA)
        self._hidden: tuple[int, tuple[str, ...]] = (-1, ())
        self._facets: tuple[tuple[int, tuple[str, ...]], Facets] | None = None
        self._passing: dict[tuple[str, int, int, Filters | None, tuple[str, ...]], int] = {}

    @property
    def uri(self) -> str:
        """Where the gallery is stored."""
        return self._folder.uri

    # Pictures

    def add(self, images: Sequence[NewImage]) -> list[str]:
        """Add the pictures that are new, all or none, and return their ids in the order given.

        The same bytes twice are one picture, with the facts that came first.
        """
        return self._images.add(images)

    def count(self, source: str | None = None) -> int:
        """Return how many pictures there are, hidden ones too, or how many a source has."""
        return self._images.rows() if source is None else self._images.count(source)

    def sources(self) -> dict[str, int]:
        """Return every source with its number of pictures, by name."""
        return self._images.sources()

    def ids(self) -> list[str]:
        """Return the ids of all pictures, in the order they were added; those stored with a forgotten one come last."""
        return self._images.ids()

    def passing(self, version: str, filters: Filters | None = None) -> int:
        """Return how many pictures a search under this version with these filters can find.

        Counted again only when something changed. Raises GalleryError if the version has no vector table.
        """
        table = self._filled(version)
        hidden = self.hidden_sources
        where = (filters or Filters()).expression(hidden)
        if where is None:
            return table.rows()
        # Rows, too: a table that was dropped and filled again counts its states from the first on.
        key = table.name, table.version(), table.rows(), filters, hidden
        count = self._passing.get(key)
        if count is None:
            count = int(table.read(["source"], where).num_rows)
            if len(self._passing) >= _COUNTS_KEPT:
                self._passing.clear()
            self._passing[key] = count
        return count

    def matching(self, filters: Filters) -> list[str]:
        """Return the ids of the pictures that pass the filters, hidden ones too."""
        return self._images.matching(filters)

    def visible(self, filters: Filters | None = None) -> list[str]:
        """Return the ids of the pictures that pass the filters, hidden sources left out."""
        return self._images.matching(filters or Filters(), hidden=self.hidden_sources)

    def facets(self) -> Facets:
        """Return what searches can be filtered by, hidden sources left out; counted only when something changed."""
        hidden = self.hidden_sources
        state = (self._images.version(), hidden)
        kept = self._facets
        if kept is None or kept[0] != state:
            self._facets = kept = (state, facets_of(self._images.facts(hidden)))
        return kept[1]

    def get(self, image_id: str) -> ImageRow:
        """Return one picture without its bytes. Raises GalleryError if there is none of this id."""
        rows = self.rows([image_id])
        if not rows:
            raise self._unknown(image_id)
        return rows[0]

    def drop_repeated(self) -> None:
        """Delete all rows but the first of each picture.

        Writers of an object store, where none can be kept waiting, may leave some.
        """
        self._images.erase([])
        self._images.maintain()

    def rows(self, ids: Sequence[str]) -> list[ImageRow]:
        """Return the pictures of these ids, in the order given; ids without a picture are left out."""
        return self._images.by_id(ids)

    def data(self, image_id: str) -> bytes:
        """Return the picture's encoded file. Raises GalleryError if there is none of this id."""
        found = self.datas([image_id])
        if image_id not in found:
            raise self._unknown(image_id)
        return found[image_id]

    def datas(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the encoded files of these pictures by id; ids without a picture are left out.

        Raises GalleryError if the file of a picture by reference is gone or has changed.
        """
        return self._images.files(ids)

    def forget(self, ids: Sequence[str]) -> int:
        """Erase pictures and their embeddings under every version from all files; return how many pictures there were.

        Other pictures stay as they are, and searches continue. Indexes are built again afterwards. Stopped anywhere,
        the next call with the same ids completes it, also when the pictures are no longer there. A table of vectors
        that cannot even be opened is deleted whole: nothing in it could be found, and it can be computed again.
        """
        try:
            gone = self._erase(ids)
        except GalleryError:
            with suppress(GalleryError):
                self._maintain_all()  # what failed may have dropped indexes
            raise
        self._maintain_all()
        return gone

    def _erase(self, ids: Sequence[str]) -> int:
        with self._folder.writing():
            for version in self.versions():
                table = VectorTable(self._images, _VECTORS + version)
                if not self._folder.local or table.opens():
                    table.erase(ids)
                else:
                    self._folder.reopen(self._images.name)  # or the fault is not the table's
                    log.warning("the vectors of %s cannot be opened: deleted, to be embedded again", version)
                    table.drop()
            # Last, so that after a stop there is still a picture to forget.
            return self._images.erase(ids)

    def _maintain_all(self) -> None:
        for version in self.versions():
            self._vectors(version).maintain()
        self._images.maintain()

    # Hidden sources

    @property
    def hidden_sources(self) -> tuple[str, ...]:
        """The sources no search returns, sorted; the same for every process."""
        table = self._hidden_table
        table.create(HIDDEN_SCHEMA)
        known, state = self._hidden, table.version()
        if state != known[0]:  # several threads may read it at once, and find the same
            self._hidden = known = (state, tuple(sorted(table.read(["source"])["source"].to_pylist())))
        return known[1]

    def hide_source(self, source: str) -> None:
        """Leave a source out of every search from now on; its pictures and embeddings stay."""
        if not source:
            raise GalleryError("Expected the name of a source to hide; '' came.")
        self._hidden_table.insert(pa.table({"source": [source]}, schema=HIDDEN_SCHEMA))

    def show_source(self, source: str) -> None:
        """Show a hidden source again; nothing happens if it is not hidden."""
        self._hidden_table.delete(col("source").isin([source]))

    # Embeddings

    def versions(self) -> list[str]:
        """Return the versions that have a vector table, complete or not."""
        return [name.removeprefix(_VECTORS) for name in self._folder.names() if name.startswith(_VECTORS)]

    def missing(self, version: str) -> int:
        """Return how many pictures have no embedding under this version."""
        return len(self._vectors(version).missing())

    def complete(self, version: str) -> bool:
        """Return whether the version has a vector table that covers every picture."""
        table = self._vectors(version)
        return table.exists() and not table.missing()

    def drop_version(self, version: str) -> None:
        """Delete a version's embeddings; nothing happens if there are none."""
        self._vectors(version).drop()

    def drop_unreadable(self, version: str) -> GalleryError | None:
        """Delete a version's embeddings if they cannot be read, twice, while nobody writes; return the fault if so.

        Never on an object store, where others may write in between.
        """
        table = self._vectors(version)
        if not self._folder.local:
            return None
        with self._folder.writing():
            for last in (False, True):
                try:
                    table.read_through()
                    table.due()
                    break
                except GalleryError as fault:
                    if last:
                        table.drop()
                        return fault
        return None

    def check(self, version: str) -> dict[str, list[str]]:
        """Return the ids of the pictures whose embeddings are wrong, by what is wrong; empty if nothing is.

        Raises GalleryError if the version's files are damaged.
        """
        return self._vectors(version).check()

    def repair(self, version: str) -> dict[str, list[str]]:
        """Repair what `check` finds, and return that; what it erases, `fill` adds again. Raises GalleryError."""
        return self._vectors(version).repair()

    def stale(self, version: str) -> bool:
        """Return whether the version's index is to be built, or brought up to date."""
        return self._vectors(version).due()

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
        """Embed every picture that has no embedding under this version yet, and return how many were added.

        `encode` turns B encoded files into float32 (B, dim) unit rows. Each batch is one transaction: stopped
        anywhere, the next call continues with what is missing, and two at once add nothing twice. `progress` gets
        (done, all); `cancelled` is called before each batch and before the index is built. Memory is bounded by one
        batch of pictures. Pictures by reference whose file is gone are left out.
        Raises GalleryError on rows of the wrong shape, not finite, or not of unit length within 1e-3.
        """
        plan = FillPlan(dim=dim, batch_size=batch_size, progress=progress, cancelled=cancelled)
        added = self._vectors(version).fill(encode, plan)
        if not plan.stopped():
            self.maintain(version)
        return added

    def embed(self, version: str, ids: Sequence[str], rows: Embeddings) -> int:
        """Keep embeddings made elsewhere, unit rows (B, E) of these ids, and return how many are new.

        One transaction. Ids without a picture are left out, and so are those that have an embedding. Raises
        GalleryError as `fill` does.
        """
        return self._vectors(version).embed(ids, rows)

    def maintain(self, version: str) -> bool:
        """Build the indexes of the version's embeddings and of the pictures' ids if they are due, or bring them up to
        date; return whether anything was done.

        Everything is right without this, only slower: rows that an index lacks are compared one by one.
        """
        done = self._vectors(version).maintain()
        return self._images.maintain() or done

    def vectors(self, version: str, ids: Sequence[str]) -> tuple[list[str], Embeddings]:
        """Return the ids that have an embedding under this version, in the order given, and these as float32 (n, E)."""
        return self._filled(version).vectors(ids)

    def search(
        self,
        version: str,
        vector: npt.NDArray[np.float32],
        k: int,
        *,
        offset: int = 0,
        filters: Filters | None = None,
    ) -> list[Candidate]:
        """Return the k nearest pictures by cosine after the first `offset`, ties by id; fewer if there are no more.

        `vector` (E,) need not be of unit length. Every embedding that passes the filters is compared; where the
        version has `indexes.INDEX_FROM` of them or more, by an index of 8 bits a value that chooses which are
        compared exactly, and without filters only in the parts of it that lie nearest. Scores are true cosines
        either way, and while nothing is added or removed, pages are slices of one order. Raises
        GalleryError if k < 1 or offset < 0, if the vector's length is not E or it has no direction, and if the
        version has no vector table.
        """
        if k < 1 or offset < 0:
            raise GalleryError(f"A search takes k of at least 1 and an offset of at least 0; {k} and {offset} came.")
        table = self._filled(version)
        row, dim = np.asarray(vector), table.dim()
        if row.shape != (dim,):
            raise GalleryError(
                f"Version {version!r} has embeddings of length {dim}; a query of shape {row.shape} came. "
                "Encode the query with this version's model."
            )
        if not np.isfinite(row).all() or not np.any(row):
            raise GalleryError("A query must be finite and not all zero. Encode the caption again.")
        where = (filters or Filters()).expression(())
        wanted = row.astype(np.float32)
        query = VectorQuery(vector=wanted, where=where, narrow=where is not None, hidden=self.hidden_sources)
        return table.search(query, offset, k)

    def _unknown(self, image_id: str) -> GalleryError:
        return GalleryError(f"The gallery has no picture {image_id!r}. It may have been removed; search again.")

    def _vectors(self, version: str) -> VectorTable:
        """Return the version's table, which need not exist. Raises GalleryError on a name that cannot be one."""
        return VectorTable(self._images, _VECTORS + check_version(version, GalleryError))

    def _filled(self, version: str) -> VectorTable:
        """Return the version's table. Raises GalleryError if there is none."""
        table = self._vectors(version)
        if table.handle() is None:
            names = f"it has: {', '.join(self.versions()) or 'none'}"
            raise GalleryError(f"The gallery has no embeddings of version {version!r} ({names}). Fill it first.")
        return table
