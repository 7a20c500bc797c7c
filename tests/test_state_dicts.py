"""State dicts: every way they are written is read (archives: test_backbones), and what does not fit is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.state_dicts import as_state, faults, frozen_part, listed, read_state

STATE = {"ln.weight": torch.ones(2), "ln.bias": torch.tensor([0.5, -1.0])}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in STATE.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind", ["safetensors", "plain", "state_dict", "model", "both"])
def test_a_state_dict_is_read_however_a_trainer_wrote_it(tmp_path: Path, kind: str, prefix: str) -> None:
    path, state = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt"), prefixed(prefix)
    if kind == "safetensors":
        save_file(state, path)
    else:
        inside = {"plain": state, "both": {"epoch": 3, "state_dict": {"model": state}}}
        torch.save(inside.get(kind, {kind: state, "epoch": 3}), path)
    read = read_state(path)
    assert read.keys() == STATE.keys()
    assert all(torch.equal(value, STATE[name]) for name, value in read.items())


def test_only_a_prefix_that_all_names_have_is_the_trainers() -> None:
    mixed = {**prefixed("module."), "head": torch.zeros(1)}
    assert as_state(mixed).keys() == mixed.keys()
    for none in ([1], {"a": 1}, "text", None):
        with pytest.raises(ValueError, match="expected a state dict"):
            as_state(none)


def test_the_frozen_part_of_a_released_checkpoint_is_clips_own() -> None:
    inside = {"visual.proj": torch.ones(1), "transformer.resblocks.0.adapter_ln_msa.down.weight": torch.ones(1)}
    released = {f"base_model.{name}": value for name, value in inside.items()} | {"LORA_learner.x": torch.ones(1)}
    assert frozen_part(released).keys() == {"visual.proj"}
    assert frozen_part(STATE).keys() == STATE.keys()


def test_every_fault_is_told_and_many_are_counted() -> None:
    found = faults(
        {**STATE, "gone": torch.ones(1), "whole": torch.ones(1)},
        {"ln.weight": torch.ones(3), "ln.bias": torch.tensor([0.0, torch.inf]), "whole": torch.ones(1).half(),
         "more": torch.ones(1)},
    )  # fmt: skip
    assert found == [
        "missing gone",
        "unexpected more",
        "ln.bias holds NaN or infinity",
        "ln.weight is (3,), expected (2,)",
        "whole is torch.float16, expected torch.float32",
    ]
    assert listed(found, 2) == "missing gone; unexpected more; and 3 more"
