"""What those who search wait while others mark, train and export, and whether such exports hold what they should.

    python -m tests.benchmarks.busy [SECONDS]

Starts `python app.py` with its sample gallery of 600 pictures and searches through its web API, one search after the
other: with nothing else going on; while one client marks without a break and a model is fine-tuned; while, on top of
that, another client exports without a break, each format in turn. An export must hold every mark that was there when
it was asked for, and none that came after it was handed over.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
from gradio_client import Client

from store.records import EXPORT_FORMATS
from tests.benchmarks.searcher import Searcher
from tests.conftest import start_app
from train import pedestrians

SETTINGS = {"UPPERSON_SAMPLE_SIZE": "600", "UPPERSON_TRAIN_AFTER_MARKS": "100000"}
PEOPLE, VIEWS = 150, 4
"""Who stands in the sample gallery."""
CAPTIONS, TOP = 40, 6
"""Marked before anything is measured: enough to train on."""

Turn = Callable[[], None]


class Crowd:
    """The clients of one running app."""

    def __init__(self, url: str, folder: Path) -> None:
        self.marker, self.exporter, self.trainer = (
            Client(url, verbose=False, download_files=str(folder / name)) for name in ("m", "e", "t")
        )
        self.takes = pedestrians.takes("street", "users", PEOPLE, VIEWS)
        self.order = np.random.default_rng(0).permutation(len(self.takes))
        self.number = count()
        self.format = count()
        self.held: list[tuple[int, int, int]] = []
        """Of each export: marks when it was asked for, marks in it, marks when it was there."""

    def mark(self) -> None:
        """One caption and the verdicts on its first results, by what is true."""
        number = next(self.number)
        take = self.takes[self.order[number % len(self.order)]]
        caption = take.caption(annotator=1 + number // len(self.order))
        found = self.marker.predict(caption, None, "", TOP, {}, api_name="/search")
        for one in found["candidates"]:
            verdict = "hit" if one["pid"] == f"sample-{take.pid:04d}" else "miss"
            self.marker.predict(found["query_id"], one["image_id"], verdict, api_name="/mark")

    def train(self) -> None:
        """See that a training run is under way."""
        if not any(job["state"] in ("queued", "running") for job in self.trainer.predict(api_name="/jobs")):
            self.trainer.predict(api_name="/train")
        time.sleep(1)

    def export(self) -> None:
        """The next format."""
        format = EXPORT_FORMATS[next(self.format) % len(EXPORT_FORMATS)]
        before = self.trainer.predict(api_name="/marks_stats")["total"]
        file = Path(self.exporter.predict(format, api_name="/export"))
        if format == "jsonl":
            inside = len(file.read_text(encoding="utf-8").splitlines())
            self.held.append((before, inside, self.trainer.predict(api_name="/marks_stats")["total"]))


@contextmanager
def beside(*turns: Turn) -> Iterator[None]:
    """Every one of these over and over, each in a thread of its own. Raises what they raised."""
    stop, faults = threading.Event(), []

    def repeat(turn: Turn) -> None:
        try:
            while not stop.is_set():
                turn()
        except Exception as fault:  # noqa: BLE001 - raised below
            faults.append(fault)

    threads = [threading.Thread(target=repeat, args=(turn,)) for turn in turns]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if faults:
        raise SystemExit(f"something beside the searches failed: {faults[0]}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("seconds", type=float, nargs="?", default=40, help="of searching, for each line")
    seconds = arguments.parse_args().seconds
    with tempfile.TemporaryDirectory() as scratch:
        app = start_app(Path(scratch, "data"), **SETTINGS)
        try:
            crowd = Crowd(app.url, Path(scratch))
            for _ in range(CAPTIONS):
                crowd.mark()
            with Searcher(app.url) as searcher:
                searcher.search_for(seconds, "nothing else")
                with beside(crowd.mark, crowd.train):
                    time.sleep(15)  # until the run trains: before, it starts and draws
                    searcher.search_for(seconds, "marking and training")
                with beside(crowd.mark, crowd.train, crowd.export):
                    searcher.search_for(seconds, "marking, training and exports")
        finally:
            app.stop()
    wrong = [held for held in crowd.held if not held[0] <= held[1] <= held[2]]
    print(f"\n{next(crowd.format)} exports; marks before, inside and after of each jsonl: {crowd.held}")
    if wrong or not crowd.held:
        raise SystemExit(f"exports that hold other marks than they should: {wrong or 'none was measured'}")


if __name__ == "__main__":
    main()
