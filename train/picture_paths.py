"""Where the pictures are that a list names, however the list spells their paths. Knows no model."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import OrderedDict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

MOST_LISTINGS = 64
"""Folders whose names are remembered at a time."""
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")


def places(text: str, root_name: str = "") -> list[tuple[str, ...]]:
    """Return the places below a folder called `root_name` that a path in a list can mean, the likeliest first.

    A backslash separates as a slash does. A path may repeat the folder's own name (`imgs/cam1/0.jpg` below `imgs`), and
    an absolute one means what follows that name: it was written on another machine. Empty when it leads out.
    """
    parts = tuple(part for part in text.strip().replace("\\", "/").split("/") if part not in ("", "."))
    if not parts or ".." in parts or "\0" in text:
        return []
    found = [] if _ABSOLUTE.match(text.strip()) else [parts]
    return found + [parts[at + 1 :] for at, part in enumerate(parts[:-1]) if root_name and part == root_name]


@dataclass(frozen=True, slots=True)
class _Names:
    """The names in a folder by their NFC form, and by that without case; "" where more than one has it."""

    exact: dict[str, str] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)


class PicturePaths:
    """Finds the files that a list names below `root`.

    What lies there under the very name is taken first; then a name that differs in Unicode form alone (macOS writes
    NFD), or in case alone if no other file fits. `files`, where given, are the paths of all files below `root`, so that
    no disk is asked for each of them.
    """

    def __init__(self, root: Path, files: Collection[str] | None = None) -> None:
        self.root = root
        self._name = root.resolve().name
        self._files = files
        self._listings: OrderedDict[Path, _Names] = OrderedDict()

    def find(self, text: str) -> Path | None:
        """Return the file that `text` names, links not followed; None when there is none, or more than one fits."""
        ways = places(text, self._name)
        named = [self.root / text, *(self.root.joinpath(*parts) for parts in ways)]
        return next(filter(self._is_file, named), None) or next(filter(None, map(self._alike, ways)), None)

    def _is_file(self, path: Path) -> bool:
        return path.is_file() if self._files is None else str(path) in self._files

    def _alike(self, parts: tuple[str, ...]) -> Path | None:
        here = self.root
        for part in parts:
            names, form = self._listing(here), unicodedata.normalize("NFC", part)
            found = names.exact.get(form) or names.folded.get(form.casefold())
            if not found:
                return None
            here /= found
        return here if self._is_file(here) else None

    def _listing(self, folder: Path) -> _Names:
        if folder not in self._listings:
            self._listings[folder] = _names_in(folder)
            if len(self._listings) > MOST_LISTINGS:
                self._listings.popitem(last=False)
        self._listings.move_to_end(folder)
        return self._listings[folder]


def _names_in(folder: Path) -> _Names:
    names = _Names()
    with suppress(OSError):  # no folder, or none that may be read: nothing is found in it
        for name in os.listdir(folder):
            form = unicodedata.normalize("NFC", name)
            names.exact[form] = "" if form in names.exact else name
            names.folded[form.casefold()] = "" if form.casefold() in names.folded else name
    return names
