"""Kills the app's work at random moments and looks whether anything was lost: `python -m tests.benchmarks.kills`.

A process indexes pictures, marks, re-embeds, promotes and forgets at once, and is ended by SIGKILL up to `--longest`
seconds after it began. Then the app is opened as after a power cut: `check` must be clean, every picture and mark that
was logged as done must be there, and none that was logged as forgotten; a search must answer all pictures, each once.
With an index of the vectors, as large galleries have it.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import deque
from functools import partial
from pathlib import Path

from app.search.retriever import KEPT
from app.services import Services
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

NUMBERS = 2000


def work(folder: Path, seed: int) -> None:
    """All kinds of work at once, until it is killed."""
    services = Services.open(settings_of(folder / "data"))
    log, rng = Log(folder / f"{seed:03d}.log"), random.Random(seed)
    state, retriever = services.state, services.retriever
    candidates = [row.id for row in state.versions.list("mini") if row.folder is not None]

    served = deque([retriever.serving.version], maxlen=KEPT)

    def promote() -> None:
        version = rng.choice(candidates)
        if version not in served and rng.random() < 0.7:  # no search under way uses it
            state.gallery.drop_version(version)  # so that it is embedded again
        services.promote(version, "admin")
        served.append(version)
        log("promoted", version)

    log("ready")
    names = ("ada", "bob")
    marking = [partial(search_and_mark, state, retriever, log, random.Random(f"{seed}{name}"), name) for name in names]
    adding = partial(add_pictures, state, retriever, log, random.Random(seed + 1), NUMBERS)
    forgetting = partial(forget_pictures, state, retriever, log, random.Random(seed + 2))
    for fault in several([*marking, adding, promote, forgetting], stop=lambda: False):
        raise fault


def run(folder: Path, kills: int, longest: float, seed: int) -> int:
    rng, wrong = random.Random(seed), 0
    services = Services.open(settings_of(folder / "data"))
    for _ in range(KEPT + 3):
        add_version(services)
    services.close()
    for number in range(kills):
        command = [sys.executable, "-m", "tests.benchmarks.kills", "--work", str(folder), "--seed", str(number)]
        with (folder / "errors").open("w") as errors:
            process = subprocess.Popen(command, stderr=errors)
            log = folder / f"{number:03d}.log"
            while process.poll() is None and not (log.exists() and "ready" in log.read_text()):
                time.sleep(0.02)
            time.sleep(rng.uniform(0, longest))
            ended = process.poll()
            process.kill()
            process.wait()
        services = Services.open(settings_of(folder / "data"))
        found = faults(services.state, services.retriever, services.retriever.backbone, lines(folder))
        if ended is not None:
            found.append("the work failed by itself: " + (folder / "errors").read_text()[-2000:])
        kinds = [line[0] for line in lines(folder)]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("picture", "mark", "promoted", "forgotten"))
        print(f"kill {number + 1:>2}: {'; '.join(found) or 'nothing lost'} ({counts} logged so far)", flush=True)
        services.close()
        wrong += bool(found)
    print(f"{kills} kills, {wrong} with something wrong")
    return 1 if wrong else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--longest", type=float, default=3.0, help="seconds from the begin of the work to a kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    small_index()
    if arguments.work is not None:
        work(arguments.work, arguments.seed)
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(run(Path(folder), arguments.kills, arguments.longest, arguments.seed))


if __name__ == "__main__":
    main()
