"""What indexing says in the end, and the list of what was skipped, which may be longer than memory should hold."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, TextIO

from app.app_errors import IndexingError
from app.indexing.entries import Notes

MOST_LISTED = 1_000
"""Skipped files that a report names itself; the report file has all of them."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not in the gallery, relative to the folder, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What indexing did: `found` pictures = `added` + `known` (the same picture already there) + skipped ones.

    `skipped` names the first `MOST_LISTED` of `skipped_count`, links to folders and the like included. `notes` are
    sentences about many pictures at once.
    """

    source: str
    found: int
    added: int
    known: int
    embedded: int
    version: str
    skipped_count: int
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def _partial(file: Path) -> Path:
    return file.with_name(f".{file.name}.partial")


def _shown(text: str) -> str:
    """The text without what a terminal would obey or no file could hold."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


class SkipList:
    """Collects what is skipped and noted; with `file`, every line goes there at once (.json or .csv).

    The file takes its name when the block ends, however it ends. Threads may share it. Raises IndexingError if it
    cannot be written.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.count = 0
        self.first: list[Skipped] = []
        self._notes = Notes()
        self._file = file
        self._out: TextIO | None = None
        self._end: Callable[[dict[str, Any]], None] = lambda _: None
        self._row: Callable[[Skipped], None] = lambda _: None
        self._lock = Lock()
        self._summary: dict[str, Any] = {}

    def skip(self, name: str, reason: str) -> None:
        """`name` is not taken."""
        skipped = Skipped(_shown(name), _shown(reason))
        with self._lock:
            self.count += 1
            if len(self.first) < MOST_LISTED:
                self.first.append(skipped)
            with self._faults():
                self._row(skipped)

    def note(self, text: str, many: str | None = None) -> None:
        """Something that holds for many; `many` reads so after a plural."""
        with self._lock:
            self._notes[_shown(text), _shown(many or text)] += 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noted, with its number."""
        return self._notes.sentences()

    def finish(self, report: IndexReport) -> IndexReport:
        """The report, kept for the file's end."""
        self._summary = asdict(report)
        del self._summary["skipped"]
        return report

    def __enter__(self) -> SkipList:
        if self._file is None:
            return self
        kind = self._file.suffix.lower()
        if kind not in (".json", ".csv"):
            raise IndexingError(f"the report goes to a .json or .csv file, not to {self._file.name!r}: name one")
        with self._faults():
            self._out = _partial(self._file).open("w", encoding="utf-8", newline="")
        (self._begin_json if kind == ".json" else self._begin_csv)(self._out)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._out is None or self._file is None:
            return
        with self._faults(), self._out:
            self._end(self._summary or {"error": str(error) or "interrupted"})
        with self._faults():
            os.replace(_partial(self._file), self._file)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise IndexingError(
                f"the report {self._file} cannot be written ({error.strerror}): make room or name another file"
            ) from error

    def _begin_csv(self, out: TextIO) -> None:
        writer = csv.writer(out)
        writer.writerow(["path", "reason"])
        self._row = lambda skipped: writer.writerow([_cell(skipped.path), _cell(skipped.reason)]) and None

    def _begin_json(self, out: TextIO) -> None:
        out.write('{"skipped": [')

        def row(skipped: Skipped) -> None:
            out.write(("" if self.count == 1 else ",") + "\n" + json.dumps(asdict(skipped), ensure_ascii=False))

        def end(summary: dict[str, Any]) -> None:
            out.write("\n],\n" + json.dumps(summary, ensure_ascii=False)[1:] + "\n")

        self._row, self._end = row, end


def _cell(text: str) -> str:
    """A text as a spreadsheet shows it: one that begins like a formula, which it would run, gets an apostrophe."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
