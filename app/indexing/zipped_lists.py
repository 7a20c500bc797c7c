"""The lists of pictures that lie inside a zip beside them: annotation files, and imagefolder's metadata."""

from __future__ import annotations

import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from app.app_errors import IndexingError
from app.indexing.annotations import AnnotationSource
from app.indexing.entries import Facts, Listing
from app.indexing.folder import ANNOTATIONS
from app.indexing.tables import TableSource
from train.picture_paths import places

_MOST_BYTES = 200_000_000
_PIECE = 1 << 20


def listed_facts(
    archive: zipfile.ZipFile,
    files: Iterable[tuple[zipfile.ZipInfo, str]],
    pictures: Iterable[str],
    listing: Listing,
) -> dict[str, Facts]:
    """What the lists among `files`, each with its name as text, say of the `pictures` of a zip, by their names.

    Paths in a list start from its own folder, or from `imgs` in it. Where two lists name a picture, the first counts.
    """
    known = {_form(name.split("/")): name for name in pictures}
    found: dict[str, Facts] = {}
    for info, name in files:
        if name.rpartition("/")[2] not in ANNOTATIONS:
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="list-") as folder:
                file = _unpacked(archive, info, Path(folder, name.rpartition("/")[2]))
                source = AnnotationSource(file) if file.suffix == ".json" else TableSource(file)
                here = name.split("/")[:-1]
                for row in source.rows(listing):
                    ways = places(row.path, here[-1] if here else "")
                    named = (known.get(_form([*here, *below, *way])) for way in ways for below in (("imgs",), ()))
                    picture = next(filter(None, named), None)
                    if picture is None:
                        listing.skip(f"row {row.number}: {row.path}", "there is no such file in the zip")
                    else:
                        found.setdefault(picture, row.facts)
        except IndexingError as error:
            listing.note(f"list of pictures in the zip was not read: {error}")
    return found


def _form(parts: Iterable[str]) -> str:
    return unicodedata.normalize("NFC", "/".join(parts)).casefold()


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: Path) -> Path:
    """The list as a file; raises IndexingError where it is too large or damaged."""
    size = 0
    try:
        with archive.open(info) as packed, file.open("wb") as out:
            while piece := packed.read(_PIECE):
                size += len(piece)
                if size > _MOST_BYTES:
                    raise IndexingError(f"{file.name} unpacks to more than {_MOST_BYTES:,} bytes: split it")
                out.write(piece)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        raise IndexingError(f"{file.name} is damaged in the zip ({error}): make the zip again") from error
    return file
