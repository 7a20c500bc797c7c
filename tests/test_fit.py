"""The recipe: what moves, at which rate, and that a killed run ends where an unbroken one ends."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from core import PetlConfig, UPPerson
from core.backbones import Backbone
from core.core_errors import CheckpointError, PictureError
from core.petl import PRESETS
from tests.conftest import ROOT
from tests.layouts import lay_out, rows
from tests.small_clip import small_backbone
from train.datasets import DataSet, read_data_set
from train.model_card import read_facts
from train.supervised import run_folder
from train.supervised.batches import BatchConfig
from train.supervised.evaluate import evaluate
from train.supervised.fit import FitConfig, Running, fit, recipe
from train.supervised.run_folder import FitFolder

PETL = PetlConfig(prefix_length=2, lora_rank=2)
CONFIG = FitConfig(PETL, epochs=2, warmup=0.5, lr=1e-2, eps=1e-8, batch=BatchConfig(8))
QUIET = Running(progress=False)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone()


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return read_data_set("cuhk-pedes", lay_out(tmp_path / "set", "cuhk-pedes"))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The best weights, and the last."""
    state = torch.load(folder / "last.pt", weights_only=True)
    return load_file(folder / "petl.safetensors"), state["petl"]


def assert_same_end(one: Path, other: Path) -> None:
    for left, right in zip(weights(one), weights(other), strict=True):
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert torch.equal(value, right[name]), name
    assert (one / "facts.json").read_text() == (other / "facts.json").read_text()
    without_time = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in lines(each)] for each in (one, other)
    ]
    assert without_time[0] == without_time[1]


