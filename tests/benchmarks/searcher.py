"""Somebody who searches, one search after the other, from a process of its own and with nothing but HTTP: neither
what else a benchmark does nor the 60 ms that gradio_client spends on each call count as the app's."""

from __future__ import annotations

import gc
import json
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

import httpx
import numpy as np

HEAD = "| | longest search | p95 | p50 | searches | seconds |\n|---|---|---|---|---|---|"


class Searcher:
    """`with Searcher(url) as searcher: searcher.begin(); ...; searcher.end("a row's name")` prints a row."""

    def __init__(self, url: str) -> None:
        context = get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(url, theirs), daemon=True)

    def __enter__(self) -> Searcher:
        self._process.start()
        self._ours.recv()  # warm
        print(HEAD, flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def begin(self) -> None:
        self._ours.send("begin")

    def end(self, what: str) -> list[float]:
        """Print the row; the seconds of each search."""
        self._ours.send("end")
        seconds: list[float] = self._ours.recv()
        p50, p95, longest = (1000 * float(np.percentile(seconds, part)) for part in (50, 95, 100))
        print(
            f"| {what} | {longest:.0f} ms | {p95:.0f} ms | {p50:.0f} ms | {len(seconds)} | {sum(seconds):.1f} |",
            flush=True,
        )
        return seconds

    def search_for(self, seconds: float, what: str) -> list[float]:
        self.begin()
        time.sleep(seconds)
        return self.end(what)


def _run(url: str, orders: Connection) -> None:
    with httpx.Client(base_url=f"{url}gradio_api/call/", timeout=120) as client:
        number = 0

        def search() -> float:
            nonlocal number
            number += 1
            began = time.perf_counter()
            body = {"data": [f"a man in a red coat {number}", None, "", 24, {}, 0.5, 0.4], "session_hash": "searcher"}
            asked = client.post("search", json=body)
            answer = client.get(f"search/{asked.raise_for_status().json()['event_id']}").raise_for_status().text
            took = time.perf_counter() - began
            event, _, data = answer.partition("\n")
            if event != "event: complete" or not json.loads(data.removeprefix("data: "))[0]["candidates"]:
                raise RuntimeError(f"not an answer to a search: {answer[:300]}")
            return took

        for _ in range(20):
            search()
        gc.freeze()
        orders.send("warm")
        while True:
            orders.recv()
            seconds = []
            while not orders.poll() or not seconds:
                seconds.append(search())
            orders.recv()
            orders.send(seconds)
