"""Searches, what they showed, and the marks users made on it: append-only, undone by reversal."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from store.database import Database
from store.records import (
    Change,
    ForgottenMarks,
    GivenMark,
    Mark,
    MarkStats,
    Search,
    SearchRow,
    Shown,
    Verdict,
    caption_key,
    check_verdict,
)
from store.schema import events, searches, shown
from store.store_errors import MarkError
from store.values import utc_now
from store.versions import note_forgotten

_AT_ONCE = 1000  # ids in one statement
_COUNTED = {"hit": "hits", "miss": "misses", "wrong_person": "wrong_person"}


class Marks:
    """Searches and marks in the database; safe to use from several threads and processes at once.

    The verdict of (user, caption key, image) is that of its last mark not taken back. Marks are taken back by
    events, too: a `clear` reverses the marks of one image, an `undo` reverses one whole action, be it marks
    or a clear, so that undoing a re-mark restores the verdict before it.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    # Searches

    def record_search(self, search: Search, results: Sequence[Shown], *, query_id: str | None = None) -> str:
        """Keeps a search and what it showed; its query id. Raises MarkError if it has no user or no caption."""
        if not search.user:
            raise MarkError("A search needs the user who asked; '' came. Sign in, or accept the cookie.")
        query_id = query_id or uuid.uuid4().hex
        key = caption_key(search.caption)
        if search.image_query:
            # The words alone do not say what was asked: no other search shares these verdicts.
            key = f"{query_id} {key}"
        elif not key:
            raise MarkError(
                f"A search needs a caption with at least one word; {search.caption!r} came. Describe a person."
            )
        row = {**asdict(search), "query_id": query_id, "caption_key": key, "created_at": utc_now()}
        with self.database.write(durable=False) as connection:  # the first mark on it makes it durable
            connection.execute(searches.insert(), row)
            _show(connection, query_id, results)
        return query_id

    def extend_search(self, query_id: str, results: Sequence[Shown]) -> None:
        """Adds results that "show more" brought; an image shown before keeps its first rank and score."""
        with self.database.write(durable=False) as connection:
            _search(connection, query_id)
            _show(connection, query_id, results)

    def take_out(self, query_id: str, image_ids: Sequence[str]) -> None:
        """Erases the record that a search showed these images, from the write-ahead log, too."""
        if image_ids:
            with self.database.write() as connection:
                of_search = shown.c.query_id == query_id, shown.c.image_id.in_(list(image_ids))
                connection.execute(shown.delete().where(*of_search))
            self.database.truncate_log()

    def search(self, query_id: str) -> SearchRow:
        """The search of this id; raises MarkError if there is none."""
        with self.database.read() as connection:
            return _search(connection, query_id)

    def shown(self, query_id: str) -> list[Shown]:
        """Everything a search has shown, by rank; raises MarkError if there is no such search."""
        with self.database.read() as connection:
            _search(connection, query_id)
            query = sa.select(shown).where(shown.c.query_id == query_id).order_by(shown.c.rank, shown.c.image_id)
            return [Shown(row.image_id, row.rank, row.score) for row in connection.execute(query)]

    # Marking

    def mark(self, user: str, query_id: str, image_id: str, verdict: str) -> Mark:
        """Keeps a verdict; the same verdict on the same result again changes nothing.

        Raises MarkError on an unknown search or verdict, another user's search, and an image it did not show.
        """
        return self.mark_many(user, query_id, [image_id], verdict)[0]

    def mark_many(self, user: str, query_id: str, image_ids: Sequence[str], verdict: str) -> list[Mark]:
        """Keeps one verdict on several results as one action, all or none; their marks in the order asked."""
        verdict = check_verdict(verdict)
        wanted = list(dict.fromkeys(image_ids))
        with self.database.write() as connection:
            search = _own_search(connection, user, query_id)
            _check_shown(connection, query_id, wanted)
            before = _current(connection, user=user, key=search.caption_key)
            same = {mark.image_id for mark in before if mark.verdict == verdict and mark.query_id == query_id}
            fresh = [
                {"kind": "mark", "image_id": image_id, "verdict": verdict, "reverses": None}
                for image_id in wanted
                if image_id not in same
            ]
            _append(connection, search, fresh)
            after = {mark.image_id: mark for mark in _current(connection, user=user, key=search.caption_key)}
        return [after[image_id] for image_id in wanted]

    def clear(self, user: str, query_id: str, image_id: str) -> Mark | None:
        """Takes back whatever this user's verdict on the image is for this caption, as one action.

        The mark that no longer holds, or None if there was none. Raises MarkError as `mark` does.
        """
        return next(iter(self.clear_many(user, query_id, [image_id])), None)

    def clear_many(self, user: str, query_id: str, image_ids: Sequence[str]) -> list[Mark]:
        """Take back this user's verdicts on several images for this caption as one action, all or none.

        Returns the marks that no longer hold. Raises MarkError as `mark` does.
        """
        wanted = list(dict.fromkeys(image_ids))
        with self.database.write() as connection:
            search = _own_search(connection, user, query_id)
            _check_shown(connection, query_id, wanted)
            standing = _standing(connection, user=user, key=search.caption_key)
            taken = [mark for mark in standing if mark.image_id in set(wanted)]
            rows = [
                {"kind": "clear", "image_id": mark.image_id, "verdict": None, "reverses": mark.event_id}
                for mark in taken
            ]
            _append(connection, search, rows)
        last = {mark.image_id: mark for mark in taken}
        return [last[image_id] for image_id in wanted if image_id in last]

    def undo(self, user: str) -> list[Mark]:
        """Reverses this user's last action not yet reversed; the marks it had made or cleared, [] if none is left.

        After it `verdicts` says what holds: nothing, an earlier verdict, or a cleared one again.
        """
        reversal = events.alias()
        undone = sa.exists().where(reversal.c.reverses == events.c.event_id, reversal.c.kind == "undo")
        last = (
            sa.select(events.c.action_id)
            .where(events.c.user == user, events.c.kind != "undo", ~undone)
            .order_by(events.c.event_id.desc())
            .limit(1)
        )
        with self.database.write() as connection:
            action_id = connection.scalar(last)
            if action_id is None:
                return []
            query = sa.select(events).where(events.c.action_id == action_id).order_by(events.c.event_id)
            action = connection.execute(query).all()
            search = _search(connection, action[0].query_id)
            rows = [
                {"kind": "undo", "image_id": row.image_id, "verdict": None, "reverses": row.event_id} for row in action
            ]
            _append(connection, search, rows)
            touched = [row.event_id if row.kind == "mark" else row.reverses for row in action]
            return _marks(connection, events.c.event_id.in_(touched))

    def take_in(self, given: Sequence[GivenMark]) -> list[str]:
        """Keeps marks made elsewhere, all in one transaction; for each "taken", "repeated", or why it is refused.

        A mark is repeated if its user has made the same one, or one as late or later on that caption and picture:
        taking it in would turn a newer verdict round. Its search is made if it is not known.
        """
        outcomes = [""] * len(given)
        with self.database.write() as connection:
            for number, mark in sorted(enumerate(given), key=lambda pair: pair[1].marked_at):
                outcomes[number] = _take_in(connection, mark)
        return outcomes

    def users(self) -> list[str]:
        """Everybody who ever marked, sorted."""
        with self.database.read() as connection:
            return list(connection.scalars(sa.select(events.c.user).distinct().order_by(events.c.user)))

    # What holds

    def current(self, *, user: str | None = None) -> list[Mark]:
        """The mark that holds for each (user, caption key, image), oldest first; of one user if named."""
        with self.database.read() as connection:
            return _current(connection, user=user)

    def for_query(self, user: str, caption: str) -> dict[str, Verdict]:
        """What this user said of each image under this caption, however it was typed; no image queries."""
        with self.database.read() as connection:
            return {mark.image_id: mark.verdict for mark in _current(connection, user=user, key=caption_key(caption))}

    def changes(self, *, since: int) -> list[Change]:
        """What every verdict touched by an event after `since` is now, in the order of those events."""
        touched = (
            sa.select(
                events.c.user, events.c.caption_key, events.c.image_id,
                sa.func.max(events.c.event_id).label("event_id"), sa.func.max(events.c.marked_at).label("at"),
            )
            .where(events.c.event_id > since)
            .group_by(events.c.user, events.c.caption_key, events.c.image_id)
            .order_by(sa.text("event_id"))
        )  # fmt: skip
        with self.database.read() as connection:
            rows = connection.execute(touched).all()
            held: dict[tuple[str, str, str], Mark] = {}
            for user, key in sorted({(row.user, row.caption_key) for row in rows}):
                held |= {(user, key, mark.image_id): mark for mark in _current(connection, user=user, key=key)}
        return [Change(**row._mapping, mark=_as_given(held.get(tuple(row)[:3]))) for row in rows]

    def captions(self, *, until: int) -> set[str]:
        """Keys of all captions with a mark among the events up to `until`, taken back since or not."""
        query = sa.select(events.c.caption_key).distinct().where(events.c.kind == "mark", events.c.event_id <= until)
        with self.database.read() as connection:
            return set(connection.scalars(query))

    def verdicts(self, query_id: str) -> dict[str, Verdict]:
        """What its user said of each image under a search's caption, image queries too.

        Raises MarkError if there is no such search.
        """
        with self.database.read() as connection:
            search = _search(connection, query_id)
            current = _current(connection, user=search.user, key=search.caption_key)
            return {mark.image_id: mark.verdict for mark in current}

    def newest(self) -> int:
        """The id of the newest event of any kind, 0 if none."""
        with self.database.read() as connection:
            return int(connection.scalar(sa.select(sa.func.max(events.c.event_id))) or 0)

    def count_hits(self, *, at_most: int) -> int:
        """How many current marks are hits, counted no further than `at_most`."""
        same = events.alias("same")
        last = sa.select(sa.func.max(same.c.event_id)).where(
            same.c.user == events.c.user,
            same.c.caption_key == events.c.caption_key,
            same.c.image_id == events.c.image_id,
            same.c.kind == "mark",
            *_standing_of(same),
        )
        hits = sa.select(events.c.event_id).where(
            events.c.verdict == "hit", events.c.event_id == last.scalar_subquery()
        )
        with self.database.read() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(hits.limit(at_most).subquery())) or 0)

    def stats(self, *, user: str | None = None, since: int = 0) -> MarkStats:
        """Counts of current marks whose event id is above `since`, of one user if named."""
        newest = sa.select(sa.func.coalesce(sa.func.max(events.c.event_id), 0))
        if user is not None:
            newest = newest.where(events.c.user == user)
        counts = sa.select(
            sa.func.count().label("total"),
            *(sa.func.count().filter(events.c.verdict == verdict).label(name) for verdict, name in _COUNTED.items()),
            sa.func.count(events.c.caption_key.distinct()).label("captions"),
            sa.func.count(events.c.image_id.distinct()).label("images"),
            sa.func.count(events.c.user.distinct()).label("users"),
        ).where(events.c.event_id.in_(_last(user, None, since=since)))
        with self.database.read() as connection:
            row = connection.execute(counts).one()
            return MarkStats(**row._mapping, last_event=int(connection.scalar(newest) or 0))

    def forget_images(self, image_ids: Sequence[str]) -> ForgottenMarks:
        """Erases every mark on these images and every record that they were shown, in one transaction.

        The one exception to append-only: the rows are overwritten on disk and in the write-ahead log. Versions
        that had learnt by the time of such a mark, or later, are noted (`Versions.learnt_forgotten`).
        """
        marks, images, first = 0, 0, math.inf
        with self.database.write() as connection:
            for start in range(0, len(image_ids), _AT_ONCE):
                of_image = events.c.image_id.in_(image_ids[start : start + _AT_ONCE])
                learnable = events.c.verdict.in_(("hit", "miss"))
                found = connection.execute(
                    sa.select(sa.func.min(events.c.event_id), sa.func.count(events.c.image_id.distinct())).where(
                        of_image, learnable
                    )
                ).one()
                first, images = min(first, found[0] or math.inf), images + found[1]
                # Reversals point at marks of the same image, so nothing else refers to these rows; they go first.
                for kind in ("undo", "clear"):
                    connection.execute(events.delete().where(of_image, events.c.kind == kind))
                marks += connection.execute(events.delete().where(of_image)).rowcount
                connection.execute(shown.delete().where(shown.c.image_id.in_(image_ids[start : start + _AT_ONCE])))
            flagged = note_forgotten(connection, int(first), images) if images else []
        self.database.truncate_log()
        return ForgottenMarks(int(marks), tuple(flagged))