def test_the_rate_warms_up_from_a_tenth_and_falls_as_a_cosine_to_nothing() -> None:
    config = FitConfig(PETL)  # 60 epochs, 5 of them warm-up
    rates = [config.rate(step, 100) for step in range(6000)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[250] == pytest.approx(5.5e-4)
    assert rates[500] == max(rates) == pytest.approx(1e-3)
    assert rates[3250] == pytest.approx(5e-4)
    assert rates[-1] < 1e-8
    assert all(a < b for a, b in itertools.pairwise(rates[:501]))
    assert all(a > b for a, b in itertools.pairwise(rates[500:]))


def test_each_data_set_has_the_papers_sizes_and_rate(backbone: Backbone) -> None:
    assert recipe("cuhk-pedes", backbone) == (PRESETS["cuhk-pedes"], 1e-3)
    assert recipe("icfg-pedes", backbone) == (PRESETS["icfg-pedes"], 1e-3)
    assert recipe("rstpreid", backbone) == (PRESETS["rstpreid"], 1e-4)
    assert recipe("street", backbone) == (PetlConfig(), 1e-3)


def test_only_petl_weights_move_and_the_best_epoch_is_kept(backbone: Backbone, data: DataSet, tmp_path: Path) -> None:
    before, start = backbone.fingerprint(), UPPerson(backbone, PETL).petl_parameters()
    facts = fit(backbone, data, CONFIG, tmp_path / "run", QUIET)
    assert backbone.fingerprint() == before
    best, last = weights(tmp_path / "run")
    assert best.keys() == last.keys() == start.keys()
    assert all(not torch.equal(start[name], value) for name, value in last.items())
    assert all(value.dtype == torch.float32 for value in best.values())

    seen = lines(tmp_path / "run")
    val = [line["val_r1"] for line in seen if "val_r1" in line]
    assert [line["step"] for line in seen if "loss" in line] == list(range(1, 9))
    assert [line["lr"] for line in seen if "lr" in line] == [CONFIG.rate(step, 4) for step in range(8)]
    assert facts["best"]["epoch"] == 1 + val.index(max(val))
    model = UPPerson(backbone, PETL)
    with torch.no_grad():
        for name, parameter in model.petl_parameters().items():
            parameter.copy_(best[name])
    assert evaluate(model, data["val"]).text_to_image.r1 == max(val) == facts["best"]["val_r1"]
    assert json.loads((tmp_path / "run" / "facts.json").read_text())["metrics"] == facts["best"]
    assert any((tmp_path / "run" / "tensorboard").iterdir())


def test_a_run_killed_at_any_step_ends_bitwise_as_an_unbroken_one(
    backbone: Backbone, data: DataSet, tmp_path: Path
) -> None:
    fit(backbone, data, CONFIG, tmp_path / "whole", QUIET)
    pictures = data["train"].pictures
    assert isinstance(pictures, tuple)
    keeping = replace(QUIET, keep_every=1)
    for number in (5, 0):  # each is gone for a while: the run dies when it comes to it
        away = pictures[number].rename(pictures[number].with_suffix(".away"))
        with pytest.raises(PictureError, match="could not be read"):
            fit(backbone, data, CONFIG, tmp_path / "broken", replace(keeping, resume=number == 0))
        away.rename(pictures[number])
    assert 0 < FitFolder(tmp_path / "broken").state().step < 8
    fit(backbone, data, CONFIG, tmp_path / "broken", replace(keeping, resume=True))
    assert_same_end(tmp_path / "whole", tmp_path / "broken")
    again = fit(backbone, data, CONFIG, tmp_path / "broken", replace(keeping, resume=True))
    assert again["steps"] == 8  # all done already: nothing changes
    assert_same_end(tmp_path / "whole", tmp_path / "broken")
    with pytest.raises(ValueError, match=r"has other settings: config is .*'epochs': 2.* there"):
        fit(backbone, data, replace(CONFIG, epochs=3), tmp_path / "broken", replace(QUIET, resume=True))
    with pytest.raises(ValueError, match="is not empty"):
        fit(backbone, data, CONFIG, tmp_path / "broken", QUIET)


def test_a_kill_between_weights_and_facts_changes_no_end_result(
    backbone: Backbone, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fit(backbone, data, CONFIG, whole, QUIET)
    write = run_folder.write_durably

    def dies(file: Path, content: bytes) -> None:
        if file.name == "facts.json":
            raise Killed
        write(file, content)

    fit(backbone, data, replace(CONFIG, batch=replace(CONFIG.batch, seed=5)), tmp_path / "other", QUIET)
    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "write_durably", dies)
        with pytest.raises(Killed):
            fit(backbone, data, CONFIG, broken, QUIET)
    shutil.copy(tmp_path / "other" / "facts.json", broken)  # an earlier epoch's
    with pytest.raises(CheckpointError, match=r"facts\.json and petl\.safetensors in .* do not belong together"):
        read_facts(broken)
    fit(backbone, data, CONFIG, broken, replace(QUIET, resume=True))
    assert read_facts(broken) == read_facts(whole)
    assert_same_end(whole, broken)


def test_a_run_goes_on_with_its_own_data_only_wherever_they_lie(
    backbone: Backbone, data: DataSet, tmp_path: Path
) -> None:
    fit(backbone, data, CONFIG, tmp_path / "run", QUIET)
    moved = read_data_set("cuhk-pedes", lay_out(tmp_path / "moved", "cuhk-pedes"))
    fit(backbone, moved, CONFIG, tmp_path / "run", replace(QUIET, resume=True))
    words = (*data["train"].captions[:-1], "a man in other words")
    other = replace(data, splits={**data.splits, "train": replace(data["train"], captions=words)})
    assert other["train"].counts == data["train"].counts
    with pytest.raises(ValueError, match=r"has other settings: data is "):
        fit(backbone, other, CONFIG, tmp_path / "run", replace(QUIET, resume=True))


def test_weights_that_were_changed_after_the_last_epoch_are_not_reported(
    backbone: Backbone, data: DataSet, tmp_path: Path
) -> None:
    fit(backbone, data, CONFIG, tmp_path / "run", QUIET)
    shutil.copy(tmp_path / "run" / "petl.json", tmp_path / "run" / "petl.safetensors")
    with pytest.raises(CheckpointError, match=r"no epoch is left that could take their place: start a new run"):
        fit(backbone, data, CONFIG, tmp_path / "run", replace(QUIET, resume=True))


def test_checkpointing_and_workers_change_no_weight(backbone: Backbone, data: DataSet, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1, precision="fp32", batch=BatchConfig(8, instances=2))
    fit(backbone, data, config, tmp_path / "plain", QUIET)
    fit(backbone, data, config, tmp_path / "spare", replace(QUIET, checkpointing=True, workers=1))
    for left, right in zip(weights(tmp_path / "plain"), weights(tmp_path / "spare"), strict=True):
        for name, value in left.items():
            torch.testing.assert_close(value, right[name], atol=1e-6, rtol=1e-4)


def test_a_loss_that_is_no_number_stops_the_run(backbone: Backbone, data: DataSet, tmp_path: Path) -> None:
    config = replace(CONFIG, lr=0.99, petl=replace(PETL, prefix_gain=1e38))
    with pytest.raises(ValueError, match=r"the loss is nan at step [0-7]: lower --lr"):
        fit(backbone, data, config, tmp_path / "run", QUIET)


@pytest.mark.parametrize("quick", [True, False])
def test_a_run_goes_on_in_the_precision_it_began_in_or_not_at_all(
    backbone: Backbone, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    config, run = replace(CONFIG, epochs=1, precision="auto"), tmp_path / "run"
    monkeypatch.setattr("train.supervised.fit.quick_in_bf16", lambda _device: quick)
    fit(backbone, data, config, run, QUIET)
    kept = json.loads((run / "config.json").read_text())["config"]["precision"]
    assert kept == ("bf16" if quick else "fp32")
    fit(backbone, data, replace(config, precision=kept), tmp_path / "named", QUIET)
    assert_same_end(run, tmp_path / "named")
    monkeypatch.setattr("train.supervised.fit.quick_in_bf16", lambda _device: not quick)
    with pytest.raises(ValueError, match="precision"):
        fit(backbone, data, config, run, replace(QUIET, resume=True))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 0}, "1 epoch or more"),
        ({"epochs": 1, "warmup": 1.0}, "a shorter warm-up"),
        ({"lr": 0.0}, r"lr and eps lie in \(0, 1\)"),
        ({"weight_decay": 1.0}, r"weight decay in \[0, 1\), not 0\.001, 0\.001 and 1\.0"),
        ({"precision": "fp16"}, "precision is auto, bf16, fp32, not 'fp16'"),
    ],
)
def test_settings_that_train_nothing_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FitConfig(PETL, **given)


