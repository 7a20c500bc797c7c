"""Jobs of the training process: adapt to the gallery, learn a round of marks, or measure a version.

Runs in a process of its own (`python -m train finetune`, `adapt`, `measure`). Nothing that is served changes before the
gate has passed and the new version's vectors are complete; then one transaction moves the pointer.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from core.backbones import device_of, load_backbone
from core.core_errors import CoreError
from core.device import choose_device, faults_of, share_memory
from core.model import UPPerson
from store import StoreError
from store.workspace import Workspace
from train.embed import embed_pixels
from train.finetuning.activations import REPLAYED, ToKeep
from train.finetuning.adaptation import LEAST_PICTURES, Adaptation, AdaptConfig, adapt
from train.finetuning.config import LEARNING, Choice, LearnConfig, Mode, WantedMode, choose_mode, format_duration
from train.finetuning.gate import GateConfig, Verdict
from train.finetuning.loop import Cancelled
from train.finetuning.pairs import Pairs, usable
from train.finetuning.round import Outcome, Round, check, fine_tune
from train.finetuning.start import LEAST_HELD_BACK, held_back
from train.jobs.gallery_pixels import pixels_of_gallery, representatives, tracks_of, visible
from train.jobs.heartbeat import Heartbeat, Interrupted, stopped_by_signals
from train.jobs.lines import Line, known_pairs, line_of
from train.jobs.measuring import measure_version
from train.jobs.plan import Plan, Work, check_minutes, choose_depth, estimate, measure, work_of, work_of_adaptation
from train.jobs.promotion import keep, promote

Kind = Literal["finetune", "adapt", "measure"]

ADAPTING = "All blocks learn the gallery's style; no mark is read."

TRIED = 32
"""Pictures that are embedded to see how long the whole gallery would take."""


@dataclass(frozen=True, slots=True)
class JobConfig:
    """Which backbone is tuned, and how; `base`: the folder of a data set that it knew before, instead of what its line
    of versions was trained on (`train.finetuning.replay`). `device` is as `core.device.choose_device` takes it;
    `share_device`: the page is served by the same. `minutes`: the budget of a round, which decides how many blocks
    learn. `version`: the one to measure. Raises ValueError for a budget of 0."""

    backbone: str = "mini"
    weights: Path | None = None
    mode: WantedMode = "auto"
    base: Path | None = None
    learning: LearnConfig | None = None
    adaptation: AdaptConfig | None = None
    gate: GateConfig | None = None
    device: str = "auto"
    share_device: bool = False
    minutes: float = 30.0
    version: str = ""

    def __post_init__(self) -> None:
        check_minutes(self.minutes)


def run_job(
    stores: Workspace,
    job_id: int | None,
    config: JobConfig,
    *,
    kind: Kind = "finetune",
    echo: Callable[[str, float], None] = lambda _s, _f: None,
    say: Callable[[str], None] = lambda _: None,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run job `job_id` of this `kind` (None: queue one) to its end and return its result.

    The result has `decision` ("promoted", "rejected", "undecided", "suspicious", "measured", "cancelled" or "failed"),
    `reason` and, when something was trained or measured, `version`. What goes wrong is recorded with the job before it
    is raised. `echo` gets each stage and the share done, `say` a sentence about how long it will take, `log` a line
    with the settings and one for each step. SIGINT and SIGTERM cancel the job.
    """
    if job_id is None:
        params = {
            "backbone": config.backbone,
            "last_event": stores.marks.newest(),
            "pictures": visible(stores.gallery),
        }
        params |= {"version": config.version} if kind == "measure" else {}
        job_id = stores.jobs.queue(kind, params).id
    stores.jobs.start(job_id, os.getpid())
    try:
        device = choose_device(config.device)
        with Heartbeat(stores.jobs, job_id, echo, say, log) as signs, stopped_by_signals(), faults_of(device):
            result = _WORK[kind](stores, config, device, signs)
            result["seconds"] = signs.seconds()
    except Cancelled as stop:
        # A person who has cancelled means it; a signal may be the end of the app, which then starts the job again.
        cut_off = isinstance(stop, Interrupted) and stores.jobs.get(job_id).state != "cancelling"
        how = "The process was ended before this run was" if cut_off else "Cancelled"
        result = {"decision": "cancelled", "reason": f"{how}; nothing that is served has changed."}
        result |= {"interrupted": True} if cut_off else {}
        stores.jobs.finish(job_id, "cancelled", message=result["reason"], result=result)
        return result
    except Exception as error:
        known = isinstance(error, CoreError | StoreError | ValueError)
        reason = str(error) if known else traceback.format_exception_only(error)[-1].strip()
        stores.jobs.finish(job_id, "failed", message=reason, result={"decision": "failed", "reason": reason})
        raise
    stores.jobs.finish(job_id, "done", message=result["reason"], result=result)
    return result


