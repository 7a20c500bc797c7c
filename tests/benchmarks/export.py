"""How long exports of many marks take, their memory, and what they cost those who search meanwhile.

    python -m tests.benchmarks.export [MARKS [PICTURES]]
    python -m tests.benchmarks.export --searching [MARKS [PICTURES]]

The second starts `python app.py` on such a data folder and searches through its web API, one search after the
other: first with nothing else going on, then while each format is exported through the same API.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from core.images import as_loaders_read
from store import Database, Gallery, Marks, NewImage, Versions
from store.export import export_marks
from store.records import EXPORT_FORMATS, GivenMark
from tests.benchmarks.memory import peak_resident

PICTURE = 12_000
"""Bytes of a picture, about those of a person crop as JPEG."""
IDLE = 20
"""Seconds of searching with nothing else going on."""


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
    began = datetime.now(UTC)
    for start in range(0, count, 10_000):
        marks.import_given(
            [
                GivenMark(
                    user=f"user {n // 10 % 50}", caption=f"person {n // 10}",
                    image_id=ids[(n + n % 10 * 7919) % pictures],
                    verdict="miss" if n % 10 else "hit", query_id=f"{n // 10:032x}", rank=n % 10 + 1, score=0.5,
                    version="mini-v0", backbone="mini", marked_at=began + timedelta(milliseconds=n),
                )
                for n in range(start, min(count, start + 10_000))
            ]
        )  # fmt: skip


def time_and_memory(folder: Path, count: int, pictures: int) -> None:
    """Each format, in a process of its own."""
    database = Database(folder / "app.db")
    fill(Marks(database), Gallery(folder / "gallery"), count, pictures)
    database.close()
    print(f"{count:,} marks over {pictures:,} pictures", flush=True)
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        for format in EXPORT_FORMATS:
            rows, seconds, memory = processes.submit(export, folder, format).result()
            print(f"{format}: {rows:,} marks in {seconds:.1f} s, memory at most {memory / 1e6:.0f} MB", flush=True)


def export(folder: Path, format: str) -> tuple[int, float, int]:
    """Rows, seconds, and the greatest resident memory of this process in bytes."""
    database = Database(folder / "app.db")
    began = time.monotonic()
    rows = export_marks(
        Marks(database), Gallery(folder / "gallery"), folder / format, as_seen=as_loaders_read, format=format
    ).rows
    seconds = time.monotonic() - began
    database.close()
    return rows, seconds, peak_resident()


def make_state(folder: Path, count: int, pictures: int) -> None:
    """A data folder that the app can serve. What a search finds in it means nothing."""
    from core import load_backbone  # here: the memory measured above is that of an export, which needs none of it

    database = Database(folder / "app.db")
    gallery = Gallery(folder / "gallery")
    fill(Marks(database), gallery, count, pictures)
    Versions(database).ensure_base("mini")
    database.close()
    rng, dim = np.random.default_rng(0), load_backbone("mini").embed_dim

    def anything(data: list[bytes]) -> np.ndarray:
        rows = rng.normal(size=(len(data), dim)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    gallery.fill("mini-v0", anything, dim=dim, batch_size=1000)


def while_searching(folder: Path, count: int, pictures: int) -> None:
    """Each format, by a running app that is asked for something else all the time."""
    from gradio_client import Client

    from tests.benchmarks.searcher import Searcher
    from tests.conftest import start_app

    make_state(folder, count, pictures)
    app = start_app(folder, UPPERSON_TRAIN_AFTER_MARKS="1000000")
    try:
        exporter = Client(app.url, verbose=False, download_files=str(folder / "got"))
        with Searcher(app.url) as searcher:
            searcher.search_for(IDLE, "nothing else")
            for format in EXPORT_FORMATS:
                searcher.begin()
                exporter.predict(format, api_name="/export")
                searcher.end(f"{format} export")
    finally:
        app.stop()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--searching", action="store_true", help="measure searches in a running app meanwhile")
    arguments.add_argument("marks", type=int, nargs="?", default=100_000)
    arguments.add_argument("pictures", type=int, nargs="?", default=20_000)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure = while_searching if given.searching else time_and_memory
        measure(Path(scratch, "data"), given.marks, given.pictures)


if __name__ == "__main__":
    main()
