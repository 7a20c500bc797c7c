"""Lines of the log are cut, so that nobody fills the disk with what they send."""

from __future__ import annotations

import sys
from typing import TextIO

MOST_CHARACTERS = 2_000


class CutLines:
    """A text stream that writes lines to another, each of at most `MOST_CHARACTERS`; all else is that stream's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text` with its lines cut; returns its length, as if nothing was cut."""
        if len(text) > MOST_CHARACTERS:
            self._stream.write("".join(_cut(line) for line in text.splitlines(keepends=True)))
        else:
            self._stream.write(text)
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _cut(line: str) -> str:
    if len(line) <= MOST_CHARACTERS:
        return line
    end = "\n" if line.endswith("\n") else ""
    return f"{line[:MOST_CHARACTERS]} … ({len(line):,} characters){end}"


def cut_log_lines() -> None:
    """Cut the lines of both standard streams, where the log and Gradio's tracebacks go."""
    sys.stdout, sys.stderr = CutLines(sys.stdout), CutLines(sys.stderr)
