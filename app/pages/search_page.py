"""The search page: describe a person, see who fits, mark hits and misses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import gradio as gr

from app.app_errors import RequestError, known_errors, without_paths
from app.pages.adding_dialog import adding_actions, sample_hidden
from app.pages.component import JSON, Action, sentence, text_of
from app.pages.page_data import facets, tally
from app.pages.query_state import (
    NAMES,
    asked_of,
    chosen_filters,
    from_address,
    is_empty,
    nothing,
    request_of,
    to_address,
)
from app.pages.search_islands import query_tools, result_grid
from app.pages.undoing import Once, undo_of
from app.search import serialise
from app.search.serialise import iso
from app.search.views import CandidateView, SearchResult
from app.services import Services
from store import ImageRow
from store.records import check_verdict

PAGE = 24
"""Results shown at once."""
MOST_FORGOTTEN = 1_000
"""Pictures forgotten at once."""
MOST_SHOWN = 300
"""Characters of one metadata value in the inspect view."""
EXAMPLES = (
    "A woman in a red coat with a brown handbag",
    "An elderly man with a hat and a suitcase",
    "A man in a blue striped t-shirt and shorts",
    "A child with a yellow backpack",
)

_TAGLINE = "Describe a person, see who fits, mark hits and misses: the model learns from them."
_DEMO = """<p class="up-model"><b>Demo model.</b> <code>mini</code> knows drawn people only, for trying things out.
Searching real photographs wants <code>--backbone ViT-B-16</code>.</p>"""
_DESCRIBE = "Describe a person first, or choose a picture to search by."

_SEARCHING = "() => { document.dispatchEvent(new Event('up:searching')); }"
_SEARCHED = "() => { document.dispatchEvent(new Event('up:searched')); }"
_COLLECT = """(caption) => {
  const asked = {};
  document.dispatchEvent(new CustomEvent('up:collect', { detail: asked }));
  return [caption, asked];
}"""


class SearchPage:
    """Lays the page out in the Blocks context it is built in."""

    def __init__(self, services: Services, *, notes: str = "") -> None:
        """`notes` is markup of ours: what a visitor should know before marking."""
        self.services = services
        with gr.Column(elem_id="up-page"):
            self._lay_out(services, notes)

    def _lay_out(self, services: Services, notes: str) -> None:
        gr.HTML(html_template=_intro(services, notes), apply_default_css=False, elem_id="up-intro")
        with gr.Row(elem_classes="up-search", elem_id="up-search"):
            self.caption = gr.Textbox(
                label="Describe a person",
                show_label=False,
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
        with gr.Row(elem_classes="up-examples", elem_id="up-examples"):
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

    def opened(self, request: gr.Request, *, searches: bool = True) -> tuple[Any, JSON, JSON]:
        """The caption box, the tools and the board for an address, which repeats a search. Without one the box keeps
        what was typed. Not `searches`: the description in the address is another page's."""
        user = self.services.identity.user_of(request)
        asked = from_address(request.query_params.multi_items()) if searches else nothing()
        if is_empty(asked):
            board = start(self.services, user, asked)
            return gr.skip(), tools(self.services, user, asked) | {"opening": True}, board
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
            board = start(self.services, user, asked) | {"cleared": True}
            return "", tools(self.services, user, asked), board
        text = asked["text"] if isinstance(asked["text"], str) else ""
        return text, tools(self.services, user, asked), answer(self.services, asked, user)

    def _clear(self, request: gr.Request) -> tuple[str, JSON, JSON]:
        user = self.services.identity.user_of(request)
        return "", tools(self.services, user), start(self.services, user) | {"cleared": True}


def tools(services: Services, user: str | None, asked: JSON | None = None) -> JSON:
    """What the tools draw. `at` differs each time, because Gradio passes only changed values to the script."""
    return {
        "asked": asked or nothing(),
        "facets": facets(services),
        "may_add": user is not None and services.is_admin(user),
        "sample_hidden": sample_hidden(services),
        "at": uuid4().hex,
    }


def _intro(services: Services, notes: str) -> str:
    """What the page is for, as markup of ours; it goes once something is searched for."""
    demo = _DEMO if services.retriever.backbone.name == "mini" else ""
    said = f'<p class="up-model" id="up-sign-in">{notes}</p>' if notes else ""
    return f'<div class="up-intro"><p class="up-tagline">{_TAGLINE}</p>{demo}{said}</div>'


def start(services: Services, user: str | None, asked: JSON | None = None) -> JSON:
    """The board before any search: pictures of the gallery, those that pass the filters of `asked`."""
    asked = asked or nothing()
    if user is None:  # the page as it is built, before anybody opens it
        return {"state": "start", "tally": None}
    board: JSON = {"state": "start", "tally": tally(services, user), "names": NAMES, "address": to_address(asked)}
    board["may_forget"] = services.is_admin(user)
    try:
        return board | browsed(services, asked["filters"])
    except known_errors() as error:
        return board | {"state": "error", "message": sentence(str(error))}


