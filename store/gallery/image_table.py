"""The table of the pictures: their files, and what is known about each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pyarrow as pa
from lancedb.expr import col

from store.gallery import indexes
from store.gallery.arrow_schema import FACT_NAMES, IMAGES, IMAGES_SCHEMA, SCHEMA_VERSION
from store.gallery.erase import erase
from store.gallery.filters import Filters
from store.gallery.lance_folder import LanceFolder
from store.gallery.table import Table
from store.store_errors import GalleryError
from store.values import JsonObject, as_utc, dump_json, utc_now

DATA_NAMES = ["id", "data", "uri"]
"""The columns that `image_bytes` needs."""
ID_BATCH = 1000
"""Ids in one condition."""
_FILE = "file://"


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
    """A picture of the gallery without its bytes, which `Gallery.data` returns."""

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


class ImageTable(Table):
    """The pictures of a gallery, created empty unless there are some.

    Raises GalleryError if the table cannot be used, or was written by a newer program.
    """

    def __init__(self, folder: LanceFolder) -> None:
        super().__init__(folder, IMAGES)
        table = self.create(IMAGES_SCHEMA)
        with folder.faults("read", IMAGES):
            found = int((table.schema.metadata or {}).get(b"schema_version", b"0"))
        if found > SCHEMA_VERSION:
            raise GalleryError(
                f"The gallery at {folder.uri} has schema {found}; this program knows schema {SCHEMA_VERSION} and "
                "older. Update the program, or point it at another data folder."
            )

    def add(self, images: Sequence[NewImage]) -> list[str]:
        """Add the pictures that are new, all or none, and return their ids in the order given.

        The same bytes twice are one picture, with the facts that came first.
        """
        if not images:
            return []
        rows = images_table(images)
        ids = rows["id"].to_pylist()
        known: set[str] = set()
        for chunk in chunks(ids):
            known.update(self.read(["id"], col("id").isin(chunk))["id"].to_pylist())
        fresh = [image_id for image_id in ids if image_id not in known]
        if fresh:
            self.insert(rows)
        return fresh

    def ids(self) -> list[str]:
        """Return the ids of all pictures, in the order they were added; those stored with a forgotten one come last."""
        return list(self.read(["id"])["id"].to_pylist())

    def sources(self) -> dict[str, int]:
        """Return every source with its number of pictures, by name."""
        column = self.read(["source"])["source"]
        return {entry["values"]: entry["counts"] for entry in sorted(column.value_counts().to_pylist(), key=str)}

    def count(self, source: str) -> int:
        """Return how many pictures a source has."""
        return int(self.read(["id"], col("source").isin([source])).num_rows)

    def matching(self, filters: Filters, *, hidden: Sequence[str] = ()) -> list[str]:
        """Return the ids of the pictures that pass the filters and are in no hidden source."""
        where = filters.expression(hidden, tagged=False)
        if not filters.metadata:
            return list(self.read(["id"], where)["id"].to_pylist())
        rows = self.read(["id", "metadata"], where)
        pairs = zip(rows["id"].to_pylist(), rows["metadata"].to_pylist(), strict=True)
        return [image_id for image_id, metadata in pairs if filters.passes_metadata(json.loads(metadata))]

    def facts(self, hidden: Sequence[str]) -> pa.Table:
        """Return the facts and metadata of all pictures that are in no hidden source."""
        return self.read([*FACT_NAMES, "metadata"], Filters().expression(hidden))

    def by_id(self, ids: Sequence[str]) -> list[ImageRow]:
        """Return the pictures of these ids, in the order given; ids without a picture are left out."""
        rows: dict[str, ImageRow] = {}
        for chunk in chunks(list(dict.fromkeys(ids))):
            rows.update((row.id, row) for row in image_rows(self.read(ROW_NAMES, col("id").isin(chunk))))
        return [rows[image_id] for image_id in ids if image_id in rows]

    def files(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the encoded files of these pictures by id; ids without a picture are left out.

        Raises GalleryError if the file of a picture by reference is gone or has changed.
        """
        if not ids:
            return {}
        table = self.read(DATA_NAMES, col("id").isin(list(dict.fromkeys(ids))))
        return dict(zip(table["id"].to_pylist(), image_bytes(table), strict=True))

    def erase(self, ids: Sequence[str]) -> int:
        """Erase pictures from all files of the table and return how many there were."""
        return erase(self, ids)

    def maintain(self) -> bool:
        """Build the index of the ids if it is due, and return whether it was."""
        return indexes.maintain_keys(self)


def chunks(ids: list[str]) -> Iterator[list[str]]:
    """Yield the ids, `ID_BATCH` at a time."""
    for start in range(0, len(ids), ID_BATCH):
        yield ids[start : start + ID_BATCH]


def images_table(images: Iterable[NewImage]) -> pa.Table:
    """Return the pictures as rows of the `images` table, each id once."""
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
    """Return rows of the `images` table as values."""
    return [ImageRow(**{**row, "metadata": json.loads(row["metadata"])}) for row in table.to_pylist()]


def image_bytes(table: pa.Table) -> list[bytes]:
    """Return the encoded files of rows with `DATA_NAMES`; those by reference are read from their files."""
    rows = zip(*(table[name].to_pylist() for name in DATA_NAMES), strict=True)
    return [data or _referenced(image_id, uri) for image_id, data, uri in rows]


def _referenced(image_id: str, uri: str) -> bytes:
    """Read a picture that was indexed by reference. Raises GalleryError if its file is gone or has changed."""
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
