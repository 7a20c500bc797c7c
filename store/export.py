"""Marks as a data set: one Parquet file with the pictures in it, and a card that describes it."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from store.errors import ExportError
from store.gallery import Gallery
from store.images import ImageRow
from store.marks import VERDICTS, Mark, Marks

FILE_NAME = "marks.parquet"
CARD_NAME = "README.md"
_KEY_SETTING = "export_key"
_READ_ROWS = 8  # pictures read at once
_GROUP_ROWS = 64
_GROUP_BYTES = 32 * 2**20  # of pictures; with the 8 read last it bounds the memory an export needs
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}

_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]), "the picture's file, and a name for it"),
    ("caption", pa.string(), "the description the user typed; empty if only an example picture was given"),
    (
        "verdict",
        pa.string(),
        "`hit`: the person described; `miss`: not; `wrong_person`: fits the words, another person",
    ),
    ("pid", pa.string(), "who the picture shows, where known"),
    ("image_id", pa.string(), "SHA-256 of the picture's file"),
    ("query_id", pa.string(), "the search the mark was made on; its marks share it"),
    ("rank", pa.int32(), "the picture's place in that search, from 1"),
    ("score", pa.float32(), "cosine of query and picture, under that version"),
    ("model_version", pa.string(), "the model version that ranked"),
    ("annotator", pa.string(), "a pseudonym: the same for all marks of one user, made with a key that stays here"),
    ("marked_at", pa.timestamp("us", tz="UTC"), "when, in UTC"),
    ("negative", pa.string(), "what the user asked the search to stay away from; often empty"),
    (
        "image_query",
        pa.bool_(),
        "true if an example picture was part of the query: the caption is not all of it",
    ),
)
# Pictures are compressed already and rarely the same: for them dictionaries and zstd only cost memory and time.
_ENCODING: dict[str, Any] = {
    "compression": {name: "zstd" for name, _, _ in _COLUMNS if name != "image"} | {"image.bytes": "none"},
    "use_dictionary": [name for name, kind, _ in _COLUMNS if kind == pa.string()],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export wrote: `path` is the Parquet file, `card` lies beside it; `skipped` marks had no picture left."""

    path: Path
    card: Path
    rows: int
    images: int
    captions: int
    annotators: int
    verdicts: dict[str, int]
    skipped: int


@dataclass(slots=True)
class _Tally:
    """What went into the file so far."""

    images: set[str] = field(default_factory=set)
    captions: set[str] = field(default_factory=set)
    annotators: set[str] = field(default_factory=set)
    verdicts: Counter[str] = field(default_factory=Counter)
    skipped: int = 0

    def count(self, mark: Mark) -> None:
        """Takes in a mark that is in the file."""
        self.images.add(mark.image_id)
        self.captions.add(mark.caption)
        self.annotators.add(mark.user)
        self.verdicts[mark.verdict] += 1


def export_schema() -> pa.Schema:
    """The file's schema, with the features Hugging Face's `datasets` reads from it: `image` decodes to a picture."""
    features: dict[str, dict[str, str]] = {
        name: {"dtype": str(kind), "_type": "Value"} for name, kind, _ in _COLUMNS if name != "image"
    }
    features = {"image": {"_type": "Image"}, **features}
    info = json.dumps({"info": {"features": features}})
    return pa.schema([(name, kind) for name, kind, _ in _COLUMNS], metadata={"huggingface": info})


def export_parquet(marks: Marks, gallery: Gallery, out_dir: Path) -> ExportReport:
    """Writes one row per current mark, oldest first, to `out_dir/marks.parquet`, and its data card.

    The folder appears complete or not at all; memory is bounded by one row group. Marks whose picture left the
    gallery are skipped and counted. Raises ExportError if there are no marks or no pictures of theirs, if
    `out_dir` holds anything already, and if it cannot be written.
    """
    current = marks.current()
    if not current:
        raise ExportError("Expected at least one mark to export; there are none. Search, and mark some results first.")
    out_dir = Path(out_dir)
    _check_free(out_dir)
    key = marks.database.setting(_KEY_SETTING, lambda: secrets.token_hex(32)).encode()
    partial = out_dir.parent / f".{out_dir.name}.{uuid.uuid4().hex}.partial"
    tally = _Tally()
    try:
        partial.mkdir(parents=True)
        with pq.ParquetWriter(partial / FILE_NAME, export_schema(), **_ENCODING) as writer:
            for group in _groups(current, gallery, key, tally):
                writer.write_table(group)
        if not tally.images:
            raise ExportError(
                f"Expected the pictures of {len(current)} marks; the gallery has none of them. Index them again first."
            )
        report = _report(out_dir, tally)
        (partial / CARD_NAME).write_text(_card(report), encoding="utf-8")
        os.rename(partial, out_dir)  # fails if another export made the folder meanwhile
    except OSError as fault:
        raise ExportError(
            f"Expected to write {out_dir}, but: {fault}. Choose a folder that can be written, with enough room."
        ) from fault
    finally:
        with contextlib.suppress(OSError):  # nothing is left of it after the rename, or it was never made
            shutil.rmtree(partial)
    return report


