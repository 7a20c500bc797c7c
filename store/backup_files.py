"""What forgetting pictures means for backups of marks: local files now, copies elsewhere once they can be reached.

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
    """The turn of whoever appends to a backup or rewrites it, over all processes; kept beside the folder."""
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def tombstone(image_id: str) -> str:
    """What stands for a forgotten picture as long as a copy may name it: its id hashed, so that it is named no more."""
    return hashlib.sha256(image_id.encode()).hexdigest()


def without_lines(data: bytes, tombstones: Collection[str]) -> bytes:
    """JSON lines without those that hold the id of one of these pictures, be they whole or cut short."""
    lines = data.splitlines(keepends=True)
    return b"".join(line for line in lines if not any(tombstone(i.decode()) in tombstones for i in _ID.findall(line)))


def forget_in_backup(folder: Path, database: Database, ids: Sequence[str]) -> bool:
    """Takes every line on these pictures out of the files, and notes that copies are to follow; whether there are any.

    Call it when the marks are out of the database, so that none can come into a file any more.
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
    """Notes that the copies have been rewritten without these."""
    with writing(folder):
        _keep(database, to_forget(database) - set(tombstones))


def _keep(database: Database, tombstones: Collection[str]) -> None:
    database.keep_setting(_TO_FORGET, json.dumps(sorted(tombstones)))
