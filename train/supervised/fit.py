"""Training PETL weights by the paper's recipe (Liu et al., arXiv 2504.10084, section IV) on a captioned data set.

SDM over the whole batch, Adam, warm-up and cosine, the best epoch chosen by R@1 on val. One process or several under
`accelerate launch`: every process encodes its part of a batch, the loss sees all of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from core.backbones import Backbone
from core.core_errors import CheckpointError
from core.device import faults_of, quick_in_bf16
from core.model import UPPerson
from core.petl import PRESETS, PetlConfig
from train.datasets import DataSet
from train.finetuning.replay import SAMPLE_FILE, write_sample
from train.finetuning.start import petl_config
from train.losses import identity_targets, masked_sdm
from train.precision import kernels
from train.supervised.batches import Batch, BatchConfig, Batches
from train.supervised.evaluate import evaluate
from train.supervised.run_folder import FitFolder, MetricsLog, TrainState

Precision = Literal["auto", "bf16", "fp32"]
LEARNING_RATES = {"cuhk-pedes": 1e-3, "icfg-pedes": 1e-3, "rstpreid": 1e-4}


@dataclass(frozen=True, slots=True)
class FitConfig:
    """The recipe. `warmup` epochs lead from a tenth of `lr` to `lr`, a cosine from there to 0. `eps` is Adam's.

    In `bf16` the forward pass runs under autocast; PETL weights, their gradients and the loss are fp32 always. `auto`
    is bf16 where the device has it in hardware, else fp32; what it came to is kept with the run.
    """

    petl: PetlConfig
    epochs: int = 60
    lr: float = 1e-3
    warmup: float = 5.0
    weight_decay: float = 4e-5
    eps: float = 1e-3
    precision: Precision = "auto"
    batch: BatchConfig = field(default_factory=BatchConfig)

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 <= self.warmup < self.epochs:
            raise ValueError(f"expected 1 epoch or more and a shorter warm-up, not {self.epochs} and {self.warmup}")
        if not 0 < self.lr < 1 or not 0 <= self.weight_decay < 1 or not 0 < self.eps < 1:
            raise ValueError(
                f"lr and eps lie in (0, 1), weight decay in [0, 1), not {self.lr}, {self.eps} and {self.weight_decay}"
            )
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision is {', '.join(get_args(Precision))}, not {self.precision!r}")

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of optimiser step `step`, counted from 0, where an epoch has `steps`."""
        epoch = step / steps
        if epoch < self.warmup:
            return self.lr * (0.1 + 0.9 * epoch / self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (epoch - self.warmup) / (self.epochs - self.warmup)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """How a run is carried out; none of it changes what comes out of it."""

    resume: bool = False
    checkpointing: bool = False
    keep_every: int = 0
    """Optimiser steps between two states to resume from; 0: at the end of every epoch only."""
    workers: int = 0
    progress: bool = True


def recipe(name: str, backbone: Backbone) -> tuple[PetlConfig, float]:
    """Return the paper's PETL sizes and learning rate for a data set; others get the sizes a backbone starts with."""
    return PRESETS.get(name) or petl_config(backbone), LEARNING_RATES.get(name, 1e-3)


def fit(
    backbone: Backbone,
    data: DataSet,
    config: FitConfig,
    out: Path,
    running: Running | None = None,
    *,
    trained_on: Mapping[str, Any] | None = None,
    keep_sample: int = 0,
) -> dict[str, Any]:
    """Train, keep the best epoch's weights in the folder `out` as a version, and return the facts about it.

    `trained_on` says where the data set is (`name`, `root`, `people`); it stays with the version, and rounds on marks
    replay it. With `keep_sample` pairs of so many of its people are kept beside the weights for the same purpose.

    Raises ValueError when `out` holds another run, or holds none that could be resumed.
    """
    work = _Fit(backbone, data, config, FitFolder(out), running or Running(), dict(trained_on or {}))
    with faults_of(work.accelerator.device):
        facts = work.run()
    if keep_sample and work.main:
        write_sample(out / SAMPLE_FILE, data, backbone, keep_sample)
    return facts


class _Towers(nn.Module):
    """Both towers in one forward call, which is what DistributedDataParallel wraps. Unit rows, fp32."""

    def __init__(self, model: UPPerson) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        images, texts = self.model.encode_image(pixels), self.model.encode_text(tokens)
        return F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)


