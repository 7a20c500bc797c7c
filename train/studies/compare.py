"""Ways of learning from the same marks, side by side: a table and a plot. No gate: what each is worth by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from core.backbones import Backbone
from core.model import UPPerson
from train.embed import embed_pixels
from train.finetuning.loop import LearnConfig, Memory, learn, trainable
from train.finetuning.pairs import build
from train.finetuning.round import LEARNING, held_back, hold, replayed, start_model, watching
from train.studies.simulate import (
    SimulatedMark,
    UserConfig,
    World,
    mark,
    mark_suggested,
    measure,
    measure_reranked,
    side_by_side,
)

Policy = Literal["none", "rerank", "sdm", "misses", "full", "suggest", "text", "backbone"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

RERANKED = 5
"""Marks in each tested search of the policy that only re-ranks."""

TITLES: dict[Policy, str] = {
    "none": "no learning",
    "rerank": f"instant re-rank alone, {RERANKED} marks in each tested search",
    "sdm": "SDM on hits alone",
    "misses": "and explicit misses",
    "full": "full objective",
    "suggest": "the same, half of the marks on suggestions",
    "text": "text mode",
    "backbone": "full fine-tuning of the backbone",
}

BACKBONE = replace(LEARNING["full"], lr=1e-4)
"""For all weights of the backbone, by the full objective; PETL's rate would wreck them."""

FULL_SUPERVISION = 0.843
"""Street R@1 of `mini` trained on 10,000 labelled street people: what there is to learn (README, "Measured")."""

Report = dict[str, Any]
Task = tuple[UserConfig, Policy]


def named(policies: str) -> list[Policy]:
    """Policies by name, separated by commas; "all" for every one. Raises ValueError on others."""
    if policies == "all":
        return list(POLICIES)
    names = [name.strip() for name in policies.split(",") if name.strip()]
    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        raise ValueError(f"unknown policy {', '.join(unknown)}: choose among {', '.join(POLICIES)}, or all")
    return [policy for policy in POLICIES if policy in names]


