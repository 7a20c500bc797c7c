"""Parameter counts: the paper's number exactly, other models by formula."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from core.core_errors import BackboneError
from core.petl import PRESETS, PetlConfig, TowerPetl
from train.__main__ import cli
from train.studies.params import Row, count, table


def by_name(backbone: str, config: PetlConfig) -> dict[str, Row]:
    return {row.component: row for row in count(backbone, config)}


def test_the_papers_number_on_vit_b_16() -> None:
    rows = by_name("ViT-B-16", PRESETS["cuhk-pedes"])
    assert (rows["prefix"].both, rows["LoRA"].both, rows["adapter"].both) == (307_272, 1_966_128, 5_146_416)
    trained = rows["trained"]
    assert (trained.image, trained.text, trained.both) == (4_923_732, 2_496_084, 7_419_816)
    assert rows["whole"].both == 157_037_480
    assert round(100 * trained.share, 3) == 4.725
    lines = list(table(list(rows.values())))
    assert len(lines) == 7
    assert lines[4].split() == ["trained", "4,923,732", "2,496,084", "7,419,816", "4.725%"]


@pytest.mark.parametrize("config", [*PRESETS.values(), PetlConfig(prefix_length=3, lora_rank=5, adapter_reduction=16)])
def test_vit_l_14_by_formula(config: PetlConfig) -> None:
    rows = by_name("ViT-L-14", config)
    for tower, width, blocks in (("image", 1024, 24), ("text", 768, 12)):
        narrow = width // config.adapter_reduction
        assert getattr(rows["prefix"], tower) == blocks * (2 * config.prefix_length * width + 3)
        assert getattr(rows["LoRA"], tower) == blocks * (4 * config.lora_rank * width + 2)
        assert getattr(rows["adapter"], tower) == blocks * 2 * (2 * width * narrow + narrow + width + 1)


def test_vanilla_forms_ranges_and_towers_count_what_they_have() -> None:
    plain = by_name("mini", PetlConfig(prefix_gain=None, adapter="sequential", lora_layers=(1, 3)))
    assert plain["prefix"].text == 4 * (2 * 10 * 192 + 2)
    assert plain["LoRA"].image == plain["LoRA"].text == 2 * (4 * 32 * 192 + 2)
    assert plain["adapter"].image == 6 * 2 * (2 * 192 * 24 + 24 + 192)
    own = by_name(
        "mini", PetlConfig(towers=("text",), text=TowerPetl(lora_rank=1, prefix_length=0, adapter_reduction=0))
    )
    assert own["trained"].image == 0
    assert own["trained"].text == own["LoRA"].text == 4 * (4 * 192 + 2)
    with pytest.raises(ValueError, match=r"lora_layers \(0, 5\) goes beyond the 4 blocks of the text tower"):
        count("mini", PetlConfig(lora_layers=(0, 5)))
    with pytest.raises(BackboneError, match="unknown backbone 'nobody'"):
        count("nobody", PetlConfig())


def test_the_command_prints_json_and_refuses_an_unknown_preset() -> None:
    done = CliRunner().invoke(cli, ["params", "--backbone", "mini", "--preset", "rstpreid", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["component"] for row in rows] == ["prefix", "LoRA", "adapter", "trained", "frozen", "whole"]
    assert rows[1]["image"] == 6 * (4 * 16 * 192 + 2)
    failed = CliRunner().invoke(cli, ["params", "--preset", "market"])
    assert failed.exit_code == 2
    assert "'market' is not one of 'cuhk-pedes', 'icfg-pedes', 'rstpreid'" in " ".join(
        failed.output.replace("│", " ").split()
    )
