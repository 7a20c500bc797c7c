"""Which pictures a search may return, and the values that can be chosen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import and_, or_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import col, lit

from store.gallery.arrow_schema import TAGS
from store.store_errors import GalleryError
from store.values import JsonObject, as_utc

MOST_FILTER_VALUES = 200
"""Values that one `Filters` may name, all its fields together. LanceDB walks an expression by recursion: one of 900
levels overflows the native stack, which ends the process."""
MOST_VALUES = 200
"""Values of one metadata key that `Facets` lists, the most frequent ones."""
_LONGEST_VALUE = 100  # characters: a longer value is free text, such as a caption
_MOST_WORDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which pictures a search may return: any of the values named, in every field that names some.

    `captured_from` and `captured_to` are both inclusive; either leaves out pictures whose time is not known.
    `metadata` holds (key, value) pairs: of each key that is named, the picture has any of the values named for it.
    A number or truth value is named as JSON writes it ("3", "true"); of a list, any entry counts.
    Raises GalleryError on values that are not text, and on a span that ends before it begins.
    """

    camera: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    pid: tuple[str, ...] = ()
    captured_from: datetime | None = None
    captured_to: datetime | None = None
    metadata: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name in ("camera", "source", "pid"):
            wanted = getattr(self, name)
            if not isinstance(wanted, tuple) or not all(isinstance(value, str) for value in wanted):
                raise GalleryError(f"The filter {name!r} takes a tuple of texts; {wanted!r} came. Give ('value',).")
        if not isinstance(self.metadata, tuple) or not all(_is_pair(entry) for entry in self.metadata):
            raise GalleryError(
                f"The filter 'metadata' takes a tuple of pairs of texts; {self.metadata!r} came. "
                "Give (('key', 'value'),)."
            )
        for name in ("captured_from", "captured_to"):
            moment = getattr(self, name)
            if moment is not None and not isinstance(moment, datetime):
                raise GalleryError(f"The filter {name!r} takes a datetime; {moment!r} came.")
            _check_moment(name, moment)
        count = sum(len(getattr(self, name)) for name in ("camera", "source", "pid", "metadata"))
        if count > MOST_FILTER_VALUES:
            raise GalleryError(
                f"Filters name at most {MOST_FILTER_VALUES} values together; {count:,} came. Choose fewer values, or "
                "search several times."
            )
        if self.captured_from and self.captured_to and as_utc(self.captured_from) > as_utc(self.captured_to):
            raise GalleryError(
                f"captured_from must not be after captured_to; {self.captured_from} and {self.captured_to} came. "
                "Swap them."
            )

    def expression(self, hidden: Sequence[str], *, tagged: bool = True) -> Any:
        """Return a LanceDB expression that keeps what passes and is in no hidden source; None if all passes.

        Values go in as literals of an expression tree, never as text of a query, so none can break out.
        Without `tagged`, for tables without tags, metadata is left to `passes_metadata`.
        """
        parts = [
            col(name).isin(list(getattr(self, name))) for name in ("camera", "source", "pid") if getattr(self, name)
        ]
        if self.captured_from is not None:
            parts.append(col("captured_at") >= lit(as_utc(self.captured_from)))
        if self.captured_to is not None:
            parts.append(col("captured_at") <= lit(as_utc(self.captured_to)))
        if hidden:
            parts.append(~col("source").isin(list(hidden)))
        if tagged:
            parts += [_balanced(or_, [col(TAGS).contains(tag) for tag in tags]) for tags in self._wanted_tags()]
        return _balanced(and_, parts) if parts else None

    def passes_metadata(self, metadata: JsonObject) -> bool:
        """Return whether a picture of this metadata passes the filter `metadata`."""
        has = tags_of(metadata)
        return all(any(tag in has for tag in tags) for tags in self._wanted_tags())

    def _wanted_tags(self) -> list[list[str]]:
        """Return, for each key that is named, the tags of which a picture needs one."""
        keys = dict.fromkeys(key for key, _ in self.metadata)
        return [[_tag(key, value) for named, value in self.metadata if named == key] for key in keys]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facets:
    """What the pictures that searches return can be filtered by: values with their numbers of pictures, sorted by name.

    `pids` counts distinct ones. `metadata` has, by key, the values as `Filters.metadata` takes them, at most
    `MOST_VALUES` of a key. Keys that hold free text, such as captions, are left out.
    """

    cameras: dict[str, int]
    sources: dict[str, int]
    pids: int
    captured_from: datetime | None
    captured_to: datetime | None
    metadata: dict[str, dict[str, int]]


