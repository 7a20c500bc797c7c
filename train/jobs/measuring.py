"""Measuring a version that no quality check has judged, by the pairs that the version in use is judged by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from store.workspace import Workspace
from train.finetuning.start import r1
from train.jobs.lines import Line, known_pairs, load_row


def measure_version(
    stores: Workspace, line: Line, version: str, progress: Callable[[str, float], None]
) -> dict[str, Any]:
    """R@1 of `version` on the base set of `line`, kept with the version; what is in use stays.

    Raises VersionError where there is no such version, ValueError for one of another backbone.
    """
    row = stores.versions.get(version)
    if row.backbone != line.backbone.name:
        raise ValueError(
            f"{version} has the backbone {row.backbone}, and {line.active.id}, which is in use, has "
            f"{line.backbone.name}: name the backbone of {version} and its weights"
        )
    known = known_pairs(stores, line, progress)
    if known.base is None:
        reason = (
            f"nothing is known of what {line.active.id} was trained on, so there is nothing to measure by. Name the "
            "folder of a data set that it knows: UPPERSON_TRAIN_BASE=DIR, or --base DIR."
        )
        return {"decision": "undecided", "reason": reason}
    progress("measuring", 0.5)
    model = line.served if row.id == line.active.id else load_row(stores, line.backbone, row)
    value = r1(model, known.base)
    progress("measuring", 0.9)  # a run that was cancelled meanwhile writes nothing
    row = stores.versions.get(version)  # what was written meanwhile stays
    measured = {**row.gate.get("measured", {}), known.name: value}
    judged = row.metrics.get("base_r1") is not None  # perhaps on another set
    metrics = row.metrics if judged else {**row.metrics, "base_r1": value}
    stores.versions.update_gate(version, {**row.gate, "measured": measured}, metrics=metrics)
    count = len(known.base.captions)
    reason = f"{100 * value:.1f} % of {count:,} test descriptions find the right person first with {version}."
    return {"decision": "measured", "reason": reason, "version": version}
