"""Deletion of pictures from backups of marks: from local files at once, from copies elsewhere at the next chance.

A backup is a folder of JSON-lines files, each line on one picture, that is copied to some other place as it grows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from filelock import FileLock

from store.database import Database

_TO_FORGET = "to be forgotten in backups"  # the setting that holds tombstones until the copies are rewritten
_ID = re.compile(rb"(?=([0-9a-f]{64}))")


def writing(folder: Path) -> FileLock:
    """Return the lock of all processes that append to a backup or rewrite it; its file is beside the folder."""
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def tombstone(image_id: str) -> str:
    """Return the hash of a forgotten picture's id, which is kept in place of the id until every copy is rewritten."""
    return hashlib.sha256(image_id.encode()).hexdigest()


def without_lines(data: bytes, tombstones: Collection[str]) -> bytes:
    """Return JSON lines without those, whole or cut short, that hold the id of one of these pictures."""
    lines = data.splitlines(keepends=True)
    return b"".join(line for line in lines if not any(tombstone(i.decode()) in tombstones for i in _ID.findall(line)))


def forget_in_backup(folder: Path, database: Database, ids: Sequence[str]) -> bool:
    """Remove every line on these pictures from the files, and note that copies have to follow.

    Returns whether there is a backup. Call it once the marks are out of the database, so that no new line names them.
    """
    if not folder.is_dir():
        return False
    tombstones = {tombstone(image_id) for image_id in ids}
    with writing(folder):
        for file in sorted(folder.glob("*.jsonl")):
            data = file.read_bytes()
            kept = without_lines(data, tombstones)
            if not kept:
                file.unlink()
            elif kept != data:
                part = folder.with_name(f".{file.name}.part")  # not in the folder: that is copied as it stands
                part.write_bytes(kept)
                part.replace(file)
        _keep(database, tombstones | to_forget(database))
    return True


def to_forget(database: Database) -> set[str]:
    """Tombstones of the pictures that copies may still name."""
    return set(json.loads(database.kept(_TO_FORGET).get(_TO_FORGET, "[]")))


def forgotten(folder: Path, database: Database, tombstones: Collection[str]) -> None:
    """Note that the copies have been rewritten without these."""
    with writing(folder):
        _keep(database, to_forget(database) - set(tombstones))


def _keep(database: Database, tombstones: Collection[str]) -> None:
    database.keep_setting(_TO_FORGET, json.dumps(sorted(tombstones)))