def compare(
    backbone: Backbone,
    here: World,
    users: Sequence[UserConfig],
    policies: Sequence[Policy],
    *,
    workers: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> list[Report]:
    """What every policy makes of every user's marks, from version 0: R@1, R@10 and mAP on both test sets.

    Re-ranking takes none of the gallery's marks, so of users who differ only in how many they give it is asked once.
    `workers`: see `side_by_side`.
    """
    longest_first = sorted(users, key=lambda user: -user.captions * user.top)  # no process waits for another at the end
    tasks: list[Task] = []
    for user in longest_first:
        again = any(user.seed == other.seed for other, policy in tasks if policy == "rerank")
        tasks += [(user, policy) for policy in policies if policy != "rerank" or not again]
    at_first = measure(UPPerson(backbone), here)
    reports: list[Report] = []
    for report in side_by_side(partial(_report, backbone, here, at_first), tasks, workers=workers):
        reports.append(report)
        progress()
    return reports


def _report(backbone: Backbone, here: World, at_first: dict[str, dict[str, float]], task: Task) -> Report:
    user, policy = task
    plain, trained = UPPerson(backbone), 0
    if policy == "rerank":
        marks, metrics = [], measure_reranked(plain, here, user, judged=RERANKED)
    else:
        marks = mark_suggested(user, here, plain) if policy == "suggest" else mark(user, here, plain)
        metrics = at_first
        if policy != "none":
            model = teach(policy, backbone, here, marks)
            metrics, trained = measure(model, here), sum(p.numel() for p in trainable(model, _towers(policy)))
    gain = metrics["street"]["r1"] - at_first["street"]["r1"]
    return {
        "policy": policy,
        "seed": user.seed,
        "marks": len(marks),
        "hits": sum(m.verdict == "hit" for m in marks),
        "trained": trained,
        "closed": gain / (FULL_SUPERVISION - at_first["street"]["r1"]),
        **metrics,
    }


def _towers(policy: Policy) -> tuple[Literal["image", "text"], ...]:
    return ("text",) if policy == "text" else ("image", "text")


def teach(policy: Policy, backbone: Backbone, here: World, marks: Sequence[SimulatedMark]) -> UPPerson:
    """A model that learnt from these marks as `policy` says, starting from the plain backbone."""
    plain, pairs = UPPerson(backbone), build(marks)
    pixels = dict(zip(here.ids, here.gallery.pixels, strict=True))
    config = BACKBONE if policy == "backbone" else configured(policy)
    known, watched = held_back(here.replay)
    replay = replayed(known, list(here.gallery.pixels), config)
    assert known is not None
    assert replay is not None
    held = hold(plain, known, replay) if config.hold else None
    watch = None if watched is None or policy in ("sdm", "misses") else watching(watched, plain)
    if policy == "backbone":
        model = UPPerson(replace(backbone, clip=copy.deepcopy(backbone.clip).requires_grad_()))
        learn(model, pairs, pixels, replay, config, held=held, forgotten=watch)
        return model
    model, frozen = start_model(backbone, plain, mode="text" if policy == "text" else "full"), None
    if policy == "text":
        rows = embed_pixels(plain, here.gallery.pixels)
        frozen = Memory(dict(zip(here.ids, rows, strict=True)), embed_pixels(plain, replay.pixels))
    learn(model, pairs, pixels, replay, config, frozen=frozen, held=held, forgotten=watch)
    return model


def configured(policy: Policy) -> LearnConfig:
    """The objective of a policy that trains PETL weights."""
    if policy == "text":
        return LEARNING["text"]
    full = LEARNING["full"]
    if policy in ("full", "suggest"):
        return full
    plain = replace(full, look=0.0, mix=1.0, hitless=0, push=0.0, hold=0.0)
    return replace(plain, misses=0) if policy == "sdm" else plain


def table(reports: Sequence[Report]) -> str:
    """Markdown: a row for each policy and number of marks, means and standard deviations over users, in percent."""
    lines = [
        "| policy | marks | street R@1 | R@10 | mAP | gap closed | studio R@1 | weights |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for policy, marks, rows in _grouped(reports):
        street = [[r["street"][name] for r in rows] for name in ("r1", "r10", "mean_ap")]
        values = [*street, [r["closed"] for r in rows], [r["studio"]["r1"] for r in rows]]
        told = " | ".join(_told(each) for each in values)
        lines.append(f"| {TITLES[policy]} | {marks:,} | {told} | {rows[0]['trained']:,} |")
    return "\n".join(lines)


def _grouped(reports: Sequence[Report]) -> list[tuple[Policy, int, list[Report]]]:
    keys = list(dict.fromkeys((POLICIES.index(r["policy"]), r["marks"]) for r in reports))
    return [
        (POLICIES[p], marks, [r for r in reports if (r["policy"], r["marks"]) == (POLICIES[p], marks)])
        for p, marks in sorted(keys)
    ]


def _told(values: Sequence[float]) -> str:
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"


def plot(reports: Sequence[Report], file: Path) -> None:
    """Street R@1 against the number of marks, a line for each policy with its standard deviation. Raises ValueError
    where the file's ending is no picture format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    grouped = _grouped(reports)
    start = next((np.mean([r["street"]["r1"] for r in rows]) for policy, _, rows in grouped if policy == "none"), None)
    for policy in dict.fromkeys(policy for policy, _, _ in grouped if policy != "rerank"):  # R@1 stays as it is
        points = [(marks, [100 * r["street"]["r1"] for r in rows]) for p, marks, rows in grouped if p == policy]
        if policy == "none":
            axes.axhline(float(np.mean(points[0][1])), color="grey", linestyle=":", label=TITLES[policy])
            continue
        if start is not None:
            points.insert(0, (0, [100 * float(start)]))
        spread = [float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for _, values in points]
        x, y = [marks for marks, _ in points], [float(np.mean(values)) for _, values in points]
        axes.errorbar(x, y, spread, marker="o", capsize=3, label=TITLES[policy])
    axes.set(xlabel="marks", ylabel="R@1 on unseen street people, %", title="Learning from marks")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
