"""Pictures in a folder and everything below it, and what the file names of Market-1501 say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from app.app_errors import IndexingError
from app.indexing.entries import NOTHING, Entry, Facts, Listing, file_entry, printable
from core.images import PICTURE_SUFFIXES

ANNOTATIONS = ("reid_raw.json", "ICFG_PEDES.json", "data_captions.json")
"""The field's own files: CUHK-PEDES, ICFG-PEDES, RSTPReid."""
# Market-1501: identity (-1 junk, 0000 distractor), camera, sequence, frame, number of the box.
_MARKET = re.compile(r"(-1|\d{4})_c(\d+)s(\d+)_(\d{6})_(\d{2})\.jpg(\.jpg)?", re.IGNORECASE)


class FolderSource:
    """Every picture file below a folder, sorted; links that lead out of it are left out and said."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise IndexingError(
                f"{folder} {what}: expected a folder of pictures, a .zip, a .csv or .parquet, or annotations (.json)"
            )
        self._folder = folder

    @property
    def name(self) -> str:
        return self._folder.resolve().name

    def count(self) -> int:
        """By their names, without looking at the files."""
        return sum(is_picture(name) for _, _, names in os.walk(self._folder) for name in names)

    def entries(self, listing: Listing) -> Iterator[Entry]:
        folder, root = self._folder, self._folder.resolve()

        def unreadable(error: OSError) -> None:
            listing.skip(self._relative(error.filename), f"the folder cannot be read ({error.strerror})")

        for here, folders, names in os.walk(folder, onerror=unreadable, followlinks=False):
            folders.sort()
            for name in folders:
                if Path(here, name).is_symlink():
                    listing.skip(self._relative(Path(here, name)), "links to folders are not followed")
            for name in sorted(names):
                path = Path(here, name)
                if name in ANNOTATIONS:
                    listing.note(f"annotation file was not read: index {printable(name)} itself to take its people")
                if not is_picture(name):
                    continue
                try:
                    if path.is_symlink() and not path.resolve().is_relative_to(root):
                        listing.skip(self._relative(path), "links out of the folder are not followed")
                        continue
                    if not path.is_file():
                        listing.skip(self._relative(path), "is no ordinary file")
                        continue
                    facts = named_facts(self._relative(path), listing)
                    entry = None if facts is None else file_entry(path, self._relative(path), facts)
                except (OSError, RuntimeError) as error:  # no right to look; gone meanwhile; a link to itself
                    reason = getattr(error, "strerror", None) or "the link leads back to itself"
                    listing.skip(self._relative(path), f"the file cannot be read ({reason})")
                    continue
                if entry is not None:
                    yield entry

    def _relative(self, path: str | Path) -> str:
        return printable(os.path.relpath(path, self._folder))


def is_picture(name: str) -> bool:
    """Whether the file's name is that of a picture."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def named_facts(name: str, listing: Listing) -> Facts | None:
    """What a file's name says, if it is one of Market-1501's; None (and said) for that set's junk.

    Its protocol leaves junk (-1: bad boxes) out of every ranking; distractors (0000) stay, as people without identity.
    """
    match = _MARKET.fullmatch(name.rpartition("/")[2])
    if match is None:
        return NOTHING
    person, camera, sequence, frame = match.group(1), match.group(2), match.group(3), match.group(4)
    if person == "-1":
        listing.skip(name, "is junk of Market-1501 (-1), which its protocol leaves out of the gallery")
        return None
    metadata: dict[str, object] = {"sequence": int(sequence), "frame": int(frame)}
    if person == "0000":
        listing.note("file names are distractors of Market-1501 (0000): indexed without a person")
        return Facts(camera=f"c{camera}", metadata=metadata | {"distractor": True})
    listing.note("file names are those of Market-1501: person and camera were taken from them")
    return Facts(pid=person, camera=f"c{camera}", metadata=metadata)
