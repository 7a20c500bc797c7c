"""The search page: describe a person, see who fits, mark hits and misses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import gradio as gr

from app.app_errors import RequestError, known_errors, without_paths
from app.pages.adding_dialog import adding_actions
from app.pages.component import JSON, Action, sentence, text_of
from app.pages.page_data import facets, iso, tally
from app.pages.query_state import NAMES, asked_of, from_address, is_empty, nothing, request_of, to_address
from app.pages.query_tools import query_tools
from app.pages.result_grid import result_grid
from app.search.views import VERDICTS, CandidateView, SearchResult
from app.services import Services
from store import ImageRow

PAGE = 24
"""Results shown at once."""
MOST_SHOWN = 300
"""Characters of one metadata value in the inspect view."""
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
_COLLECT = """(caption) => {
  const asked = {};
  document.dispatchEvent(new CustomEvent('up:collect', { detail: asked }));
  return [caption, asked];
}"""


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
        self.tools = query_tools(tools(services, None), services=services, actions=adding_actions(services))
        self.grid = result_grid(start(services, None), services=services, actions=actions(services))
        again = self.grid.again  # Gradio makes the events of a script from its text

        for trigger in (go.click, self.caption.submit):
            self._search(trigger(None, js=_SEARCHING, queue=False, api_visibility="private").then)
        for chip, text in zip(chips, EXAMPLES, strict=True):
            put = f"() => {{ document.dispatchEvent(new Event('up:searching')); return {json.dumps(text)}; }}"
            self._search(chip.click(None, None, self.caption, js=put, queue=False, api_visibility="private").then)
        again(
            self.repeat,
            None,
            [self.caption, self.tools, self.grid],
            show_progress="hidden",
            concurrency_limit=4,
            api_visibility="private",
        ).then(None, js=_SEARCHED, queue=False, api_visibility="private")
        clear.click(
            self._clear,
            None,
            [self.caption, self.tools, self.grid],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        ).then(None, js="() => document.querySelector('#up-caption textarea').focus()", api_visibility="private")

    def _search(self, listen: gr.events.Dependency) -> None:
        listen(
            self.search,
            [self.caption, self.tools],
            self.grid,
            js=_COLLECT,
            show_progress="hidden",
            concurrency_limit=4,
            api_visibility="private",
        ).then(None, js=_SEARCHED, queue=False, api_visibility="private")

    def opened(self, request: gr.Request) -> tuple[Any, JSON, JSON]:
        """The caption box, the tools and the board for an address, which repeats a search. Without one the box keeps
        what was typed."""
        user = self.services.identity.user_of(request)
        asked = from_address(request.query_params.multi_items())
        if is_empty(asked):
            return gr.skip(), tools(self.services, user, asked) | {"opening": True}, start(self.services, user)
        return asked["text"], tools(self.services, user, asked), answer(self.services, asked, user)

    def search(self, caption: str, asked: Any, request: gr.Request) -> JSON:
        """A board with the results, or why there are none; `asked` is what the tools have collected."""
        return answer(self.services, asked_of(asked) | {"text": caption}, self.services.identity.user_of(request))

    def repeat(self, event: gr.EventData, request: gr.Request) -> tuple[str, JSON, JSON]:
        """The page for a search that the grid asks for: an address of the browser's history, or what `asked` holds."""
        user, address = self.services.identity.user_of(request), event.address
        pairs = parse_qsl(address.removeprefix("?")) if isinstance(address, str) else []
        asked = asked_of(event.asked) if event.asked else from_address(pairs)
        if is_empty(asked):
            return self._clear(request)
        text = asked["text"] if isinstance(asked["text"], str) else ""
        return text, tools(self.services, user, asked), answer(self.services, asked, user)

    def _clear(self, request: gr.Request) -> tuple[str, JSON, JSON]:
        user = self.services.identity.user_of(request)
        board = start(self.services, user) | {"cleared": True, "names": NAMES, "address": []}
        return "", tools(self.services, user), board


def tools(services: Services, user: str | None, asked: JSON | None = None) -> JSON:
    """What the tools draw. `at` differs each time, for the script is told of new values only."""
    return {
        "asked": asked or nothing(),
        "facets": facets(services),
        "may_add": user is not None and services.is_admin(user),
        "at": uuid4().hex,
    }


def start(services: Services, user: str | None) -> JSON:
    """The board before any search."""
    return {"state": "start", "tally": tally(services, user) if user else None}


def answer(services: Services, asked: JSON, user: str) -> JSON:
    """The board for what is asked: results, or why there are none."""
    try:
        if is_empty(asked):
            raise RequestError(f"there is nothing to search for yet: describe a person, for example “{EXAMPLES[0]}”")
        result = services.search(request_of(asked, services.settings.tmp_dir, PAGE), user)
        return board(services, result, user, asked)
    except known_errors() as error:
        return {"state": "error", "message": sentence(str(error)), "tally": tally(services, user)}


def board(services: Services, result: SearchResult, user: str, asked: JSON) -> JSON:
    """The board for a search's answer."""
    asked = asked | {"text": result.caption}
    by_picture = bool(asked["like"] or asked["picture"])
    best = result.candidates[0].score if result.candidates else 0.0
    filters = [name for name, _ in to_address(asked) if name not in ("q", "without", "like", "weight")]
    return {
        "state": "results",
        "query_id": result.query_id,
        "version": result.version,
        "caption": result.caption,
        "asked": asked,
        "address": to_address(asked),
        "names": NAMES,
        "filtered": len(set(filters)),
        "understood": result.understood,
        "learns": not (by_picture or asked["without"]),
        "message": result.warning,
        "total": result.total,
        "page": PAGE,
        "weak_below": -1.0 if by_picture else best - WEAK_GAP,  # a picture finds itself, with a score of 1
        "weak_gap": WEAK_GAP,
        "candidates": cards(result.candidates),
        "duplicates": services.duplicates(result.query_id, user),
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
        query = text_of(payload, "query_id")
        found = cards(services.more(query, user, PAGE))
        return {"candidates": found, "duplicates": services.duplicates(query, user)}

    def rerank(payload: JSON, user: str) -> JSON:
        query = text_of(payload, "query_id")
        found = cards(services.rerank(query, user, PAGE, aligned=payload.get("aligned") is True))
        return {"candidates": found, "duplicates": services.duplicates(query, user)}

    def about(payload: JSON, _: str) -> JSON:
        return described(services.about(text_of(payload, "image_id")))

    return {"mark": mark, "mark_rest": mark_rest, "undo": undo, "more": more, "rerank": rerank, "about": about}


def described(image: ImageRow) -> JSON:
    """What is known of a picture as the inspect view shows it; of where it came from, the file's name only."""
    return {
        "source": image.source,
        "width": image.width,
        "height": image.height,
        "file": without_paths(image.uri).rpartition("/")[2],
        "metadata": [[key, _plain(value)] for key, value in image.metadata.items()],
    }


def _plain(value: Any) -> str:
    """A value of metadata in one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"
