"""Marks from a file (JSON, CSV or Parquet, with the columns of an export) into the store."""

from __future__ import annotations

import codecs
import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.export.snapshot import MANIFEST, pseudonyms
from store.marks import Marks
from store.records import IMAGE_ID, QUERY_ID, VERDICTS, GivenMark, annotator_user, caption_key
from store.store_errors import MarkError
from store.values import VERSION_NAME, epoch_moment, list_values, text_encoding

MOST_REFUSED = 1000
"""Refused rows listed; all are counted."""
_BATCH = 500
_MOST_LETTERS = 10_000
_MOST_COLUMN_BYTES = 256_000_000
_MOST_COLUMNS = 1_000
_REQUIRED = (
    "image_id", "caption", "verdict", "query_id", "rank", "score", "model_version", "backbone", "annotator",
    "marked_at",
)  # fmt: skip
_OPTIONAL = {"negative": "", "image_query": False}
_DERIVED = ("pid", "hardness", "split", "image", "file_name")  # of an export; they say nothing about the mark

_NUMBERING = re.compile(r"|index|level_0|Unnamed: \d+|__index_level_\d+__")  # of rows, as pandas writes it


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that was not taken, and why; `line` counts from 1, a CSV's heading included."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """How many rows were new, repeated known marks or were refused, and the first `MOST_REFUSED` refusals."""

    taken: int
    repeated: int
    refused: int
    reasons: tuple[Refused, ...]


def import_marks(marks: Marks, file: Path) -> ImportReport:
    """Take every row of `file` that is a mark; once taken, the same row changes nothing.

    The kind of file follows from its name: .jsonl or .json (lines or one list), .csv or .parquet. Times may be numbers
    since 1970, as `datasets` and pandas write them, whose numbering of rows is passed over. A row
    repeats what is known if its annotator has the same or a later verdict on that caption and picture. A pseudonym this
    store itself gave names its user again.
    Raises MarkError if the file cannot be read as what its name says, or lacks a column; what was taken before stays.
    """
    read = _reader_of(file)
    known = {name: user for user, name in pseudonyms(marks).items()}
    taken = repeated = refused = 0
    reasons: list[Refused] = []
    batch: list[tuple[int, GivenMark]] = []

    def refuse(line: int, reason: str) -> None:
        nonlocal refused
        refused += 1
        if len(reasons) < MOST_REFUSED:
            reasons.append(Refused(line, reason))

    def flush() -> None:
        nonlocal taken, repeated
        for (line, _), outcome in zip(batch, marks.import_given([given for _, given in batch]), strict=True):
            if outcome == "taken":
                taken += 1
            elif outcome == "repeated":
                repeated += 1
            else:
                refuse(line, outcome)
        batch.clear()

    try:
        for line, row in read(file):
            try:
                batch.append((line, _given(row, known)))
            except ValueError as fault:
                refuse(line, str(fault))
            if len(batch) >= _BATCH:
                flush()
        flush()
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException, MemoryError) as fault:
        raise MarkError(
            f"{file} could not be read ({fault}). Check the file, and that its name says its kind."
        ) from fault
    return ImportReport(
        taken=taken, repeated=repeated, refused=refused, reasons=tuple(sorted(reasons, key=lambda one: one.line))
    )


Row = Any  # whatever stands in a line; `_given` judges it


