"""The indexes of large tables: when to build one, when to build it again, and when to add new rows to it.

Searches and look-ups are right without any of this, only slower: rows that an index lacks are compared one by one.
Measured in tests/benchmarks/gallery.py. The index of vectors keeps each value in 8 bits. IVF_RQ, one bit a value, took
a third less time with a million vectors, but of the ten nearest of those that pass a filter it missed up to one in
twenty.
"""

from __future__ import annotations

from typing import Literal

from store.gallery.table import Table

INDEX_FROM = 10_000
"""Vectors from which on a search uses an index. Below, comparing all takes about 10 ms (2 cores, 512 values). And rows
from which on keys have one: of 100,000 pictures one was found in 2 ms instead of 16."""
PART_ROWS = 2000
"""Rows of each part of the index; 1,000 were no quicker at the same recall, and took half as long again to build."""
_INDEX = f"vector_{PART_ROWS}_"  # an index's name: the rows of a part, then the rows it was built of
_STALE_SHARE = 20  # new rows are added to the index once they are a twentieth of all, and at least …
_STALE_ROWS = 1000  # … this many; until then LanceDB compares them one by one
_STALE_KEYS = 5  # the index of keys is built again once it lacks a fifth of all
_OUTGROWN = 2  # the index has the parts of the rows it was built of: with this many times as many, it is built again
_SCATTERED = 32  # fragments that a search opens one by one; over 160 it took twice as long as over one


def parts_of(rows: int) -> int:
    """Return how many parts the index of so many rows has."""
    return max(1, rows // PART_ROWS)


def due(table: Table) -> Literal["build", "join"] | None:
    """Return what a table of vectors needs: an index built, or new rows and small fragments joined; None: nothing."""
    rows = table.rows()
    if rows >= INDEX_FROM:
        index = table.index_of("vector")
        if index is None:
            return "build"
        built, unindexed = index[0].removeprefix(_INDEX), index[1]
        if not built.isdigit() or rows >= _OUTGROWN * int(built):  # older programs gave another name
            return "build"
        if unindexed >= max(_STALE_ROWS, rows // _STALE_SHARE):
            return "join"
    return "join" if table.small_fragments() >= _SCATTERED else None


def maintain(table: Table) -> bool:
    """Do what a table of vectors needs by `due`; return whether anything was done."""
    if due(table) is None:
        return False
    with table.folder.writing():
        work = due(table)  # another writer may have done it in between
        if work == "build":
            rows = table.rows()
            table.index_vectors(f"{_INDEX}{rows}", parts=parts_of(rows))
        elif work == "join":
            table.compact()
    return work is not None


def maintain_keys(table: Table) -> bool:
    """Build the index of a large table's ids, again when it lacks many rows; return whether it was built.

    That takes a tenth of a second for 100,000 rows, so nothing is joined: until something is erased, fragments of
    pictures stay as they were written, and former indexes stay, too: with a fifth of new rows each time, some five
    times the last. On an object store there is none: with it, LanceDB lets two writers at once insert the same key.
    """
    if not _keys_due(table):
        return False
    with table.folder.writing():
        work = _keys_due(table)  # another writer may have done it in between
        if work:
            table.index_keys("id")
    return work


def _keys_due(table: Table) -> bool:
    rows = table.rows()
    if rows < INDEX_FROM or not table.folder.local:
        return False
    index = table.index_of("id")
    return index is None or index[1] >= max(_STALE_ROWS, rows // _STALE_KEYS)
