"""What the gallery takes and gives: pictures, filters, candidates, and the Arrow schemas they are kept in."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import reduce
from operator import and_, or_
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import col, lit

from store.store_errors import GalleryError
from store.values import JsonObject, as_utc, dump_json, utc_now

IMAGES = "images"
"""The table of the pictures."""
SCHEMA_VERSION = 1
# LanceDB checks this key when two processes insert at once, as long as the key has no index: without it both would add
# the same picture. In a local folder writers take turns besides.
_KEY = {"lance-schema:unenforced-primary-key": "true"}
_TIME = pa.timestamp("us", tz="UTC")
# What a search filters by and shows; a picture's row never changes, so its copy beside the vector cannot go stale.
_FACTS = [
    pa.field("source", pa.string(), nullable=False),
    pa.field("pid", pa.string()),
    pa.field("camera", pa.string()),
    pa.field("captured_at", _TIME),
]
FACT_NAMES = [fact.name for fact in _FACTS]
DATA_NAMES = ["id", "data", "uri"]
"""What `image_bytes` needs."""
_FILE = "file://"
TAGS = "tags"
"""The column beside a vector that holds the picture's metadata as `tags_of` writes it; null where not written yet."""
MOST_VALUES = 200
"""Values of one metadata key that `Facets` lists, the most frequent ones."""
_LONGEST_VALUE = 100  # characters: a filter longer than that is free text, such as a caption
_MOST_WORDS = 4

TAGS_FIELD = pa.field(TAGS, pa.string())