def _json(file: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of JSON lines, or the values of one list."""
    encoding = text_encoding(file)
    with file.open(encoding=encoding, errors="surrogateescape") as text:
        first = next((line.lstrip() for line in iter(lambda: text.readline(_MOST_LETTERS), "") if line.strip()), "")
    if first.startswith("["):
        with file.open(encoding=encoding) as text:
            try:
                yield from enumerate(list_values(text), 1)
            except (ValueError, RecursionError) as fault:
                raise MarkError(f"{file} {fault}. Check the file; what it held before that was taken.") from fault
        return
    # Bytes where it is UTF-8: a line that is none is one refused row, not the end of the file.
    with file.open("rb") if encoding != "utf-16" else file.open(encoding=encoding, newline="\n") as opened:
        lines: Iterable[str | bytes] = opened
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, json.loads(line.removeprefix(codecs.BOM_UTF8) if isinstance(line, bytes) else line)
                except (ValueError, RecursionError) as fault:
                    yield number, f"no JSON: {fault}"


def _csv(file: Path) -> Iterator[tuple[int, Row]]:
    with file.open(encoding=text_encoding(file), newline="") as lines:
        reader = csv.DictReader(lines, restkey="more than the heading names", strict=True)
        _check_columns(reader.fieldnames or (), file)
        while True:
            first = reader.line_num + 1
            row = next(reader, None)
            if row is None:
                return
            yield first, {name: value for name, value in row.items() if value is not None}


def _parquet(file: Path) -> Iterator[tuple[int, Row]]:
    with pq.ParquetFile(file) as opened:
        names = opened.schema_arrow.names
        _check_columns(names, file)
        wanted = [name for name in names if name in _REQUIRED or name in _OPTIONAL]
        _check_sizes(opened.metadata, wanted, file)
    line = 0
    with pq.ParquetFile(file, read_dictionary=wanted) as opened:  # else a text that is said once is kept for each row
        for part in opened.iter_batches(batch_size=_BATCH, columns=wanted):
            columns = {name: _shortened(column) for name, column in zip(wanted, part.columns, strict=True)}
            for number in range(part.num_rows):
                line += 1
                yield line, {name: column[number].as_py() for name, column in columns.items()}


def _check_sizes(metadata: Any, wanted: Sequence[str], file: Path) -> None:
    """Raise MarkError where a column unpacks to more than any marks need: it is read as a whole."""
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            size, name = column.total_uncompressed_size, column.path_in_schema
            if name in wanted and size > _MOST_COLUMN_BYTES:
                raise MarkError(
                    f"{file} unpacks to {size:,} bytes in the column {name}; "
                    f"at most {_MOST_COLUMN_BYTES:,} are taken at once: write it with smaller row groups."
                )


def _shortened(column: Any) -> Any:
    """Return a column with its texts cut to one letter more than is taken, so that no row copies a long one."""
    if pa.types.is_dictionary(column.type):
        values = column.dictionary
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            return pa.DictionaryArray.from_arrays(column.indices, _cut(values))
        return column
    return _cut(column) if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) else column


def _cut(texts: Any) -> Any:
    return pc.utf8_slice_codeunits(texts, 0, _MOST_LETTERS + 1)


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Row]]]] = {
    ".jsonl": _json,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _reader_of(file: Path) -> Callable[[Path], Iterator[tuple[int, Row]]]:
    """Return what reads this kind of file. Raises MarkError for a folder, a missing file and other kinds."""
    if file.is_dir():
        inside = sorted(
            str(path) for path in file.iterdir() if path.suffix.lower() in _READERS and path.name != MANIFEST
        )
        there = f"it holds {inside[0]}" if inside else f"it holds none that ends in {', '.join(_READERS)}"
        raise MarkError(f"Expected a file with marks; {file} is a folder, and {there}. Name the file.")
    if not file.exists():
        raise MarkError(f"Expected a file with marks; there is no {file}.")
    read = _READERS.get(file.suffix.lower())
    if read is None:
        raise MarkError(
            f"Expected a file of marks whose name ends in {', '.join(_READERS)}; {file.name!r} came. Rename it if it "
            "is one of these kinds; else save it as one, as `python app.py export --format jsonl` does."
        )
    return read


def _check_columns(names: Any, file: Path) -> None:
    if len(names) > _MOST_COLUMNS:
        raise MarkError(
            f"Expected the {len(_REQUIRED)} columns of an export; {file} has {len(names):,} columns. "
            "Leave the others out."
        )
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise MarkError(
            f"Expected the columns of an export ({', '.join(_REQUIRED)}); {file} lacks the columns "
            f"{', '.join(missing)}. Add them, or rename yours."
        )


def _given(row: Row, known: Mapping[str, str]) -> GivenMark:
    """Return the row as a mark. Raises ValueError with what was expected and what came."""
    if not isinstance(row, dict):
        raise ValueError(row if isinstance(row, str) and row.startswith("no JSON") else "expected an object")
    if isinstance(row.get("caption"), dict):
        raise ValueError("is a table by columns: write it by rows, in pandas with to_json(..., orient='records')")
    odd = sorted(
        name for name in set(map(str, row)) - {*_REQUIRED, *_OPTIONAL, *_DERIVED} if not _NUMBERING.fullmatch(name)
    )
    missing = [name for name in _REQUIRED if row.get(name) is None]
    if odd or missing:
        raise ValueError(f"lacks {', '.join(missing)}" if missing else f"has unknown columns {', '.join(odd)[:200]}")
    row = {**_OPTIONAL, **{name: value for name, value in row.items() if value is not None}}
    annotator = _text(row, "annotator", re.compile(r"[\w.@-]{1,64}"))
    given = GivenMark(
        user=known.get(annotator, annotator_user(annotator)),
        caption=_text(row, "caption"),
        image_id=_text(row, "image_id", IMAGE_ID),
        verdict=_text(row, "verdict", re.compile("|".join(VERDICTS))),  # type: ignore[arg-type]
        query_id=_text(row, "query_id", QUERY_ID),
        rank=_rank(row["rank"]),
        score=_score(row["score"]),
        version=_text(row, "model_version", VERSION_NAME),
        backbone=_text(row, "backbone", VERSION_NAME),
        marked_at=_moment(row["marked_at"]),
        negative=_text(row, "negative"),
        image_query=_truth(row["image_query"]),
    )
    if not given.image_query and not caption_key(given.caption):
        raise ValueError(f"caption must have a word, not {given.caption[:40]!r}")
    return given


def _text(row: Mapping[str, Any], name: str, pattern: re.Pattern[str] | None = None) -> str:
    value = row[name]
    if isinstance(value, str) and len(value) > _MOST_LETTERS:
        raise ValueError(f"{name} has {len(value):,} characters; at most {_MOST_LETTERS:,} are taken")
    fits = isinstance(value, str) and (pattern is None or pattern.fullmatch(value))
    if not fits or "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        expected = "text" if pattern is None else f"text like {pattern.pattern}"
        raise ValueError(f"{name} must be {expected}, not {str(value)[:80]!r}")
    return str(value)


def _rank(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.0+)?", value):
        value = float(value)
    if isinstance(value, float) and value.is_integer():  # a column of numbers with gaps
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise ValueError(f"rank must be a whole number from 1, not {str(value)[:40]!r}")
    return value


def _score(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not -1.0001 <= number <= 1.0001:
        raise ValueError(f"score must be a cosine from -1 to 1, not {str(value)[:40]!r}")
    return number


def _moment(value: Any) -> datetime:
    try:
        if isinstance(value, str) and re.fullmatch(r"\d{9,19}", value):
            value = int(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return epoch_moment(value)
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"marked_at must be an ISO time with its zone, not {str(value)[:40]!r}") from None


def _truth(value: Any) -> bool:
    said = {"true": True, "false": False, "": False}.get(value.lower(), value) if isinstance(value, str) else value
    if not isinstance(said, bool):
        raise ValueError(f"image_query must be true or false, not {str(value)[:40]!r}")
    return said
