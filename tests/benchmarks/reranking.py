"""Times the instant re-rank beside a plain scoring of the same candidates: `python -m tests.benchmarks.reranking`.

Candidates are unit rows around a query, the first ones marked as hits and misses in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from core.rerank import rerank

MARKS = (1, 2, 10, 100)


def milliseconds(work: Callable[[], object], repeats: int) -> NDArray[np.float64]:
    """How long each repetition took (repeats,), after one that is not counted."""
    work()
    ends = [time.perf_counter()]
    for _ in range(repeats):
        work()
        ends.append(time.perf_counter())
    return np.diff(1000 * np.array(ends))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=200)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    query = rng.standard_normal(given.dim, dtype=np.float32)
    query /= np.linalg.norm(query)
    rows = query + rng.standard_normal((given.candidates, given.dim), dtype=np.float32) * np.float32(given.dim**-0.5)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    plain = milliseconds(lambda unsorted=rows: np.argsort(-(unsorted @ query), kind="stable"), given.repeats)  # type: ignore[misc]
    rows = rows[np.argsort(-(rows @ query))]
    print(f"{given.candidates:,} candidates of {given.dim} values; scored and sorted: p50 {np.median(plain):.1f} ms")
    print("| marks | p50 | p95 | beside scoring and sorting |\n| --- | --- | --- | --- |")
    for marks in MARKS:
        verdicts = np.zeros(given.candidates, np.int64)
        verdicts[:marks:2], verdicts[1:marks:2] = 1, -1
        times = milliseconds(lambda verdicts=verdicts: rerank(query, rows, verdicts), given.repeats)  # type: ignore[misc]
        p50, p95 = np.percentile(times, [50, 95])
        print(f"| {marks} | {p50:.1f} ms | {p95:.1f} ms | {p50 / np.median(plain):.1f} times |")


if __name__ == "__main__":
    main()
