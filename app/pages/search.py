"""The search page: describe a person, see who fits, mark hits and misses."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.components.island import JSON, Action, sentence, text_of
from app.components.result_grid import result_grid
from app.errors import RequestError, known_errors
from app.pages.board import iso, tally
from app.services import Services
from app.views import VERDICTS, CandidateView, SearchRequest, SearchResult

PAGE = 24
"""Results shown at once."""
WEAK_GAP = 0.15
"""A result is called weak when its cosine is more than this below the best one's."""
EXAMPLES = (
    "A woman in a red coat with a brown handbag",
    "An elderly man with a hat and a suitcase",
    "A man in a blue striped t-shirt and shorts",
    "A child with a yellow backpack",
)

_SEARCHING = "() => { document.dispatchEvent(new Event('up:searching')); }"
_SEARCHED = "() => { document.dispatchEvent(new Event('up:searched')); }"


class SearchPage:
    """Lays the page out in the Blocks context it is built in."""

    def __init__(self, services: Services) -> None:
        self.services = services
        with gr.Row(elem_classes="up-search", elem_id="up-search"):
            self.caption = gr.Textbox(
                label="Describe a person",
                placeholder="A woman in a red coat with a black backpack, walking …",
                lines=1,
                max_lines=6,
                submit_btn=False,
                container=True,
                scale=1,
                elem_id="up-caption",
            )
            go = gr.Button("Search", variant="primary", scale=0, min_width=104, elem_id="up-go")
            clear = gr.Button("Clear", scale=0, min_width=80, elem_id="up-clear")
        with gr.Row(elem_classes="up-examples"):
            chips = [gr.Button(text, size="sm", scale=0, elem_classes="up-chip") for text in EXAMPLES]
        self.grid = result_grid(start(services, None), services=services, actions=actions(services))
        again = self.grid.again  # Gradio makes the events of a script from its text

        for trigger in (go.click, self.caption.submit):
            self._search(trigger(None, js=_SEARCHING, queue=False, api_visibility="private").then)
        for chip, text in zip(chips, EXAMPLES, strict=True):
            put = f"() => {{ document.dispatchEvent(new Event('up:searching')); return {json.dumps(text)}; }}"
            self._search(chip.click(None, None, self.caption, js=put, queue=False, api_visibility="private").then)
        back = again(_caption_of, None, self.caption, queue=False, show_progress="hidden", api_visibility="private")
        self._search(back.then)
        clear.click(
            self._clear,
            None,
            [self.caption, self.grid],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        ).then(None, js="() => document.querySelector('#up-caption textarea').focus()", api_visibility="private")

    def _search(self, listen: gr.events.Dependency) -> None:
        listen(
            self.search,
            self.caption,
            self.grid,
            show_progress="hidden",
            concurrency_limit=4,
            api_visibility="private",
        ).then(None, js=_SEARCHED, queue=False, api_visibility="private")

    def opened(self, request: gr.Request) -> tuple[Any, JSON]:
        """The caption box and the board for an address: `?q=…` repeats a search. Else the box keeps what was typed."""
        user = self.services.identity.user_of(request)
        caption = str(dict(request.query_params).get("q") or "")
        if caption.strip():
            return caption, answer(self.services, caption, user)
        return gr.skip(), start(self.services, user)

    def search(self, caption: str, request: gr.Request) -> JSON:
        """A board with the results; a known error is told in a toast, and stays on the board."""
        found = answer(self.services, caption, self.services.identity.user_of(request))
        if found["state"] == "error":
            gr.Warning(html.escape(found["message"]), duration=6)
        return found

    def _clear(self, request: gr.Request) -> tuple[str, JSON]:
        return "", start(self.services, self.services.identity.user_of(request)) | {"cleared": True}


def _caption_of(event: gr.EventData) -> str:
    return str(event.caption)


def start(services: Services, user: str | None) -> JSON:
    """The board before any search."""
    return {"state": "start", "tally": tally(services, user) if user else None}


def answer(services: Services, caption: str, user: str) -> JSON:
    """The board for a caption: results, or why there are none."""
    try:
        if not caption.strip():
            raise RequestError(f"there is nothing to search for yet: describe a person, for example “{EXAMPLES[0]}”")
        return board(services, services.search(SearchRequest(text=caption, k=PAGE), user), user)
    except known_errors() as error:
        return {"state": "error", "message": sentence(str(error)), "tally": tally(services, user)}


def board(services: Services, result: SearchResult, user: str) -> JSON:
    """The board for a search's answer."""
    best = result.candidates[0].score if result.candidates else 0.0
    return {
        "state": "results",
        "query_id": result.query_id,
        "version": result.version,
        "caption": result.caption,
        "message": result.warning,
        "total": result.total,
        "page": PAGE,
        "weak_below": best - WEAK_GAP,
        "weak_gap": WEAK_GAP,
        "candidates": cards(result.candidates),
        "tally": tally(services, user),
    }


def cards(candidates: Sequence[CandidateView]) -> list[JSON]:
    """Candidates as the grid's script takes them."""
    return [
        {
            "image_id": candidate.image_id,
            "rank": candidate.rank,
            "score": candidate.score,
            "pid": candidate.pid,
            "camera": candidate.camera,
            "captured_at": iso(candidate.captured_at),
            "verdict": candidate.verdict,
        }
        for candidate in candidates
    ]


def actions(services: Services) -> dict[str, Action]:
    """What the grid can ask of the server."""

    def after(user: str) -> JSON:
        return {"tally": tally(services, user), "serving": services.retriever.serving.version}

    def mark(payload: JSON, user: str) -> JSON:
        verdict = payload.get("verdict")
        if verdict is not None and verdict not in VERDICTS:
            raise RequestError(f"a verdict is one of {', '.join(VERDICTS)}, or nothing, not {verdict!r:.60}")
        services.mark(user, text_of(payload, "query_id"), text_of(payload, "image_id"), verdict)
        return after(user)

    def mark_rest(payload: JSON, user: str) -> JSON:
        images = payload.get("image_ids")
        if not isinstance(images, list):
            raise RequestError("image_ids must be a list of the pictures to mark")
        services.mark_rest(user, text_of(payload, "query_id"), images, "miss")
        return after(user)

    def undo(payload: JSON, user: str) -> JSON:
        query = None if payload.get("query_id") is None else text_of(payload, "query_id")
        if query:
            services.verdicts(query, user)  # refuses what cannot be answered before anything is undone
        undone = services.undo(user)
        return {"undone": len(undone), "verdicts": services.verdicts(query, user) if query else {}} | after(user)

    def more(payload: JSON, user: str) -> JSON:
        return {"candidates": cards(services.more(text_of(payload, "query_id"), user, PAGE))}

    return {"mark": mark, "mark_rest": mark_rest, "undo": undo, "more": more}
