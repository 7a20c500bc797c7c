"""Pictures in a folder and everything below it, and what the file names of Market-1501 say."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from app.app_errors import IndexingError
from app.indexing.entries import NOTHING, Entry, Facts, Listing, file_entry, printable
from core.images import PICTURE_SUFFIXES

ANNOTATIONS = (
    "reid_raw.json", "caption_all.json", "ICFG_PEDES.json", "ICFG-PEDES.json", "data_captions.json",
    "metadata.csv", "metadata.jsonl", "metadata.parquet",
)  # fmt: skip
"""The lists that data sets have beside their pictures: CUHK-PEDES, ICFG-PEDES, RSTPReid, and imagefolder's."""
TABLES = (".csv", ".parquet", ".pq", ".jsonl")
NOT_TAKEN = frozenset({
    ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".psd", ".svg", ".tga", ".ppm", ".pgm", ".pnm", ".exr",
    ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raw", ".orf", ".rw2", ".eps", ".ico", ".pcx",
})  # fmt: skip
"""Pictures to people, but of formats that are not decoded here."""
_LEFT_BEHIND = frozenset({"__MACOSX", "@eaDir", ".thumbnails", "$RECYCLE.BIN", ".Trashes", ".ipynb_checkpoints"})
"""Folders that systems leave beside pictures: their files look like pictures, and are none or copies."""
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
        return sum(is_picture(name) for _, _, names in self._walk() for name in names)

    def _walk(self, unreadable: Callable[[OSError], None] | None = None) -> Iterator[tuple[Path, list[str], list[str]]]:
        """Each folder, the folders in it and its files, sorted; what systems leave behind is passed over."""
        for here, folders, names in os.walk(self._folder, onerror=unreadable, followlinks=False):
            folders[:] = sorted(name for name in folders if not is_left_behind(name))
            yield Path(here), folders, sorted(names)

    def entries(self, listing: Listing) -> Iterator[Entry]:
        root = self._folder.resolve()

        def unreadable(error: OSError) -> None:
            listing.skip(self._relative(error.filename), f"the folder cannot be read ({error.strerror})")

        for here, folders, names in self._walk(unreadable):
            for name in folders:
                if (here / name).is_symlink():
                    listing.skip(self._relative(here / name), "links to folders are not followed")
            for name in names:
                path = here / name
                note_other(name, listing)
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
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES and not is_left_behind(name)


def is_left_behind(name: str) -> bool:
    """Whether a file or folder is a system's own: macOS puts `._p.jpg`, which is no picture, beside `p.jpg`."""
    return name in _LEFT_BEHIND or name.startswith("._")


def note_other(name: str, listing: Listing, *, lists: bool = True) -> None:
    """Say of a file that is no picture here what somebody might miss: one of the `lists` with facts, or another
    format."""
    suffix = os.path.splitext(name)[1].lower()
    if name in ANNOTATIONS and lists:
        listing.note(f"annotation file was not read: index {printable(name)} itself to take what it says")
    elif suffix in TABLES and lists and not is_left_behind(name):
        listing.note(
            "table beside the pictures was not read: index it itself, before the folder, to take what it says",
            "tables beside the pictures were not read: index them themselves, before the folder, to take what they say",
        )
    elif suffix in NOT_TAKEN and not is_left_behind(name):
        listing.note(
            f"file ending in {suffix} is not taken: save it as JPEG or PNG",
            f"files ending in {suffix} are not taken: save them as JPEG or PNG",
        )


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
        listing.note(
            "file name is a distractor of Market-1501 (0000): indexed without a person",
            "file names are distractors of Market-1501 (0000): indexed without a person",
        )
        return Facts(camera=f"c{camera}", metadata=metadata | {"distractor": True})
    listing.note(
        "file name is one of Market-1501: person and camera were taken from it",
        "file names are those of Market-1501: person and camera were taken from them",
    )
    return Facts(pid=person, camera=f"c{camera}", metadata=metadata)
