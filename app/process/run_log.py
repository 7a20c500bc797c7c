"""What a training process has written into its log: losses, settings, lines. Read with bounded memory."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.app_errors import without_paths

LOG_BYTES = 5_000_000
READ = 512 * 1024
"""Bytes read at most: the last of the file."""
LINES, WIDTH = 200, 300
"""Lines shown at most, and characters of each."""
POINTS = 240
"""Points of the loss shown at most, over all trainings of a run."""
SETTINGS = "settings "
_STEP = re.compile(r"step (\d+) of \d+ · loss (-?\d+\.\d+)")


@dataclass(frozen=True, slots=True)
class RunLog:
    """A run's log: `losses` of each of its trainings in turn, averaged where there are many; `steps` in all.

    `settings` are names and values as the process has written them, `lines` the last ones without the steps.
    """

    kept: bool = False
    steps: int = 0
    losses: tuple[tuple[float, ...], ...] = ()
    last_loss: float | None = None
    settings: tuple[tuple[str, str], ...] = ()
    lines: tuple[str, ...] = ()


def read_log(path: Path) -> RunLog:
    """Return what the log says; one that is not `kept` where there is no such file."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - READ)
            file.seek(start)
            text = file.read(READ).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return RunLog()
    lines = text.splitlines()[1 if start else 0 :]
    trainings: list[list[float]] = []
    said: list[str] = []
    settings: tuple[tuple[str, str], ...] = ()
    for line in lines:
        step = _STEP.fullmatch(line)
        if step is not None:
            if step[1] == "1" or not trainings:
                trainings.append([])
            trainings[-1].append(float(step[2]))
        elif line.startswith(SETTINGS):
            settings = _settings(line.removeprefix(SETTINGS)) or settings
        elif line.strip():
            said.append(line)
    steps = sum(map(len, trainings))
    every = -(-steps // POINTS) or 1
    return RunLog(
        kept=True,
        steps=steps,
        losses=tuple(tuple(thinned(losses, every)) for losses in trainings[-POINTS:]),
        last_loss=trainings[-1][-1] if trainings else None,
        settings=settings,
        lines=tuple(_plain(line) for line in said[-LINES:]),
    )


def thinned(values: Sequence[float], every: int) -> Iterator[float]:
    """Yield the mean of each `every` values in turn."""
    for start in range(0, len(values), every):
        some = values[start : start + every]
        yield round(sum(some) / len(some), 4)


def _settings(text: str) -> tuple[tuple[str, str], ...]:
    """Names and values of a line of settings; none where it is not whole, as a process that was ended leaves it."""
    try:
        found = json.loads(text)
    except ValueError:
        return ()
    return tuple(_flat(found)) if isinstance(found, dict) else ()


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        label = before + name.replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{label}: ")
        else:
            yield label, "none" if value is None else str(value)[:WIDTH]


def _plain(line: str) -> str:
    """A line without control characters and without paths of the server."""
    return without_paths("".join(letter for letter in line[:WIDTH] if letter.isprintable() or letter == "\t"))


def bound_log(log_file: Path) -> None:
    """Empty a log that has grown too large; the process appends, so it goes on from there."""
    with suppress(FileNotFoundError):
        if log_file.stat().st_size > LOG_BYTES:
            os.truncate(log_file, 0)
