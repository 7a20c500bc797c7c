"""The two parts of the search page that draw themselves: the rail of tools, and the grid of ranked pictures."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from app.pages.component import JSON, Action, island
from app.services import Services

SCRIPTS = (
    "queue.js", "shortcuts.js", "result_grid.js", "wall.js", "cards.js", "marking.js", "selection.js", "duplicates.js",
    "board.js", "swipe.js", "inspect.js", "explain.js", "key_dialog.js", "keys.js",
)  # fmt: skip
"""One script in this order: each part uses what stands above it."""

_GRID = """
<section class="up-results" aria-label="Results">
  <div class="up-bar" data-part="bar" hidden>
    <div class="up-results-head" data-part="head"></div>
    <div class="up-picked-bar" data-part="picked" role="group" aria-label="Selected pictures" hidden></div>
    <div class="up-tally" data-part="tally"></div>
    <div class="up-actions" data-part="actions" role="group" aria-label="Actions"></div>
  </div>
  <div data-part="line" role="status" hidden></div>
  <div class="up-welcome" data-part="welcome"></div>
  <div class="up-cards" data-part="list"></div>
  <div class="up-results-foot" data-part="foot"></div>
  <div class="up-toast" data-part="toast" role="status" hidden></div>
  <div class="up-hidden" data-part="live" aria-live="polite"></div>
</section>
"""


def result_grid(value: JSON, *, services: Services, actions: Mapping[str, Action]) -> gr.HTML:
    """Draws a board: `{"state": "start" | "results" | "empty" | "error", "candidates": […], "tally": {…}, …}`.

    "empty" says that nothing was asked: its message is shown, and what the grid shows stays.
    Actions: `mark`, `undo`, `more`, `browse`, `rerank`, `about`, `explain` and `forget`. Its event `again` asks for a
    search: `asked` says which, or `address` does, the query of an address.
    """
    return island(
        value,
        template=_GRID,
        script=SCRIPTS,
        elem_id="up-results",
        services=services,
        actions=actions,
    )


_TOOLS = """
<section class="up-tools" aria-label="More to ask">
  <div class="up-tool-row" data-part="row"></div>
  <div class="up-rail" data-part="rail">
    <div data-part="line" role="status" hidden></div>
    <section class="up-panel" data-part="picture" aria-label="Picture"></section>
    <section class="up-panel" data-part="without" aria-label="Without"></section>
    <section class="up-panel up-filters-panel" data-part="filters" aria-label="Filters"></section>
    <div class="up-rail-foot" data-part="foot"></div>
  </div>
</section>
"""


def query_tools(value: JSON, *, services: Services, actions: Mapping[str, Action]) -> gr.HTML:
    """Draws `{"asked", "facets", "may_add", "at"}`; what is asked is collected by the event `up:collect`.

    The rail has a picture, "without …", filters and adding pictures. On narrow pages it is a drawer.
    Actions: `add`, `adding` and `sample`.
    """
    return island(
        value,
        template=_TOOLS,
        script=("query_tools.js", "saved.js", "adding.js"),
        elem_id="up-tools",
        services=services,
        actions=actions,
    )
