"""Review: what to mark next, each with its reason, and what people contradict each other about."""

from __future__ import annotations

from dataclasses import asdict

import gradio as gr

from app.app_errors import known_errors
from app.pages.component import JSON, Action, island, sentence, text_of
from app.pages.page_data import tally
from app.pages.undoing import Once, undo_of
from app.services import Services
from store.records import check_verdict

BATCH = 24
"""Suggestions asked at once."""

_TEMPLATE = """
<section class="up-review" aria-label="Review">
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
            script=("queue.js", "review.js"),
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
    return {
        "suggestions": [asdict(one) for one in review.suggestions],
        "contested": [asdict(one) for one in review.contested],
    }


def _ask_next(services: Services) -> Action:
    return lambda _payload, user: _batch(services, user)


def _judge(services: Services) -> Action:
    def judge(payload: JSON, user: str) -> JSON:
        verdict = check_verdict(text_of(payload, "verdict"))
        services.mark(user, text_of(payload, "query_id"), text_of(payload, "image_id"), verdict)
        return {"tally": tally(services, user)}

    return judge
