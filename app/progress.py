"""Progress of long work: one callback with a stage's name, what is done and how much there is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

Report = Callable[[str, int, int], None]
"""(stage, done, total); total 0 means that nobody knows it yet."""


def silent(stage: str, done: int, total: int) -> None:
    """Report to nobody."""


def staged(report: Report, stage: str) -> Callable[[int, int], None]:
    """`report` for work that knows only (done, total)."""
    return lambda done, total: report(stage, done, total) if total else None


class Terminal:
    """A tqdm bar for each stage on stderr; where that is no terminal, a line when a stage begins."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: tqdm[None] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self._end()
            self._stage = stage
            if sys.stderr.isatty():
                self._bar = tqdm(desc=stage, total=total or None, unit=" pictures", file=sys.stderr)
            else:
                print(f"{stage} …", file=sys.stderr, flush=True)
        if self._bar is not None:
            self._bar.total = total or None
            self._bar.update(done - self._bar.n)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None
