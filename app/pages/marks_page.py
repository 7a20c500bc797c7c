"""My marks: what this user has said so far by description, each of it to be changed or taken back."""

from __future__ import annotations

import gradio as gr

from app.app_errors import RequestError
from app.pages.component import JSON, Action, island, text_of
from app.pages.page_data import tally
from app.pages.undoing import Once
from app.search.serialise import iso
from app.services import Services
from store.records import check_verdict

MOST = 1_000
"""Marks listed, the newest."""

_TEMPLATE = """
<section class="up-marks" aria-label="My marks">
  <p class="up-purpose" data-key-text="Your marks, by description. Change a verdict, or take it back ({back})."></p>
  <div class="up-filters" data-part="chips" role="group" aria-label="Show"></div>
  <div data-part="line" role="status" hidden></div>
  <ul class="up-mark-groups" data-part="list"></ul>
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
            script=("queue.js", "shortcuts.js", "mark_list.js"),
            elem_id="up-marks",
            services=services,
            actions=_actions(services),
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


def _actions(services: Services) -> dict[str, Action]:
    def judge(payload: JSON, user: str) -> JSON:
        verdict = check_verdict(payload.get("verdict"))
        services.mark(user, text_of(payload, "query_id"), text_of(payload, "image_id"), verdict)
        return {"tally": tally(services, user)}

    def take_back(payload: JSON, user: str) -> JSON:
        images = payload.get("image_ids")
        if not isinstance(images, list) or not images or not all(isinstance(image, str) for image in images):
            raise RequestError("image_ids must be a list of the pictures whose marks are taken back")
        services.take_back(user, text_of(payload, "query_id"), images)
        return {"tally": tally(services, user)}

    once = Once()
    return {"judge": once.each(judge), "take_back": once.each(take_back)}
