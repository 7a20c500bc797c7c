"""A part of the page that draws itself: a static template, a script and named actions on the server.

Gradio evaluates `${…}` and `{{…}}` of a template, also where they stand in the data. Templates here are therefore
constants without either, and the scripts build nodes with `textContent` from `props.value`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import gradio as gr

from app.app_errors import RequestError, known_errors, without_paths
from app.services import Services
from app.web.identity import Identity, signed_in

STATIC = Path(__file__).resolve().parent.parent / "static"

JSON = dict[str, Any]
Action = Callable[[JSON, str], JSON]
"""Takes what the page sent and the user, and returns the answer for the page. Raises a known error to refuse."""


def static(name: str) -> str:
    """The text of a file in app/static."""
    return (STATIC / name).read_text(encoding="utf-8")


def island(
    value: JSON,
    *,
    template: str,
    script: str | Sequence[str],
    elem_id: str,
    services: Services,
    actions: Mapping[str, Action],
) -> gr.HTML:
    """A component whose `value`, a JSON object, is drawn by `script`, which may ask for `actions`.

    `script` names a file, or several that are one script in this order.

    A function and no class: Gradio writes a .pyi beside the source of every class derived from its components.
    """
    assert "${" not in template, "a template is markup only"
    assert "{{" not in template, "a template is markup only"
    return gr.HTML(
        value,
        html_template=template,
        js_on_load="".join(static(name) for name in ("common.js", *([script] if isinstance(script, str) else script))),
        apply_default_css=False,
        server_functions=[_server_function(name, action, services.identity) for name, action in actions.items()],
        elem_id=elem_id,
        elem_classes=["up-island"],
    )


def _server_function(name: str, action: Action, identity: Identity) -> Callable[..., Any]:
    """`action` as a function that the script calls, past the queue. A refusal becomes `{"ok": False, "message": …}`."""

    async def call(payload: Any, request: gr.Request) -> JSON:
        body = await request.json()  # a raw request: it has been read already, and names the session
        session = gr.Request(request, username=signed_in(request), session_hash=body.get("session_hash"))

        def work() -> JSON:
            if not isinstance(payload, dict):
                raise RequestError(f"{name} takes an object, not {type(payload).__name__}")
            return action(payload, identity.user_of(session))

        try:
            return {"ok": True, **await anyio.to_thread.run_sync(work)}
        except known_errors() as error:
            return {"ok": False, "message": sentence(str(error))}

    call.__name__ = name
    return call


def sentence(text: str) -> str:
    """A message as people read it: a capital first, no path of the server."""
    return without_paths(text[:1].upper() + text[1:])


def text_of(payload: JSON, name: str) -> str:
    """A text that the page must have sent. Raises RequestError."""
    value = payload.get(name)
    if not isinstance(value, str) or not value:
        raise RequestError(f"{name} must be a text, not {value!r:.60}")
    return value
