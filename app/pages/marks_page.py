"""My marks: what this user has said so far, each of it to be taken back."""

from __future__ import annotations

import gradio as gr

from app.pages.component import JSON, Action, island, text_of
from app.pages.page_data import tally
from app.search.serialise import iso
from app.services import Services

MOST = 1_000
"""Marks listed, the newest."""

_TEMPLATE = """
<section class="up-marks" aria-label="My marks">
  <div class="up-filters" data-part="chips" role="group" aria-label="Show"></div>
  <div data-part="line" role="status" hidden></div>
  <ul class="up-mark-list" data-part="list"></ul>
  <div class="up-hidden" data-part="live" aria-live="polite"></div>
</section>
"""


class MarksPage:
    """Lays the page out in the Blocks context it is built in."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.list = island(
            {"marks": []},
            template=_TEMPLATE,
            script=("queue.js", "mark_list.js"),
            elem_id="up-marks",
            services=services,
            actions={"take_back": _take_back(services)},
        )

    def opened(self, request: gr.Request) -> JSON:
        """The list as it is now."""
        marks = self.services.my_marks(self.services.identity.user_of(request), MOST)
        return {
            "marks": [
                {
                    "image_id": mark.image_id,
                    "query_id": mark.query_id,
                    "caption": mark.caption,
                    "verdict": mark.verdict,
                    "rank": mark.rank,
                    "score": mark.score,
                    "version": mark.version,
                    "marked_at": iso(mark.marked_at),
                    "by_picture": mark.by_picture,
                }
                for mark in marks
            ]
        }


def _take_back(services: Services) -> Action:
    def take_back(payload: JSON, user: str) -> JSON:
        services.mark(user, text_of(payload, "query_id"), text_of(payload, "image_id"), None)
        return {"tally": tally(services, user)}

    return take_back
