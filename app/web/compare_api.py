"""The web API's endpoint that compares two versions.

(No `from __future__ import annotations`: Gradio needs the hints themselves.)
"""

from dataclasses import asdict
from typing import Any

import gradio as gr
from pydantic import Field

from app.search.views import MOST_RESULTS
from app.services import Services
from app.web.arguments import Arguments, at_the_edge, checked

_VERSION = r"^[A-Za-z0-9._-]{1,64}$"


class _Compare(Arguments):
    version_a: str = Field(pattern=_VERSION)
    version_b: str = Field(pattern=_VERSION)
    text: str
    k: int = Field(ge=1, le=MOST_RESULTS)


def register(services: Services) -> None:
    """Add the endpoint to the `gr.Blocks` whose context this is called in."""

    def compare(
        version_a: str, version_b: str, text: str = "", k: int = 24, request: gr.Request = None
    ) -> dict[str, Any]:
        """Rank one description under two versions, promoted or not: what moved up or down, is new or gone.

        Without a text: how the hits of your marked descriptions moved, administrators see those of everybody's.
        """
        given = checked(_Compare, version_a=version_a, version_b=version_b, text=text, k=k)
        user, comparing = services.identity.user_of(request), services.comparing
        if given.text.strip():
            return asdict(comparing.compare(given.version_a, given.version_b, given.text, user, given.k))
        moves = comparing.moved_hits(given.version_a, given.version_b, user, everybody=services.is_admin(user))
        return asdict(moves)

    gr.api(at_the_edge(compare), api_name="compare", concurrency_limit=1)
