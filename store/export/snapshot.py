"""What an export is made of: the marks as they stood when it began, and their pictures, read a few at a time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from store.export.person_splits import SPLITS, Split, key_of, split_by_person
from store.gallery.gallery import Gallery
from store.marks import Marks
from store.records import VERDICTS, Mark, is_pseudonym
from store.store_errors import ExportError

REMOVED = "A picture was removed while marks were being exported; nothing is kept. Export again."
_KEY_SETTING = "export_key"
_READ_BYTES = 24 * 2**20
_FIRST_READ, _MOST_READ = 4, 256  # pictures; how large they are is known only when some have been read

COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("caption", pa.string(), "the description the user typed; empty if only an example picture was given"),
    (
        "verdict",
        pa.string(),
        "`hit`: the person described; `miss`: not; `wrong_person`: fits the words, another person",
    ),
    ("pid", pa.string(), "who the picture shows, where known"),
    ("image_id", pa.string(), "SHA-256 of the picture's file as it was added"),
    ("query_id", pa.string(), "the search the mark was made on; its marks share it"),
    ("rank", pa.int32(), "the picture's place in that search, from 1"),
    ("score", pa.float64(), "cosine of query and picture, under that version"),
    ("model_version", pa.string(), "the model version that ranked"),
    ("backbone", pa.string(), "the frozen model below it"),
    ("annotator", pa.string(), "a pseudonym: the same for all marks of one user, made with a key that stays here"),
    ("marked_at", pa.timestamp("us", tz="UTC"), "when, in UTC"),
    ("negative", pa.string(), "what the user asked the search to stay away from; often empty"),
    ("image_query", pa.bool_(), "true if an example picture was part of the query: the caption is not all of it"),
    (
        "hardness",
        pa.float32(),
        "0 to 1, how wrong the ranking was: 1 - 1/rank of a hit, 1/rank of anything else",
    ),
    ("split", pa.string(), "`train`, `validation` or `test`, by person"),
)

MANIFEST = "export.json"
"""What an export holds, in its folder; no marks."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All current marks at one moment, ordered by split, picture and time; who is known; how users are named."""

    marks: tuple[Mark, ...]
    pids: Mapping[str, str | None]
    splits: Mapping[str, Split]
    names: Mapping[str, str]

    @classmethod
    def take(cls, marks: Marks, gallery: Gallery) -> Snapshot:
        """Read everything but the pictures. Raises ExportError if there are no marks."""
        names = pseudonyms(marks)
        current = [mark for mark in marks.current() if mark.user in names]  # not of users who came just now
        if not current:
            raise ExportError(
                "Expected at least one mark to export; there are none. Search, and mark some results first."
            )
        pids = {row.id: row.pid for row in gallery.rows(list({mark.image_id for mark in current}))}
        splits = split_by_person(current, pids)
        order = {split: number for number, split in enumerate(SPLITS)}
        current.sort(key=lambda mark: (order[splits[key_of(mark)]], mark.image_id, mark.marked_at, mark.event_id))
        return cls(tuple(current), pids, splits, names)

    def split_of(self, mark: Mark) -> Split:
        """Return the split that a mark belongs to."""
        return self.splits[key_of(mark)]

    def row(self, mark: Mark) -> dict[str, Any]:
        """Return a mark as a row of `COLUMNS`."""
        return {
            "caption": mark.caption,
            "verdict": mark.verdict,
            "pid": self.pids.get(mark.image_id),
            "image_id": mark.image_id,
            "query_id": mark.query_id,
            "rank": mark.rank,
            "score": mark.score,
            "model_version": mark.version,
            "backbone": mark.backbone,
            "annotator": self.names[mark.user],
            "marked_at": mark.marked_at,
            "negative": mark.negative,
            "image_query": mark.image_query,
            "hardness": 1 - 1 / mark.rank if mark.verdict == "hit" else 1 / mark.rank,
            "split": self.split_of(mark),
        }

    def by_picture(self) -> dict[Split, dict[str, list[Mark]]]:
        """Return the marks of each split whose pictures are there, by picture, in order."""
        found: dict[Split, dict[str, list[Mark]]] = {split: defaultdict(list) for split in SPLITS}
        for mark in self.marks:
            if mark.image_id in self.pids:
                found[self.split_of(mark)][mark.image_id].append(mark)
        if not any(found.values()):
            raise ExportError(
                f"Expected the pictures of {len(self.marks)} marks; the gallery has none of them. "
                "Index them again first."
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What an export holds; `skipped` marks are not in it."""

    rows: int
    images: int
    captions: int
    annotators: int
    verdicts: dict[str, int]
    splits: dict[str, int]
    versions: tuple[str, ...]
    skipped: int

    @classmethod
    def of(cls, snapshot: Snapshot, marks: Sequence[Mark]) -> Counts:
        """Count the marks that were written."""
        verdicts, splits = Counter(mark.verdict for mark in marks), Counter(map(snapshot.split_of, marks))
        return cls(
            rows=len(marks),
            images=len({mark.image_id for mark in marks}),
            captions=len({mark.caption for mark in marks}),
            annotators=len({mark.user for mark in marks}),
            verdicts={verdict: verdicts[verdict] for verdict in VERDICTS},
            splits={split: splits[split] for split in SPLITS},
            versions=tuple(sorted({mark.version for mark in marks})),
            skipped=len(snapshot.marks) - len(marks),
        )


def pictures(gallery: Gallery, as_seen: Callable[[bytes], bytes], ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the files of these pictures in order, each as `as_seen` gives it, at most about 24 MB of them in memory.

    Raises ExportError if one has left the gallery since the export began.
    """
    start, step = 0, _FIRST_READ
    while start < len(ids):
        part = ids[start : start + step]
        files = gallery.datas(part)
        for image_id in part:
            if image_id not in files:
                raise ExportError(REMOVED)
            yield image_id, as_seen(files[image_id])
        start += step
        mean = sum(map(len, files.values())) / len(files)
        step = int(min(_MOST_READ, max(1, _READ_BYTES // mean)))


def pseudonyms(marks: Marks) -> dict[str, str]:
    """Return the name in exports of everybody who ever marked; the key behind them stays in the database."""
    key = marks.database.setting(_KEY_SETTING, lambda: secrets.token_hex(32)).encode()
    return {user: pseudonym(user, key) for user in marks.users()}


def pseudonym(user: str, key: bytes) -> str:
    """Return a name for the user that only the holder of the key can trace back: 16 hex digits of HMAC-SHA256.

    The pseudonym of an imported annotator stays as it is.
    """
    if is_pseudonym(user):
        return user.partition(":")[2]
    return hmac.new(key, user.encode(), hashlib.sha256).hexdigest()[:16]


_MAGIC = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)


def file_name(image_id: str, data: bytes) -> str:
    """Return a name for a picture that shows the kind of its file, and nothing of where it came from."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return f"{image_id}.webp"
    suffix = next((suffix for magic, suffix in _MAGIC if data.startswith(magic)), ".jpg")
    return str(PurePosixPath(image_id + suffix))
