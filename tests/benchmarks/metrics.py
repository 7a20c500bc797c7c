"""Times the ranking of large galleries and its peak memory: `python -m tests.benchmarks.metrics --size 50000`.

Queries and gallery are random unit rows, two pictures to a person, as many queries as pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict

import numpy as np

from tests.benchmarks.memory import peak_resident
from train.metrics import rank_metrics_of


def measure(size: int, dim: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    pids = np.arange(size) // 2
    gallery = rng.standard_normal((size, dim), dtype=np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    queries = gallery + rng.standard_normal((size, dim), dtype=np.float32) * np.float32(3.6 * dim**-0.5)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    before, worked = time.monotonic(), time.process_time()
    found = rank_metrics_of(queries, gallery, pids, pids)
    return {
        "size": size,
        "dim": dim,
        "threads": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count())),
        "seconds": round(time.monotonic() - before, 1),
        "cpu_seconds": round(time.process_time() - worked, 1),
        "peak_gb": round(peak_resident() / 1e9, 2),
        "metrics": asdict(found),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    given = parser.parse_args()
    print(json.dumps(measure(given.size, given.dim), indent=1))
