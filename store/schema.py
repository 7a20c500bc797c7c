"""Tables of app.db: the statements that make them, and their columns for queries.

searches   what a user asked, of which version            shown        what a search showed, with rank and score
events     append-only: marks, and what takes them back   versions     model versions, one active per backbone
promotions append-only: which version became active, why  jobs         training runs, one at a time
settings   texts kept by name
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from store.values import as_utc

# One entry per schema version, each the statements from the version before. Released entries never change.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
        """CREATE TABLE searches (
            query_id TEXT PRIMARY KEY,
            user TEXT NOT NULL,
            caption TEXT NOT NULL,
            caption_key TEXT NOT NULL,
            negative TEXT NOT NULL,
            image_query BOOLEAN NOT NULL CHECK (image_query IN (0, 1)),
            version TEXT NOT NULL,
            backbone TEXT NOT NULL,
            created_at TEXT NOT NULL)""",
        """CREATE TABLE shown (
            query_id TEXT NOT NULL REFERENCES searches (query_id),
            image_id TEXT NOT NULL,
            rank INTEGER NOT NULL CHECK (rank >= 1),
            score REAL NOT NULL,
            PRIMARY KEY (query_id, image_id)) WITHOUT ROWID""",
        "CREATE INDEX shown_by_image ON shown (image_id)",
        # AUTOINCREMENT: an event id is never given twice, so "learnt up to here" stays true after `forget`.
        """CREATE TABLE events (
            event_id INTEGER PRIMARY KEY AUTOINCREMENT,
            action_id TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('mark', 'clear', 'undo')),
            user TEXT NOT NULL,
            caption_key TEXT NOT NULL,
            image_id TEXT NOT NULL,
            query_id TEXT NOT NULL REFERENCES searches (query_id),
            verdict TEXT CHECK (verdict IN ('hit', 'miss', 'wrong_person')),
            reverses INTEGER REFERENCES events (event_id),
            marked_at TEXT NOT NULL,
            CHECK ((kind = 'mark') = (verdict IS NOT NULL) AND (kind = 'mark') = (reverses IS NULL)))""",
        "CREATE INDEX events_by_key ON events (user, caption_key, image_id)",
        "CREATE INDEX events_by_image ON events (image_id)",
        "CREATE INDEX events_by_reversed ON events (reverses, kind)",
        "CREATE INDEX events_by_action ON events (action_id)",
        """CREATE TABLE versions (
            id TEXT PRIMARY KEY,
            backbone TEXT NOT NULL,
            parent TEXT,
            status TEXT NOT NULL CHECK (status IN ('base', 'candidate', 'rejected', 'active', 'retired')),
            created_at TEXT NOT NULL,
            folder TEXT,
            metrics TEXT NOT NULL,
            gate TEXT NOT NULL,
            last_event INTEGER NOT NULL,
            mark_counts TEXT NOT NULL)""",
        "CREATE UNIQUE INDEX one_active_version ON versions (backbone) WHERE status = 'active'",
        """CREATE TABLE promotions (
            promotion_id INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL CHECK (kind IN ('base', 'promote', 'rollback')),
            backbone TEXT NOT NULL,
            version TEXT NOT NULL REFERENCES versions (id),
            former TEXT REFERENCES versions (id),
            "by" TEXT NOT NULL,
            reason TEXT NOT NULL,
            at TEXT NOT NULL)""",
        """CREATE TABLE jobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'cancelling', 'done', 'failed', 'cancelled')),
            stage TEXT NOT NULL,
            fraction REAL NOT NULL CHECK (fraction BETWEEN 0 AND 1),
            message TEXT NOT NULL,
            params TEXT NOT NULL,
            result TEXT NOT NULL,
            created_at TEXT NOT NULL,
            started_at TEXT,
            finished_at TEXT,
            heartbeat_at TEXT,
            pid INTEGER)""",
        # Every live job has the same value here, so the database itself allows only one.
        "CREATE UNIQUE INDEX one_live_job ON jobs (state IN ('queued', 'running', 'cancelling')) "
        "WHERE state IN ('queued', 'running', 'cancelling')",
    ),
    (  # the version under whose name the gallery keeps a version's image vectors: its own, unless it shares them
        "ALTER TABLE versions ADD COLUMN vectors TEXT NOT NULL DEFAULT ''",
        "UPDATE versions SET vectors = id",
    ),
)


class Moment(sa.types.TypeDecorator[datetime]):
    """An aware time, kept as ISO 8601 text in UTC with microseconds, so that text order is time order."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Any) -> str | None:
        """Return the text to keep."""
        return None if value is None else as_utc(value).isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, _dialect: Any) -> datetime | None:
        """Return the time kept."""
        return None if value is None else datetime.fromisoformat(value)


metadata = sa.MetaData()

settings = sa.Table("settings", metadata, sa.Column("key", sa.String, primary_key=True), sa.Column("value", sa.String))

searches = sa.Table(
    "searches",
    metadata,
    sa.Column("query_id", sa.String, primary_key=True),
    sa.Column("user", sa.String),
    sa.Column("caption", sa.String),
    sa.Column("caption_key", sa.String),
    sa.Column("negative", sa.String),
    sa.Column("image_query", sa.Boolean),
    sa.Column("version", sa.String),
    sa.Column("backbone", sa.String),
    sa.Column("created_at", Moment),
)

shown = sa.Table(
    "shown",
    metadata,
    sa.Column("query_id", sa.String, primary_key=True),
    sa.Column("image_id", sa.String, primary_key=True),
    sa.Column("rank", sa.Integer),
    sa.Column("score", sa.Float),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("event_id", sa.Integer, primary_key=True),
    sa.Column("action_id", sa.String),
    sa.Column("kind", sa.String),
    sa.Column("user", sa.String),
    sa.Column("caption_key", sa.String),
    sa.Column("image_id", sa.String),
    sa.Column("query_id", sa.String),
    sa.Column("verdict", sa.String),
    sa.Column("reverses", sa.Integer),
    sa.Column("marked_at", Moment),
)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("backbone", sa.String),
    sa.Column("parent", sa.String),
    sa.Column("status", sa.String),
    sa.Column("created_at", Moment),
    sa.Column("folder", sa.String),
    sa.Column("metrics", sa.JSON),
    sa.Column("gate", sa.JSON),
    sa.Column("last_event", sa.Integer),
    sa.Column("mark_counts", sa.JSON),
    sa.Column("vectors", sa.String),
)

promotions = sa.Table(
    "promotions",
    metadata,
    sa.Column("promotion_id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String),
    sa.Column("backbone", sa.String),
    sa.Column("version", sa.String),
    sa.Column("former", sa.String),
    sa.Column("by", sa.String),
    sa.Column("reason", sa.String),
    sa.Column("at", Moment),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String),
    sa.Column("state", sa.String),
    sa.Column("stage", sa.String),
    sa.Column("fraction", sa.Float),
    sa.Column("message", sa.String),
    sa.Column("params", sa.JSON),
    sa.Column("result", sa.JSON),
    sa.Column("created_at", Moment),
    sa.Column("started_at", Moment),
    sa.Column("finished_at", Moment),
    sa.Column("heartbeat_at", Moment),
    sa.Column("pid", sa.Integer),
)
