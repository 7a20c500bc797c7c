"""Deleting searches that nobody marked: each takes some six kilobytes, and anybody may search."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from store.database import Database
from store.schema import events, searches, shown
from store.values import utc_now

_AHEAD = timedelta(hours=1)
_AT_ONCE = 200
"""Searches in one transaction, which takes some 50 ms: marks and searches wait for it."""


def prune_searches(database: Database, *, before: datetime, keep: int) -> int:
    """Delete searches without a mark: those made before this moment, and all but the newest `keep`.

    Those made over an hour from now go, too: a clock that was wrong then would keep them before all newer ones.
    Returns how many were deleted. Searches that were ever marked stay, also when the mark was taken back.
    """
    deleted = 0
    while True:
        with database.write(durable=False) as connection:
            old = _unmarked(connection, before=before, keep=keep)
            for table in (shown, searches):
                connection.execute(table.delete().where(table.c.query_id.in_(old)))
        deleted += len(old)
        if len(old) < _AT_ONCE:
            return deleted


def _unmarked(connection: Connection, *, before: datetime, keep: int) -> list[str]:
    """The ids of at most `_AT_ONCE` searches to delete, the oldest first."""
    unmarked = sa.select(searches.c.query_id).where(searches.c.query_id.not_in(sa.select(events.c.query_id)))
    newest_first = searches.c.created_at.desc(), searches.c.query_id
    latest = utc_now() + _AHEAD
    beyond = unmarked.where(searches.c.created_at <= latest).order_by(*newest_first).limit(-1).offset(keep)
    query = (
        unmarked.where(~searches.c.created_at.between(before, latest) | searches.c.query_id.in_(beyond))
        .order_by(searches.c.created_at)
        .limit(_AT_ONCE)
    )
    return list(connection.scalars(query))
