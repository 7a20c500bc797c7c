"""Many clients that search and mark at once, through the web API of a running app.

`python -m tests.benchmarks.load [--clients 50] [--seconds 60] [--json]`: each client searches, marks the first result
as a hit and begins again. Reports the time of a search (p50, p95), searches and marks a second, the app's processor
time for each, and how many captions the encoder alone encodes in a second, one by one and 32 at a time, measured on the
same machine just before. Ends with exit code 1 if a request failed or a mark is missing or twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from core import Encoder, UPPerson, load_backbone
from tests.conftest import start_app

_COLOURS = ("red", "blue", "green", "black", "white", "yellow", "brown", "grey")
_CLOTHES = ("coat", "jacket", "shirt", "dress", "jeans", "skirt", "hat", "backpack")
_ENCODING_SECONDS = 3.0


@dataclass(slots=True)
class Tally:
    """What all clients saw."""

    searches: list[float] = field(default_factory=list)
    marks: int = 0
    errors: list[str] = field(default_factory=list)


def caption(client: int, number: int) -> str:
    colour, cloth = _COLOURS[(client + number) % 8], _CLOTHES[(client * 3 + number // 8) % 8]
    return f"a person in a {colour} {cloth}, number {client} {number}"


async def call(http: httpx.AsyncClient, session: str, name: str, data: list[Any]) -> Any:
    """One call of the API, as gradio_client makes it: a request that queues it, and one that waits for its answer."""
    body = {"data": data, "session_hash": session}
    queued = await http.post(f"gradio_api/call/{name}", json=body)
    queued.raise_for_status()
    event = queued.json()["event_id"]
    async with http.stream("GET", f"gradio_api/call/{name}/{event}") as answer:
        kind = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind in ("complete", "error"):
                if kind == "error":
                    raise RuntimeError(line)
                return json.loads(line.removeprefix("data: "))[0]
    raise RuntimeError(f"/{name} ended without an answer")


async def client(url: str, number: int, until: float, tally: Tally) -> int:
    """Search and mark until the time is over; how many marks this client made."""
    session, made = f"load-{number}", 0
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        while time.monotonic() < until:
            try:
                began = time.perf_counter()
                asked = [caption(number, made), None, "", 24, {}, 0.5, 0.5]
                found = await call(http, session, "search", asked)
                tally.searches.append(time.perf_counter() - began)
                image = found["candidates"][0]["image_id"]
                await call(http, session, "mark", [found["query_id"], image, "hit"])
                made += 1
            except (httpx.HTTPError, RuntimeError, KeyError) as error:
                tally.errors.append(f"{type(error).__name__}: {error}")
        tally.marks += made
        mine = await call(http, session, "marks_stats", [])
        if mine["mine"]["total"] != made:
            tally.errors.append(f"client {number} made {made} marks, the app has {mine['mine']['total']}")
    return made


async def work(url: str, clients: int, seconds: float) -> tuple[Tally, float]:
    tally, began = Tally(), time.monotonic()
    await asyncio.gather(*(client(url, number, began + seconds, tally) for number in range(clients)))
    return tally, time.monotonic() - began


def encodings_a_second(batch: int) -> float:
    """Captions that `mini` encodes in a second in this process, so many at a time."""
    encoder = Encoder(UPPerson(load_backbone("mini"), None))
    encoder.encode_texts([caption(0, number) for number in range(batch)])
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < _ENCODING_SECONDS:
        encoder.encode_texts([caption(done, number) for number in range(batch)])
        done += batch
    return done / (time.perf_counter() - began)


def measure(clients: int, seconds: float) -> dict[str, Any]:
    limits = {f"encodings_a_second_{batch}_at_a_time": round(encodings_a_second(batch), 1) for batch in (1, 32)}
    with tempfile.TemporaryDirectory() as scratch:
        app = start_app(Path(scratch) / "data", UPPERSON_SAMPLE_SIZE="600", UPPERSON_TRAIN_AFTER_MARKS="1000000")
        process = psutil.Process(app.process.pid)
        try:
            before = process.cpu_times()
            tally, took = asyncio.run(work(app.url, clients, seconds))
            after = process.cpu_times()
        finally:
            app.stop()
    used = after.user + after.system - before.user - before.system
    times = np.array(tally.searches or [np.nan])
    return {
        "clients": clients,
        "seconds": round(took, 1),
        "searches": len(tally.searches),
        "marks": tally.marks,
        "requests_a_second": round((len(tally.searches) + tally.marks) / took, 1),
        "search_p50_s": round(float(np.percentile(times, 50)), 3),
        "search_p95_s": round(float(np.percentile(times, 95)), 3),
        "app_processor_ms_a_request": round(1000 * used / max(1, len(tally.searches) + tally.marks), 1),
        **limits,
        "errors": tally.errors[:20],
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--clients", type=int, default=50)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    found = measure(given.clients, given.seconds)
    print(json.dumps(found) if given.json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    return 1 if found["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
