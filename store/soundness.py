"""What `check` asks of the vector tables: embeddings that are not as they must be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.filling import UNIT_TOLERANCE, orphans
from store.images import FACT_NAMES, IMAGES, TAGS, tags_column
from store.lance import LanceFolder


def unsound(lance: LanceFolder, name: str) -> dict[str, list[str]]:
    """The embeddings of a table that are at fault: what is wrong, and the pictures' ids, sorted; empty if nothing is.

    Reads all of them, a batch at a time. Raises GalleryError if the files are damaged.
    """
    table = lance.table(name)
    if table is None:
        return {}
    alone = orphans(lance, name)
    with lance.faults("read", name):
        facts = [fact for fact in (*FACT_NAMES, TAGS) if fact in table.schema.names]  # older programs wrote no tags
    pictures = _pictures(lance)
    seen: Counter[str] = Counter()
    bent, differing = set[str](), set[str]()
    for batch in lance.batches(name, ["id", "vector", *facts]):
        ids = batch.column("id")
        seen.update(ids.to_pylist())
        bent.update(ids.filter(_bent(batch.column("vector"))).to_pylist())
        differing.update(ids.filter(_differing(batch, pictures, facts)).to_pylist())
    found = {
        "have no picture": alone,
        "are there more than once": sorted(image_id for image_id, count in seen.items() if count > 1),
        "are no unit rows": sorted(bent),
        "say other facts than their pictures": sorted(differing),
    }
    return {fault: ids for fault, ids in found.items() if ids}


def _pictures(lance: LanceFolder) -> pa.Table:
    rows = lance.read(IMAGES, ["id", *FACT_NAMES, "metadata"])
    return rows.append_column(TAGS, tags_column(rows["metadata"])).drop_columns("metadata").combine_chunks()


def _bent(vectors: pa.Array) -> pa.Array:
    """Which are not of unit length, or not finite."""
    rows = np.asarray(vectors.flatten()).reshape(len(vectors), -1)
    return pa.array(~(np.abs(np.linalg.norm(rows, axis=1) - 1.0) <= UNIT_TOLERANCE))  # a NaN compares as bad, too


def _differing(batch: pa.RecordBatch, pictures: pa.Table, facts: list[str]) -> pa.Array:
    """Which say other facts than the picture of their id; tags not written yet, and no picture, say nothing."""
    place = pc.index_in(batch.column("id"), value_set=pictures["id"].combine_chunks())
    differs = pa.array(np.zeros(len(batch), dtype=bool))
    for fact in facts:
        here, there = batch.column(fact), pictures[fact].combine_chunks().take(place)
        unlike = pc.fill_null(pc.not_equal(here, there), pc.xor(pc.is_null(here), pc.is_null(there)))
        if fact == TAGS:
            unlike = pc.and_(unlike, pc.is_valid(here))
        differs = pc.or_(differs, unlike)
    return pc.and_(differs, pc.is_valid(place))
