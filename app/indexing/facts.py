"""What lists say about their pictures, read in one way for tables and annotation files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from app.indexing.entries import Facts, Listing
from core.core_errors import PictureError
from store.values import as_utc, epoch_moment

PATH_COLUMNS = (
    "path", "file_name", "file_path", "img_path", "filepath", "image_path", "filename", "image", "img"
)  # fmt: skip
"""The first of these that a list has names the pictures; `file_name` is what imagefolder's metadata.csv has."""
_KNOWN = frozenset({*PATH_COLUMNS, "pid", "camera", "captured_at"})
_NUMBERING = re.compile(r"|Unnamed: \d+|__index_level_\d+__")  # the index that pandas writes beside the data
# What pandas and databases write where there is no value, and the -1 of Market-1501 and trackers.
_NOBODY = frozenset({"", "nan", "-nan", "null", "none", "n/a", "na", "<na>", "#n/a", "-1"})
_DAY = re.compile(r"(\d{4})[-:/.](\d{1,2})[-:/.](\d{1,2})(?:[T\s]+(.+))?", re.DOTALL)


class Unreadable(Exception):
    """A value that metadata has no form for."""


def heading(name: str) -> str:
    """What a column is called here: known names count whatever their case and the spaces around them."""
    plain = name.strip()
    return plain.casefold() if plain.casefold() in _KNOWN else plain


def path_column(names: Iterable[str]) -> str | None:
    """The column that names the pictures."""
    there = {heading(name) for name in names}
    return next((name for name in PATH_COLUMNS if name in there), None)


@dataclass(slots=True)
class FactsReader:
    """Reads rows; what it leaves out is noted to `listing`."""

    listing: Listing
    _headings: dict[str, str] = field(default_factory=dict)

    def row(self, given: Mapping[Any, Any]) -> dict[str, Any]:
        """The row with its columns as `heading` calls them, without the numbering of rows that pandas adds."""
        named = {self._heading(str(name)): value for name, value in given.items()}
        return {name: value for name, value in named.items() if not _NUMBERING.fullmatch(name)}

    def facts(self, row: Mapping[str, Any]) -> Facts:
        """What a row, less its path, says. Raises PictureError where a time is none, or an id is no text or number."""
        given = {name: self._plain(name, value) for name, value in row.items()}
        given = {name: value for name, value in given.items() if value is not None}
        pid, camera, moment = (given.pop(name, None) for name in ("pid", "camera", "captured_at"))
        return Facts(self._person(pid), _known(camera), moment_of(moment), given)

    def _heading(self, name: str) -> str:
        if name not in self._headings:
            self._headings[name] = heading(name)
        return self._headings[name]

    def _person(self, value: Any) -> str | None:
        pid = _known(value)
        if pid is None and value is not None:
            said = f"as the person {_text(value)!r}, which is nobody's id: indexed without one"
            self.listing.note(f"picture has {said}", f"pictures have {said}")
        return pid

    def _plain(self, name: str, value: Any) -> Any:
        try:
            plain = _plain(value)
        except Unreadable as unreadable:
            of = f"of the column {name!r}"
            kind = f"{unreadable}, and metadata holds text, numbers, times and lists"
            self.listing.note(f"value {of} is left out: it is {kind}", f"values {of} are left out: they are {kind}")
            return None
        return plain if name == "captured_at" else _written(plain)


def _plain(value: Any) -> Any:
    """A cell's value; None for an empty one. Raises Unreadable on what no metadata can hold."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, Decimal):
        value = int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | date | time):
        return value
    if isinstance(value, bytes) and (text := _as_text(value)) is not None:
        return text.strip() or None
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):  # a map, as Arrow gives it
            return {str(_plain(key)): _plain(item) for key, item in value}
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    raise Unreadable(type(value).__name__)


def _as_text(value: bytes) -> str | None:
    """The text in bytes: some writers leave the type of a text column out."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if "\0" not in text else None


def _written(value: Any) -> Any:
    """A value as metadata holds it: times as text, however deep they lie."""
    if isinstance(value, list):
        return [_written(item) for item in value]
    if isinstance(value, dict):
        return {name: _written(item) for name, item in value.items()}
    return value.isoformat() if isinstance(value, date | time) else value


def _known(value: Any) -> str | None:
    """An id as text; None for what says that there is none."""
    text = _text(value)
    return None if text is None or text.casefold() in _NOBODY else text


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return re.sub(r"^(-?\d+)\.0+$", r"\1", value)  # a column of numbers with gaps, as pandas writes it
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(int(value)) if float(value).is_integer() else str(value)
    raise PictureError(f"pid and camera are text or numbers, not {type(value).__name__}")


def moment_of(value: Any) -> datetime | None:
    """A time as lists write it: ISO, EXIF, with a zone's name UTC or GMT, or a number since 1970; None for no time.

    One without a zone is taken as UTC. Raises PictureError.
    """
    try:
        if isinstance(value, datetime):
            return as_utc(value)
        if isinstance(value, date):
            return as_utc(datetime.combine(value, time()))
        text = _text(value)
        if text is None or text.casefold() in _NOBODY or text.startswith("0000"):  # a camera without a clock
            return None
        return _read_moment(text)
    except (PictureError, TypeError, ValueError, OverflowError) as error:
        raise PictureError(f"captured_at is {value!r}; expected a time like 2026-11-24T13:05:00+01:00") from error


def _read_moment(text: str) -> datetime:
    if re.fullmatch(r"\d{14}", text):
        return as_utc(datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC))
    if re.fullmatch(r"\d{9,19}(\.\d+)?", text):
        return epoch_moment(float(text) if "." in text else int(text))
    if text.isdigit() and len(text) != len("20240506"):
        raise ValueError("neither a day nor a number since 1970")
    if day := _DAY.fullmatch(text):
        year, month, number_of_day, rest = day.groups()
        text = f"{year}-{month:0>2}-{number_of_day:0>2}" + (f"T{rest}" if rest else "")
    text = re.sub(r"\s*(UTC|GMT)$", "+00:00", text, flags=re.IGNORECASE)
    return as_utc(datetime.fromisoformat(re.sub(r"\s+(?=[+-]\d)", "", text)))
