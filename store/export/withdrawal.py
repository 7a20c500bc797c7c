"""Which files hold a picture or its id: exports are withdrawn, and copies deleted, when a picture is forgotten."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from store.export.snapshot import MANIFEST

_BLOCK = 2**20
_ID_COLUMN = "image_id"
_ID_LENGTH = 64  # a picture's id is a SHA-256 in hex
_UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError, ValueError)
_HEX = re.compile(rb"[0-9a-f]{64,}")


def withdraw(folder: Path, ids: Collection[str]) -> list[str]:
    """Delete every export in the folder that holds one of these pictures, and return their names, sorted.

    The manifest of an export names its pictures. What has none, such as an export that a kill left half written, is
    searched byte by byte.
    """
    withdrawn = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        named = _manifest_ids(entry)
        if any(holds(file, ids) for file in _files(entry)) if named is None else not named.isdisjoint(ids):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            withdrawn.append(entry.name)
    return withdrawn


def _manifest_ids(export: Path) -> set[str] | None:
    """Return the pictures that an export names in its manifest, or None if it has no manifest that can be read."""
    try:
        return set(json.loads((export / MANIFEST).read_text(encoding="utf-8"))["image_ids"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def delete_copies(folder: Path, ids: Collection[str]) -> int:
    """Delete every file below the folder that holds one of these pictures, and return how many there were."""
    found = [file for file in _files(folder) if holds(file, ids)]
    for file in found:
        file.unlink(missing_ok=True)
    return len(found)


def holds(file: Path, ids: Collection[str]) -> bool:
    """Return whether a file is one of these pictures, or names one in its name, its text or an `image_id` column.

    Looks into zip archives and Parquet files. A file that no longer exists holds nothing.
    """
    if _named(file.name.encode(errors="replace"), ids):
        return True
    try:
        with file.open("rb") as stream:
            return _holds(stream, ids)
    except FileNotFoundError:
        return False


def _holds(stream: IO[bytes], ids: Collection[str]) -> bool:
    start = stream.read(4)
    stream.seek(0)
    if start == b"PAR1":
        try:
            table = pq.ParquetFile(stream)
            if _ID_COLUMN in table.schema_arrow.names:
                batches = table.iter_batches(columns=[_ID_COLUMN])
                return any(not set(ids).isdisjoint(batch[_ID_COLUMN].to_pylist()) for batch in batches)
        except (pa.ArrowException, OSError):
            pass  # damaged: search its bytes
        stream.seek(0)
    elif start == b"PK\3\4" and zipfile.is_zipfile(stream):
        try:
            with zipfile.ZipFile(stream) as archive:
                for member in archive.infolist():
                    if _named(member.filename.encode(), ids):
                        return True
                    with archive.open(member) as inner:
                        if _holds(inner, ids):
                            return True
            return False
        except _UNREADABLE:  # damaged, or with a password: a user's upload must not keep a picture from being forgotten
            stream.seek(0)
    return _is_or_names(stream, ids)


def _is_or_names(stream: IO[bytes], ids: Collection[str]) -> bool:
    """Return whether the bytes are one of the pictures or contain one of the ids."""
    digest, tail = hashlib.sha256(), b""
    while block := stream.read(_BLOCK):
        digest.update(block)
        if _named(tail + block, ids):
            return True
        tail = (tail + block)[-_ID_LENGTH + 1 :]
    return digest.hexdigest() in ids


def _named(text: bytes, ids: Collection[str]) -> bool:
    runs = (run.decode() for run in _HEX.findall(text))
    return any(run[at : at + _ID_LENGTH] in ids for run in runs for at in range(len(run) - _ID_LENGTH + 1))


def _files(entry: Path) -> Iterator[Path]:
    if entry.is_symlink() or entry.is_file():
        yield entry
    elif entry.is_dir():
        yield from (path for path in sorted(entry.rglob("*")) if path.is_file())
