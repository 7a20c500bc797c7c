"""Kills a running app while people sign in, upload, export and mark, and looks whether a mark was lost:
`python -m tests.benchmarks.app_kills [--kills 10] [--longest 4]`.

Each round starts `python app.py`, lets clients do all that at once by HTTP, and ends it by SIGKILL up to `--longest`
seconds later. Then every mark that was acknowledged must be there, and `check` must be clean.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx

from app.doctor import check_state
from app.settings import Settings
from app.state import State
from app.web.passwords import add_user
from core import load_backbone
from store.records import EXPORT_FORMATS
from tests.benchmarks.load import call, caption
from tests.conftest import RunningApp, start_app

NAME, PASSWORD = "ada", "a long password"
MARKING = 3
Mark = tuple[str, str, str]
"""Query, picture, verdict."""


async def enter(http: httpx.AsyncClient) -> None:
    (await http.post("login", data={"username": NAME, "password": PASSWORD})).raise_for_status()


async def mark(http: httpx.AsyncClient, client: int, number: int, done: Counter[str], kept: list[Mark]) -> None:
    found = await call(http, f"marks-{client}", "search", [caption(client, number), None, "", 24, {}, 0.5, 0.5])
    picture, verdict = found["candidates"][number % 24]["image_id"], ("hit", "miss")[number % 2]
    await call(http, f"marks-{client}", "mark", [found["query_id"], picture, verdict])
    kept.append((found["query_id"], picture, verdict))
    done["mark"] += 1


async def work(http: httpx.AsyncClient, what: int, start: int, done: Counter[str], kept: list[Mark]) -> None:
    """One client: a number below `MARKING` marks, the others sign in, upload and export. Ends when the app does."""
    try:
        number = start
        while True:
            number += 1
            if what < MARKING:
                await mark(http, what, number, done, kept)
            elif what == MARKING:
                await enter(http)
                done["sign-in"] += 1
            elif what == MARKING + 1:
                files = {"files": (f"{number}.png", random.Random(number).randbytes(300_000))}
                (await http.post("gradio_api/upload", files=files)).raise_for_status()
                done["upload"] += 1
            elif kept:
                await call(http, "exports", "export", [EXPORT_FORMATS[number % len(EXPORT_FORMATS)]])
                done["export"] += 1
            else:
                await asyncio.sleep(0.1)
    finally:
        await http.aclose()


async def round_of(app: RunningApp, start: int, seconds: float, done: Counter[str], kept: list[Mark]) -> list[str]:
    """All clients at once until the app is killed; what went wrong before that."""
    clients = [httpx.AsyncClient(base_url=app.url, timeout=60) for _ in range(MARKING + 3)]
    for http in clients:  # one by one: nobody guesses six passwords at once
        await enter(http)
    tasks = [asyncio.create_task(work(http, what, start, done, kept)) for what, http in enumerate(clients)]
    await asyncio.sleep(seconds)
    early = [task for task in tasks if task.done()]
    app.process.kill()
    app.process.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return [str(task.exception()) for task in early if "groups" not in str(task.exception())]  # too few for CUHK-PEDES


def faults(settings: Settings, kept: list[Mark]) -> list[str]:
    """What is not as it must be, once the app is gone."""
    state = State.open(settings)
    try:
        found = [f"{f.about}: {f.fault}" for f in check_state(state, load_backbone("mini")).findings]
        lost = [one for one in kept if state.marks.verdicts(one[0]).get(one[1]) != one[2]]
        return found + [f"mark {one} is lost" for one in lost]
    finally:
        state.close()


def run(folder: Path, kills: int, longest: float) -> int:
    add_user(folder / "auth", NAME, PASSWORD)
    settings, rng, wrong = Settings(data_dir=folder / "data", auth_file=folder / "auth"), random.Random(0), 0
    done, kept = Counter[str](), list[Mark]()
    for number in range(kills):
        app = start_app(folder / "data", UPPERSON_AUTH_FILE=str(folder / "auth"))
        seconds = rng.uniform(0.2, longest)
        found = asyncio.run(round_of(app, 10_000 * number, seconds, done, kept)) + faults(settings, kept)
        counts = ", ".join(f"{count} {what}" for what, count in sorted(done.items()))
        print(f"kill {number + 1:>2}: {'; '.join(found) or 'nothing lost'} ({counts} so far)", flush=True)
        wrong += bool(found)
    print(f"{kills} kills, {wrong} with something wrong")
    return 1 if wrong else 0


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=10)
    arguments.add_argument("--longest", type=float, default=4.0, help="seconds from the begin of the work to a kill")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), given.kills, given.longest)


if __name__ == "__main__":
    sys.exit(main())
