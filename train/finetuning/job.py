"""Jobs of the training process: adapt to the gallery, or learn a round of marks, and promote what is better.

Runs in a process of its own (`python -m train finetune`, `adapt`). Nothing that is served changes before the gate has
passed and the new version's vectors are complete; then one transaction moves the pointer.
"""

from __future__ import annotations

import json
import os
import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.backbones import Backbone, device_of, load_backbone
from core.checkpoints import load_version, save_petl
from core.core_errors import CoreError, PictureError
from core.device import choose_device, share_memory
from core.encoder import Encoder, small_pixels
from core.images import open_picture
from core.model import UPPerson
from store import Gallery, OvertakenError, StoreError, VersionRow
from store.workspace import Workspace
from train.embed import embed_pixels
from train.finetuning.adaptation import LEAST_PICTURES, Adaptation, AdaptConfig, adapt
from train.finetuning.config import LEARNING, Choice, LearnConfig, WantedMode, choose_mode
from train.finetuning.gate import GateConfig, Verdict
from train.finetuning.loop import Cancelled
from train.finetuning.pairs import usable
from train.finetuning.replay import Known, Source, known_before, source_of
from train.finetuning.round import REST, Outcome, Round, check, fine_tune
from train.finetuning.start import LEAST_HELD_BACK, held_back
from train.model_card import read_facts, write_card

Kind = Literal["finetune", "adapt"]

TRIED = 32
"""Pictures that are embedded to see how long the whole gallery would take."""


@dataclass(frozen=True, slots=True)
class JobConfig:
    """Which backbone is tuned, and how; `base`: the folder of a data set that it knew before, instead of what its line
    of versions was trained on (`train.finetuning.replay`). `device` is as `core.device.choose_device` takes it;
    `share_device`: the page is served by the same."""

    backbone: str = "mini"
    weights: Path | None = None
    mode: WantedMode = "auto"
    base: Path | None = None
    learning: LearnConfig | None = None
    adaptation: AdaptConfig | None = None
    gate: GateConfig | None = None
    device: str = "auto"
    share_device: bool = False


Progress = Callable[[str, float], None]


def run_job(
    stores: Workspace,
    job_id: int | None,
    config: JobConfig,
    *,
    kind: Kind = "finetune",
    echo: Progress = lambda _s, _f: None,
) -> dict[str, Any]:
    """Run job `job_id` of this `kind` (None: queue one) to its end and return its result.

    The result has `decision` ("promoted", "rejected", "undecided", "suspicious", "cancelled" or "failed"), `reason`
    and, when something was trained, `version`. What goes wrong is recorded with the job before it is raised.
    """
    if job_id is None:
        params = {
            "backbone": config.backbone,
            "last_event": stores.marks.newest(),
            "pictures": _visible(stores.gallery),
        }
        job_id = stores.jobs.queue(kind, params).id
    stores.jobs.start(job_id, os.getpid())

    def progress(stage: str, fraction: float) -> None:
        echo(stage, fraction)
        if not stores.jobs.beat(job_id, stage=stage, fraction=min(1.0, fraction)):
            raise Cancelled

    try:
        result = (_tune if kind == "finetune" else _adapt)(stores, config, progress)
    except Cancelled:
        result = {"decision": "cancelled", "reason": "Cancelled; nothing that is served has changed."}
        stores.jobs.finish(job_id, "cancelled", message=result["reason"], result=result)
        return result
    except Exception as error:
        known = isinstance(error, CoreError | StoreError | ValueError)
        reason = str(error) if known else traceback.format_exception_only(error)[-1].strip()
        stores.jobs.finish(job_id, "failed", message=reason, result={"decision": "failed", "reason": reason})
        raise
    stores.jobs.finish(job_id, "done", message=result["reason"], result=result)
    return result


