"""A run's folder: claimed once, resumed by the same settings only, and never half written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from core.core_errors import CheckpointError
from train.supervised.run_folder import CONFIG, LAST, METRICS, FitFolder, TrainState

SETTINGS = {"config": {"epochs": 2, "lr": 1e-3}, "sizes": (1, 2)}


@pytest.fixture
def folder(tmp_path: Path) -> FitFolder:
    begun = FitFolder(tmp_path / "run")
    begun.check_free()
    begun.begin(SETTINGS)
    return begun


def test_a_folder_that_holds_anything_is_not_claimed(folder: FitFolder) -> None:
    assert json.loads((folder.path / CONFIG).read_text()) == {**SETTINGS, "sizes": [1, 2]}
    with pytest.raises(ValueError, match="is not empty: go on with what began there by --resume"):
        folder.check_free()
    with pytest.raises(ValueError, match="is not empty"):
        FitFolder(folder.path / CONFIG).check_free()


def test_where_a_run_stands_comes_back_bitwise(folder: FitFolder) -> None:
    assert folder.resume(SETTINGS) == TrainState()
    petl = {"a": torch.randn(3, 2), "b": torch.tensor(float("1e-30"))}
    optimiser = torch.optim.Adam([torch.nn.Parameter(petl["a"])])
    folder.keep(TrainState(7, {"val_r1": 0.1 + 0.2}, petl, optimiser.state_dict()))
    found = folder.resume(SETTINGS)
    assert (found.step, found.best) == (7, {"val_r1": 0.1 + 0.2})
    assert all(torch.equal(found.petl[name], value) for name, value in petl.items())
    assert found.optimiser == optimiser.state_dict()
    assert sorted(path.name for path in folder.path.iterdir()) == [CONFIG, LAST]


def test_other_settings_and_no_run_at_all_are_not_resumed(folder: FitFolder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has other settings: sizes is \[1, 2\] there, \[1, 3\] here\. Resume with"):
        folder.resume({**SETTINGS, "sizes": (1, 3)})
    with pytest.raises(ValueError, match=r"no run began in .*: start one without --resume"):
        FitFolder(tmp_path / "nothing").resume(SETTINGS)


def test_a_damaged_state_is_said_and_runs_no_code(folder: FitFolder) -> None:
    for damage in (b"", b"not a zip", b"\x80\x02cos\nsystem\n(S'true'\ntR."):
        (folder.path / LAST).write_bytes(damage)
        with pytest.raises(CheckpointError, match=r"last\.pt is damaged \(.*\): start a new run"):
            folder.resume(SETTINGS)
    (folder.path / CONFIG).write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json could not be read"):
        folder.resume(SETTINGS)


def test_the_diary_forgets_steps_that_are_done_again_and_a_cut_line(folder: FitFolder) -> None:
    metrics_log = folder.metrics_log(0)
    for step in range(1, 6):
        metrics_log.note(step, {"epoch": 1, "loss": step / 10})
    metrics_log.close()
    file = folder.path / METRICS
    file.write_text(file.read_text() + '{"step": 6, "lo')
    later = folder.metrics_log(3)
    later.note(4, {"epoch": 1, "loss": 0.9})
    later.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.9)]
    assert len(list((folder.path / "tensorboard").iterdir())) == 2
