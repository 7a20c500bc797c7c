"""The app as a whole, measured: start-up, searches idle and during training, fine-tuning and its memory.

    python -m tests.benchmarks.app               # on 400 marks
    python -m tests.benchmarks.app --marks 1000

Starts `python app.py` on an empty data folder, asks and marks through the web API as a client would, and prints
one table. Search times are whole round trips of an HTTP client on this machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from gradio_client import Client

from tests.benchmarks.memory import peak_resident
from tests.conftest import start_app
from train import pedestrians

SETTINGS = {"UPPERSON_SAMPLE_SIZE": "600", "UPPERSON_TRAIN_AFTER_MARKS": "100000"}
TOP = 10
LIMITS = {400: "90 s", 1000: "240 s, 3 GB"}
"""Marks -> what fine-tuning on them may take."""
SEARCHES = 100


def _timed_searches(client: Client, captions: list[str]) -> list[float]:
    seconds: list[float] = []
    while len(seconds) < SEARCHES:
        began = time.perf_counter()
        client.predict(captions[len(seconds) % len(captions)], None, "", 24, {}, api_name="/search")
        seconds.append(time.perf_counter() - began)
    return seconds


def _job(client: Client, job: int) -> dict[str, Any]:
    return dict(next(row for row in client.predict(api_name="/jobs") if row["id"] == job))


def _train(client: Client, app: int) -> tuple[dict[str, Any], float, int]:
    """Fine-tune; the job at its end, its seconds, and the bytes of memory that its process took at most."""
    began, memory = time.monotonic(), 0
    job = client.predict(api_name="/train")["id"]
    while (row := _job(client, job))["state"] not in ("done", "failed", "cancelled"):
        for child in psutil.Process(app).children():
            with suppress(psutil.Error, OSError, StopIteration):  # it ended meanwhile
                if "finetune" in child.cmdline():
                    memory = max(memory, peak_resident(child.pid))
        time.sleep(0.5)
    assert memory, "the training process was never seen"
    return row, time.monotonic() - began, memory


def _row(name: str, value: str, limit: str) -> None:
    print(f"| {name} | {value} | {limit} |", flush=True)


def _spread(seconds: list[float]) -> str:
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return f"p50 {p50:.0f} ms, p95 {p95:.0f} ms ({len(seconds)} searches)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marks", type=int, default=400, help=f"a multiple of {TOP}, at most 6000")
    marks = parser.parse_args().marks
    if marks % TOP or not TOP <= marks <= 6000:
        parser.error(f"--marks is a multiple of {TOP}, at least {TOP} and at most 6000, not {marks}")
    takes = pedestrians.takes("street", "users", 150, 4)
    asked = [takes[index] for index in np.random.default_rng(0).permutation(len(takes))[: marks // TOP]]
    captions = [take.caption(annotator=1) for take in asked]
    print("| | measured | limit |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "data")
        for title, limit in (("first start to first answer", "30 s"), ("next start to first answer", "12 s")):
            began = time.monotonic()
            app = start_app(folder, **SETTINGS)
            client = Client(app.url, verbose=False)
            client.predict("a man in a red shirt", None, "", 24, {}, api_name="/search")
            _row(title, f"{time.monotonic() - began:.1f} s", limit)
            if title.startswith("first"):
                app.stop()
        try:
            _row("search over 600 pictures, idle", _spread(_timed_searches(client, captions)), "150 ms")
            hits = 0
            for take, caption in zip(asked, captions, strict=True):
                found = client.predict(caption, None, "", TOP, {}, api_name="/search")
                for candidate in found["candidates"]:
                    match = candidate["pid"] == f"sample-{take.pid:04d}"
                    hits += match
                    verdict = "hit" if match else "miss"
                    client.predict(found["query_id"], candidate["image_id"], verdict, api_name="/mark")
            job, whole, memory = _train(client, app.process.pid)
            title = f"fine-tuning on {marks:,} marks ({hits} hits), gate and new vectors and all, nobody searching"
            decision = job["result"].get("decision", job["message"])
            _row(title, f"{whole:.0f} s, {memory / 1e9:.2f} GB: {decision}", LIMITS.get(marks, ""))
            print(json.dumps(job["result"].get("seconds", {})))
            if decision == "promoted":
                client.predict(api_name="/rollback")  # else the next version has nobody new to judge by
            again = client.predict(api_name="/train")["id"]
            while (row := _job(client, again))["state"] in ("queued", "running"):
                if row["stage"].startswith("training"):
                    break
                time.sleep(0.5)
            busy = _timed_searches(client, captions)
            if _job(client, again)["state"] != "running":
                raise SystemExit(f"training did not last as long as the searches: {_job(client, again)['message']}")
            _row("search while training runs", _spread(busy), "p95 500 ms")
        finally:
            app.stop()


if __name__ == "__main__":
    main()