def _tune(stores: Workspace, config: JobConfig, progress: Progress) -> dict[str, Any]:
    """A round on all marks."""
    progress("preparing", 0.0)
    line = _line(stores, config)
    marks = usable(stores.marks.current())
    last_event = stores.marks.newest()  # afterwards: a mark made meanwhile counts as learnt, never as new
    learnt = stores.marks.captions(until=line.active.last_event)
    gate = config.gate or GateConfig()
    _, _, refusal = check(marks, learnt, gate)
    if refusal is not None:  # said at once, before anything is read and drawn
        return {"decision": refusal.decision, "reason": refusal.reason, "numbers": refusal.numbers}
    known = _known(stores, line, progress)
    rest = _rest(stores.gallery)
    pixels = _pixels(stores.gallery, [*(mark.image_id for mark in marks), *rest], line.backbone)
    seen = [mark for mark in marks if mark.image_id in pixels]
    rest = [image for image in rest if image in pixels]
    choice = _choose(config.mode, stores.gallery.count(), line.served, [pixels[image] for image in rest])
    learning = config.learning or LEARNING[choice.mode]
    given = Round(
        line.served, seen, pixels, rest, learnt, known.replay, known.base, line.origin, learning, gate, choice.mode
    )
    outcome = fine_tune(given, progress=lambda stage, share: progress(stage, 0.05 + 0.8 * share))
    verdict = outcome.verdict
    lost = f" Left out: marks on pictures that are gone or cannot be read ({len(marks) - len(seen)})."
    reason = verdict.reason + (lost if len(seen) < len(marks) else "")
    result: dict[str, Any] = {"decision": verdict.decision, "reason": reason}
    if outcome.model is None:
        return result | {"numbers": verdict.numbers}
    outcome.verdict = replace(verdict, reason=f"{reason} {choice.reason}")
    facts = {"mode": choice.mode, "learning": asdict(learning) | {"mix": outcome.mix}}
    vectors = line.active.vectors if choice.mode == "text" else ""
    row = _keep(stores, line.active, outcome, known.name, "marks", facts, last_event=last_event, vectors=vectors)
    result |= {"reason": outcome.verdict.reason, "version": row.id, "mode": choice.mode, "seconds": outcome.seconds}
    if verdict.decision == "promoted":
        result |= _promote(stores, row, line.active, outcome.model, progress)
    return result


def _adapt(stores: Workspace, config: JobConfig, progress: Progress) -> dict[str, Any]:
    """Adaptation to the gallery's style; learns nothing from marks."""
    progress("preparing", 0.0)
    line = _line(stores, config)
    known = _known(stores, line, progress)
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
    pixels = _pixels(stores.gallery, _rest(stores.gallery), line.backbone)
    if len(pixels) < LEAST_PICTURES:
        reason = f"the gallery has {len(pixels)} pictures, {LEAST_PICTURES} are needed to learn their style."
        return {"decision": "undecided", "reason": reason}
    began = time.monotonic()
    gate = config.gate or GateConfig()
    pictures, settings = np.stack(list(pixels.values())), config.adaptation or AdaptConfig()
    given = Adaptation(line.served, replay, watched, known.base, pictures, settings, gate)
    model, verdict = adapt(given, progress=lambda stage, share: progress(stage, 0.05 + 0.8 * share))
    metrics = {"base_r1": verdict.numbers["base_after"]}
    outcome = Outcome(verdict, model, metrics=metrics, seconds={"adapting": round(time.monotonic() - began, 1)})
    facts = {"learning": asdict(given.config), "pictures": len(pixels)}
    last = line.active.last_event
    row = _keep(stores, line.active, outcome, known.name, "adaptation", facts, last_event=last)
    result: dict[str, Any] = {
        "decision": verdict.decision, "reason": verdict.reason, "version": row.id, "seconds": outcome.seconds,
    }  # fmt: skip
    if verdict.decision == "promoted":
        result |= _promote(stores, row, line.active, model, progress)
    return result


@dataclass(frozen=True, slots=True)
class _Line:
    """The version that serves, the one that its line of versions begins with, and where the pairs are that it knows."""

    backbone: Backbone
    active: VersionRow
    served: UPPerson
    origin: UPPerson
    source: Source


def _line(stores: Workspace, config: JobConfig) -> _Line:
    device = choose_device(config.device)
    if config.share_device:
        share_memory(device)
    backbone = load_backbone(config.backbone, weights=config.weights).to(device)
    base = stores.versions.ensure_base(backbone.name)
    active = stores.versions.active(backbone.name)

    def load(row: VersionRow) -> UPPerson:
        return UPPerson(backbone) if row.id == base.id else load_version(backbone, stores.version_folder(row))

    begin, source = lineage(stores, active)
    if config.base is not None:
        source = Source("data set", path=config.base)
    served = load(active)
    return _Line(backbone, active, served, served if begin.id == active.id else load(begin), source)


def lineage(stores: Workspace, row: VersionRow) -> tuple[VersionRow, Source]:
    """The version at which the line of `row` begins, and where the pairs are that it was trained on: the nearest
    version that says so, else the plain backbone, of which only `mini` is known."""
    while True:
        if row.folder is not None:
            folder = stores.version_folder(row)
            source = source_of(read_facts(folder), folder)
            if source is not None:
                return row, source
        if row.parent is None:
            break
        row = stores.versions.get(row.parent)
    if row.folder is not None:  # added without a word of what it was trained on
        return row, Source("nothing")
    return row, Source("drawn", "studio") if row.backbone == "mini" else Source("nothing")


