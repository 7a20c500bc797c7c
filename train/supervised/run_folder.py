"""The folder of a `fit` run: settings, the best weights as a version, where it stands, and what was measured.

`config.json`, `petl.safetensors` + `petl.json` + `facts.json` (what `python -m train add` takes), `last.pt`,
`metrics.jsonl`, `tensorboard/`. Every file appears whole or not at all, and the facts name the weights they are about,
so a run can be killed at any moment.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from core.checkpoints import save_petl
from core.core_errors import CheckpointError
from core.model import UPPerson
from train.model_card import FACTS_FILE, WEIGHTS_DIGEST, read_facts, weights_digest

CONFIG, LAST, METRICS, BOARD = "config.json", "last.pt", "metrics.jsonl", "tensorboard"
_SHOWN = 5


@dataclass(slots=True)
class TrainState:
    """Where a run is: optimiser steps done, the best epoch so far and its val metrics, weights and optimiser.

    Learning rate, batches and augmentation follow from the step; there is no generator whose state would count.
    """

    step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    petl: Mapping[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)


class FitFolder:
    """Reads and writes the folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check_free(self) -> None:
        """Raise ValueError unless a run can begin here: in a new or an empty folder."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ValueError(
                f"{self.path} is not empty: go on with what began there by --resume, or name another --out"
            )

    def begin(self, config: Mapping[str, Any]) -> None:
        """Claim the folder for a run of this config."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_durably(self.path / CONFIG, (json.dumps(config, indent=1) + "\n").encode())

    def resume(self, config: Mapping[str, Any]) -> TrainState:
        """Return where the run is. Raises ValueError if none of this config began here, CheckpointError on damage.

        A run that was killed before anything was kept is at its beginning. One that was killed between writing the
        best weights and the facts about them has no best epoch, so that the next one is written in their place.
        """
        try:
            begun = json.loads((self.path / CONFIG).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ValueError(f"no run began in {self.path}: start one without --resume") from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path / CONFIG} could not be read ({error}): start a new run") from error
        wanted = json.loads(json.dumps(config))
        if begun != wanted:
            raise ValueError(
                f"the run in {self.path} has other settings: {_differences(begun, wanted)}. Resume with its own, or "
                "choose another --out"
            )
        state = self.state()
        try:
            read_facts(self.path)
        except CheckpointError:
            state.best = {}
        return state

    def keep(self, state: TrainState) -> None:
        """Save where the run is, in place of the last time."""
        part = self.path / f".{LAST}.part"
        saved = {name: getattr(state, name) for name in TrainState.__slots__}
        with part.open("wb") as out:
            torch.save(saved, out)
            out.flush()
            os.fsync(out.fileno())
        part.replace(self.path / LAST)

    def keep_best(self, model: UPPerson, facts: Mapping[str, Any]) -> None:
        """Write the weights as a version's, and its facts, with the digest of the weights they are about."""
        save_petl(model, self.path)
        facts = {**facts, WEIGHTS_DIGEST: weights_digest(self.path)}
        write_durably(self.path / FACTS_FILE, (json.dumps(facts, indent=1) + "\n").encode())

    def metrics_log(self, step: int) -> MetricsLog:
        """Open the log of what is measured after `step`."""
        self._forget_after(step)
        return MetricsLog(self.path, step)

    def state(self) -> TrainState:
        """Return where the run is, the beginning if nothing was kept. Raises CheckpointError on damage."""
        last = self.path / LAST
        if not last.exists():
            return TrainState()
        try:
            return TrainState(**torch.load(last, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"{last} is damaged ({type(error).__name__}): start a new run in another folder"
            ) from error

    def _forget_after(self, step: int) -> None:
        """Drop the lines of steps that will be done again, and a line that was cut off."""
        file = self.path / METRICS
        if not file.exists():
            return
        kept = []
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:
                break
        write_durably(file, "".join(kept).encode())


class MetricsLog:
    """`metrics.jsonl` and TensorBoard side by side."""

    def __init__(self, folder: Path, step: int) -> None:
        self._lines = (folder / METRICS).open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / BOARD), purge_step=step + 1)

    def note(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append numbers measured when `step` steps were done."""
        self._lines.write(json.dumps({"step": step, **numbers}) + "\n")
        self._lines.flush()
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._lines.close()
        self._board.close()


def write_durably(file: Path, data: bytes) -> None:
    """Write a file so that a stop at any moment leaves the old or the new one."""
    part = file.with_name(f".{file.name}.part")
    with part.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    part.replace(file)


def _differences(begun: Any, wanted: Mapping[str, Any]) -> str:
    if not isinstance(begun, dict):
        return f"{str(begun)[:60]!r}"
    differences = [f"{name} is {begun.get(name)} there, {wanted.get(name)} here" for name in sorted({*begun, *wanted})
            if begun.get(name) != wanted.get(name)]  # fmt: skip
    return "; ".join(differences[:_SHOWN])
