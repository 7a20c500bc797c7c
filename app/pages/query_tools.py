"""The rail beside the results: a picture, "without …", filters, adding pictures. On narrow pages it is a drawer."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from app.pages.component import JSON, Action, island
from app.services import Services

_TEMPLATE = """
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

    Actions: `add` and `adding`.
    """
    return island(
        value,
        template=_TEMPLATE,
        script=("query_tools.js", "adding.js"),
        elem_id="up-tools",
        services=services,
        actions=actions,
    )