def tags_of(metadata: JsonObject) -> str:
    """Return metadata as text that contains `_tag(key, value)` exactly if the picture has this value of this key."""
    return "".join(_tag(key, value) for key, value in dict.fromkeys(_entries(metadata)))


def tags_column(metadata: pa.ChunkedArray) -> pa.Array:
    """Return the tags of each row's metadata."""
    tags = {text: tags_of(json.loads(text)) for text in metadata.unique().to_pylist()}  # whole sets share one metadata
    return pa.array([tags[text] for text in metadata.to_pylist()], pa.string())


def facets_of(table: pa.Table) -> Facets:
    """Return the facets of rows with the columns `FACT_NAMES` and `metadata`."""
    times = pc.min_max(table["captured_at"])
    metadata: dict[str, Counter[str]] = {}
    for entry in table["metadata"].value_counts().to_pylist():  # whole sets share one metadata
        for key, value in dict.fromkeys(_entries(json.loads(entry["values"]))):
            metadata.setdefault(key, Counter())[value] += entry["counts"]
    return Facets(
        cameras=_counted(table["camera"]),
        sources=_counted(table["source"]),
        pids=pc.count_distinct(table["pid"], mode="only_valid").as_py(),
        captured_from=times["min"].as_py(),
        captured_to=times["max"].as_py(),
        metadata={
            key: dict(sorted(metadata[key].most_common(MOST_VALUES)))
            for key in sorted(metadata)
            if len(key) <= _LONGEST_VALUE and not _is_free_text(metadata[key])
        },
    )


def _is_free_text(values: Collection[str]) -> bool:
    """Return whether these are sentences rather than names of kinds: one of them is long, or half have many words."""
    if any(len(value) > _LONGEST_VALUE for value in values):
        return True
    return 2 * sum(len(value.split()) > _MOST_WORDS for value in values) >= len(values)


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    counts = column.drop_null().value_counts().to_pylist()
    return {
        entry["values"]: entry["counts"]
        for entry in sorted(counts, key=lambda entry: str(entry["values"]))
        if len(entry["values"]) <= _LONGEST_VALUE
    }


def _entries(metadata: JsonObject) -> Iterator[tuple[str, str]]:
    """Yield (key, value) of all that can be filtered by: texts, numbers and truth values, alone or in a list."""
    for key, value in metadata.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                yield key, item
            elif isinstance(item, (bool, int, float)):
                yield key, json.dumps(item)


def _tag(key: str, value: str) -> str:
    """Return JSON on a line of its own: JSON has no line breaks, so no key or value can look like another tag."""
    return f"\n{json.dumps([key, value], ensure_ascii=False)}\n"


def _balanced(join: Callable[[Any, Any], Any], parts: list[Any]) -> Any:
    """Return the parts joined two by two, so that 200 of them make an expression of eight levels."""
    while len(parts) > 1:
        pairs = [join(left, right) for left, right in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[2 * len(pairs) :]
    return parts[0]


def _check_moment(name: str, moment: datetime | None) -> None:
    """Raise GalleryError on a time that is outside of the years 1 to 9999 in UTC."""
    if moment is None:
        return
    try:
        as_utc(moment)
    except OverflowError as fault:
        raise GalleryError(
            f"The filter {name!r} takes a time in the years 1 to 9999 UTC; {moment.isoformat()} came. Give another."
        ) from fault


def _is_pair(entry: object) -> bool:
    return isinstance(entry, tuple) and len(entry) == 2 and all(isinstance(part, str) for part in entry)