def command(*arguments: object, processes: int = 1) -> list[str]:
    launch = ["accelerate.commands.launch", "--cpu", "--num_processes", str(processes), "-m"] if processes > 1 else []
    return [sys.executable, "-m", *launch, "train", "fit", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    """A set with enough pictures for some seconds of work."""
    listed = [row | {"id": row["id"] + 100 * n, "file_path": f"{n}/{row['file_path']}"}
              for n in range(5) for row in rows("cuhk-pedes")]  # fmt: skip
    return lay_out(tmp_path / "larger", "cuhk-pedes", listed)


@pytest.mark.long
def test_killed_and_resumed_it_ends_bitwise_where_an_unbroken_run_ends(larger: Path, tmp_path: Path) -> None:
    common = ("--dataset", "cuhk-pedes", "--root", larger, "--epochs", 2, "--batch", 16, "--keep-every", 3)
    subprocess.run(command(*common, "--out", tmp_path / "whole"), cwd=ROOT, env=environment(), check=True)
    steps: list[int] = []
    for kill in (5, 11, 16):  # in the first epoch, just after its end, in the second
        resume = ("--resume",) if steps else ()
        process = subprocess.Popen(command(*common, "--out", tmp_path / "killed", *resume), cwd=ROOT, env=environment())
        wait_for(lambda kill=kill: reached(tmp_path / "killed") >= kill, process)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.wait()
        steps.append(FitFolder(tmp_path / "killed").state().step)
    assert 0 < steps[0] <= steps[1] <= steps[2] < 20
    subprocess.run(command(*common, "--out", tmp_path / "killed", "--resume"), cwd=ROOT, env=environment(), check=True)
    assert_same_end(tmp_path / "whole", tmp_path / "killed")


def reached(folder: Path) -> int:
    """The last step that the running process noted; a line may be half written."""
    file = folder / "metrics.jsonl"
    whole = file.read_text().rpartition("\n")[0].splitlines() if file.exists() else []
    return json.loads(whole[-1])["step"] if whole else 0


def wait_for(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not true():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)


@pytest.mark.long
def test_two_processes_end_within_noise_of_one(larger: Path, tmp_path: Path) -> None:
    common = ("--dataset", "cuhk-pedes", "--root", larger, "--epochs", 1, "--batch", 16, "--precision", "fp32")
    for processes in (1, 2):
        out = ("--out", tmp_path / str(processes))
        subprocess.run(command(*common, *out, processes=processes), cwd=ROOT, env=environment(), check=True)
    one, two = (lines(tmp_path / str(processes)) for processes in (1, 2))
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for left, right in zip(one, two, strict=True):
        name = "loss" if "loss" in left else "val_mean_ap"
        assert left[name] == pytest.approx(right[name], rel=1e-3)
    for left, right in zip(*(weights(tmp_path / str(processes)) for processes in (1, 2)), strict=True):
        for name, value in left.items():
            torch.testing.assert_close(value, right[name], atol=2e-4, rtol=1e-2)
