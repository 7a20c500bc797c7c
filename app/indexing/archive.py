"""Pictures in a zip: never unpacked to disk, each read with a limit, whatever its headers promise."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from app.app_errors import IndexingError
from app.indexing.entries import Entry, Listing, printable, too_many_bytes
from app.indexing.folder import is_left_behind, is_picture, named_facts, note_other
from app.indexing.zipped_lists import listed_facts
from core.core_errors import PictureError
from train.picture_paths import places

# Python unpacks these two piece by piece; of the others a few bytes may become gigabytes in one step.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_RATIO = 100  # deflate reaches 1032; pictures, compressed already, hardly 2, a blank BMP several hundred
_RATIO_FROM = 10_000_000  # bytes: what unpacks to less than this harms nobody
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_SAYS_UTF8 = 0x800
_END = b"PK\x05\x06"
_END_BYTES, _MOST_COMMENT = 22, 65_535
_LOCATOR, _LARGE_END = b"PK\x06\x07", b"PK\x06\x06"  # of zips with a second, larger end record
_LOCATOR_BYTES, _LARGE_END_BYTES = 20, 56
_MOST_DIRECTORY = 256_000_000


class ZipSource:
    """The picture files of a zip, in the order they lie in it."""

    def __init__(self, path: Path, *, most_directory: int = _MOST_DIRECTORY) -> None:
        """`most_directory`: bytes its list of files may have, which is held in memory. Raises IndexingError."""
        self._path = path
        try:
            size = _directory_bytes(path)
            if size > most_directory:
                raise IndexingError(f"{path.name} holds too many files (a list of {size:,} bytes): split it")
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error) as error:
            raise IndexingError(
                f"{path.name} is no zip that can be read ({error}): make it again, or unpack it and index the folder"
            ) from error

    @property
    def name(self) -> str:
        return self._path.stem

    def count(self) -> int:
        return sum(map(_wanted, self._zip.infolist()))

    def picture_bytes(self) -> int:
        """What all its pictures have when they are unpacked, as its headers say; none is read beyond that."""
        return sum(info.file_size for info in self._zip.infolist() if _wanted(info))

    def entries(self, listing: Listing) -> Iterator[Entry]:
        taken = [info for info in self._zip.infolist() if not _left_behind(info) and not _fault(info)]
        files = [(info, _name(info)) for info in taken]
        listed = listed_facts(self._zip, files, (name for info, name in files if _wanted(info)), listing)
        for info in self._zip.infolist():
            name = _text(info)
            if not info.is_dir() and name.lower().endswith(_ARCHIVES):
                listing.skip(name, "archives inside a zip are not opened: unpack it and index the folder")
            if not info.is_dir() and not _left_behind(info):
                note_other(_parts(info)[-1], listing, lists=False)
            if not _wanted(info):
                continue
            fault = _fault(info)
            if fault:
                listing.skip(name, fault)
                continue
            name = _name(info)
            facts = listed.get(name) or named_facts(name, listing)
            if facts is not None:
                yield Entry(name, info.file_size, partial(self._read, info), facts)

    def _read(self, info: zipfile.ZipInfo, most: int) -> bytes:
        if info.file_size > most:
            raise PictureError(too_many_bytes(info.file_size, most))
        try:
            with self._zip.open(info) as file:
                return file.read(info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
            raise PictureError(f"the zip is damaged here ({error}): make it again") from error


def _name(info: zipfile.ZipInfo) -> str:
    """The place in the zip, as Windows may have written it."""
    return "/".join(places(_text(info))[0])


def _text(info: zipfile.ZipInfo) -> str:
    """The name as text: macOS writes UTF-8 without saying so, which Python reads as the code page 437 of old zips."""
    name = info.filename
    if not info.flag_bits & _SAYS_UTF8:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return printable(name.encode("utf-8", "surrogateescape"))


def _parts(info: zipfile.ZipInfo) -> list[str]:
    """The folders and the name; a zip of Windows may have backslashes between them."""
    return info.filename.replace("\\", "/").split("/")


def _left_behind(info: zipfile.ZipInfo) -> bool:
    return any(map(is_left_behind, _parts(info)))


def _wanted(info: zipfile.ZipInfo) -> bool:
    return not info.is_dir() and is_picture(_parts(info)[-1]) and not _left_behind(info)


def _fault(info: zipfile.ZipInfo) -> str:
    """Why a picture of a zip is not even tried; empty if it is."""
    if not places(info.filename):
        return "its name leads out of the zip"
    if info.flag_bits & 0x1:
        return "is encrypted: make the zip without a password"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a link, which is not followed"
    if info.compress_type not in _METHODS:
        return "is compressed in another way than deflate: make the zip again"
    if info.file_size > _RATIO_FROM and info.file_size > _RATIO * info.compress_size:
        return f"unpacks from {info.compress_size:,} to {info.file_size:,} bytes, as only a zip bomb does"
    return ""


def _directory_bytes(path: Path) -> int:
    """The size of the list of files that the zip's end records name; the file's size where they are written oddly."""
    whole = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, whole - _END_BYTES - _MOST_COMMENT - _LOCATOR_BYTES - _LARGE_END_BYTES))
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0:
        raise zipfile.BadZipFile("it has no list of files")
    size: int = struct.unpack_from("<L", tail, at + 12)[0]
    locator = at - _LOCATOR_BYTES
    if locator < 0 or not tail.startswith(_LOCATOR, locator):
        return size
    large = locator - _LARGE_END_BYTES  # where there is one, it counts, whatever the other says
    if large < 0 or not tail.startswith(_LARGE_END, large):
        return whole
    return int(struct.unpack_from("<Q", tail, large + 40)[0])
