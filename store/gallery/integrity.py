"""What `check` asks of the vector tables: embeddings that are not as they must be, and mending them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.gallery.embedding import UNIT_TOLERANCE
from store.gallery.erase import erase
from store.gallery.image_rows import FACT_NAMES, IMAGES, TAGS, tags_column
from store.gallery.lance_folder import LanceFolder
from store.store_errors import GalleryError

_ALONE, _AGAIN, _BENT, _DIFFERING = (
    "have no picture",
    "are there more than once",
    "are no unit rows",
    "say other facts than their pictures",
)
_FACTS_AT_ONCE = 1000


def unsound(lance: LanceFolder, name: str) -> dict[str, list[str]]:
    """The embeddings of a table that are at fault: what is wrong, and the pictures' ids, sorted; empty if nothing is.

    What is found is looked for again while nobody writes: pictures may come and go in between.
    Raises GalleryError if the files are damaged.
    """
    try:
        if not _look(lance, name):
            return {}
    except GalleryError:
        pass  # files may vanish while somebody erases: the second look tells
    with lance.writing():
        return _look(lance, name)


def mend(lance: LanceFolder, name: str) -> dict[str, list[str]]:
    """Mends what `unsound` finds and returns that: facts are written anew, the rest is erased, for `fill` to make anew.

    Of an embedding that is there more than once one stays. Raises GalleryError.
    """
    with lance.writing():
        found = _look(lance, name)
        if found.keys() - {_DIFFERING}:
            erase(lance, name, sorted({*found.get(_ALONE, []), *found.get(_BENT, [])}))
        if differing := found.get(_DIFFERING, []):
            facts = _pictures(lance, _facts_of(lance, name))
            facts = facts.filter(pc.is_in(facts["id"], value_set=pa.array(differing)))
            for start in range(0, len(facts), _FACTS_AT_ONCE):
                lance.update(name, facts[start : start + _FACTS_AT_ONCE])
    return found


def read_through(lance: LanceFolder, name: str) -> None:
    """Reads all that a table holds. Raises GalleryError where that cannot be."""
    table = lance.table(name)
    if table is not None:
        for _ in lance.batches(name, table.schema.names):
            pass


def _look(lance: LanceFolder, name: str) -> dict[str, list[str]]:
    if lance.table(name) is None:
        return {}
    facts = _facts_of(lance, name)
    rows = lance.read(name, ["id", *facts]).combine_chunks()
    pictures = _pictures(lance, facts)  # after the rows: what is added in between has its picture already
    place = pc.index_in(rows["id"], value_set=pictures["id"].combine_chunks()).combine_chunks()
    counts = pc.value_counts(rows["id"])
    bent = [batch.column("id").filter(_bent(batch.column("vector"))) for batch in lance.batches(name, ["id", "vector"])]
    found = {
        _ALONE: rows["id"].filter(pc.is_null(place)),
        _AGAIN: counts.field("values").filter(pc.greater(counts.field("counts"), 1)),
        _BENT: pa.chunked_array(bent, pa.string()),
        _DIFFERING: rows["id"].filter(_differing(rows, pictures, facts, place)),
    }
    return {fault: sorted(set(ids.to_pylist())) for fault, ids in found.items() if len(ids)}


def _facts_of(lance: LanceFolder, name: str) -> list[str]:
    """The columns of facts that the table has: older programs wrote no tags."""
    table = lance.table(name)
    assert table is not None
    with lance.faults("read", name):
        return [fact for fact in (*FACT_NAMES, TAGS) if fact in table.schema.names]


def _pictures(lance: LanceFolder, facts: list[str]) -> pa.Table:
    """The pictures' ids and facts as a vector table has them."""
    rows = lance.read(IMAGES, ["id", *FACT_NAMES, "metadata"]).combine_chunks()
    return rows.append_column(TAGS, tags_column(rows["metadata"])).select(["id", *facts])


def _bent(vectors: pa.Array) -> pa.Array:
    """Which are not of unit length, or not finite."""
    rows = np.asarray(vectors.flatten()).reshape(len(vectors), -1)
    return pa.array(~(np.abs(np.linalg.norm(rows, axis=1) - 1.0) <= UNIT_TOLERANCE))  # a NaN compares as bad, too


def _differing(rows: pa.Table, pictures: pa.Table, facts: list[str], place: pa.Array) -> pa.Array:
    """Which say other facts than the picture at their `place`; tags not written yet, and no picture, say nothing."""
    differs = pa.array(np.zeros(len(rows), dtype=bool))
    for fact in facts:
        here, there = rows[fact], pictures[fact].take(place)
        unlike = pc.fill_null(pc.not_equal(here, there), pc.xor(pc.is_null(here), pc.is_null(there)))
        if fact == TAGS:
            unlike = pc.and_(unlike, pc.is_valid(here))
        differs = pc.or_(differs, unlike)
    return pc.and_(differs, pc.is_valid(place))
