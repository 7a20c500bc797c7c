"""Ways of learning from the same marks, side by side: a table and a plot. No gate: what each is worth by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core.backbones import Backbone
from core.model import UPPerson
from train.embed import embed_pixels
from train.finetuning.adaptation import Adaptation, replayed, train
from train.finetuning.config import LEARNING, LearnConfig
from train.finetuning.controls import shuffled
from train.finetuning.loop import learn, trainable
from train.finetuning.pairs import build
from train.finetuning.start import confusion, held_back, start_model
from train.studies.choices import POLICIES, Policy, UserConfig
from train.studies.simulate import (
    Measured,
    SimulatedMark,
    Start,
    World,
    asked_people,
    harmed,
    mark,
    mark_suggested,
    measure,
    measure_reranked,
    side_by_side,
)

RERANKED = 5
"""Marks in each tested search of the policy that only re-ranks."""

TITLES: dict[Policy, str] = {
    "none": "no learning",
    "rerank": f"instant re-rank alone, {RERANKED} marks in each tested search",
    "adapted": "adapted, no marks",
    "sdm": "adapted, then SDM on hits alone",
    "misses": "and explicit misses",
    "shuffled": "full objective, verdicts shuffled within captions",
    "full": "full objective",
    "suggest": "the same, half of the marks on suggestions",
    "text": "text mode",
    "backbone": "full fine-tuning of the backbone, both steps",
}

BACKBONE_LR = 1e-4
"""For all weights of the backbone; the learning rate of PETL weights would wreck them."""

SETS = ("unseen", "studio", "asked", "others")

Report = dict[str, Any]
Task = tuple[UserConfig, Policy]


def compare(
    begin: Start,
    here: World,
    users: Sequence[UserConfig],
    policies: Sequence[Policy],
    *,
    workers: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> list[Report]:
    """Return what every policy makes of every user's marks, made on what serves at the start: metrics on all sets.

    Re-ranking takes none of the gallery's marks, so users who differ only in how many they give share its report.
    `workers`: see `side_by_side`.
    """
    longest_first = sorted(users, key=lambda user: -user.captions * user.top)  # no process waits for another at the end
    tasks: list[Task] = []
    for user in longest_first:
        again = any(user.seed == other.seed for other, policy in tasks if policy == "rerank")
        tasks += [(user, policy) for policy in policies if policy != "rerank" or not again]
    reports: list[Report] = []
    for report in side_by_side(partial(_report, begin, here), tasks, workers=workers):
        reports.append(report)
        progress()
    return reports


def _report(begin: Start, here: World, task: Task) -> Report:
    user, policy = task
    backbone = begin.served.backbone
    people = asked_people(user, here, 0)
    before, trained = measure(begin.served, here, people), 0
    marks: list[SimulatedMark] = []
    after: dict[str, Measured] = before
    if policy == "rerank":
        after = measure_reranked(begin.served, here, user, judged=RERANKED)
    elif policy == "none":
        after = measure(UPPerson(backbone), here, people)
    elif policy != "adapted":
        marks = (mark_suggested if policy == "suggest" else mark)(user, here, begin.served)
        model = teach(policy, begin.served, here, marks)
        after, trained = measure(model, here, people), sum(p.numel() for p in trainable(model, _towers(policy)))
    return {
        "policy": policy,
        "domain": here.domain,
        "seed": user.seed,
        "marks": user.captions * user.top,
        "hits": sum(m.verdict == "hit" for m in marks),
        "trained": trained,
        "harmed": harmed(before, after, here.domain),
        **{("unseen" if name == here.domain else name): found.metrics for name, found in after.items()},
    }


def _towers(policy: Policy) -> tuple[Literal["image", "text"], ...]:
    return ("text",) if policy == "text" else ("image", "text")


def teach(policy: Policy, served: UPPerson, here: World, marks: Sequence[SimulatedMark]) -> UPPerson:
    """Return a model that learnt from these marks as `policy` says, starting from what serves."""
    pairs = build(marks)
    if policy == "shuffled":
        pairs = shuffled(pairs, np.random.default_rng(0))
    config = configured(policy)
    known, watched = held_back(here.replay)
    assert known is not None
    assert watched is not None
    if policy == "backbone":
        model = served = _adapted_backbone(served.backbone, here)
    else:
        model = start_model(served, mode="text" if policy == "text" else "full")
    frozen = policy == "text"
    rows = embed_pixels(served, here.gallery.pixels) if frozen else here.gallery.pixels
    before = confusion(served, watched)
    learn(
        model,
        pairs,
        dict(zip(here.ids, rows, strict=True)),
        replayed(served, known),
        config,
        frozen=frozen,
        forgotten=None if policy in ("sdm", "misses") else lambda model: confusion(model, watched) - before,
    )
    return model


def _adapted_backbone(backbone: Backbone, here: World) -> UPPerson:
    """Return all weights of the backbone, adapted to the gallery as PETL weights are."""
    known, watched = held_back(here.replay)
    assert known is not None
    assert watched is not None
    model = UPPerson(replace(backbone, clip=copy.deepcopy(backbone.clip).requires_grad_()))
    given = Adaptation(UPPerson(backbone), known, watched, here.base, here.gallery.pixels)
    slow = replace(given.config, optimisation=replace(given.config.optimisation, lr=BACKBONE_LR))
    return train(replace(given, config=slow), model)


def configured(policy: Policy) -> LearnConfig:
    """Return the objective of a policy."""
    if policy == "text":
        return LEARNING["text"]
    full = LEARNING["full"]
    if policy == "backbone":
        return replace(full, optimisation=replace(full.optimisation, lr=BACKBONE_LR))
    if policy not in ("sdm", "misses"):
        return full
    sampling = replace(full.sampling, occluded=0.0, negative_only=0)
    sampling = replace(sampling, misses=0) if policy == "sdm" else sampling
    optimisation = replace(full.optimisation, person=0.0, push=0.0, mix=1.0)
    return LearnConfig(sampling, optimisation, replace(full.retention, distil=0.0))


def summary(reports: Sequence[Report]) -> dict[str, Any]:
    """Means over users by number of marks, in fractions: what the full objective gains over each control."""
    found: dict[str, Any] = {}
    grouped = {(policy, marks): rows for policy, marks, rows in _grouped(reports)}
    for (policy, marks), rows in grouped.items():
        if policy != "full":
            continue
        for control in ("shuffled", "adapted"):
            if (control, marks) in grouped:
                gains = {
                    name: float(np.mean([r[name]["r1"] for r in rows]))
                    - float(np.mean([r[name]["r1"] for r in grouped[control, marks]]))
                    for name in SETS
                    if all(name in r for r in [*rows, *grouped[control, marks]])
                }
                found[f"{marks} marks, full minus {control}"] = gains
    return found


def table(reports: Sequence[Report]) -> str:
    """Markdown: a row for each policy and number of marks, means and standard deviations over users, in percent."""
    lines = [
        "| policy | marks | unseen R@1 | R@10 | mAP | studio R@1 | asked R@1 | others R@1 | harmed | weights |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for policy, marks, rows in _grouped(reports):
        values = [[r["unseen"][name] for r in rows] for name in ("r1", "r10", "mean_ap")]
        values += [[r[name]["r1"] for r in rows if name in r] for name in SETS[1:]]
        cells = " | ".join(_percent(each) for each in [*values, [r["harmed"]["right"] for r in rows]])
        lines.append(f"| {TITLES[policy]} | {marks:,} | {cells} | {rows[0]['trained']:,} |")
    for name, gains in summary(reports).items():
        lines.append(f"\n{name}: " + ", ".join(f"{key} {100 * gain:+.1f}" for key, gain in gains.items()))
    return "\n".join(lines)


def _grouped(reports: Sequence[Report]) -> list[tuple[Policy, int, list[Report]]]:
    keys = list(dict.fromkeys((POLICIES.index(r["policy"]), r["marks"]) for r in reports))
    return [
        (POLICIES[p], marks, [r for r in reports if (r["policy"], r["marks"]) == (POLICIES[p], marks)])
        for p, marks in sorted(keys)
    ]


def _percent(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"


def plot(reports: Sequence[Report], file: Path) -> None:
    """R@1 on unseen people against the number of marks, a line for each policy with its standard deviation.

    Raises ValueError where the file's ending is no picture format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    grouped = _grouped(reports)
    adapted = [r["unseen"]["r1"] for policy, _, rows in grouped if policy == "adapted" for r in rows]
    start = float(np.mean(adapted)) if adapted else None
    for policy in dict.fromkeys(policy for policy, _, _ in grouped if policy != "rerank"):  # R@1 stays as it is
        points = [(marks, [100 * r["unseen"]["r1"] for r in rows]) for p, marks, rows in grouped if p == policy]
        if policy in ("none", "adapted"):
            style = ":" if policy == "none" else "--"
            axes.axhline(float(np.mean(points[0][1])), color="grey", linestyle=style, label=TITLES[policy])
            continue
        if start is not None:
            points.insert(0, (0, [100 * float(start)]))
        spread = [float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for _, values in points]
        x, y = [marks for marks, _ in points], [float(np.mean(values)) for _, values in points]
        axes.errorbar(x, y, spread, marker="o", capsize=3, label=TITLES[policy])
    axes.set(xlabel="marks", ylabel="R@1 on unseen people, %", title="Learning from marks")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
