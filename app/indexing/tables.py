"""Pictures named in a CSV, Parquet or JSON lines file, one a row: `path`, and what is known about each."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from app.app_errors import IndexingError
from app.indexing.entries import Entry, Listing, Row, listed_entries
from app.indexing.facts import PATH_COLUMNS, FactsReader, heading, path_column
from core.core_errors import PictureError
from store.values import text_encoding
from train.picture_paths import PicturePaths

_ROWS_AT_ONCE, _PICTURES_AT_ONCE = 1024, 16
_MOST_LETTERS = 1 << 22
"""Of one line, where a line is a row."""
_MOST_COLUMNS = 1_000


class TableSource:
    """The rows of a table whose pictures lie below `root` (default: the folder of the file)."""

    def __init__(self, file: Path, root: Path | None = None) -> None:
        if not file.is_file():
            raise IndexingError(f"{file} does not exist: expected a CSV, Parquet or JSON lines file")
        self._file, self._root = file, root or file.parent
        kind = file.suffix.lower()
        self._rows, columns_of = _READERS.get(kind, (_parquet_rows, _parquet_columns))
        columns = columns_of(file)
        if len(columns) > _MOST_COLUMNS:
            raise IndexingError(
                f"{file.name} has {len(columns):,} columns; at most {_MOST_COLUMNS:,} are taken: leave some out"
            )
        named = [heading(name) for name in columns]
        repeated = {name for name, count in Counter(named).items() if name and count > 1}
        if repeated:
            raise IndexingError(f"{file.name} has the column {min(repeated)!r} more than once: rename or remove one")
        path = path_column(columns)
        if path is None:
            raise IndexingError(
                f"{file.name} has no column {PATH_COLUMNS[0]!r} (nor {', '.join(map(repr, PATH_COLUMNS[1:]))}); "
                f"its columns are {', '.join(map(repr, columns))[:1_000] or 'none'}. Name the column with the "
                "pictures' paths so; a CSV has commas, semicolons or tabs between its columns"
            )
        self._path = path

    @property
    def name(self) -> str:
        return self._file.stem

    def count(self) -> int:
        """Reads a text file to its end, so that one that breaks off in the middle adds nothing."""
        if self._rows is _parquet_rows:
            return int(pq.read_metadata(self._file).num_rows)
        return sum(1 for _ in self._rows(self._file))

    def entries(self, listing: Listing) -> Iterator[Entry]:
        paths = PicturePaths(self._root)
        return (entry for row in self.rows(listing) for entry in listed_entries(paths, row, listing))

    def rows(self, listing: Listing) -> Iterator[Row]:
        """The rows that name a picture, whether it is there or not."""
        reader = FactsReader(listing)
        for number, given in enumerate(self._rows(self._file), start=1):
            path = data = None
            try:
                if given is None:
                    raise PictureError("has more or fewer values than there are columns")
                row = reader.row(given)
                path = row.pop(self._path, None)
                if isinstance(path, dict):  # as `datasets` writes pictures
                    data, path = path.get("bytes"), path.get("path") or f"picture {number}"
                if isinstance(path, bytes):
                    path = path.decode("utf-8", "replace")
                if not isinstance(path, str) or not path.strip():
                    raise PictureError(f"names no picture in the column {self._path!r}")
                path = path.strip()
                yield Row(number, path, reader.facts(row), data if isinstance(data, bytes) else None)
            except PictureError as error:
                listing.skip(f"row {number}: {path}" if isinstance(path, str) else f"row {number}", str(error))


def _csv_rows(file: Path) -> Iterator[dict[Any, Any] | None]:
    """The rows, None for one of another length; raises IndexingError where the file is no text or no CSV."""
    with _faults(file), file.open(encoding=text_encoding(file), newline="") as lines:
        for row in csv.DictReader(_after_hint(lines), strict=True, delimiter=_delimiter(file)):
            yield None if None in row or None in row.values() else row


def _csv_columns(file: Path) -> Sequence[str]:
    with _faults(file), file.open(encoding=text_encoding(file), newline="") as lines:
        return next(csv.reader(_after_hint(lines), strict=True, delimiter=_delimiter(file)), [])


def _delimiter(file: Path) -> str:
    """What is between the columns: the first of comma, semicolon (Excel in half of Europe) and tab that fits."""
    with file.open(encoding=text_encoding(file), newline="") as lines:
        first = next(_after_hint(lines), "")[:_MOST_LETTERS]
    return next((sign for sign in ",;\t" if path_column(next(csv.reader([first], delimiter=sign), []))), ",")


def _after_hint(lines: TextIO) -> Iterator[str]:
    """The lines, without a first one like `sep=;`, which names for Excel what is between the columns."""
    first = lines.readline(_MOST_LETTERS)
    if not re.fullmatch(r"sep=.\s*", first, re.IGNORECASE):
        yield first
    yield from lines


def _json_rows(file: Path) -> Iterator[dict[Any, Any]]:
    """The objects of JSON lines; raises IndexingError where a line is none."""
    with _faults(file), file.open(encoding=text_encoding(file)) as lines:
        number = 0
        while line := lines.readline(_MOST_LETTERS):
            number += 1
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise IndexingError(f"line {number} of {file.name} is no JSON ({error}): write it again") from error
            if not isinstance(row, dict):
                raise IndexingError(f"line {number} of {file.name} is {line.strip()[:40]!r}: expected an object")
            yield row


def _json_columns(file: Path) -> Sequence[str]:
    return [str(name) for name in next(_json_rows(file), {})]


@contextmanager
def _faults(file: Path) -> Iterator[None]:
    """Turns what is wrong with a CSV into an IndexingError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise IndexingError(
            f"{file.name} is neither UTF-8 nor UTF-16 ({error.object[error.start : error.end]!r}): save it as UTF-8 "
            "and try again"
        ) from error
    except csv.Error as error:
        raise IndexingError(f"{file.name} is no CSV ({error}): save it again") from error
    except OSError as error:
        raise IndexingError(f"{file.name} cannot be read ({error.strerror}): check that it may be read") from error


def _parquet_columns(file: Path) -> Sequence[str]:
    try:
        return list(pq.read_schema(file).names)
    except (pa.ArrowException, OSError) as error:
        raise IndexingError(f"{file.name} is no Parquet file that can be read ({error}): write it again") from error


def _parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(file) as table:
        holds_pictures = any(pa.types.is_struct(column.type) for column in table.schema_arrow)
        try:
            for batch in table.iter_batches(batch_size=_PICTURES_AT_ONCE if holds_pictures else _ROWS_AT_ONCE):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise IndexingError(f"{file.name} is damaged ({error}): write it again") from error


_READERS: dict[str, tuple[Callable[[Path], Iterator[dict[Any, Any] | None]], Callable[[Path], Sequence[str]]]] = {
    ".csv": (_csv_rows, _csv_columns),
    ".jsonl": (_json_rows, _json_columns),
}
"""By a file's ending: what gives its rows, and what gives its columns. Anything else is Parquet."""
