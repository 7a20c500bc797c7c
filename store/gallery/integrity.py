"""Embeddings of a vector table that are wrong: found by `faults_of`, repaired by `repair`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.gallery.arrow_schema import FACT_NAMES, TAGS
from store.gallery.embedding import UNIT_TOLERANCE
from store.gallery.erase import erase
from store.gallery.filters import tags_column
from store.gallery.table import Table
from store.store_errors import GalleryError

ORPHANS = "have no picture"
DUPLICATES = "exist more than once"
NON_UNIT = "are not of unit length"
DIFFERING = "have other facts than their pictures"
_FACTS_AT_ONCE = 1000


def faults_of(table: Table, images: Table) -> dict[str, list[str]]:
    """Return the ids of the pictures whose embeddings are wrong, sorted, by what is wrong; empty if nothing is.

    What is found is checked again while nobody writes: pictures may come and go in between.
    Raises GalleryError if the files are damaged.
    """
    try:
        if not _scan(table, images):
            return {}
    except GalleryError:
        pass  # files may vanish while somebody erases: the second scan decides
    with table.folder.writing():
        return _scan(table, images)


def repair(table: Table, images: Table) -> dict[str, list[str]]:
    """Repair what `faults_of` finds and return that: facts are written again, the rest is erased for `fill` to add.

    Of an embedding that exists more than once one stays. Raises GalleryError if the files are damaged.
    """
    with table.folder.writing():
        found = _scan(table, images)
        if found.keys() - {DIFFERING}:
            erase(table, sorted({*found.get(ORPHANS, []), *found.get(NON_UNIT, [])}))
        if differing := found.get(DIFFERING, []):
            facts = _pictures(images, _facts_of(table))
            facts = facts.filter(pc.is_in(facts["id"], value_set=pa.array(differing)))
            for start in range(0, len(facts), _FACTS_AT_ONCE):
                table.update(facts[start : start + _FACTS_AT_ONCE])
    return found


def _scan(table: Table, images: Table) -> dict[str, list[str]]:
    if table.handle() is None:
        return {}
    facts = _facts_of(table)
    rows = table.read(["id", *facts]).combine_chunks()
    pictures = _pictures(images, facts)  # after the rows: what is added in between has its picture already
    place = pc.index_in(rows["id"], value_set=pictures["id"].combine_chunks()).combine_chunks()
    counts = pc.value_counts(rows["id"])
    batches = table.batches(["id", "vector"])
    non_unit = [batch.column("id").filter(_non_unit(batch.column("vector"))) for batch in batches]
    found = {
        ORPHANS: rows["id"].filter(pc.is_null(place)),
        DUPLICATES: counts.field("values").filter(pc.greater(counts.field("counts"), 1)),
        NON_UNIT: pa.chunked_array(non_unit, pa.string()),
        DIFFERING: rows["id"].filter(_differing(rows, pictures, facts, place)),
    }
    return {fault: sorted(set(ids.to_pylist())) for fault, ids in found.items() if len(ids)}


def _facts_of(table: Table) -> list[str]:
    """Return the columns of facts that the table has: older programs wrote no tags."""
    columns = table.columns()
    return [fact for fact in (*FACT_NAMES, TAGS) if fact in columns]


def _pictures(images: Table, facts: list[str]) -> pa.Table:
    """Return the pictures' ids and facts as a vector table has them."""
    rows = images.read(["id", *FACT_NAMES, "metadata"]).combine_chunks()
    return rows.append_column(TAGS, tags_column(rows["metadata"])).select(["id", *facts])


def _non_unit(vectors: pa.Array) -> pa.Array:
    """Return a mask of the vectors that are not of unit length, or not finite."""
    rows = np.asarray(vectors.flatten()).reshape(len(vectors), -1)
    return pa.array(~(np.abs(np.linalg.norm(rows, axis=1) - 1.0) <= UNIT_TOLERANCE))  # a NaN compares as bad, too


def _differing(rows: pa.Table, pictures: pa.Table, facts: list[str], place: pa.Array) -> pa.Array:
    """Return a mask of the rows with other facts than the picture at their `place`.

    Tags not written yet do not count, nor do rows without a picture.
    """
    differs = pa.array(np.zeros(len(rows), dtype=bool))
    for fact in facts:
        here, there = rows[fact], pictures[fact].take(place)
        unlike = pc.fill_null(pc.not_equal(here, there), pc.xor(pc.is_null(here), pc.is_null(there)))
        if fact == TAGS:
            unlike = pc.and_(unlike, pc.is_valid(here))
        differs = pc.or_(differs, unlike)
    return pc.and_(differs, pc.is_valid(place))
