"""The ablation: every row is trained as it says, on a copy where the backbone itself is tuned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core import Backbone
from train.studies.ablate import FULL, PAPER, ROWS, AblateConfig, ablate, fresh, table

TINY = AblateConfig(seeds=1, people=4, shots=1, steps=1, batch=2, judged=3)


def test_all_rows_are_trained_and_the_backbone_stays_as_it_was(mini: Backbone, tmp_path: Path) -> None:
    before, shares = mini.fingerprint(), []
    report = ablate(mini, TINY, cache=tmp_path, progress=shares.append)
    assert mini.fingerprint() == before
    assert shares[-1] == 1.0
    rows = report["rows"]
    assert list(rows) == list(ROWS)
    assert {
        "frozen",
        "S-Prefix",
        "LoRA",
        "L-Adapter",
        "all three",
        "prefix without gain",
        "vanilla adapter",
        FULL,
    } < set(rows)
    assert all(
        len(row[domain]) == 1 and 0 <= row[domain][0] <= 1 for row in rows.values() for domain in ("street", "studio")
    )
    sizes = {name: row["parameters"] for name, row in rows.items()}
    assert sizes["frozen"] == 0
    assert sizes["all three"] == sizes["S-Prefix"] + sizes["LoRA"] + sizes["L-Adapter"]
    assert sizes["all three"] == sizes["image tower alone"] + sizes["text tower alone"]
    assert sizes["S-Prefix"] - sizes["prefix without gain"] == 6 + 4  # a gain for each block
    assert sizes["L-Adapter"] - sizes["vanilla adapter"] == 2 * (6 + 4)  # a scale for each adapter
    assert sizes[FULL] == sum(p.numel() for p in mini.clip.parameters()) - 1  # without the temperature
    lines = list(table(report))
    assert len(lines) == 2 + len(ROWS)
    assert lines[-2].endswith(str(PAPER[FULL]))
    assert lines[-1] == f"1 steps of 2 pairs in {report['precision']}; in percent, over seeds"


def test_some_of_the_rows_can_be_asked_for(mini: Backbone, tmp_path: Path) -> None:
    report = ablate(mini, replace(TINY, rows=("frozen", "text tower alone")), cache=tmp_path)
    assert list(report["rows"]) == ["frozen", "text tower alone"]
    assert len(list(table(report))) == 4


def test_a_seed_decides_where_petl_weights_start(mini: Backbone) -> None:
    starts = [fresh(mini, "all three", seed)[0].petl_parameters() for seed in (0, 0, 1)]
    name = "image.0.attn.lora.a_k"
    assert torch.equal(starts[0][name], starts[1][name])
    assert not torch.equal(starts[0][name], starts[2][name])


def test_the_table_has_the_standard_deviation_over_seeds() -> None:
    row = {"parameters": 7, "street": [0.1, 0.2, 0.3], "studio": [0.5]}
    config = {"steps": 1, "batch": 2}
    line = list(table({"config": config, "precision": "fp32", "rows": {"LoRA": row}, "paper": {}}))[1]
    assert line.split() == ["LoRA", "7", "20.0", "±", "10.0", "50.0"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seeds": 0}, "seeds must be at least 1, not 0"),
        ({"batch": 9999}, "a batch of 9999 does not fit 2000 pictures"),
        ({"rows": ("LoRA", "lora")}, "unknown row lora: choose among frozen, S-Prefix"),
        ({"rows": ("LoRA", "LoRA")}, "name each row once"),
        ({"rows": ()}, "at least one"),
        ({"lr": 0.0}, "rates lie between 0 and 1"),
    ],
)
def test_what_cannot_be_run_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        AblateConfig(**options)