class _Fit:
    def __init__(
        self,
        backbone: Backbone,
        data: DataSet,
        config: FitConfig,
        folder: FitFolder,
        running: Running,
        trained_on: dict[str, Any],
    ) -> None:
        self.trained_on = trained_on
        self.accelerator = Accelerator(mixed_precision="no")  # autocast is ours: see `_step`
        if config.precision == "auto":  # resolved and kept: a run goes on in the precision that it began in, or not
            quick = quick_in_bf16(self.accelerator.device.type)
            config = replace(config, precision="bf16" if quick else "fp32")
        self.main = self.accelerator.is_main_process
        self.data, self.config, self.folder, self.running = data, config, folder, running
        self.batches = Batches(
            data["train"], backbone, config.batch,
            number=self.accelerator.process_index, processes=self.accelerator.num_processes, workers=running.workers,
        )  # fmt: skip
        self.steps, self.cut = self.batches.steps(), self.batches.cut()
        self.settings = {
            "data": {"name": data.name, "sha256": data.fingerprint()}
            | {split: asdict(part.counts) for split, part in data.splits.items()},
            "backbone": {"name": backbone.name, "fingerprint": backbone.fingerprint()},
            "config": asdict(config),
        }
        self.model = UPPerson(backbone, config.petl)
        self.model.gradient_checkpointing(running.checkpointing)
        self.parameters = self.model.petl_parameters()
        self.state = self._start()
        self.step, self.best = self.state.step, dict(self.state.best)
        self.model.train()
        self.towers = self.accelerator.prepare(_Towers(self.model))
        self.optimiser = torch.optim.Adam(
            self.parameters.values(), lr=config.lr, weight_decay=config.weight_decay, eps=config.eps
        )
        if self.state.step:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(self.state.petl[name])
            self.optimiser.load_state_dict(self.state.optimiser)

    def _start(self) -> TrainState:
        """Look before anybody writes: every process comes to the same verdict on the folder."""
        if self.running.resume:
            return self.folder.resume(self.settings)
        self.folder.check_free()
        self.accelerator.wait_for_everyone()
        if self.main:
            self.folder.begin(self.settings)
        return TrainState()

    def run(self) -> dict[str, Any]:
        """Run all epochs that are left and return the facts about the best one."""
        hidden = None if self.running.progress and self.main else True
        total, done = self.config.epochs * self.steps, self.state.step
        with (
            nullcontext() if not self.main else closing(self.folder.metrics_log(done)) as metrics_log,
            tqdm(total=total, initial=done, desc="fit", unit="step", disable=hidden) as bar,
        ):
            for epoch in range(done // self.steps, self.config.epochs):
                began = time.monotonic()
                self._train(epoch, metrics_log, bar)
                measured = self._judge(epoch)
                if measured["val_r1"] > self.best.get("val_r1", -1.0):
                    self.best = measured
                    if self.main:
                        self.folder.keep_best(self.model, {"metrics": self.best, "fit": self.settings} | self._source())
                self._keep()
                if metrics_log:
                    metrics_log.note(self.step, {**measured, "seconds": round(time.monotonic() - began, 1)})
        self.accelerator.wait_for_everyone()
        if not self.best:
            raise CheckpointError(
                f"the best weights in {self.folder.path} are not those of its facts, and no epoch is left that could "
                "take their place: start a new run in another folder"
            )
        return {
            "out": str(self.folder.path),
            "best": self.best,
            "epochs": self.config.epochs,
            "steps": self.step,
            "cut_captions": self.cut,
        }

    def _source(self) -> dict[str, Any]:
        return {"trained_on": self.trained_on} if self.trained_on else {}

    def _train(self, epoch: int, metrics_log: MetricsLog | None, bar: tqdm[Any]) -> None:
        """What is left of an epoch."""
        for batch in self.batches.epoch(epoch, first=self.step - epoch * self.steps):
            rate = self.config.rate(self.step, self.steps)
            loss = self._step(batch, rate)
            self.step += 1
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", best=f"{self.best.get('val_r1', 0):.1%}", refresh=False)
            if metrics_log:
                metrics_log.note(self.step, {"epoch": epoch + 1, "loss": loss, "lr": rate})
            # The end of an epoch is kept when it has been judged.
            if self.running.keep_every and self.step % self.running.keep_every == 0 and self.step % self.steps:
                self._keep()

    def _step(self, batch: Batch, rate: float) -> float:
        """Take one optimiser step and return the loss before it."""
        device, processes = self.accelerator.device, self.accelerator.num_processes
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with kernels(device.type):  # around the backward pass too: checkpointing computes there once more
            with torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                images, texts = self.towers(batch.pixels.to(device), batch.tokens.to(device))
            pids = batch.pids.to(device)
            scores = self._of_all(texts) @ self._of_all(images).T
            loss = masked_sdm(scores, identity_targets(pids, pids))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise ValueError(f"the loss is {value} at step {self.step}: lower --lr, or try --precision fp32")
            # Each process has the gradient through its own rows, and DistributedDataParallel means them: sum instead.
            self.accelerator.backward(loss * processes)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return value

    def _of_all(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes in the order of the batch; the gradient flows through one's own."""
        if self.accelerator.num_processes == 1:
            return rows
        everyones: Tensor = self.accelerator.gather(rows.detach())
        first = self.accelerator.process_index * len(rows)
        return torch.cat([everyones[:first], rows, everyones[first + len(rows) :]])

    def _judge(self, epoch: int) -> dict[str, float]:
        """Val metrics, text to image; the same in every process."""
        found = evaluate(self.model, self.data["val"], progress=self.running.progress).text_to_image
        self.model.train()
        numbers = {f"val_{name}": getattr(found, name) for name in ("r1", "r5", "r10", "mean_ap", "mean_inp")}
        return {"epoch": epoch + 1, **numbers}

    def _keep(self) -> None:
        if self.main:
            petl = {name: parameter.detach().cpu() for name, parameter in self.parameters.items()}
            self.folder.keep(TrainState(self.step, self.best, petl, self.optimiser.state_dict()))
