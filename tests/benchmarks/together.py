"""Nine threads of the app and two processes beside it mark, search, add, forget and export at once, for a minute:
`python -m tests.benchmarks.together`.

No error may come; afterwards every picture and mark that was logged as done is there once, none that was logged as
forgotten is, and `check` is clean. With an index of the vectors, as large galleries have it.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from app.search.retriever import Retriever
from app.services import Services
from app.state import State
from app.web.export_files import export_file
from core import load_backbone
from store.export import REMOVED
from store.records import EXPORT_FORMATS
from store.store_errors import ExportError
from tests.benchmarks.world import (
    Log,
    add_pictures,
    faults,
    forget_pictures,
    lines,
    search_and_mark,
    settings_of,
    several,
    small_index,
)
from tests.conftest import add_version

NUMBERS, THREADS, PROCESSES = 500, 9, 2


def beside(folder: Path, seed: int, until: float) -> None:
    """A process like `python app.py index` with one that marks: its own stores and its own model."""
    settings = settings_of(folder / "data")
    state = State(settings)
    retriever = Retriever(state, load_backbone(settings.backbone))
    log, rng = Log(folder / f"process {seed}.log"), random.Random(seed)
    while time.time() < until:
        add_pictures(state, retriever, log, rng, NUMBERS)
        search_and_mark(state, retriever, log, rng, f"process {seed}")
        retriever.refresh()
    state.close()


def run(folder: Path, seconds: float) -> int:
    services = Services.open(settings_of(folder / "data"))
    state, retriever = services.state, services.retriever
    versions = [add_version(services), "mini-v0"]
    until = time.time() + seconds
    command = [sys.executable, "-m", "tests.benchmarks.together", "--work", str(folder), "--until", str(until)]
    processes = [subprocess.Popen([*command, "--seed", str(seed)]) for seed in range(PROCESSES)]
    log = Log(folder / "threads.log")
    marking = [
        partial(search_and_mark, state, retriever, log, random.Random(seed), f"user {seed % 4}")
        for seed in range(THREADS - 4)
    ]
    adding = partial(add_pictures, state, retriever, log, random.Random(99), NUMBERS)
    formats = random.Random(97)
    forgetting = partial(forget_pictures, state, retriever, log, random.Random(98))

    def promote() -> None:
        versions.append(versions.pop(0))
        services.promote(versions[0], "admin")
        log("promoted", versions[0])

    def export() -> None:
        try:
            log("exported", export_file(state, formats.choice(EXPORT_FORMATS)).name)
        except ExportError as error:  # pictures were forgotten meanwhile, or too few are marked yet
            if str(error) != REMOVED and "first" not in str(error):
                raise

    raised = several([*marking, adding, promote, forgetting, export], stop=lambda: time.time() > until)
    codes = [process.wait() for process in processes]
    done = lines(folder)
    found = [f"{type(fault).__name__}: {fault}" for fault in raised]
    found += [f"a process ended with {code}" for code in codes if code]
    retriever.embed_new()
    found += faults(state, retriever, retriever.backbone, done)
    asked = sum(line[0] == "asked" for line in done)
    if not found and state.marks.stats().last_event != asked:
        found.append(f"{state.marks.stats().last_event} events of marks, {asked} were made")
    kinds = [line[0] for line in done]
    counts = ", ".join(
        f"{kinds.count(kind)} {kind}" for kind in ("picture", "mark", "promoted", "forgotten", "exported")
    )
    print(
        f"{seconds:.0f} s, {THREADS} threads and {PROCESSES} processes: {'; '.join(found) or 'nothing lost'} ({counts})"
    )
    services.close()
    return 1 if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    small_index()
    if arguments.work is not None:
        beside(arguments.work, arguments.seed, arguments.until)
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(run(Path(folder), arguments.seconds))


if __name__ == "__main__":
    main()
