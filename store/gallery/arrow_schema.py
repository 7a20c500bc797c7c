"""The Arrow schemas of the gallery's tables."""

from __future__ import annotations

import pyarrow as pa

IMAGES = "images"
"""The table of the pictures."""
SCHEMA_VERSION = 1
# LanceDB checks this key when two processes insert at once, as long as the key has no index: without it both would add
# the same picture. In a local folder writers also take turns.
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
TAGS = "tags"
"""The column beside a vector that holds the picture's metadata as `filters.tags_of` writes it; null in old tables."""

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
    """Return the schema of one version's vector table; `dim` is E."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata=_KEY),
            pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
            *_FACTS,
            TAGS_FIELD,
        ],
        metadata={"metric": "cosine"},
    )
