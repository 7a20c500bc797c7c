"""Pictures named in a CSV or Parquet file, one a row: `path`, and what is known about each."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.app_errors import IndexingError
from app.indexing.entries import Entry, Facts, Listing, file_entry, inside
from core.core_errors import PictureError
from store.values import as_utc

PATH_COLUMNS = ("path", "file_name", "file_path")
"""The first of these that a table has names the pictures; `file_name` is what imagefolder's metadata.csv has."""
_ROWS_AT_ONCE = 1024


class TableSource:
    """The rows of a table whose pictures lie below `root` (default: the folder of the file)."""

    def __init__(self, file: Path, root: Path | None = None) -> None:
        if not file.is_file():
            raise IndexingError(f"{file} does not exist: expected a CSV or Parquet file")
        self._file, self._root = file, root or file.parent
        self._parquet = file.suffix.lower() in (".parquet", ".pq")
        columns = _parquet_columns(file) if self._parquet else _csv_columns(file)
        self._path = next((name for name in PATH_COLUMNS if name in columns), "")
        if not self._path:
            raise IndexingError(
                f"{file.name} has no column {PATH_COLUMNS[0]!r} (nor {', '.join(map(repr, PATH_COLUMNS[1:]))}); "
                f"its columns are {', '.join(map(repr, columns)) or 'none'}. Name the column with the pictures' "
                "paths so; a CSV has commas between its columns"
            )

    @property
    def name(self) -> str:
        return self._file.stem

    def count(self) -> int:
        """Reads a CSV to its end, so that one that breaks off in the middle adds nothing."""
        if self._parquet:
            return int(pq.read_metadata(self._file).num_rows)
        return sum(1 for _ in _csv_rows(self._file))

    def entries(self, listing: Listing) -> Iterator[Entry]:
        rows = _parquet_rows(self._file) if self._parquet else _csv_rows(self._file)
        for number, row in enumerate(rows, start=1):
            path = row.get(self._path)
            try:
                if None in row or (not self._parquet and None in row.values()):
                    raise PictureError("has more or fewer values than there are columns")
                if not isinstance(path, str) or not path.strip():
                    raise PictureError(f"names no picture in the column {self._path!r}")
                path, facts = path.strip(), _facts(row, self._path)
                yield file_entry(inside(self._root, path), path, facts)
            except (PictureError, OSError) as error:
                listing.skip(f"row {number}: {path}" if isinstance(path, str) else f"row {number}", str(error))


def _facts(row: Mapping[str, Any], path: str) -> Facts:
    given = {name: _plain(value) for name, value in row.items() if name != path}
    given = {name: value for name, value in given.items() if value is not None}
    pid, camera, moment = (given.pop(name, None) for name in ("pid", "camera", "captured_at"))
    return Facts(_text(pid), _text(camera), _moment(moment), _written(given))


def _written(value: Any) -> Any:
    """A value as metadata holds it: times as text, however deep they stand."""
    if isinstance(value, list):
        return [_written(item) for item in value]
    if isinstance(value, dict):
        return {name: _written(item) for name, item in value.items()}
    return value.isoformat() if isinstance(value, date | time) else value


def _plain(value: Any) -> Any:
    """A cell's value; None for an empty one. Raises PictureError on what no metadata can hold."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | date | time):
        return value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    raise PictureError(f"holds a value of type {type(value).__name__}; text, numbers, times and lists are taken")


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():  # a column of numbers with gaps, as pandas writes it
        return str(int(value))
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise PictureError(f"pid and camera are text or numbers, not {type(value).__name__}")


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        if isinstance(value, date) and not isinstance(value, datetime):
            return as_utc(datetime.combine(value, time()))
        return as_utc(value if isinstance(value, datetime) else datetime.fromisoformat(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise PictureError(f"captured_at is {value!r}; expected a time like 2026-11-24T13:05:00+01:00") from error


def _csv_rows(file: Path) -> Iterator[dict[Any, Any]]:
    """The rows; raises IndexingError where the file is no UTF-8 or no CSV."""
    with _faults(file), file.open(encoding="utf-8-sig", newline="") as lines:
        yield from csv.DictReader(lines, strict=True)


def _csv_columns(file: Path) -> Sequence[str]:
    with _faults(file), file.open(encoding="utf-8-sig", newline="") as lines:
        columns = next(csv.reader(lines, strict=True), [])
    repeated = {name for name in columns if columns.count(name) > 1}
    if repeated:
        raise IndexingError(f"{file.name} has the column {min(repeated)!r} more than once: rename or remove one")
    return columns


@contextmanager
def _faults(file: Path) -> Iterator[None]:
    """Turns what is wrong with a CSV into an IndexingError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise IndexingError(
            f"{file.name} is not UTF-8 ({error.object[error.start : error.end]!r}): save it as UTF-8 and try again"
        ) from error
    except csv.Error as error:
        raise IndexingError(f"{file.name} is no CSV ({error}): save it anew") from error
    except OSError as error:
        raise IndexingError(f"{file.name} cannot be read ({error.strerror}): check that it may be read") from error


def _parquet_columns(file: Path) -> Sequence[str]:
    try:
        return list(pq.read_schema(file).names)
    except (pa.ArrowException, OSError) as error:
        raise IndexingError(f"{file.name} is no Parquet file that can be read ({error}): write it anew") from error


def _parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(file) as table:
        try:
            for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise IndexingError(f"{file.name} is damaged ({error}): write it anew") from error
