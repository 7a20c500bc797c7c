"""Values that cross the store's boundary: JSON, times in UTC, names of model versions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from store.store_errors import StoreError

JsonObject: TypeAlias = Mapping[str, Any]  # what `dump_json` takes

VERSION_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def utc_now() -> datetime:
    """The time now, aware, in UTC."""
    return datetime.now(UTC)


def as_utc(moment: datetime) -> datetime:
    """The same moment in UTC; a time without a zone, as cameras write it, is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def epoch_moment(number: float) -> datetime:
    """The moment that is `number` seconds, milliseconds, microseconds or nanoseconds after 1970, whichever is before
    the year 5138. Raises ValueError below 1973 in seconds: such a number means something else."""
    if not 1e8 <= number < 1e20:
        raise ValueError(f"expected a time since 1970, got {number!r}")
    unit = next(
        unit for most, unit in ((1e11, 1), (1e14, 1_000), (1e17, 1_000_000), (1e20, 1_000_000_000)) if number < most
    )
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=number * 1_000_000 // unit)


def check_version(name: str, error: type[StoreError]) -> str:
    """The name itself if it can name a model version and its vector table; raises `error` otherwise."""
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
