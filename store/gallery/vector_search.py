"""Rankings of a vector table by cosine, and the index that makes them quick: when to build it, when to renew it.

Measured in tests/benchmarks/gallery.py. The index keeps each value in 8 bits, so distances are taken anew from the
vectors of the nearest it finds: scores are true cosines, with or without an index.
IVF_RQ, one bit a value, took a third less time with a million vectors, but of the ten nearest of those that pass a
filter it missed up to one in twenty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import col

from store.gallery.lance_folder import LanceFolder

INDEX_FROM = 10_000
"""Vectors from which on a search uses an index. Below, comparing all takes about 10 ms (2 cores, 512 values). And rows
from which on keys have one: of 100,000 pictures one was found in 2 ms instead of 16."""
_STALE_SHARE = 20  # the index takes new rows in once they are a twentieth of all, and at least …
_STALE_ROWS = 1000  # … this many; until then LanceDB compares them one by one
_STALE_KEYS = 5  # the index of keys is built anew once a fifth of all is not in it
_OUTGROWN = 2  # its parts are those of the rows there were at first: with this many times as many, it is built anew
_SCATTERED = 32  # fragments that a search opens one by one; over 160 it took twice as long as over one
_PART_ROWS = 2000  # of each part of the index; 1,000 were no quicker at the same recall, and took half as long again
_PROBES = 2.6, 0.7  # of n parts a * n ** b are looked into: all of 10, four fifths of 50, two fifths of 500
_ALL_PARTS = 100_000
_INDEX = f"vector_{_PART_ROWS}_"  # an index's name: how it is parted, and of how many rows it was built
_DEPTHS = 24, 120, 1000  # a ranking's first results, by the index; beyond, everything is compared
_REFINE = 3  # times as many are compared by their vectors as are asked for
_SPARE = 8  # rows fetched beyond what is asked for, or an eighth of that, while a source is hidden
_COLUMNS = ["id", "pid", "camera", "captured_at", "_distance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is ranked: rows that pass `where`, but for those of the `hidden` sources, by the cosine with `vector` (E,).

    `vector` is not all zero. `narrow`: `where` may keep few rows, which may lie in any part of the index, so every part
    is searched.
    """

    vector: npt.NDArray[np.float32]
    where: Any
    narrow: bool
    hidden: tuple[str, ...] = ()

    def prefiltered(self) -> Ask:
        """The same rows with the hidden sources left out by `where`, which LanceDB evaluates before it ranks."""
        if not self.hidden:
            return self
        visible = ~col("source").isin(list(self.hidden))
        where = visible if self.where is None else self.where & visible
        return Ask(vector=self.vector, where=where, narrow=True)


def ranked(lance: LanceFolder, name: str, ask: Ask, offset: int, k: int) -> pa.Table:
    """Return the `k` rows after the first `offset` of one order of all rows that pass; fewer if there are no more.

    While the table does not change, every call returns its slice of the same order: by distance, then id. Where an
    index chose the first results, a row that a shallow search missed and a deeper one found comes after the former.

    Rows of hidden sources are dropped from what a search returns: as a condition of the search they would double its
    time. What is left of the first rows of an order is the beginning of the order without them. If too few are left,
    the search goes deeper; where more than half were hidden, they become a condition after all.
    """
    stop = offset + k
    rows = lance.rows(name)
    if rows < INDEX_FROM:
        count = stop + _spare(ask, stop)
        found = _nearest(lance, name, ask, count)
        order = _visible(found, ask)
        if order.num_rows < stop and found.num_rows == count:
            order = _nearest(lance, name, ask.prefiltered(), stop)
        return order[offset:stop]
    order = None
    for depth in _DEPTHS:
        count = depth + _spare(ask, depth)
        probes = _ALL_PARTS if ask.narrow else math.ceil(_PROBES[0] * parts_of(rows) ** _PROBES[1])
        found = _nearest(lance, name, ask, count, probes=probes)
        visible = _visible(found, ask)
        order = _followed(order, visible)
        if order.num_rows >= stop or found.num_rows < count:
            return order[offset:stop]
        if 2 * visible.num_rows < found.num_rows:  # depends on the query alone, so that pages stay slices of one order
            ask = ask.prefiltered()
    return _followed(order, _nearest(lance, name, ask.prefiltered(), stop))[offset:stop]


