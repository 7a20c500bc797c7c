"""Rankings of a vector table by cosine: exact in small tables, by the index of `indexes` in large ones.

The index keeps each value in 8 bits, so the distances of the nearest it finds are computed again from the vectors:
scores are true cosines, with or without an index. Measured in tests/benchmarks/gallery.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import col

from store.gallery import indexes
from store.gallery.table import Table

PROBES = 2.6, 0.7  # of n parts a * n ** b are searched: all of 10, four fifths of 50, two fifths of 500
_ALL_PARTS = 100_000
_DEPTHS = 24, 120, 1000  # a ranking's first results, by the index; beyond, everything is compared
_REFINE = 3  # times as many are compared by their vectors as are requested
_SPARES = 4, 15, 125  # rows fetched beyond a depth while a source is hidden
_SPARE_EXACT = 100  # the same where all vectors are compared, which takes as long for 100 rows as for 10
_COLUMNS = ["id", "pid", "camera", "captured_at", "_distance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A ranked picture nobody judged: rank from 1, score the cosine of query and embedding in [-1, 1]."""

    image_id: str
    rank: int
    score: float
    pid: str | None
    camera: str | None
    captured_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorQuery:
    """What is ranked: rows that pass `where`, but for those of the `hidden` sources, by the cosine with `vector` (E,).

    `vector` is not all zero. `narrow`: `where` may keep few rows, which may lie in any part of the index, so every part
    is searched.
    """

    vector: npt.NDArray[np.float32]
    where: Any
    narrow: bool
    hidden: tuple[str, ...] = ()

    def prefiltered(self) -> VectorQuery:
        """Return the same rows with the hidden sources left out by `where`, which LanceDB evaluates before it ranks."""
        if not self.hidden:
            return self
        visible = ~col("source").isin(list(self.hidden))
        where = visible if self.where is None else self.where & visible
        return VectorQuery(vector=self.vector, where=where, narrow=True)


def candidates(table: Table, query: VectorQuery, offset: int, k: int) -> list[Candidate]:
    """Return the slice of `ranked` as values."""
    return [
        Candidate(
            image_id=row["id"],
            rank=rank,
            score=min(1.0, max(-1.0, 1.0 - row["_distance"])),
            pid=row["pid"],
            camera=row["camera"],
            captured_at=row["captured_at"],
        )
        for rank, row in enumerate(ranked(table, query, offset, k).to_pylist(), start=offset + 1)
    ]


def ranked(table: Table, query: VectorQuery, offset: int, k: int) -> pa.Table:
    """Return the `k` rows after the first `offset` of one order of all rows that pass; fewer if there are no more.

    While the table does not change, every call returns its slice of the same order: by distance, then id. Where an
    index chose the first results, a row that a shallow search missed and a deeper one found comes after the former.

    Rows of hidden sources are dropped from what a search returns: as a condition of the search they would double its
    time. What is left of the first rows of an order is the beginning of the order without them. If too few are left,
    the search goes deeper; where more than half were hidden, they become a condition after all.
    """
    stop = offset + k
    rows = table.rows()
    if rows < indexes.INDEX_FROM:
        count = stop + (_SPARE_EXACT if query.hidden else 0)
        found = _nearest(table, query, count)
        order = _visible(found, query)
        if order.num_rows < stop and found.num_rows == count:
            order = _nearest(table, query.prefiltered(), stop)
        return order[offset:stop]
    order = None
    for depth, spare in zip(_DEPTHS, _SPARES, strict=True):
        count = depth + (spare if query.hidden else 0)
        probes = _ALL_PARTS if query.narrow else math.ceil(PROBES[0] * indexes.parts_of(rows) ** PROBES[1])
        found = _nearest(table, query, count, probes=probes)
        visible = _visible(found, query)
        order = _appended(order, visible)
        if order.num_rows >= stop or found.num_rows < count:
            return order[offset:stop]
        if 2 * visible.num_rows < found.num_rows:  # depends on the query alone, so that pages stay slices of one order
            query = query.prefiltered()
    return _appended(order, _nearest(table, query.prefiltered(), stop))[offset:stop]


def _visible(rows: pa.Table, query: VectorQuery) -> pa.Table:
    """Return the rows that are in no hidden source."""
    if not query.hidden:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows["source"], value_set=pa.array(query.hidden)))).drop_columns(["source"])


def _appended(first: pa.Table | None, then: pa.Table) -> pa.Table:
    """Return `first`, then the rows that only `then` has."""
    if first is None:
        return then
    new = then.filter(pc.invert(pc.is_in(then["id"], value_set=first["id"].combine_chunks())))
    return pa.concat_tables([first, new])


def _nearest(table: Table, query: VectorQuery, count: int, *, probes: int | None = None) -> pa.Table:
    """Return the first `count` rows of the total order (distance, id): by `probes` parts of the index, or of all rows.

    LanceDB breaks ties in any order, also over which row is the last one returned. So one more row is requested, and
    as long as a tie reaches the end, twice as many.
    """

    def search(lance_table: Any) -> Any:
        found = lance_table.vector_search(query.vector).column("vector").distance_type("cosine")
        found = found.limit(limit).select(columns)
        if query.where is not None:
            found = found.where(query.where)  # evaluated before the search
        return found.bypass_vector_index() if probes is None else found.nprobes(probes).refine_factor(_REFINE)

    columns = [*_COLUMNS, "source"] if query.hidden else _COLUMNS
    limit = count + 1
    while True:
        rows = table.query(search).sort_by([("_distance", "ascending"), ("id", "ascending")])
        if rows.num_rows < limit and probes is not None:
            probes = None  # the parts searched may hold fewer rows than there are
            continue
        if rows.num_rows < limit or rows["_distance"][limit - 1] != rows["_distance"][count - 1]:
            return rows[:count]
        limit *= 2
