"""The marks that users make on what searches show: append-only events, taken back by reversals."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from store.records import (
    Change,
    ForgottenMarks,
    GivenMark,
    Mark,
    MarkStats,
    SearchRow,
    Shown,
    Verdict,
    caption_key,
    check_verdict,
)
from store.schema import events, searches, shown
from store.searches import (
    Searches,
    check_shown,
    current_marks,
    find_search,
    holding,
    last_events,
    marks_where,
    not_reversed,
    own_search,
    show,
)
from store.values import utc_now
from store.versions import note_forgotten

_AT_ONCE = 1000  # ids in one statement
_COUNTED = {"hit": "hits", "miss": "misses", "wrong_person": "wrong_person"}


class Marks(Searches):
    """Searches and marks in the database; safe to use from several threads and processes at once.

    The verdict of (user, caption key, image) is that of its last mark not taken back. Events also take marks back: a
    `clear` reverses the marks of one image, an `undo` one whole action, marks or a clear, so that undoing a second
    mark restores the first verdict.
    """

    def mark(self, user: str, query_id: str, image_id: str, verdict: str) -> Mark:
        """Record a verdict; the same verdict on the same result again changes nothing.

        Raises MarkError on an unknown search or verdict, another user's search, and an image it did not show.
        """
        return self.mark_many(user, query_id, [image_id], verdict)[0]

    def mark_many(self, user: str, query_id: str, image_ids: Sequence[str], verdict: str) -> list[Mark]:
        """Record one verdict on several results as one action, all or none, and return their marks in this order."""
        verdict = check_verdict(verdict)
        wanted = list(dict.fromkeys(image_ids))
        with self.database.write() as connection:
            search = own_search(connection, user, query_id)
            check_shown(connection, query_id, wanted)
            before = current_marks(connection, user=user, key=search.caption_key)
            same = {mark.image_id for mark in before if mark.verdict == verdict and mark.query_id == query_id}
            fresh = [
                {"kind": "mark", "image_id": image_id, "verdict": verdict, "reverses": None}
                for image_id in wanted
                if image_id not in same
            ]
            _append(connection, search, fresh)
            after = {mark.image_id: mark for mark in current_marks(connection, user=user, key=search.caption_key)}
        return [after[image_id] for image_id in wanted]

    def clear(self, user: str, query_id: str, image_id: str) -> Mark | None:
        """Take back this user's verdict on the image for this caption.

        Returns the mark that no longer holds, or None if there was none. Raises MarkError as `mark` does.
        """
        return next(iter(self.clear_many(user, query_id, [image_id])), None)

    def clear_many(self, user: str, query_id: str, image_ids: Sequence[str]) -> list[Mark]:
        """Take back this user's verdicts on several images for this caption as one action, all or none.

        Returns the marks that no longer hold. Raises MarkError as `mark` does.
        """
        wanted = list(dict.fromkeys(image_ids))
        with self.database.write() as connection:
            search = own_search(connection, user, query_id)
            check_shown(connection, query_id, wanted)
            valid = marks_where(connection, *holding(user, search.caption_key))
            taken = [mark for mark in valid if mark.image_id in set(wanted)]
            rows = [
                {"kind": "clear", "image_id": mark.image_id, "verdict": None, "reverses": mark.event_id}
                for mark in taken
            ]
            _append(connection, search, rows)
        last = {mark.image_id: mark for mark in taken}
        return [last[image_id] for image_id in wanted if image_id in last]

    def undo(self, user: str) -> list[Mark]:
        """Reverse this user's last action as `undo_action` does, and return the marks it had made or cleared."""
        return self.undo_action(user)[0]

    def undo_action(self, user: str) -> tuple[list[Mark], bool]:
        """Reverse this user's last action that is not reversed yet. Returns its marks, and whether it cleared them.

        Afterwards `verdicts` returns what holds: nothing, an earlier verdict, or a cleared one again.
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
                return [], False
            query = sa.select(events).where(events.c.action_id == action_id).order_by(events.c.event_id)
            action = connection.execute(query).all()
            search = find_search(connection, action[0].query_id)
            rows = [
                {"kind": "undo", "image_id": row.image_id, "verdict": None, "reverses": row.event_id} for row in action
            ]
            _append(connection, search, rows)
            touched = [row.event_id if row.kind == "mark" else row.reverses for row in action]
            return marks_where(connection, events.c.event_id.in_(touched)), action[0].kind == "clear"

    def import_given(self, given: Sequence[GivenMark]) -> list[str]:
        """Record marks made elsewhere in one transaction; returns "taken", "repeated" or why it is refused, for each.

        A mark is repeated if its user has made the same one, or one as late or later on that caption and picture,
        which it must not overrule. Its search is recorded if it is not known.
        """
        outcomes = [""] * len(given)
        with self.database.write() as connection:
            for number, mark in sorted(enumerate(given), key=lambda pair: pair[1].marked_at):
                outcomes[number] = _import_given(connection, mark)
        return outcomes

    def users(self) -> list[str]:
        """Return everybody who ever marked, sorted."""
        with self.database.read() as connection:
            return list(connection.scalars(sa.select(events.c.user).distinct().order_by(events.c.user)))

    # What holds

    def current(self, *, user: str | None = None) -> list[Mark]:
        """Return the mark that holds for each (user, caption key, image), of one user if named, oldest first."""
        with self.database.read() as connection:
            return current_marks(connection, user=user)

    def changes(self, *, since: int) -> list[Change]:
        """Return what each verdict changed by an event after `since` is now, in the order of those events."""
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
                held |= {(user, key, mark.image_id): mark for mark in current_marks(connection, user=user, key=key)}
        return [Change(**row._mapping, mark=_as_given(held.get(tuple(row)[:3]))) for row in rows]

    def captions(self, *, until: int) -> set[str]:
        """Return the keys of all captions with a mark among the events up to `until`, even if taken back since."""
        query = sa.select(events.c.caption_key).distinct().where(events.c.kind == "mark", events.c.event_id <= until)
        with self.database.read() as connection:
            return set(connection.scalars(query))

    def verdicts(self, query_id: str) -> dict[str, Verdict]:
        """Return its user's verdict on each image for a search's caption, also of image queries.

        Raises MarkError if there is no such search.
        """
        with self.database.read() as connection:
            search = find_search(connection, query_id)
            current = current_marks(connection, user=search.user, key=search.caption_key)
            return {mark.image_id: mark.verdict for mark in current}

    def for_query(self, user: str, caption: str) -> dict[str, Verdict]:
        """Return this user's verdict on each image under this caption, however it was typed."""
        with self.database.read() as connection:
            current = current_marks(connection, user=user, key=caption_key(caption))
        return {mark.image_id: mark.verdict for mark in current}

    def newest(self) -> int:
        """Return the id of the newest event of any kind, 0 if there is none."""
        with self.database.read() as connection:
            return int(connection.scalar(sa.select(sa.func.max(events.c.event_id))) or 0)

    def count_hits(self, *, at_most: int) -> int:
        """Return how many current marks are hits, counted no further than `at_most`."""
        same = events.alias("same")
        last = sa.select(sa.func.max(same.c.event_id)).where(
            same.c.user == events.c.user,
            same.c.caption_key == events.c.caption_key,
            same.c.image_id == events.c.image_id,
            same.c.kind == "mark",
            *not_reversed(same),
        )
        hits = sa.select(events.c.event_id).where(
            events.c.verdict == "hit", events.c.event_id == last.scalar_subquery()
        )
        with self.database.read() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(hits.limit(at_most).subquery())) or 0)

    def gaps(self, version: str, *, newest: int) -> list[tuple[Verdict, float]]:
        """Return the verdict of current marks on this version's rankings by words, with how far the picture's score
        was under the best of its search; the `newest` ones, newest first.

        Marks on searches by a picture or with "without" are left out, and those whose best result is not known.
        """
        best = shown.alias("best")
        query = (
            sa.select(events.c.verdict, best.c.score - shown.c.score)
            .join(searches, searches.c.query_id == events.c.query_id)
            .join(shown, (shown.c.query_id == events.c.query_id) & (shown.c.image_id == events.c.image_id))
            .join(best, (best.c.query_id == events.c.query_id) & (best.c.rank == 1))
            .where(shown.c.rank > 1)  # the best result is never called weak
            .where(events.c.event_id.in_(last_events(None, None)), searches.c.version == version)
            .where(searches.c.negative == "", sa.not_(searches.c.image_query))
            .order_by(events.c.event_id.desc())
            .limit(newest)
        )
        with self.database.read() as connection:
            return [(verdict, float(gap)) for verdict, gap in connection.execute(query)]

    def stats(self, *, user: str | None = None, since: int = 0) -> MarkStats:
        """Count the current marks whose event id is above `since`, of one user if named."""
        newest = sa.select(sa.func.coalesce(sa.func.max(events.c.event_id), 0))
        if user is not None:
            newest = newest.where(events.c.user == user)
        counts = sa.select(
            sa.func.count().label("total"),
            *(sa.func.count().filter(events.c.verdict == verdict).label(name) for verdict, name in _COUNTED.items()),
            sa.func.count(events.c.caption_key.distinct()).label("captions"),
            sa.func.count(events.c.image_id.distinct()).label("images"),
            sa.func.count(events.c.user.distinct()).label("users"),
        ).where(events.c.event_id.in_(last_events(user, None, since=since)))
        with self.database.read() as connection:
            row = connection.execute(counts).one()
            return MarkStats(**row._mapping, last_event=int(connection.scalar(newest) or 0))

    def forget_images(self, image_ids: Sequence[str]) -> ForgottenMarks:
        """Erase all marks on these images and all records that they were shown, in one transaction.

        The one exception to append-only: the rows are overwritten on disk and in the write-ahead log. Versions
        that may have learnt from such a mark are noted (`Versions.learnt_forgotten`).
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


def _import_given(connection: Connection, mark: GivenMark) -> str:
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
    show(connection, mark.query_id, [Shown(mark.image_id, mark.rank, mark.score)])
    event = {
        "action_id": uuid.uuid4().hex, "kind": "mark", "user": mark.user, "caption_key": mark.caption_key,
        "image_id": mark.image_id, "query_id": mark.query_id, "verdict": mark.verdict, "marked_at": mark.marked_at,
    }  # fmt: skip
    connection.execute(events.insert(), event)
    return "taken"


def _append(connection: Connection, search: SearchRow, rows: Sequence[dict[str, Any]]) -> None:
    """Add the events of one action."""
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