def _as_given(mark: Mark | None) -> GivenMark | None:
    return None if mark is None else GivenMark(**{field.name: getattr(mark, field.name) for field in fields(GivenMark)})


def _take_in(connection: Connection, mark: GivenMark) -> str:
    row = connection.execute(sa.select(searches).where(searches.c.query_id == mark.query_id)).one_or_none()
    facts = {
        "user": mark.user, "caption": mark.caption, "negative": mark.negative, "image_query": mark.image_query,
        "version": mark.version, "backbone": mark.backbone,
    }  # fmt: skip
    if row is None:
        made = {**facts, "query_id": mark.query_id, "caption_key": mark.caption_key, "created_at": mark.marked_at}
        connection.execute(searches.insert(), made)
    else:
        differs = [name for name, value in facts.items() if getattr(row, name) != value]
        if differs:
            return f"query_id {mark.query_id} is that of another search: its {differs[0]} differs"
    newest = sa.select(sa.func.max(events.c.marked_at)).where(
        events.c.user == mark.user,
        events.c.caption_key == mark.caption_key,
        events.c.image_id == mark.image_id,
        events.c.kind == "mark",
    )
    last = connection.scalar(newest)
    if last is not None and last >= mark.marked_at:
        return "repeated"
    _show(connection, mark.query_id, [Shown(mark.image_id, mark.rank, mark.score)])
    event = {
        "action_id": uuid.uuid4().hex, "kind": "mark", "user": mark.user, "caption_key": mark.caption_key,
        "image_id": mark.image_id, "query_id": mark.query_id, "verdict": mark.verdict, "marked_at": mark.marked_at,
    }  # fmt: skip
    connection.execute(events.insert(), event)
    return "taken"