def browsed(services: Services, filters: Any, offset: int = 0) -> JSON:
    """One page of the gallery's pictures that pass the filters, as the grid's script takes them."""
    total, rows = services.browse(chosen_filters(filters), offset=offset, k=PAGE)
    return {"total": total, "page": PAGE, "filters": filters, "candidates": [
        {"image_id": row.id, "aspect": row.width / row.height, "rank": offset + number, "score": None, "pid": row.pid,
         "camera": row.camera, "captured_at": iso(row.captured_at), "verdict": None}
        for number, row in enumerate(rows, 1)
    ]}  # fmt: skip


def answer(services: Services, asked: JSON, user: str) -> JSON:
    """The board for what is asked: results, why there are none, or, where nothing is asked, what to do first."""
    if is_empty(asked):  # `at`: Gradio passes only changed values to the script
        return {"state": "empty", "message": _DESCRIBE, "tally": tally(services, user), "at": uuid4().hex}
    try:
        result = services.search(request_of(asked, services.settings.tmp_dir, PAGE), user)
        return board(services, result, user, asked)
    except known_errors() as error:
        return {"state": "error", "message": sentence(str(error)), "tally": tally(services, user)}


def board(services: Services, result: SearchResult, user: str, asked: JSON) -> JSON:
    """The board for a search's answer."""
    asked = asked | {"text": result.caption}
    by_picture = bool(asked["like"] or asked["picture"])
    best = result.candidates[0].score if result.candidates else 0.0
    gap = services.cutoffs.known(result.version).gap
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
        "may_forget": services.is_admin(user),
        "message": result.warning,
        "total": result.total,
        "page": PAGE,
        "weak_below": -1.0 if by_picture else best - gap,  # a picture finds itself, with a score of 1
        "weak_gap": gap,
        "candidates": cards(services, result.candidates),
        "duplicates": services.duplicates(result.query_id, user),
        "tally": tally(services, user),
    }


def cards(services: Services, candidates: Sequence[CandidateView]) -> list[JSON]:
    """Candidates as the grid's script takes them."""
    aspects = services.aspects([candidate.image_id for candidate in candidates])
    return [
        serialise.candidate(candidate) | {"aspect": aspects.get(candidate.image_id, 1 / 3)} for candidate in candidates
    ]


def actions(services: Services) -> dict[str, Action]:
    """What the grid can ask of the server."""

    def after(user: str) -> JSON:
        return {"tally": tally(services, user), "serving": services.retriever.serving.version}

    def mark(payload: JSON, user: str) -> JSON:
        query, images = text_of(payload, "query_id"), payload.get("image_ids")
        if not isinstance(images, list) or not images:
            raise RequestError("image_ids must be a list of the pictures to mark")
        verdict = payload.get("verdict")
        if verdict is None:
            services.take_back(user, query, images)
        else:
            services.mark_rest(user, query, images, check_verdict(verdict))
        return after(user)

    def browse(payload: JSON, user: str) -> JSON:
        services.searching.count(user)
        filters = payload.get("filters")
        found = browsed(services, filters, payload.get("offset", 0))
        return found | {"names": NAMES, "address": to_address(nothing() | {"filters": filters})}

    def more(payload: JSON, user: str) -> JSON:
        query = text_of(payload, "query_id")
        found = cards(services, services.more(query, user, _count(payload)))
        return {"candidates": found, "duplicates": services.duplicates(query, user)}

    def rerank(payload: JSON, user: str) -> JSON:
        query = text_of(payload, "query_id")
        found = cards(services, services.rerank(query, user, PAGE, aligned=payload.get("aligned") is True))
        return {"candidates": found, "duplicates": services.duplicates(query, user)}

    def about(payload: JSON, _: str) -> JSON:
        return described(services.about(text_of(payload, "image_id")))

    def explain(payload: JSON, user: str) -> JSON:
        found = services.explaining.explain(text_of(payload, "query_id"), text_of(payload, "image_id"), user)
        return asdict(found)

    def forget(payload: JSON, user: str) -> JSON:
        images = payload.get("image_ids")
        if not isinstance(images, list) or not 1 <= len(images) <= MOST_FORGOTTEN:
            raise RequestError(f"image_ids must be a list of 1 to {MOST_FORGOTTEN:,} pictures to forget")
        found = services.forget(images, user)
        return after(user) | {"pictures": found.pictures, "marks": found.marks, "facets": facets(services)}

    once = Once()
    return {
        "forget": once.each(forget),
        "mark": once.each(mark),
        "undo": once.each(undo_of(services)),
        "more": more,
        "browse": browse,
        "rerank": rerank,
        "about": about,
        "explain": explain,
    }


def _count(payload: JSON) -> int:
    count = payload.get("count", PAGE)
    if not isinstance(count, int):
        raise RequestError(f"count must be a whole number, not {count!r:.60}")
    return count


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