def _spare(ask: Ask, count: int) -> int:
    """How many more rows than `count` to fetch, for some may be hidden."""
    return max(_SPARE, count // _SPARE) if ask.hidden else 0


def _visible(rows: pa.Table, ask: Ask) -> pa.Table:
    """The rows that are in no hidden source."""
    if not ask.hidden:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows["source"], value_set=pa.array(ask.hidden)))).drop_columns(["source"])


def parts_of(rows: int) -> int:
    """How many parts the index of so many rows has."""
    return max(1, rows // _PART_ROWS)


def _followed(first: pa.Table | None, then: pa.Table) -> pa.Table:
    """`first`, then what only `then` has."""
    if first is None:
        return then
    new = then.filter(pc.invert(pc.is_in(then["id"], value_set=first["id"].combine_chunks())))
    return pa.concat_tables([first, new])


def _nearest(lance: LanceFolder, name: str, ask: Ask, count: int, *, probes: int | None = None) -> pa.Table:
    """The first `count` rows of the total order (distance, id): by so many parts of the index, or all compared.

    LanceDB breaks ties as it likes, also over which row is the last one returned. So one more row is asked
    for, and as long as a tie reaches the end, twice as many.
    """

    def search(table: Any) -> Any:
        query = table.vector_search(ask.vector).column("vector").distance_type("cosine").limit(limit).select(columns)
        if ask.where is not None:
            query = query.where(ask.where)  # before the neighbours are sought
        return query.bypass_vector_index() if probes is None else query.nprobes(probes).refine_factor(_REFINE)

    columns = [*_COLUMNS, "source"] if ask.hidden else _COLUMNS
    limit = count + 1
    while True:
        rows = lance.query(name, search).sort_by([("_distance", "ascending"), ("id", "ascending")])
        if rows.num_rows < limit and probes is not None:
            probes = None  # the parts looked into may hold fewer rows than there are
            continue
        if rows.num_rows < limit or rows["_distance"][limit - 1] != rows["_distance"][count - 1]:
            return rows[:count]
        limit *= 2


def tend(lance: LanceFolder, name: str) -> bool:
    """Builds the index of a table that is large enough for one, or brings it and the table up to date; whether it did.

    Searches are right without this, only slower: rows that the index lacks are compared one by one.
    """
    if due(lance, name) is None:
        return False
    with lance.writing():
        work = due(lance, name)  # another writer may have done it meanwhile
        if work == "build":
            rows = lance.rows(name)
            lance.index(name, f"{_INDEX}{rows}", parts=parts_of(rows))
        elif work == "join":
            lance.compact(name)
    return work is not None


def tend_keys(lance: LanceFolder, name: str) -> bool:
    """Builds the index of a large table's keys, or builds it anew when many rows are not in it; whether it did.

    That takes a tenth of a second for 100,000 rows, so nothing is joined: until something is erased, fragments of
    pictures stay as they were written, and former indexes stay, too: with a fifth of new rows each time, some five
    times the last. Rows are found by their keys without it, too, only slower.
    On an object store there is none: with it, LanceDB lets two writers at once insert the same key.
    """
    if not _keys_due(lance, name):
        return False
    with lance.writing():
        work = _keys_due(lance, name)  # another writer may have done it meanwhile
        if work:
            lance.index_keys(name, "id")
    return work


def _keys_due(lance: LanceFolder, name: str) -> bool:
    rows = lance.rows(name)
    if rows < INDEX_FROM or not lance.local:
        return False
    index = lance.index_of(name, "id")
    return index is None or index[1] >= max(_STALE_ROWS, rows // _STALE_KEYS)


def due(lance: LanceFolder, name: str) -> Literal["build", "join"] | None:
    """What a table needs: its index built, or new rows and small fragments joined to the others; None if nothing."""
    rows = lance.rows(name)
    if rows >= INDEX_FROM:
        index = lance.index_of(name, "vector")
        if index is None:
            return "build"
        built, unindexed = index[0].removeprefix(_INDEX), index[1]
        if not built.isdigit() or rows >= _OUTGROWN * int(built):  # older programs gave another name
            return "build"
        if unindexed >= max(_STALE_ROWS, rows // _STALE_SHARE):
            return "join"
    return "join" if lance.small_fragments(name) >= _SCATTERED else None
