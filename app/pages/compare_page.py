"""Compare: what a version changed, for one description and over all marked ones."""

from __future__ import annotations

from dataclasses import asdict
from uuid import uuid4

import gradio as gr

from app.pages.component import JSON, Action, island, text_of
from app.services import Services

SHOWN = 24
"""Results of each version."""

_TEMPLATE = """
<section class="up-compare" aria-label="Compare versions">
  <p class="up-purpose">Two versions rank the same description: see what changed. Neither has to be in use.</p>
  <form class="up-compare-form" data-part="form"></form>
  <div data-part="line" role="status" hidden></div>
  <div class="up-sides" data-part="sides"></div>
  <div class="up-moves" data-part="moves"></div>
  <div class="up-hidden" data-part="live" aria-live="polite"></div>
</section>
"""


class ComparePage:
    """Lays the page out in the Blocks context it is built in. Its address is `?tab=compare&a=…&b=…&q=…`."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.panel = island(
            {},
            template=_TEMPLATE,
            script=("compare.js", "compare_moves.js"),
            elem_id="up-compare",
            services=services,
            actions=_actions(services),
        )

    def opened(self, _: gr.Request) -> JSON:
        """The versions to choose from, newest first. The script reads from the address which are asked for."""
        versions = self.services.versions()
        serving = self.services.retriever.serving.version
        return {
            "versions": [{"id": one.id, "in_use": one.id == serving, "parent": one.parent} for one in versions],
            "at": uuid4().hex,
        }


def _actions(services: Services) -> dict[str, Action]:
    def compare(payload: JSON, user: str) -> JSON:
        a, b = text_of(payload, "a"), text_of(payload, "b")
        return asdict(services.comparing.compare(a, b, text_of(payload, "q"), user, SHOWN))

    def moved(payload: JSON, user: str) -> JSON:
        a, b = text_of(payload, "a"), text_of(payload, "b")
        everybody = services.is_admin(user)
        return asdict(services.comparing.moved_hits(a, b, user, everybody=everybody)) | {"everybody": everybody}

    return {"compare": compare, "moved": moved}