def _known(stores: Workspace, line: _Line, progress: Progress) -> Known:
    return known_before(
        line.backbone,
        line.source,
        cache=stores.folder / "cache",
        gallery=stores.gallery.ids(),
        progress=lambda share: progress("preparing", 0.04 * share),
    )


def _promote(
    stores: Workspace, row: VersionRow, active: VersionRow, model: UPPerson, progress: Callable[[str, float], None]
) -> dict[str, Any]:
    """Let the gate's decision take effect, unless another version than `active` serves by now: what that changes."""
    why = str(row.gate["reason"])

    def promoting(stage: str, share: float) -> None:
        progress(stage, 0.87 + 0.12 * share)

    try:
        stores.promote(row, Encoder(model), by="gate", reason=why, expected=active.id, progress=promoting)
    except OvertakenError as error:
        reason = (
            f"{error} The gate compared {row.id} with {active.id} only, so it was kept as a candidate; an "
            f"administrator may promote it. The verdict was: {why}"
        )
        stores.versions.update_gate(row.id, row.gate | {"decision": "undecided", "reason": reason})
        return {"decision": "undecided", "reason": reason}
    return {}


def _choose(wanted: WantedMode, pictures: int, served: UPPerson, sample: Sequence[NDArray[np.uint8]]) -> Choice:
    """The mode of this round; "auto" goes by how long embedding the gallery would take, tried on a few pictures."""
    if wanted != "auto" or not sample:
        return choose_mode("full" if wanted == "auto" else wanted, pictures, 1.0, "")
    tried = np.stack(sample[:TRIED])
    start = time.perf_counter()
    embed_pixels(served, tried)
    per_second = len(tried) / (time.perf_counter() - start)
    return choose_mode(wanted, pictures, per_second, str(device_of(served.backbone.clip)))


def _keep(
    stores: Workspace,
    active: VersionRow,
    outcome: Outcome,
    known: str,
    learnt_from: Literal["marks", "adaptation"],
    more: dict[str, Any],
    *,
    last_event: int,
    vectors: str = "",
) -> VersionRow:
    """Write the candidate's weights, then its row: a row always has its file."""
    assert outcome.model is not None
    name = stores.versions.next_id(active.backbone)
    folder = Path("models", name)
    save_petl(outcome.model, stores.folder / folder)
    verdict: Verdict = outcome.verdict
    gate = {
        "decision": verdict.decision,
        "reason": verdict.reason,
        "learnt_from": learnt_from,
        "numbers": verdict.numbers | {"base_set": known},
    }
    facts = {"metrics": outcome.metrics, "gate": gate, "seconds": outcome.seconds, "known": known, **more}
    (stores.folder / folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    row = stores.versions.add(
        VersionRow(
            id=name,
            backbone=active.backbone,
            parent=active.id,
            status="rejected" if verdict.decision == "rejected" else "candidate",
            folder=str(folder),
            metrics=outcome.metrics,
            gate=gate,
            last_event=last_event,
            mark_counts={kind: outcome.metrics[kind] for kind in ("hits", "misses") if kind in outcome.metrics},
            vectors=vectors or name,
        )
    )
    write_card(stores.folder / folder, row, active)
    return row


def _visible(gallery: Gallery) -> int:
    """Number of pictures that are searched now."""
    hidden = set(gallery.hidden_sources)
    return sum(count for source, count in gallery.sources().items() if source not in hidden)


def _rest(gallery: Gallery) -> list[str]:
    """At most `REST` ids of the gallery that is searched now, the same ones every time."""
    hidden = set(gallery.hidden_sources)
    ids = sorted(gallery.ids())
    if hidden:
        ids = [row.id for row in gallery.rows(ids) if row.source not in hidden]
    return ids if len(ids) <= REST else random.Random(0).sample(ids, REST)


def _pixels(gallery: Gallery, ids: Sequence[str], backbone: Backbone) -> dict[str, NDArray[np.uint8]]:
    """Pixels uint8 (H, W, 3) at the backbone's size of the pictures that are there and can be read."""
    pixels = {}
    wanted = list(dict.fromkeys(ids))
    for start in range(0, len(wanted), 64):
        for image_id, data in gallery.datas(wanted[start : start + 64]).items():
            try:
                picture = open_picture(data)
            except PictureError:
                continue  # `check` reports it; a picture that cannot be seen teaches nothing
            pixels[image_id] = small_pixels(picture, backbone)
    return pixels
