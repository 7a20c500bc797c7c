"""Milliseconds per drawn picture, per domain: `OMP_NUM_THREADS=1 python -m tests.benchmarks.drawing [pictures]`."""

from __future__ import annotations

import sys
import time

from train.pedestrians.drawing import draw
from train.pedestrians.people import Domain, sample_person, sample_shot


def milliseconds(domain: Domain, count: int) -> float:
    """Mean CPU milliseconds of one picture; people and shots are drawn beforehand, backgrounds are warm."""
    work = [(sample_person(1, pid), sample_shot(1, pid, pid % 4, domain)) for pid in range(count)]
    for person, shot in work[:40]:
        draw(person, shot)
    start = time.process_time()
    for person, shot in work:
        draw(person, shot)
    return (time.process_time() - start) / count * 1000


def main() -> None:
    """Print one line per domain."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    domains: tuple[Domain, ...] = ("studio", "street")
    for domain in domains:
        print(f"{domain}: {milliseconds(domain, count):.2f} ms a picture ({count} pictures)")


if __name__ == "__main__":
    main()
