"""What the card of a version says of its training."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from store import VersionRow
from train.model_card import card, trained_on

ROW = VersionRow(id="ViT-B-16-v1", backbone="ViT-B-16", folder="models/ViT-B-16-v1", created_at=datetime.now(UTC))


def test_a_fitted_version_names_its_data_set_and_no_marks() -> None:
    text = card(ROW, None, "7 parameters", trained_on="cuhk-pedes")
    assert "`ViT-B-16`, trained on the data set cuhk-pedes." in text
    assert "| data set trained on | cuhk-pedes |" in text
    assert "fine-tuned on marks" not in text


def test_a_version_of_marks_names_no_data_set() -> None:
    text = card(ROW, None, "7 parameters")
    assert "fine-tuned on marks" in text
    assert "| data set trained on | none |" in text


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"trained_on": {"name": "cuhk-pedes", "root": "/home/ada/secret"}}, "cuhk-pedes"),
        ({"trained_on": {"name": "<script>", "root": None}}, ""),
        ({"trained_on": {"name": 7}}, ""),
        ({"trained_on": "cuhk-pedes"}, ""),
        ({}, ""),
    ],
)
def test_of_what_facts_say_only_a_plain_name_is_shown(tmp_path: Path, said: dict[str, object], name: str) -> None:
    (tmp_path / "facts.json").write_text(json.dumps(said), encoding="utf-8")
    assert trained_on(tmp_path) == name
