"""All pictures of one person: those with a pid, or those that hits for the same descriptions join."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from app.app_errors import RequestError
from app.search.views import clean_text
from app.state import State
from store import Filters, ImageRow, Mark
from store.records import caption_key
from train.finetuning.pairs import build, usable

MOST_PICTURES = 500
_MOST_PID = 200
_NEWEST = 5_000
"""Marks of other descriptions that are looked at, the newest: each description takes memory for each picture."""


@dataclass(frozen=True, slots=True)
class PersonView:
    """Pictures by camera (None: not known), each camera's in the order of time; `captions` joined them, if any.

    `left_out` pictures more are not listed.
    """

    title: str
    captions: tuple[str, ...]
    cameras: tuple[tuple[str | None, tuple[ImageRow, ...]], ...]
    left_out: int

    @property
    def count(self) -> int:
        """Number of pictures listed."""
        return sum(len(rows) for _, rows in self.cameras)


def person_by_pid(state: State, pid: str) -> PersonView:
    """The pictures of a pid. Raises RequestError on an empty or overlong one."""
    if not pid or len(pid) > _MOST_PID:
        raise RequestError(f"a person is named by a pid of 1 to {_MOST_PID} characters, not {pid[:40]!r}")
    return _view(state, pid, (), state.gallery.visible(Filters(pid=(pid,))))


def person_by_hits(state: State, caption: str, user: str | None) -> PersonView:
    """The hits of a description and of those that share most of its hits, and what has the same pid as one of them.

    Only this user's marks count, or everybody's for None. Raises RequestError on an empty description.
    """
    caption = clean_text(caption, "description")
    if not caption:
        raise RequestError("a person is named by a pid or by a description that has hits: neither came")
    wanted = caption_key(caption)
    marks = [mark for mark in usable(state.marks.current(user=user)) if mark.verdict in ("hit", "miss")]
    own, others = list[Mark](), list[Mark]()
    for mark in marks:
        (own if mark.caption_key == wanted else others).append(mark)
    pairs = build(own + others[-_NEWEST:])
    keys = [caption_key(one) for one in pairs.captions]
    if wanted not in keys:
        return PersonView(f"“{caption}”", (), (), 0)
    same = pairs.groups == pairs.groups[keys.index(wanted)]
    hits = [pairs.image_ids[column] for column in (pairs.judged[same] > 0).any(axis=0).nonzero()[0]]
    pids = tuple(sorted({row.pid for row in state.gallery.rows(hits) if row.pid})[:100])
    alike = state.gallery.visible(Filters(pid=pids)) if pids else []
    shown = set(state.gallery.visible(None)).intersection(hits)
    joined = tuple(one for one, with_it in zip(pairs.captions, same, strict=True) if with_it)
    return _view(state, f"“{caption}”", joined, sorted(shown.union(alike)))


def _view(state: State, title: str, captions: tuple[str, ...], ids: list[str]) -> PersonView:
    rows = state.gallery.rows(ids[:MOST_PICTURES])
    by_camera = defaultdict[str | None, list[ImageRow]](list)
    for row in rows:
        by_camera[row.camera].append(row)
    for some in by_camera.values():
        some.sort(key=lambda row: (row.captured_at is None, row.captured_at and row.captured_at.timestamp(), row.id))
    cameras = sorted(by_camera, key=lambda camera: (camera is None, camera or ""))
    return PersonView(
        title, captions, tuple((camera, tuple(by_camera[camera])) for camera in cameras), max(0, len(ids) - len(rows))
    )