def _search(connection: Connection, query_id: str) -> SearchRow:
    row = connection.execute(sa.select(searches).where(searches.c.query_id == query_id)).one_or_none()
    if row is None:
        raise MarkError(f"There is no search {query_id!r}. Search again, and mark what that search shows.")
    return SearchRow(**row._mapping)


def _own_search(connection: Connection, user: str, query_id: str) -> SearchRow:
    search = _search(connection, query_id)
    if search.user != user:
        raise MarkError(f"The search {query_id!r} is another user's. Search yourself, and mark what you see.")
    return search


def _show(connection: Connection, query_id: str, results: Sequence[Shown]) -> None:
    for result in results:
        if result.rank < 1 or not math.isfinite(result.score):
            raise MarkError(f"A result has a rank from 1 and a finite score; {result} came.")
    if results:
        rows = [{"query_id": query_id, **asdict(result)} for result in results]
        connection.execute(shown.insert().prefix_with("OR IGNORE"), rows)


def _check_shown(connection: Connection, query_id: str, image_ids: Sequence[str]) -> None:
    query = sa.select(shown.c.image_id).where(shown.c.query_id == query_id)
    missing = set(image_ids) - set(connection.scalars(query))
    if missing:
        raise MarkError(
            f"Only what a search showed can be marked; {query_id!r} did not show {sorted(missing)[0]!r}. "
            "Mark an image from its results."
        )