def pseudonym(user: str, key: bytes) -> str:
    """A name for the user that only the holder of the key can trace back: 16 hex digits of HMAC-SHA256."""
    return hmac.new(key, user.encode(), hashlib.sha256).hexdigest()[:16]


def _check_free(out_dir: Path) -> None:
    try:
        taken = out_dir.is_dir() and any(out_dir.iterdir())
    except OSError as fault:
        raise ExportError(f"Expected to read {out_dir}, but: {fault}. Choose another folder.") from fault
    if taken or (out_dir.exists() and not out_dir.is_dir()):
        raise ExportError(f"Expected a new or empty folder for the export; {out_dir} is taken. Choose another one.")


def _groups(current: Sequence[Mark], gallery: Gallery, key: bytes, tally: _Tally) -> Iterator[pa.Table]:
    """Row groups of 64 rows or a little more; of fewer where the pictures are large."""
    rows: list[dict[str, Any]] = []
    size = 0
    for start in range(0, len(current), _READ_ROWS):
        part = current[start : start + _READ_ROWS]
        ids = [mark.image_id for mark in part]
        pictures, files = {row.id: row for row in gallery.rows(ids)}, gallery.datas(ids)
        for mark in part:
            if mark.image_id not in pictures or mark.image_id not in files:
                tally.skipped += 1
                continue
            rows.append(_row(mark, pictures[mark.image_id], files[mark.image_id], key))
            size += len(files[mark.image_id])
            tally.count(mark)
        if len(rows) >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.Table.from_pylist(rows, schema=export_schema())
            rows, size = [], 0
    if rows:
        yield pa.Table.from_pylist(rows, schema=export_schema())


def _row(mark: Mark, picture: ImageRow, data: bytes, key: bytes) -> dict[str, Any]:
    suffix = PurePosixPath(picture.uri).suffix.lower()
    return {
        "image": {"bytes": data, "path": mark.image_id + (suffix if suffix in _SUFFIXES else "")},
        "caption": mark.caption,
        "verdict": mark.verdict,
        "pid": picture.pid,
        "image_id": mark.image_id,
        "query_id": mark.query_id,
        "rank": mark.rank,
        "score": mark.score,
        "model_version": mark.version,
        "annotator": pseudonym(mark.user, key),
        "marked_at": mark.marked_at,
        "negative": mark.negative,
        "image_query": mark.image_query,
    }


def _report(out_dir: Path, tally: _Tally) -> ExportReport:
    return ExportReport(
        path=out_dir / FILE_NAME,
        card=out_dir / CARD_NAME,
        rows=tally.verdicts.total(),
        images=len(tally.images),
        captions=len(tally.captions),
        annotators=len(tally.annotators),
        verdicts={verdict: tally.verdicts[verdict] for verdict in VERDICTS},
        skipped=tally.skipped,
    )


def _size_category(rows: int) -> str:
    limits = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for limit, name in limits if rows < limit), "1M<n<10M")


def _card(report: ExportReport) -> str:
    """The data card: counts and column meanings only, nothing users typed."""
    columns = "\n".join(
        f"| `{name}` | {kind if name != 'image' else 'Image'} | {text} |" for name, kind, text in _COLUMNS
    )
    counts = "\n".join(f"| `{verdict}` | {number} |" for verdict, number in report.verdicts.items())
    skipped = f"\n{report.skipped} marks are left out: their pictures are no longer in the gallery.\n"
    return f"""---
pretty_name: Person search marks
language:
- en
task_categories:
- image-to-text
- text-retrieval
tags:
- text-based-person-search
- relevance-feedback
size_categories:
- {_size_category(report.rows)}
configs:
- config_name: default
  data_files:
  - split: train
    path: {FILE_NAME}
---

# Person search marks

Marks that users of UP-Person Search made on results of their searches: whether a picture shows the person
they had described. One row is the verdict that holds for one user, caption and picture.

{report.rows} marks on {report.images} pictures for {report.captions} captions by {report.annotators} annotators.
{skipped if report.skipped else ""}
| verdict | marks |
| --- | --- |
{counts}

```python
from datasets import load_dataset

marks = load_dataset("parquet", data_files="{FILE_NAME}", split="train")
marks[0]["image"], marks[0]["caption"], marks[0]["verdict"]
```

| column | type | meaning |
| --- | --- | --- |
{columns}

Ranks, scores and versions are those of the search a mark was made on. What a search did not show has no mark:
an unmarked picture is unknown, not a miss.

**Before sharing.** The pictures may show people, and captions are as typed. Have the right to pass both on,
choose a licence, and name it above. Users are pseudonyms; whoever holds the database they come from can trace them.
"""
