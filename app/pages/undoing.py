"""Marks as the page sends them: each counts once however often it is sent, and what was undone can be redone."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future
from threading import Lock

from app.app_errors import RequestError
from app.pages.component import JSON, Action, text_of
from app.pages.page_data import tally
from app.services import Services

_KEPT = 5_000
"""Answers remembered: a page that lost one asks for it again within seconds."""


class Once:
    """Runs what a page sends once for each `op`, an id that the page makes up, and repeats its answer.

    When a connection breaks, a page cannot know whether the server had already acted. It sends the same `op` again: a
    mark would do no harm twice, but a second undo would take back another mark.
    """

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, str], Future[JSON]] = OrderedDict()
        self._lock = Lock()

    def each(self, action: Action) -> Action:
        """`action`, run once for each user and `op`. One that was refused did nothing, so it is tried again."""

        def run(payload: JSON, user: str) -> JSON:
            key = user, _op_of(payload)
            with self._lock:
                known = self._answers.get(key)
                if known is None:
                    answer = self._answers[key] = Future()
                    while len(self._answers) > _KEPT:
                        self._answers.popitem(last=False)
            if known is not None:
                return known.result()
            try:
                answer.set_result(action(payload, user))
            except BaseException as error:
                with self._lock:
                    self._answers.pop(key, None)
                answer.set_exception(error)
                raise
            return answer.result()

        return run


def undo_of(services: Services) -> Action:
    """Undo this user's last action, wherever it was made.

    Its answer holds `redo`, what makes the action again: `{"query_id", "image_ids", "verdict"}`, nothing if there was
    none; and the `verdicts` of the search `query_id`, if the page names one.
    """

    def undo(payload: JSON, user: str) -> JSON:
        query = None if payload.get("query_id") is None else text_of(payload, "query_id")
        if query:
            services.verdicts(query, user)  # refuses what cannot be answered before anything is undone
        undone, cleared = services.undo_action(user)
        redo = None
        if undone:
            images = list(dict.fromkeys(mark.image_id for mark in undone))
            verdict = None if cleared else undone[0].verdict
            redo = {"query_id": undone[0].query_id, "image_ids": images, "verdict": verdict}
        return {
            "undone": [[mark.query_id, mark.image_id] for mark in undone],
            "redo": redo,
            "verdicts": services.verdicts(query, user) if query else {},
            "tally": tally(services, user),
            "serving": services.retriever.serving.version,
        }

    return undo


def _op_of(payload: JSON) -> str:
    """The id that the page gave to what it sends. Raises RequestError."""
    op = text_of(payload, "op")
    if len(op) > 64:
        raise RequestError(f"op is at most 64 characters, not {len(op)}")
    return op
