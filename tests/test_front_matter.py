"""The front matter of README.md for Hugging Face Spaces, which refuses or ignores what it cannot read."""

from __future__ import annotations

from typing import Any

import gradio
import pytest
import yaml

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def front() -> dict[str, Any]:
    _, text, _ = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return dict(yaml.safe_load(text))


def test_a_space_knows_how_to_run_it(front: dict[str, Any]) -> None:
    assert (front["sdk"], front["hf_oauth"]) == ("gradio", True)
    assert (ROOT / front["app_file"]).is_file()
    assert front["python_version"] == "3.11"
    assert front["license"] == "apache-2.0"
    assert len(front["short_description"]) <= 60, "the Hub takes no longer one"
    assert "person-search" in front["tags"]


def test_gradio_is_pinned_to_a_version_that_the_requirements_allow(front: dict[str, Any]) -> None:
    (needed,) = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("gradio>=")]
    lowest, highest = (bound.strip(">=<") for bound in needed.removeprefix("gradio").split(","))
    pinned = tuple(map(int, front["sdk_version"].split(".")))
    assert len(pinned) == 3
    assert tuple(map(int, lowest.split("."))) <= pinned < tuple(map(int, highest.split(".")))
    assert pinned[0] == int(gradio.__version__.split(".")[0])
