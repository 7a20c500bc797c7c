"""Values that cross the store's boundary: JSON, times in UTC, names of model versions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
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
