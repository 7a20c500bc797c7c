"""How long exports of many marks take, and their memory: `python -m tests.benchmarks.export [MARKS [PICTURES]]`."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from store import Database, Gallery, Marks, NewImage, Search, Shown
from store.export import FORMATS, export_marks

PICTURE = 12_000
"""Bytes of a picture, about those of a person crop as JPEG."""


def fill(marks: Marks, gallery: Gallery, count: int, pictures: int) -> None:
    """Ten marks on each caption, one of them a hit."""
    ids: list[str] = []
    for start in range(0, pictures, 1000):
        batch = [
            NewImage(data=n.to_bytes(4, "big") + os.urandom(PICTURE), uri=f"{n}", width=9, height=9, source="own")
            for n in range(start, min(pictures, start + 1000))
        ]
        gallery.add(batch)
        ids += [image.id for image in batch]
    for n in range(count // 10):
        shown = [Shown(ids[(n * 10 + k * 7919) % pictures], k + 1, 0.5) for k in range(10)]
        search = Search(user=f"user {n % 50}", caption=f"person {n}", version="mini-v0", backbone="mini")
        query = marks.record_search(search, shown)
        marks.mark(search.user, query, shown[0].image_id, "hit")
        marks.mark_many(search.user, query, [one.image_id for one in shown[1:]], "miss")


def main() -> None:
    count, pictures = (int(one) for one in [*sys.argv[1:], "100000", "20000"][:2])
    with tempfile.TemporaryDirectory() as scratch:
        database = Database(Path(scratch) / "app.db")
        marks, gallery = Marks(database), Gallery(Path(scratch) / "gallery")
        fill(marks, gallery, count, pictures)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{count:,} marks over {pictures:,} pictures; memory at most {before / 1024:.0f} MB so far", flush=True)
        for format in FORMATS:
            began = time.monotonic()
            rows = export_marks(marks, gallery, Path(scratch) / format, format=format).rows
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            took = time.monotonic() - began
            print(f"{format}: {rows:,} marks in {took:.1f} s, memory at most {peak:.0f} MB", flush=True)
        database.close()


if __name__ == "__main__":
    main()
