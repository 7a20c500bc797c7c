"""Every endpoint of a running app takes anything: a sentence or a 4xx comes out, and the process lives.

FUZZ_EXAMPLES sets how many examples each endpoint gets (default: 60, for a few minutes in all; 2,000 at night).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import RunningApp

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
MOST_MEMORY = 2.5e9
ARGUMENTS = {
    "search": 7, "similar": 3, "more": 2, "rerank": 3, "mark": 3, "suggest": 1, "undo": 0, "image": 1,
    "marks_stats": 0, "cancel": 0, "jobs": 0, "versions": 0, "promote": 1, "rollback": 0, "export": 1, "forget": 1,
}  # fmt: skip
"""Endpoints and their numbers of arguments; `train` only starts what takes minutes."""

few = partial(
    settings,
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
TEXTS = st.text(max_size=40) | st.sampled_from(
    ["", "a man", "\0", "\ud800", "=1+1", "../../app.db", "<img src=x>", "' OR 1=1 --", "a" * 1001, "0" * 64, "f" * 32,
     "0001-01-01T00:00:00+23:59", "9999-12-31", "parquet", "mini-v0", "hit", "constructor", "__proto__"]
)  # fmt: skip
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, -1, 24, 201, 2**31, 2**64, 10**30, 0.5])
PLAIN = st.none() | st.booleans() | NUMBERS | TEXTS
FILTERS = st.dictionaries(
    st.sampled_from(["camera", "source", "pid", "captured_from", "captured_to", "metadata", "x"]),
    TEXTS | st.lists(TEXTS, max_size=250) | st.dictionaries(TEXTS, st.lists(TEXTS, max_size=120), max_size=5) | PLAIN,
    max_size=5,
)
FILES = st.fixed_dictionaries({"path": TEXTS}, optional={"url": TEXTS, "meta": st.just({"_type": "gradio.FileData"})})
VALUES = st.recursive(
    PLAIN | FILTERS | FILES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def http(app: RunningApp) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=app.url, timeout=60) as client:
        yield client


def sent(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()


def post(http: httpx.Client, path: str, body: bytes) -> httpx.Response:
    return http.post(path, content=body, headers={"content-type": "application/json"})


def check_alive(app: RunningApp, http: httpx.Client) -> None:
    assert app.process.poll() is None, app.log()[-3000:]
    assert psutil.Process(app.process.pid).memory_info().rss < MOST_MEMORY
    answer = post(http, "gradio_api/call/search", sent({"data": ["a man", None, "", 3, {}, 0.5, 0.5]}))
    events = http.get(f"gradio_api/call/search/{answer.json()['event_id']}").text
    assert "event: complete" in events


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_endpoint_takes_anything(app: RunningApp, http: httpx.Client, name: str) -> None:
    @few()
    @given(st.lists(VALUES, min_size=ARGUMENTS[name], max_size=ARGUMENTS[name] + 1))
    def ask(arguments: list[Any]) -> None:
        queued = post(http, f"gradio_api/call/{name}", sent({"data": arguments, "session_hash": "fuzz"}))
        assert queued.status_code == 200 or 400 <= queued.status_code < 500, queued.text
        if queued.status_code != 200:
            return
        events = http.get(f"gradio_api/call/{name}/{queued.json()['event_id']}").text
        if "event: error" in events:
            said = json.loads(events.rsplit("\ndata: ", 1)[1])
            error = said.get("error") if isinstance(said, dict) else said
            assert isinstance(error, str), (arguments, events)
            assert len(error) > 15, (arguments, events)
            assert str(app.data_dir) not in events

    ask()
    check_alive(app, http)


@pytest.mark.parametrize(
    "path",
    ["gradio_api/queue/join", "gradio_api/component_server/", "gradio_api/run/predict", "gradio_api/cancel",
     "gradio_api/reset", "gradio_api/call/search", "gradio_api/call/v2/search"],
)  # fmt: skip
def test_a_path_takes_any_json(app: RunningApp, http: httpx.Client, path: str) -> None:
    keys = st.sampled_from(
        ["data", "session_hash", "fn_index", "component_id", "fn_name", "event_id", "trigger_id", "text"]
    )

    @few()
    @given(VALUES | st.dictionaries(keys, VALUES | st.just("mark") | st.integers(0, 60), max_size=8))
    def ask(body: Any) -> None:
        answer = post(http, path, sent(body))
        assert answer.status_code in (200, *range(400, 500)), (body, answer.status_code, answer.text)

    ask()
    check_alive(app, http)


def test_addresses_take_anything(app: RunningApp, http: httpx.Client) -> None:
    names = st.sampled_from(
        ["q", "without", "like", "weight", "camera", "from", "to", "tab", "meta.x", "__theme", "view"]
    )

    @few()
    @given(
        st.lists(st.tuples(names | TEXTS, TEXTS), max_size=300),
        st.sampled_from(["", "picture/", "config", "theme.css"]),
        TEXTS,
    )
    def ask(pairs: list[tuple[str, str]], path: str, rest: str) -> None:
        clean = [tuple(part.encode("utf-8", "replace").decode() for part in pair) for pair in pairs]
        target = path + (rest.encode("utf-8", "replace").decode() if path == "picture/" else "")
        answer = http.get(app.url + quote(target), params=clean)
        assert answer.status_code < 500, (target, clean, answer.text[:500])

    ask()
    check_alive(app, http)


def test_uploads_take_any_bytes(app: RunningApp, http: httpx.Client) -> None:
    @few()
    @given(
        st.binary(max_size=300),
        st.sampled_from(["multipart/form-data", "multipart/form-data; boundary=b", "text/plain", ""]),
    )
    def ask(body: bytes, kind: str) -> None:
        answer = http.post("gradio_api/upload", content=b"--b\r\n" + body, headers={"content-type": kind})
        assert answer.status_code in (200, *range(400, 500)), (body, kind, answer.status_code, answer.text[:300])

    ask()
    check_alive(app, http)
