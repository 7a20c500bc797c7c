"""What a client may wrap a call of Gradio in: wrong ids and too few arguments get a sentence, not a fault of Gradio."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)

Fault = tuple[int, str]
_LONGEST = 128
_LONGEST_PATH, _LONGEST_NAME = 4_000, 255  # what file systems take, in characters and in bytes
_QUEUE = "/gradio_api/queue/data"
_CALL = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/([^/]+)")


def fault_of(path: str, body: Any, app: Any) -> Fault | None:
    """Why a parsed JSON body is not taken by this path of Gradio's app: a status and a sentence; None if it is."""
    if not isinstance(body, dict):
        return 400, f"expected a JSON object, got {_kind(body)}"
    session = body.get("session_hash")
    if session is not None and not (isinstance(session, str) and 0 < len(session) <= _LONGEST):
        return 400, f"session_hash is a text of 1 to {_LONGEST} characters, or left out; {_kind(session)} came"
    if _names_no_file(body):
        return 400, "the path of a file is one that an upload returned: upload the file and send what came back"
    if path.endswith(("/cancel", "/reset")):
        return _event_fault(path, body)
    endpoint, _, name = path.removeprefix("/gradio_api/").rpartition("/")
    if path.endswith("/component_server"):
        return _component_fault(body, app.get_blocks())
    if endpoint in ("call", "run", "api", "call/v2"):
        return _call_fault(endpoint, name, body, app.get_blocks())
    if path.endswith("/queue/join"):
        return _indexed_fault(body, app.get_blocks(), needs_session=True)
    return None


def stream_fault(path: str, query: Mapping[str, str], app: Any) -> Fault | None:
    """Why a GET gets no stream of answers: its session or event is not known here, as after a restart.

    Gradio begins to answer such a request, and then raises in the middle of the answer.
    """
    call = _CALL.fullmatch(path)
    asked = call[1] if call else query.get("session_hash") if path == _QUEUE else None
    if asked is None:
        return None
    queue = app.get_blocks()._queue
    known = asked in queue.pending_messages_per_session
    if call and not known:
        events = (queue.event_ids_to_events, *queue.pending_event_ids_session.values())
        known = any(asked in some for some in events)
    if known:
        return None
    what = "event" if call else "session"
    log.warning("answers were asked for of an unknown %s: %.40r", what, asked)
    return 404, f"no {what} of this name is waiting for an answer: send the request again"


def _names_no_file(body: dict[str, Any]) -> bool:
    """Whether any file value has a path that no file system takes: Gradio looks it up before our code sees it."""
    waiting: list[Any] = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            file = value.get("path")
            if isinstance(file, str) and "meta" in value:
                parts = file.encode("utf-8", "surrogatepass").replace(b"\\", b"/").split(b"/")
                if "\0" in file or len(file) > _LONGEST_PATH or max(map(len, parts)) > _LONGEST_NAME:
                    return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


def _component_fault(body: dict[str, Any], blocks: Any) -> Fault | None:
    component, function = body.get("component_id"), body.get("fn_name")
    if "data" not in body or not isinstance(body.get("session_hash"), str):
        return 400, "expected session_hash, component_id, fn_name and data"
    if isinstance(component, bool) or not isinstance(component, int) or component not in blocks.blocks:
        return 404, "the page has no part of this component_id: reload it"
    if not isinstance(function, str) or not function.isidentifier():
        return 404, "the page has no action of this fn_name: reload it"
    return None


def _event_fault(path: str, body: dict[str, Any]) -> Fault | None:
    wanted = {"event_id": str} | ({"session_hash": str, "fn_index": int} if path.endswith("/cancel") else {})
    if not all(type(body.get(name)) is kind for name, kind in wanted.items()):
        return 400, f"expected {' and '.join(wanted)}"
    return None


def _call_fault(endpoint: str, name: str, body: dict[str, Any], blocks: Any) -> Fault | None:
    if endpoint in ("run", "api") and body.get("fn_index") is not None:
        return _indexed_fault(body, blocks, needs_session=False)
    named = [fn for fn in blocks.fns.values() if fn.api_name == name and fn.api_visibility == "public"]
    if not named:
        return 404, "the API has no endpoint of this name: client.view_api() lists them"
    return _named_arguments_fault(body, named[0]) if endpoint == "call/v2" else _arguments_fault(body, named[0])


def _named_arguments_fault(body: dict[str, Any], fn: Any) -> Fault | None:
    known = {name: one for name, one in inspect.signature(fn.fn).parameters.items() if name != "request"}
    missing = [name for name, one in known.items() if one.default is inspect.Parameter.empty and name not in body]
    odd = [name for name in body if name not in known]
    if missing or odd:
        said = f"{', '.join(missing)} is missing" if missing else f"{odd[0][:40]!r} is not known"
        return 400, f"{said}: the arguments are {', '.join(known) or 'none'}"
    return None


def _indexed_fault(body: dict[str, Any], blocks: Any, *, needs_session: bool) -> Fault | None:
    index = body.get("fn_index")
    if isinstance(index, bool) or not isinstance(index, int) or index not in blocks.fns:
        return 404, "the page has no event of this fn_index: reload it"
    if needs_session and body.get("session_hash") is None:
        return 400, "expected a session_hash"
    return _arguments_fault(body, blocks.fns[index])


def _arguments_fault(body: dict[str, Any], fn: Any) -> Fault | None:
    data = body.get("data")
    if not isinstance(data, list):
        return 400, f"data is a list of arguments; {_kind(data)} came"
    needed = sum(not block.skip_api for block in fn.inputs)
    if len(data) < needed:
        return 400, (
            f"{needed} arguments are expected, {len(data)} came: client.view_api() lists them with their defaults"
        )
    return None


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"