def _tune(stores: Workspace, config: JobConfig, device: torch.device, signs: Heartbeat) -> dict[str, Any]:
    """A round on all marks."""
    progress = signs.progress
    progress("preparing", 0.0)
    line = _line_of(stores, config, device)
    marks = usable(stores.marks.current())
    last_event = stores.marks.newest()  # afterwards: a mark made meanwhile counts as learnt, never as new
    learnt = stores.marks.captions(until=line.active.last_event)
    gate = config.gate or GateConfig()
    _, _, refusal = check(marks, learnt, gate)
    if refusal is not None:  # said at once, before anything is read and drawn
        return {"decision": refusal.decision, "reason": refusal.reason, "numbers": refusal.numbers}
    known = known_pairs(stores, line, progress)
    if line.backbone.large and known.replay is not None:
        known = replace(known, replay=known.replay.part(slice(REPLAYED)))
    rest = representatives(stores.gallery)
    pixels = pixels_of_gallery(stores.gallery, [*(mark.image_id for mark in marks), *rest], line.backbone)
    seen = [mark for mark in marks if mark.image_id in pixels]
    rest = [image for image in rest if image in pixels]
    choice = _choose(config.mode, stores.gallery.count(), line.served, [pixels[image] for image in rest])
    wanted = ToKeep(pixels, list(pixels), [mark.image_id for mark in seen], known.replay, known.base)
    choice, plan = _plan(config, choice, line.served, wanted, check(seen, learnt, gate))
    signs.chosen(choice.mode)
    learning = config.learning or LEARNING[choice.mode]
    given = Round(
        line.served, seen, pixels, rest, learnt, known.replay, known.base, line.origin, learning, gate, choice.mode
    )
    if plan is not None:
        embedding = plan.speed.embed * stores.gallery.count() if choice.mode == "full" else 0.0
        signs.say(estimate(plan, embedding))
        signs.settings(learning=asdict(learning), mode=choice.mode, last_blocks=plan.depth or "all", gate=asdict(gate))
        given = replace(given, depth=plan.depth, scratch=stores.folder / "cache")
    given = replace(given, tracks=tracks_of(stores.gallery, list(pixels)))
    outcome = fine_tune(given, progress=lambda stage, share: progress(stage, 0.05 + 0.8 * share), note=signs.note)
    verdict = outcome.verdict
    lost = f" Left out: marks on pictures that are gone or cannot be read ({len(marks) - len(seen)})."
    reason = verdict.reason + (lost if len(seen) < len(marks) else "")
    result: dict[str, Any] = {"decision": verdict.decision, "reason": reason}
    if outcome.model is None:
        return result | {"numbers": verdict.numbers}
    assert plan is not None
    why = [reason, choice.reason, *([plan.reason] if plan.depth else [])]
    outcome.verdict = replace(verdict, reason=" ".join(why))
    facts = {
        "mode": choice.mode,
        "learning": asdict(learning) | {"mix": outcome.mix, "length": outcome.length},
        "plan": plan.to_json(),
    }
    vectors = line.active.vectors if choice.mode == "text" else ""
    row = keep(stores, line.active, outcome, known.name, "marks", facts, last_event=last_event, vectors=vectors)
    result |= {"reason": outcome.verdict.reason, "version": row.id, "mode": choice.mode}
    result["plan"] = plan.to_json()
    if verdict.decision == "promoted":
        result |= promote(stores, row, line.active, outcome.model, progress)
    return result


