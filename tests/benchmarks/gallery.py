"""Times and checks searches over large galleries, beside numpy and FAISS: `python -m tests.benchmarks.gallery`.

Vectors are clustered (20 to a cluster) with fixed seeds, 512 values each. Recall and scores are against the full
scan, before and after 1,000 rows that the index does not know yet. A search of the gallery counts, as the app does, how
many rows pass; that is kept until something changes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from store import Filters, Gallery
from store.gallery.arrow_schema import IMAGES_SCHEMA, vectors_schema
from store.gallery.filters import tags_column
from store.gallery.indexes import INDEX_FROM, parts_of
from store.gallery.lance_folder import LanceFolder
from store.gallery.table import Table
from store.values import utc_now

DIM, CLUSTER, SPREAD, K = 512, 20, 0.7, 10
VERSION, LATE = "bench", 1000
CAMERAS, HIDDEN = 10, 100  # every picture has one of so many cameras, and one in so many is of a source to hide
MOST_HNSW = 200_000  # building FAISS's graph of a million takes a quarter of an hour on two cores
MOST_FORGET = 200_000  # forgetting writes the fragment of the picture again: with a million in one, minutes
Rows = np.ndarray
Found = list[tuple[int, float]]


def clustered(count: int, *, centres: Rows, seed: int) -> Rows:
    """`count` unit rows (float32) around the centres."""
    rng = np.random.default_rng(seed)
    rows = np.empty((count, DIM), np.float32)
    for start in range(0, count, 50_000):
        part = rows[start : start + 50_000]
        part[:] = centres[rng.integers(0, len(centres), len(part))] + SPREAD * rng.standard_normal(
            part.shape, dtype=np.float32
        )
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def ids_of(first: int, count: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(first, first + count)]


def add(lance: LanceFolder, rows: Rows, first: int) -> None:
    """Puts pictures of a few bytes and their vectors straight into the tables."""
    for start in range(0, len(rows), 20_000):
        part = rows[start : start + 20_000]
        numbers = range(first + start, first + start + len(part))
        ids, none = ids_of(first + start, len(part)), pa.nulls(len(part))
        source = pa.array(["sample" if n % HIDDEN == 0 else "own" for n in numbers])
        facts = [source, none, pa.array([f"camera {n % CAMERAS}" for n in numbers]), none]
        metadata = [json.dumps({"side": "left" if n % 2 else "right"}) for n in numbers]
        now = pa.array([utc_now()] * len(part))
        sizes = [pa.array([64] * len(part)), pa.array([128] * len(part))]
        data = pa.array([image_id.encode()[:8] * 8 for image_id in ids], pa.large_binary())
        columns = [ids, data, pa.array(["x"] * len(part)), *sizes, *facts, pa.array(metadata), now]
        images = [pa.array(c).cast(f.type) if not isinstance(c, list) else c for c, f in zip(columns, IMAGES_SCHEMA)]  # noqa: B905
        lance.create("images", IMAGES_SCHEMA).add(pa.table(images, schema=IMAGES_SCHEMA))
        schema = vectors_schema(DIM)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), DIM)
        known = [c.cast(schema.field(n).type) for c, n in zip(facts, ["source", "pid", "camera", "captured_at"])]  # noqa: B905
        tags = tags_column(pa.chunked_array([metadata]))
        lance.create(f"vectors_{VERSION}", schema).add(pa.table([ids, vectors, *known, tags], schema=schema))


def timed(search: Callable[[Rows], Found], queries: Rows) -> tuple[list[float], list[Found]]:
    for query in queries[:5]:
        search(query)
    times, answers = [], []
    for query in queries:
        start = time.perf_counter()
        answers.append(search(query))
        times.append(1000 * (time.perf_counter() - start))
    return times, answers


def judged(answers: list[Found], queries: Rows, rows: Rows, truth: list[set[int]]) -> tuple[float, float]:
    """recall@10, and the greatest difference between a score and the true cosine."""
    hits = sum(len({n for n, _ in answer} & wanted) for answer, wanted in zip(answers, truth, strict=True))
    errors = [
        abs(score - float(rows[n].astype(np.float64) @ query.astype(np.float64)))
        for answer, query in zip(answers, queries, strict=True)
        for n, score in answer
    ]
    return hits / (K * len(truth)), max(errors)


def measure(size: int, queries_count: int) -> list[dict[str, Any]]:
    """One row of figures for each way to search."""
    centres = np.random.default_rng(0).standard_normal((max(1, size // CLUSTER), DIM), dtype=np.float32)
    rows, queries = clustered(size + LATE, centres=centres, seed=1), clustered(queries_count, centres=centres, seed=2)
    first = rows[:size]
    truth = nearest(first, queries)
    results: list[dict[str, Any]] = []

    def note(
        way: str, search: Callable[[Rows], Found], build: float, base: Rows, wanted: list[set[int]]
    ) -> list[float]:
        times, answers = timed(search, queries)
        recall, error = judged(answers, queries, base, wanted)
        p50, p95 = np.percentile(times, [50, 95])
        results.append(
            {"size": size, "way": way, "build_s": build, "p50_ms": p50, "p95_ms": p95, "recall": recall, "error": error}
        )
        print(
            f"{size:>9,}  {way:<34} build {build:6.1f} s  p50 {p50:7.1f} ms  p95 {p95:7.1f} ms  "
            f"recall@10 {recall:.4f}  error {error:.0e}",
            flush=True,
        )
        return times

    def full(query: Rows) -> Found:
        scores = first @ query
        best = np.argpartition(-scores, K)[:K]
        return [(int(n), float(scores[n])) for n in best]

    note("numpy, full scan", full, 0.0, first, truth)
    peers = [("FAISS flat", faiss.IndexFlatIP(DIM)), *([("FAISS HNSW", hnsw())] if size <= MOST_HNSW else [])]
    if size > MOST_HNSW:
        print(f"{size:>9,}  FAISS HNSW is not built above {MOST_HNSW:,} vectors: it takes too long")
    for name, index in peers:
        start = time.perf_counter()
        index.add(first)

        def peer(query: Rows, index: Any = index) -> Found:
            scores, found = index.search(query[None], K)
            return [(int(n), float(score)) for n, score in zip(found[0], scores[0], strict=True)]

        note(name, peer, time.perf_counter() - start, first, truth)
        del index

    with tempfile.TemporaryDirectory() as folder:
        number_of = {image_id: number for number, image_id in enumerate(ids_of(0, size + LATE))}
        gallery, lance = Gallery(folder), LanceFolder(folder)
        add(lance, first, 0)
        for table in ("images", f"vectors_{VERSION}"):
            Table(lance, table).compact()

        def ours(query: Rows) -> Found:
            found = [(number_of[c.image_id], c.score) for c in gallery.search(VERSION, query, K)]
            gallery.passing(VERSION)
            return found

        if size >= INDEX_FROM:
            note("gallery, no index yet", ours, 0.0, first, truth)
        start = time.perf_counter()
        gallery.maintain(VERSION)
        note("gallery", ours, time.perf_counter() - start, first, truth)
        add(lance, rows[size:], size)
        numbers = np.arange(len(rows))
        truth = nearest(rows, queries)
        note(f"gallery, {LATE:,} rows not indexed", ours, 0.0, rows, truth)
        for way, filters, passes in (
            ("one camera of ten", Filters(camera=("camera 3",)), numbers % CAMERAS == 3),
            ("half by metadata", Filters(metadata=(("side", "left"),)), numbers % 2 == 1),
        ):

            def filtered(query: Rows, filters: Filters = filters) -> Found:
                found = gallery.search(VERSION, query, K, filters=filters)
                gallery.passing(VERSION, filters)
                return [(number_of[c.image_id], c.score) for c in found]

            note(f"gallery, {way}", filtered, 0.0, rows, nearest(rows, queries, passes))
        gallery.hide_source("sample")
        note("gallery, one source hidden", ours, 0.0, rows, nearest(rows, queries, numbers % HIDDEN != 0))
        gallery.show_source("sample")
        shown, hidden = beside(gallery, ours, queries)
        ratio = hidden / shown
        print(f"{size:>9,}  one source hidden {hidden:.1f} ms, none {shown:.1f} ms, in turns: {ratio:.2f} x")
        results.append({"size": size, "way": "one source hidden, of none", "p50_ms": hidden, "of_none": ratio})
        if size >= INDEX_FROM:
            idle = np.percentile(note("gallery, before that", ours, 0.0, rows, nearest(rows, queries)), 95)
            table = Table(lance, f"vectors_{VERSION}")
            for what, least, work in (
                (f"{LATE:,} new rows join the index", 1, table.compact),
                (
                    "an index is built",
                    queries_count,
                    partial(table.index_vectors, f"vector_{size}", parts=parts_of(size)),
                ),
            ):
                busy = meanwhile(work, ours, queries, least)
                p95 = float(np.percentile(busy, 95))
                found = f"p95 {p95:.1f} ms, {p95 / idle:.1f} x idle, {len(busy)} searches"
                print(f"{size:>9,}  while {what}: {found}")
                results.append({"size": size, "way": f"while {what}", "p95_ms": p95, "of_idle": p95 / idle})
        if size <= MOST_FORGET:
            forget(gallery, Path(folder), rows[size // 2], ids_of(size // 2, 1)[0])
        else:
            print(f"{size:>9,}  forgetting is not timed above {MOST_FORGET:,} vectors: it writes the table again")
    return results


def meanwhile(work: Callable[[], object], search: Callable[[Rows], Found], queries: Rows, least: int) -> list[float]:
    """Milliseconds of searches, one after the other, while another thread works: once, or again until there are
    `least` searches."""
    times: list[float] = []
    with ThreadPoolExecutor(1) as thread:
        while len(times) < least:
            working, before = thread.submit(work), len(times)
            while not working.done() or len(times) == before:
                start = time.perf_counter()
                search(queries[len(times) % len(queries)])
                times.append(1000 * (time.perf_counter() - start))
            working.result()
    return times


def beside(gallery: Gallery, search: Callable[[Rows], Found], queries: Rows) -> tuple[float, float]:
    """Median milliseconds of searches with nothing hidden and with one source hidden, ten of each in turns."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for start in range(0, len(queries), 10):
        for hidden, set_it in ((False, gallery.show_source), (True, gallery.hide_source)):
            set_it("sample")
            search(queries[start])  # the counts of what passes are kept from here on
            for query in queries[start : start + 10]:
                begun = time.perf_counter()
                search(query)
                times[hidden].append(1000 * (time.perf_counter() - begun))
    gallery.show_source("sample")
    return float(np.median(times[False])), float(np.median(times[True]))


def nearest(rows: Rows, queries: Rows, passes: Rows | None = None) -> list[set[int]]:
    """The true ten nearest of those that pass, by number, for each query."""
    found = []
    for query in queries:
        scores = rows @ query
        if passes is not None:
            scores[~passes] = -2
        found.append(set(np.argpartition(-scores, K)[:K].tolist()))
    return found


def hnsw() -> Any:
    index = faiss.IndexHNSWFlat(DIM, 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efSearch = 64
    return index


def forget(gallery: Gallery, folder: Path, vector: Rows, image_id: str) -> None:
    """Forgets one picture and looks for its vector and id in every file."""
    start = time.perf_counter()
    gallery.forget([image_id])
    seconds = time.perf_counter() - start
    sought = (vector[:64].tobytes(), vector[-64:].tobytes(), image_id.encode())
    left = [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(part in path.read_bytes() for part in sought)
    ]
    print(
        f"           one picture forgotten in {seconds:.1f} s, the index built again; files that hold it: {left or 0}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,10000,100000", help="numbers of vectors, separated by commas")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    results = [row for size in arguments.sizes.split(",") for row in measure(int(size), arguments.queries)]
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
