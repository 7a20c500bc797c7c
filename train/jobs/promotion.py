"""Keeping a candidate, and letting it serve once its vectors are complete."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from core.checkpoints import save_petl
from core.encoder import Encoder
from core.model import UPPerson
from store import OvertakenError, VersionRow
from store.workspace import Workspace
from train.finetuning.gate import Verdict
from train.finetuning.round import Outcome
from train.model_card import write_card


def keep(
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


def promote(
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
