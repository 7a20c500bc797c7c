"""Review: what to mark next, each with its reason, and what people contradict each other about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict
from itertools import zip_longest

import gradio as gr

from app.app_errors import known_errors
from app.pages.component import JSON, Action, island, sentence, text_of
from app.pages.page_data import tally
from app.pages.undoing import Once, undo_of
from app.search.views import SuggestionView
from app.services import Services
from store.records import caption_key, check_verdict
from train.finetuning.pairs import usable

BATCH = 24
"""Suggestions asked at once."""
KNOWN = 4
"""Hits of a description that are shown beside what is asked."""

_TEMPLATE = """
<section class="up-review" aria-label="Review">
  <p class="up-purpose">The marks that would teach most, one question at a time, each with its reason.</p>
  <div data-part="line" role="status" hidden></div>
  <div data-part="card"></div>
  <div data-part="contested"></div>
  <div class="up-hidden" data-part="live" aria-live="polite"></div>
</section>
"""


class ReviewPage:
    """Lays the page out in the Blocks context it is built in."""

    def __init__(self, services: Services) -> None:
        self.services, once = services, Once()
        self.panel = island(
            {"state": "idle"},
            template=_TEMPLATE,
            script=("queue.js", "shortcuts.js", "swipe.js", "review.js"),
            elem_id="up-review",
            services=services,
            actions={
                "ask_next": _ask_next(services),
                "judge": once.each(_judge(services)),
                "undo_last": once.each(undo_of(services)),
            },
        )

    def opened(self, request: gr.Request) -> JSON:
        """What to review now, or why there is nothing."""
        try:
            return {"state": "ready", **_batch(self.services, self.services.identity.user_of(request))}
        except known_errors() as error:
            return {"state": "error", "message": sentence(str(error))}


def _batch(services: Services, user: str) -> JSON:
    review = services.review(user, BATCH)
    known = _known_hits(services, user, {caption_key(one.caption) for one in review.suggestions})
    return {
        "suggestions": [
            asdict(one) | {"known": [image for image in known[caption_key(one.caption)] if image != one.image_id]}
            for one in alternating(review.suggestions)
        ],
        "contested": [asdict(one) for one in review.contested],
    }


def alternating(suggestions: Sequence[SuggestionView]) -> list[SuggestionView]:
    """The suggestions with descriptions in turn, each description's in their order: nobody tires of one."""
    queues: dict[str, list[SuggestionView]] = defaultdict(list)
    for one in suggestions:
        queues[caption_key(one.caption)].append(one)
    return [one for turn in zip_longest(*queues.values()) for one in turn if one is not None]


def _known_hits(services: Services, user: str, keys: Collection[str]) -> dict[str, list[str]]:
    """The newest hits of each of these descriptions: everybody's for administrators, else the user's own."""
    found: dict[str, list[str]] = defaultdict(list)
    marks = services.state.marks.current(user=None if services.is_admin(user) else user)
    for mark in reversed(usable(marks)):
        key = mark.caption_key
        if mark.verdict == "hit" and key in keys and len(found[key]) < KNOWN and mark.image_id not in found[key]:
            found[key].append(mark.image_id)
    return found


def _ask_next(services: Services) -> Action:
    return lambda _payload, user: _batch(services, user)


def _judge(services: Services) -> Action:
    def judge(payload: JSON, user: str) -> JSON:
        verdict = check_verdict(text_of(payload, "verdict"))
        services.mark(user, text_of(payload, "query_id"), text_of(payload, "image_id"), verdict)
        return {"tally": tally(services, user)}

    return judge