IMAGES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False, metadata=_KEY),
        pa.field("data", pa.large_binary(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        *_FACTS,
        pa.field("metadata", pa.string(), nullable=False),
        pa.field("added_at", _TIME, nullable=False),
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)
HIDDEN_SCHEMA = pa.schema([pa.field("source", pa.string(), nullable=False, metadata=_KEY)])


def vectors_schema(dim: int) -> pa.Schema:
    """The schema of one version's vector table; `dim` is E."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata=_KEY),
            pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
            *_FACTS,
            TAGS_FIELD,
        ],
        metadata={"metric": "cosine"},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """A picture to add: its encoded file, and what is known about it.

    `uri` says where it came from (shown, never opened); `source` groups a folder or set ("sample" is the
    bundled one); `captured_at` without a zone is taken as UTC; `id` is the SHA-256 of `data` in hex.
    `by_reference`: the bytes are not kept but read from `uri`, a file:// address, whenever they are needed.
    Raises GalleryError on empty data, sizes below 1 and metadata that is not JSON.
    """

    data: bytes
    uri: str
    width: int
    height: int
    source: str
    pid: str | None = None
    camera: str | None = None
    captured_at: datetime | None = None
    metadata: JsonObject = field(default_factory=dict)
    by_reference: bool = False
    id: str = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.data, bytes) or not self.data:
            raise GalleryError(f"{self.uri}: a picture needs its file's bytes; none came. Leave the file out.")
        if self.width < 1 or self.height < 1:
            raise GalleryError(
                f"{self.uri}: a picture is at least 1 x 1; {self.width} x {self.height} came. Leave it out."
            )
        if not self.source:
            raise GalleryError(f"{self.uri}: a picture needs a source, the name of the set it belongs to; '' came.")
        if self.by_reference and not self.uri.startswith(_FILE):
            raise GalleryError(f"{self.uri}: a picture by reference needs a {_FILE} address. Give its absolute path.")
        object.__setattr__(self, "id", hashlib.sha256(self.data).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """A picture of the gallery without its bytes (`Gallery.data` has those)."""

    id: str
    uri: str
    width: int
    height: int
    source: str
    pid: str | None
    camera: str | None
    captured_at: datetime | None
    metadata: JsonObject
    added_at: datetime


ROW_NAMES = [f.name for f in fields(ImageRow)]


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
        if self.captured_from and self.captured_to and as_utc(self.captured_from) > as_utc(self.captured_to):
            raise GalleryError(
                f"captured_from must not be after captured_to; {self.captured_from} and {self.captured_to} came. "
                "Swap them."
            )

    def expression(self, hidden: Sequence[str], *, tagged: bool = True) -> Any:
        """A LanceDB expression that keeps what passes and is in no hidden source; None if all passes.

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
            parts += [reduce(or_, (col(TAGS).contains(tag) for tag in tags)) for tags in self._wanted_tags()]
        return reduce(and_, parts) if parts else None

    def passes_metadata(self, metadata: JsonObject) -> bool:
        """Whether a picture of this metadata passes what `metadata` asks for."""
        has = tags_of(metadata)
        return all(any(tag in has for tag in tags) for tags in self._wanted_tags())

    def _wanted_tags(self) -> list[list[str]]:
        """For each key that is named, the tags of which any will do."""
        keys = dict.fromkeys(key for key, _ in self.metadata)
        return [[_tag(key, value) for named, value in self.metadata if named == key] for key in keys]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facets:
    """What the pictures that searches return can be filtered by: values with their numbers of pictures, sorted by name.

    `pids` counts distinct ones. `metadata` has, by key, the values as `Filters.metadata` takes them, at most
    `MOST_VALUES` of a key. Keys that hold free text, such as captions, are none to filter by.
    """

    cameras: dict[str, int]
    sources: dict[str, int]
    pids: int
    captured_from: datetime | None
    captured_to: datetime | None
    metadata: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A ranked picture nobody judged: rank from 1, score the cosine of query and embedding in [-1, 1]."""

    image_id: str
    rank: int
    score: float
    pid: str | None
    camera: str | None
    captured_at: datetime | None


def tags_of(metadata: JsonObject) -> str:
    """A picture's metadata as text that holds `_tag(key, value)` exactly if the picture has this value of this key."""
    return "".join(_tag(key, value) for key, value in dict.fromkeys(_entries(metadata)))


def tags_column(metadata: pa.ChunkedArray) -> pa.Array:
    """The tags of each row's metadata."""
    tags = {text: tags_of(json.loads(text)) for text in metadata.unique().to_pylist()}  # whole sets share one metadata
    return pa.array([tags[text] for text in metadata.to_pylist()], pa.string())


def facets_of(table: pa.Table) -> Facets:
    """The facets of rows with the columns `FACT_NAMES` and `metadata`."""
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
    """Whether these are sentences rather than names of kinds: one of them is long, or half have many words."""
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
    """(key, value) of all that can be filtered by: texts, numbers and truth values, alone or in a list."""
    for key, value in metadata.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                yield key, item
            elif isinstance(item, (bool, int, float)):
                yield key, json.dumps(item)


def _tag(key: str, value: str) -> str:
    """JSON on a line of its own: JSON has no line breaks, so no key or value can look like another tag."""
    return f"\n{json.dumps([key, value], ensure_ascii=False)}\n"


def _is_pair(entry: object) -> bool:
    return isinstance(entry, tuple) and len(entry) == 2 and all(isinstance(part, str) for part in entry)


def images_table(images: Iterable[NewImage]) -> pa.Table:
    """The pictures as rows of the `images` table, each id once."""
    unique = list({image.id: image for image in images}.values())
    now = utc_now()
    columns: dict[str, list[object]] = {
        name: [getattr(image, name) for image in unique]
        for name in ("id", "uri", "width", "height", "source", "pid", "camera")
    }
    columns["data"] = [b"" if image.by_reference else image.data for image in unique]
    columns["captured_at"] = [image.captured_at and as_utc(image.captured_at) for image in unique]
    columns["metadata"] = [dump_json(image.metadata, f"{image.uri}: metadata", GalleryError) for image in unique]
    columns["added_at"] = [now] * len(unique)
    return pa.table({name: columns[name] for name in IMAGES_SCHEMA.names}, schema=IMAGES_SCHEMA)


def image_rows(table: pa.Table) -> list[ImageRow]:
    """Rows of the `images` table as values."""
    return [ImageRow(**{**row, "metadata": json.loads(row["metadata"])}) for row in table.to_pylist()]


def image_bytes(table: pa.Table) -> list[bytes]:
    """The encoded files of rows with `DATA_NAMES`; those by reference are read, see `_referenced`."""
    rows = zip(*(table[name].to_pylist() for name in DATA_NAMES), strict=True)
    return [data or _referenced(image_id, uri) for image_id, data, uri in rows]


def _referenced(image_id: str, uri: str) -> bytes:
    """A picture that was indexed by reference. Raises GalleryError if its file is gone or has other bytes now."""
    path = Path(os.fsdecode(unquote_to_bytes(urlsplit(uri).path)))
    advice = f"Put it back as it was, or `python app.py forget {image_id}` and index it again."
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise GalleryError(
            f"Picture {image_id} was indexed by reference, but its file {path} cannot be read "
            f"({fault.strerror or fault}). {advice}"
        ) from fault
    if hashlib.sha256(data).hexdigest() != image_id:
        raise GalleryError(
            f"Picture {image_id} was indexed by reference, but its file {path} has changed since. {advice}"
        )
    return data