def _adapt(stores: Workspace, config: JobConfig, device: torch.device, signs: Heartbeat) -> dict[str, Any]:
    """Adaptation to the gallery's style; learns nothing from marks."""
    progress = signs.progress
    progress("preparing", 0.0)
    line = _line_of(stores, config, device)
    known = known_pairs(stores, line, progress)
    replay, watched = held_back(known.replay)
    if known.replay is not None and watched is None:
        reason = (
            f"{line.active.id} was trained on too little to adapt it to the gallery's style: {len(known.replay.pids)} "
            f"pairs are known, of which {LEAST_HELD_BACK} at least must be held back. Name the folder of a larger data "
            "set that it knows: UPPERSON_TRAIN_BASE=DIR, or --base DIR."
        )
        return {"decision": "undecided", "reason": reason}
    if replay is None or watched is None or known.base is None:
        reason = (
            f"nothing is known of what {line.active.id} was trained on, so it cannot be adapted to the gallery's "
            "style. Name the folder of a data set that it knows: UPPERSON_TRAIN_BASE=DIR, or --base DIR."
        )
        return {"decision": "undecided", "reason": reason}
    pixels = pixels_of_gallery(stores.gallery, representatives(stores.gallery), line.backbone)
    if len(pixels) < LEAST_PICTURES:
        reason = f"the gallery has {len(pixels)} pictures, {LEAST_PICTURES} are needed to learn their style."
        return {"decision": "undecided", "reason": reason}
    began = time.monotonic()
    gate = config.gate or GateConfig()
    pictures, settings = np.stack(list(pixels.values())), config.adaptation or AdaptConfig()
    given = Adaptation(line.served, replay, watched, known.base, pictures, settings, gate)
    speed = measure(line.served, list(pixels.values())[:TRIED], replay.captions[:TRIED])
    seconds = work_of_adaptation(given).seconds(speed, None)
    signs.say(estimate(Plan(None, seconds, ADAPTING, speed), speed.embed * stores.gallery.count()))
    signs.settings(adaptation=asdict(settings), gate=asdict(gate))
    model, verdict = adapt(given, progress=lambda stage, share: progress(stage, 0.05 + 0.8 * share), note=signs.note)
    metrics = {"base_r1": verdict.numbers["base_after"]}
    outcome = Outcome(verdict, model, metrics=metrics, seconds={"adapting": round(time.monotonic() - began, 1)})
    facts = {"learning": asdict(given.config), "pictures": len(pixels)}
    last = line.active.last_event
    row = keep(stores, line.active, outcome, known.name, "adaptation", facts, last_event=last)
    result: dict[str, Any] = {
        "decision": verdict.decision, "reason": verdict.reason, "version": row.id,
    }  # fmt: skip
    if verdict.decision == "promoted":
        result |= promote(stores, row, line.active, model, progress)
    return result


def _measure(stores: Workspace, config: JobConfig, device: torch.device, signs: Heartbeat) -> dict[str, Any]:
    """R@1 of one version; trains nothing."""
    signs.progress("preparing", 0.0)
    return measure_version(stores, _line_of(stores, config, device), config.version, signs.progress)


_WORK = {"finetune": _tune, "adapt": _adapt, "measure": _measure}


def _plan(
    config: JobConfig,
    choice: Choice,
    served: UPPerson,
    given: ToKeep,
    checked: tuple[Pairs, str, Verdict | None],
) -> tuple[Choice, Plan | None]:
    """How long the round will take and how deep it tunes; none where nothing is to be trained. "auto" trains the text
    tower alone where even the last block of both would take longer than the budget."""
    pairs, _, refusal = checked
    if refusal is not None:
        return choice, None
    speed = measure(served, list(given.pixels.values())[:TRIED], pairs.captions)
    device, gate = str(device_of(served.clip)), config.gate or GateConfig()

    def work(mode: Mode) -> Work:
        return work_of(pairs, given, config.learning or LEARNING[mode], gate, served)

    plan = choose_depth(work("full"), speed, config.minutes, device)
    in_words = work("text").seconds_of_text(speed)
    if choice.mode == "full" and config.mode == "auto" and in_words < 60 * config.minutes < plan.seconds:
        cost = f"even the last block of both would take {format_duration(plan.seconds)} on {device}"
        choice = Choice("text", f"Only the text tower was trained: {cost}, more than {config.minutes:g} minutes.")
    return choice, plan if choice.mode == "full" else Plan(None, in_words, choice.reason, speed)


def _line_of(stores: Workspace, config: JobConfig, device: torch.device) -> Line:
    if config.share_device:
        share_memory(device)
    backbone = load_backbone(config.backbone, weights=config.weights).to(device)
    return line_of(stores, backbone, config.base)


def _choose(wanted: WantedMode, pictures: int, served: UPPerson, sample: Sequence[NDArray[np.uint8]]) -> Choice:
    """The mode of this round; "auto" goes by how long embedding the gallery would take, tried on a few pictures."""
    if wanted != "auto" or not sample:
        return choose_mode("full" if wanted == "auto" else wanted, pictures, 1.0, "")
    tried = np.stack(sample[:TRIED])
    start = time.perf_counter()
    embed_pixels(served, tried)
    per_second = len(tried) / (time.perf_counter() - start)
    return choose_mode(wanted, pictures, per_second, str(device_of(served.backbone.clip)))
