"""Searches and what they showed, on which marks are made."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from store.database import Database
from store.records import Mark, Search, SearchRow, Shown, caption_key
from store.schema import events, searches, shown
from store.store_errors import MarkError
from store.values import utc_now

_AHEAD = timedelta(hours=1)
_PRUNED_AT_ONCE = 200
"""Searches in one transaction, which takes some 50 ms: marks and searches wait for it."""

Text = str | sa.BindParameter[str] | None


class Searches:
    """Searches in the database; safe to use from several threads and processes at once."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def record_search(self, search: Search, results: Sequence[Shown], *, query_id: str | None = None) -> str:
        """Record a search and what it showed, and return its query id.

        Raises MarkError if it has no user or no caption.
        """
        if not search.user:
            raise MarkError("A search needs the user who asked; '' came. Sign in, or accept the cookie.")
        query_id = query_id or uuid.uuid4().hex
        key = caption_key(search.caption)
        if search.image_query:
            # Words alone are not the whole query: no other search shares these verdicts.
            key = f"{query_id} {key}"
        elif not key:
            raise MarkError(
                f"A search needs a caption with at least one word; {search.caption!r} came. Describe a person."
            )
        row = {**asdict(search), "query_id": query_id, "caption_key": key, "created_at": utc_now()}
        with self.database.write(durable=False) as connection:  # the first mark on it makes it durable
            connection.execute(searches.insert(), row)
            show(connection, query_id, results)
        return query_id

    def extend_search(self, query_id: str, results: Sequence[Shown]) -> None:
        """Add results that "show more" brought; an image shown before keeps its first rank and score."""
        with self.database.write(durable=False) as connection:
            find_search(connection, query_id)
            show(connection, query_id, results)

    def take_out(self, query_id: str, image_ids: Sequence[str]) -> None:
        """Erase the record that a search showed these images, from the write-ahead log too."""
        if image_ids:
            with self.database.write() as connection:
                of_search = shown.c.query_id == query_id, shown.c.image_id.in_(list(image_ids))
                connection.execute(shown.delete().where(*of_search))
            self.database.truncate_log()

    def search(self, query_id: str) -> SearchRow:
        """Return the search of this id. Raises MarkError if there is none."""
        with self.database.read() as connection:
            return find_search(connection, query_id)

    def shown(self, query_id: str) -> list[Shown]:
        """Return all that a search has shown, by rank. Raises MarkError if there is no such search."""
        with self.database.read() as connection:
            find_search(connection, query_id)
            query = sa.select(shown).where(shown.c.query_id == query_id).order_by(shown.c.rank, shown.c.image_id)
            return [Shown(row.image_id, row.rank, row.score) for row in connection.execute(query)]

    def prune_searches(self, *, before: datetime, keep: int) -> int:
        """Delete searches without a mark, those made before this moment and all but the newest `keep`.

        Those made over an hour from now go too: a wrong clock would keep them before all newer ones. If a mark was
        made later than now, too, it is the clock of now that is wrong, and they stay.
        Returns how many were deleted: each takes some six kilobytes, and anybody may search. Searches that were ever
        marked stay, even if the mark was taken back.
        """
        deleted = 0
        while True:
            with self.database.write(durable=False) as connection:
                old = _unmarked(connection, before=before, keep=keep)
                for table in (shown, searches):
                    connection.execute(table.delete().where(table.c.query_id.in_(old)))
            deleted += len(old)
            if len(old) < _PRUNED_AT_ONCE:
                return deleted


def find_search(connection: Connection, query_id: str) -> SearchRow:
    row = connection.execute(sa.select(searches).where(searches.c.query_id == query_id)).one_or_none()
    if row is None:
        raise MarkError(f"There is no search {query_id!r}. Search again, and mark what that search shows.")
    return SearchRow(**row._mapping)


def own_search(connection: Connection, user: str, query_id: str) -> SearchRow:
    """Return the search of this id. Raises MarkError if it is not one of this user's."""
    search = find_search(connection, query_id)
    if search.user != user:
        raise MarkError(f"The search {query_id!r} is another user's. Search yourself, and mark what you see.")
    return search


def check_shown(connection: Connection, query_id: str, image_ids: Sequence[str]) -> None:
    """Raise MarkError unless the search showed all of these images."""
    query = sa.select(shown.c.image_id).where(shown.c.query_id == query_id)
    missing = set(image_ids) - set(connection.scalars(query))
    if missing:
        raise MarkError(
            f"Only what a search showed can be marked; {query_id!r} did not show {sorted(missing)[0]!r}. "
            "Mark an image from its results."
        )


