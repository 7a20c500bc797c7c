"""The grid of ranked pictures with its verdict buttons, keys, dialogs and the bar of actions."""

from __future__ import annotations

from collections.abc import Mapping

from app.components.island import JSON, Action, Island
from app.identity import Identity

_TEMPLATE = """
<section class="up-results" aria-label="Results">
  <div class="up-results-head" data-part="head"></div>
  <div data-part="line" role="status" hidden></div>
  <div class="up-cards" data-part="list"></div>
  <div class="up-results-foot" data-part="foot"></div>
  <div class="up-bar" data-part="bar" hidden>
    <div class="up-tally" data-part="tally"></div>
    <div class="up-actions" role="toolbar" aria-label="Actions">
      <button type="button" class="up-button" data-part="undo" title="Undo my last action (Backspace)"><span>Undo</span></button>
      <button type="button" class="up-button" data-part="skip" title="Go to the next unmarked result (Space)"><span>Skip</span></button>
      <button type="button" class="up-button" data-part="rest" title="Every result shown and not marked becomes a miss"><span>Mark the rest as misses</span></button>
      <button type="button" class="up-button" data-part="help" title="Keys (?)"><span>Keys</span></button>
    </div>
  </div>
  <div class="up-hidden" data-part="live" aria-live="polite"></div>
</section>
"""


class ResultGrid(Island):
    """Draws a board: `{"state": "start" | "results" | "error", "candidates": […], "tally": {…}, …}`.

    Actions: `mark`, `mark_rest`, `undo` and `more`. The event `again` asks for a search, with its `caption`.
    """

    def __init__(self, value: JSON, *, identity: Identity, actions: Mapping[str, Action]) -> None:
        super().__init__(
            value,
            template=_TEMPLATE,
            script="result_grid.js",
            identity=identity,
            actions=actions,
            elem_id="up-results",
        )
