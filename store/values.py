"""Values that cross the store's boundary: JSON, times in UTC, names of model versions."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from store.store_errors import StoreError

DATABASE = "app.db"
"""The database in a data folder."""

JsonObject: TypeAlias = Mapping[str, Any]  # what `dump_json` takes

CHUNK = 1 << 16
"""Characters of a JSON list that are read at once."""
_LONGEST = 1 << 22  # characters of one value of a list

VERSION_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def utc_now() -> datetime:
    """Return the time now, aware, in UTC."""
    return datetime.now(UTC)


def as_utc(moment: datetime) -> datetime:
    """Return the same moment in UTC; a time without a zone, as cameras write it, is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def epoch_moment(number: float) -> datetime:
    """Return the moment that is `number` seconds, milliseconds, microseconds or nanoseconds after 1970, whichever is
    before the year 5138. Raises ValueError below 1973 in seconds: such a number means something else.
    """
    if not 1e8 <= number < 1e20:
        raise ValueError(f"expected a time since 1970, got {number!r}")
    unit = next(
        unit for most, unit in ((1e11, 1), (1e14, 1_000), (1e17, 1_000_000), (1e20, 1_000_000_000)) if number < most
    )
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=number * 1_000_000 // unit)


def check_data_folder(folder: Path) -> None:
    """Raise StoreError if there is no data folder of this program. Looks for the database's file only."""
    if not (folder / DATABASE).exists():
        raise StoreError(f"there is no data folder at {folder}: start `python app.py` once, or name it by --data-dir")


def check_version(name: str, error: type[StoreError]) -> str:
    """Return the name itself if it can name a model version and its vector table; raises `error` otherwise."""
    if not isinstance(name, str) or not VERSION_NAME.fullmatch(name):
        raise error(f"A version's name is 1 to 64 letters, digits, '.', '_' or '-'; {name!r} came. Rename it.")
    return name


def dump_json(value: object, what: str, error: type[StoreError]) -> str:
    """Compact JSON with sorted keys; raises `error` on anything JSON has no word for, NaN and infinities too."""
    plain = dict(value) if isinstance(value, Mapping) else value
    try:
        return json.dumps(plain, ensure_ascii=False, sort_keys=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as fault:
        raise error(
            f"{what} must be JSON: finite numbers, text, lists and dicts with text keys. "
            f"{fault}. Convert it before storing it."
        ) from fault


def text_encoding(file: Path) -> str:
    """Return UTF-16 where the file begins as such, as Windows' programs write it; else UTF-8 with or without a byte
    order mark. Raises OSError.
    """
    with file.open("rb") as opened:
        head = opened.read(2)
    return "utf-16" if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def list_values(text: TextIO) -> Iterator[Any]:
    """Read the JSON list in `text` value by value, however long it is.

    Raises ValueError if it is no list, breaks off, or holds a value of more than four million characters.
    """
    decode = json.JSONDecoder().raw_decode
    buffer = text.read(CHUNK).lstrip()
    if not buffer.startswith("["):
        raise ValueError("holds no list")
    first = True
    while True:
        # `buffer` begins with what comes before a value: the list's bracket or a comma.
        try:
            end = buffer[1:].lstrip() if first else buffer
            if end.startswith("]"):
                if (end[1:] + text.read(CHUNK)).strip():
                    raise ValueError("goes on after its list: copy it again from its source")
                return
            if buffer[:1] not in ("[" if first else ",", ""):
                raise ValueError("is no JSON: copy it again from its source")
            rest = buffer[1:].lstrip()
            value, stop = decode(rest)
            if stop < len(rest):  # else a number could go on
                yield value
                buffer, first = rest[stop:].lstrip(), False
                continue
        except json.JSONDecodeError:
            pass  # it goes on beyond the buffer
        more = text.read(max(CHUNK, len(buffer)))
        if not more or len(buffer) > _LONGEST:
            raise ValueError("breaks off or is no JSON: copy it again from its source")
        buffer = (buffer + more).lstrip()