def show(connection: Connection, query_id: str, results: Sequence[Shown]) -> None:
    """Record results of a search; raises MarkError on a rank or score that no search gives."""
    for result in results:
        if result.rank < 1 or not math.isfinite(result.score):
            raise MarkError(f"A result has a rank from 1 and a finite score; {result} came.")
    if results:
        rows = [{"query_id": query_id, **asdict(result)} for result in results]
        connection.execute(shown.insert().prefix_with("OR IGNORE"), rows)


def _unmarked(connection: Connection, *, before: datetime, keep: int) -> list[str]:
    """Return the ids of at most `_PRUNED_AT_ONCE` searches to delete, the oldest first."""
    unmarked = sa.select(searches.c.query_id).where(searches.c.query_id.not_in(sa.select(events.c.query_id)))
    newest_first = searches.c.created_at.desc(), searches.c.query_id
    now, marked = utc_now(), connection.scalar(sa.select(sa.func.max(events.c.marked_at)))
    ahead = searches.c.created_at > now + _AHEAD if marked is None or marked <= now else sa.false()
    beyond = unmarked.where(~ahead).order_by(*newest_first).limit(-1).offset(keep)
    query = (
        unmarked.where((searches.c.created_at < before) | ahead | searches.c.query_id.in_(beyond))
        .order_by(searches.c.created_at)
        .limit(_PRUNED_AT_ONCE)
    )
    return list(connection.scalars(query))


# Which marks hold: the last of each user, caption key and picture that was not taken back


def marks_where(connection: Connection, *conditions: sa.ColumnElement[bool]) -> list[Mark]:
    """Return the mark events that meet the conditions, oldest first."""
    return [Mark(**row._mapping) for row in connection.execute(_select(*conditions))]


def _select(*conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return (
        sa.select(
            events.c.event_id, events.c.user, searches.c.caption, events.c.image_id, events.c.verdict,
            events.c.query_id, shown.c.rank, shown.c.score, searches.c.version, searches.c.backbone,
            events.c.marked_at, searches.c.negative, searches.c.image_query,
        )
        .join(searches, searches.c.query_id == events.c.query_id)
        .join(shown, (shown.c.query_id == events.c.query_id) & (shown.c.image_id == events.c.image_id))
        .where(events.c.kind == "mark", *conditions)
        .order_by(events.c.event_id)
    )  # fmt: skip


def not_reversed(marks: Any) -> list[sa.ColumnElement[bool]]:
    """Return the condition that mark events (the table or an alias of it) were not taken back.

    An undo always holds; a clear holds until it is undone.
    """
    reversal, undo = events.alias("reversal"), events.alias("undo")
    clear_undone = sa.exists().where(undo.c.reverses == reversal.c.event_id, undo.c.kind == "undo")
    return [~sa.exists().where(reversal.c.reverses == marks.c.event_id, (reversal.c.kind == "undo") | ~clear_undone)]


def holding(user: Text, key: Text) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of marks not taken back, of this user and caption key if given."""
    conditions = not_reversed(events)
    if user is not None:
        conditions.append(events.c.user == user)
    if key is not None:
        conditions.append(events.c.caption_key == key)
    return conditions


def last_events(user: Text, key: Text, *, since: int = 0) -> sa.Select[int]:
    """Select the last mark not taken back of each key and image, where its event id is above `since`."""
    return (
        sa.select(sa.func.max(events.c.event_id))
        .where(events.c.kind == "mark", events.c.event_id > since, *holding(user, key))
        .group_by(events.c.user, events.c.caption_key, events.c.image_id)
    )


def current_marks(connection: Connection, *, user: str | None, key: str | None = None) -> list[Mark]:
    """Return the last mark not taken back of each key and image, oldest first."""
    given = {name: value for name, value in (("of_user", user), ("of_key", key)) if value is not None}
    rows = connection.execute(_select_current(user is not None, key is not None), given)
    return [Mark(**row._mapping) for row in rows]


@cache
def _select_current(by_user: bool, by_key: bool) -> sa.Select[Any]:
    """What `current_marks` asks, made once: to make it takes longer than to run it."""
    user, key = sa.bindparam("of_user", type_=sa.String), sa.bindparam("of_key", type_=sa.String)
    return _select(events.c.event_id.in_(last_events(user if by_user else None, key if by_key else None)))
