"""The model card of a version: what it is built on, what it learnt from, what it is worth, what it must not do."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from core.checkpoints import WEIGHTS_FILE, read_petl_config
from core.core_errors import CheckpointError
from store import VersionRow

CARD_NAME, FACTS_FILE = "README.md", "facts.json"
_BY_MARKS = "fine-tuned on marks that users of UP-Person Search made"
WEIGHTS_DIGEST = "weights_sha256"
"""What facts may say of the weights' file that they are about."""
_LONGEST = 500


def write_card(folder: Path, row: VersionRow, parent: VersionRow | None) -> Path:
    """Write the card beside the weights in `folder`. Raises CheckpointError when their config cannot be read."""
    _, config = read_petl_config(folder)
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as weights:
        names = list(weights.keys())
        size = sum(_product(weights.get_slice(name).get_shape()) for name in names)
    sizes = f"prefix length {config.prefix_length}, LoRA rank {config.lora_rank}, adapters 1/{config.adapter_reduction}"
    path = folder / CARD_NAME
    petl = f"{size:,} parameters ({sizes})"
    path.write_text(card(row, parent, petl, trained_on=trained_on(folder)), encoding="utf-8")
    return path


def trained_on(folder: Path) -> str:
    """Name of the data set that `fit` trained the version in `folder` on; empty for another version."""
    said = read_facts(folder).get("trained_on")
    name = said.get("name") if isinstance(said, Mapping) else None
    return name if isinstance(name, str) and re.fullmatch(r"[\w-]{1,40}", name) else ""


def card(row: VersionRow, parent: VersionRow | None, petl: str, *, trained_on: str = "") -> str:
    """Markdown with the Hub's front matter; nothing that users typed."""
    marks = ", ".join(f"{_cell(number)} {_cell(name)}" for name, number in row.mark_counts.items()) or "none recorded"
    decision = row.gate.get("decision", "not judged")
    adapted = row.gate.get("learnt_from") == "adaptation"
    learnt = "adapted to a gallery's style without any mark" if adapted else _BY_MARKS
    if trained_on:
        learnt = f"trained on the data set {trained_on}"
    return f"""---
license: apache-2.0
library_name: up-person-search
pipeline_tag: zero-shot-image-classification
tags:
- text-based-person-search
- peft
- clip
---

# {row.id}

PETL weights of UP-Person (S-Prefix, LoRA on K and V, L-Adapter in every block; arXiv 2504.10084) for the frozen
backbone `{row.backbone}`, {learnt}.

| | |
| --- | --- |
| backbone | `{row.backbone}` |
| PETL weights | {petl} |
| trained from | {f"`{row.parent}`" if row.parent else "the plain backbone"} |
| data set trained on | {trained_on or "none"} |
| marks learnt from | {marks} |
| made | {row.created_at:%Y-%m-%d} |
| gate | {_cell(decision)}: {_cell(row.gate.get("reason", ""))} |

## Measured

Fractions. *Before* is the version that served then; held-out figures are those of the two-fold cross-fit.

{_table(row, parent)}

## Use

```
python -m train add path/to/this/folder
python -m train promote THE_VERSION_IT_PRINTS
```

## Licence and limits

The weights may carry traces of the marks and pictures they were trained on; the licence above is that of the code,
and those who share the weights must have the right to. They fit the backbone named above and no other. Scores are
similarities, not identities: do not decide about people by them. CLIP's biases (sex, age, skin, dress) remain, and
marks can amplify them.
"""


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what a version's folder says of its metrics and gate; empty where it says nothing that can be read.

    Raises CheckpointError when it says it of other weights than those in the folder.
    """
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(facts, dict):
        return {}
    if WEIGHTS_DIGEST in facts and facts[WEIGHTS_DIGEST] != weights_digest(folder):
        raise CheckpointError(
            f"{FACTS_FILE} and {WEIGHTS_FILE} in {folder} do not belong together, as when a run is killed between "
            "writing them: go on with the run by `fit --resume`, or copy the folder again"
        )
    return facts


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of the weights' file in `folder`; empty when there is none."""
    try:
        with (folder / WEIGHTS_FILE).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def _table(row: VersionRow, parent: VersionRow | None) -> str:
    numbers = _mapping(row.gate.get("numbers"))
    before, after = _numbers(parent.metrics if parent else {}), _numbers(row.metrics)
    lines: dict[str, tuple[float | None, float | None]] = {
        name: (before.get(name), value) for name, value in after.items()
    }
    for name, value in _numbers(numbers).items():
        stem, _, end = name.rpartition("_")
        if end in ("before", "after"):
            one, other = lines.get(stem, (None, None))
            lines[stem] = (value, other) if end == "before" else (one, value)
        else:
            lines.setdefault(name, (None, value))
    if not lines:
        return "Nothing was measured."
    rows = [f"| {_cell(name)} | {_said(old)} | {_said(new)} |" for name, (old, new) in sorted(lines.items())]
    return "\n".join(["| figure | before | after |", "| --- | --- | --- |", *rows])


def _numbers(facts: Mapping[str, Any]) -> dict[str, float]:
    return {name: v for name, v in facts.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _cell(value: object) -> str:
    """What somebody else's file may have said, as plain text in a cell: no markup, and no formula for a spreadsheet."""
    text = " ".join(str(value).split())[:_LONGEST]
    text = re.sub(r"[&<|`\[$]", lambda sign: f"&#{ord(sign[0])};", text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _said(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _product(shape: list[int]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total
