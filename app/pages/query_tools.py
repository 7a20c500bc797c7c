"""The row below the description: a picture, "without …", filters, adding pictures; each shows its panel when asked."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from app.pages.component import JSON, Action, island
from app.services import Services

_TEMPLATE = """
<section class="up-tools" aria-label="More to ask">
  <div class="up-tool-row" data-part="row"></div>
  <div data-part="line" role="status" hidden></div>
  <div class="up-panel" data-part="picture" hidden></div>
  <div class="up-panel" data-part="without" hidden></div>
  <div class="up-panel up-filters-panel" data-part="filters" hidden></div>
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