def _append(connection: Connection, search: SearchRow, rows: Sequence[dict[str, Any]]) -> None:
    """Adds the events of one action."""
    if not rows:
        return
    shared = {
        "action_id": uuid.uuid4().hex,
        "user": search.user,
        "caption_key": search.caption_key,
        "query_id": search.query_id,
        "marked_at": utc_now(),
    }
    connection.execute(events.insert(), [{**shared, **row} for row in rows])


def _marks(connection: Connection, *conditions: sa.ColumnElement[bool]) -> list[Mark]:
    """Mark events that meet the conditions, oldest first."""
    query = (
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
    return [Mark(**row._mapping) for row in connection.execute(query)]


def _standing_of(marks: Any) -> list[sa.ColumnElement[bool]]:
    """That mark events (the table or an alias of it) were not taken back.

    An undo always holds; a clear holds until it is undone.
    """
    reversal, undo = events.alias("reversal"), events.alias("undo")
    clear_undone = sa.exists().where(undo.c.reverses == reversal.c.event_id, undo.c.kind == "undo")
    return [~sa.exists().where(reversal.c.reverses == marks.c.event_id, (reversal.c.kind == "undo") | ~clear_undone)]


def _conditions(user: str | None, key: str | None) -> list[sa.ColumnElement[bool]]:
    """Mark events that were not taken back, of this user and caption key if given."""
    conditions = _standing_of(events)
    if user is not None:
        conditions.append(events.c.user == user)
    if key is not None:
        conditions.append(events.c.caption_key == key)
    return conditions


def _standing(connection: Connection, *, user: str | None, key: str | None = None) -> list[Mark]:
    """Marks not taken back, oldest first; a later one on the same key and image overrules an earlier one."""
    return _marks(connection, *_conditions(user, key))


def _last(user: str | None, key: str | None, *, since: int = 0) -> sa.Select[int]:
    """The event id of the last standing mark of each key and image, where it is above `since`."""
    return (
        sa.select(sa.func.max(events.c.event_id))
        .where(events.c.kind == "mark", events.c.event_id > since, *_conditions(user, key))
        .group_by(events.c.user, events.c.caption_key, events.c.image_id)
    )


def _current(connection: Connection, *, user: str | None, key: str | None = None) -> list[Mark]:
    """The last standing mark of each key and image, oldest first."""
    return _marks(connection, events.c.event_id.in_(_last(user, key)))
