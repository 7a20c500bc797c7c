"""What the Learning page says in sentences, and what it draws over all versions; pure functions of what is known."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from app.pages.component import JSON, sentence
from app.search.serialise import iso
from app.search.views import LearningView, VersionView
from store import JobRow, VersionRow
from store.versions import measured_on_base

_CSV = (
    "version", "from", "status", "made", "learnt from", "quality check", "reason", "hits", "misses", "in use",
    "by hand",
)  # fmt: skip


_RESULTS = {
    "promoted": ("good", "{version} was promoted"),
    "rejected": ("plain", "{version} was rejected"),
    "undecided": ("plain", "The quality check could not decide"),
    "suspicious": ("bad", "The marks look hostile: nothing was trained"),
}
_MEASURES = {"undecided": ("plain", "Nothing could be measured")}
KINDS = {"finetune": "Learning from marks", "adapt": "Adapting to the gallery", "measure": "Measuring a version"}
_ENDS = {
    "failed": ("bad", "The last run failed"),
    "cancelled": ("plain", "The last run was cancelled"),
    "done": ("plain", "The last run has ended"),
}
_ADAPTED = {
    "promoted": ("good", "{version} adapted to the gallery's style"),
    "rejected": ("plain", "{version}, adapted to the gallery's style, was rejected"),
    "undecided": ("plain", "Nothing was adapted to the gallery's style"),
}


def headline(view: LearningView, measured: Mapping[str, float]) -> str:
    """The first sentence: how good the version in use is, and how good the first one was."""
    used, first = view.serving, view.versions[-1].id if view.versions else view.serving
    now, before = measured.get(used), measured.get(first)
    if now is None:
        learnt = "nothing was learnt here yet" if used == first else "it was never measured on the test descriptions"
        return f"{used} is in use; {learnt}."
    said = f"{_of_100(now)} test descriptions find the right person first with {used}, which is in use"
    if used == first or before is None:
        return f"{said}."
    return f"{said}; {round(100 * before)} did with {first}, where it began."


def next_step(view: LearningView) -> str:
    """What happens next."""
    job = view.job
    if job is None:
        return view.policy
    if job.state == "cancelling":
        return f"The run is being cancelled, and {view.serving} stays in use."
    if job.kind == "measure":
        return f"A version is being measured. {view.serving} stays in use."
    learns = "adapts to the gallery's style" if job.kind == "adapt" else "learns from the marks"
    return f"A run {learns} now. {view.serving} stays in use until the quality check has judged the new version."


def ended(job: JobRow, serving: str) -> JSON:
    """The last run that ended: how, why, when, and how long it took."""
    at = job.finished_at or job.created_at
    tone, title = _ENDS[job.state]
    if job.state == "done":
        titles = {"adapt": _ADAPTED, "measure": _MEASURES}.get(job.kind, _RESULTS)
        tone, title = titles.get(str(job.result.get("decision")), (tone, title))
    version, promoted = job.result.get("version") or "The new version", job.result.get("decision") == "promoted"
    return {
        "title": title.format(version=version) + (" and is in use" if promoted and version == serving else ""),
        "tone": tone,
        "reason": sentence(str(job.result.get("reason") or job.message)),
        "when": iso(at),
        "took": (at - (job.started_at or job.created_at)).total_seconds(),
        "version": job.result.get("version"),
    }


_PREPARING = {
    "queued": "The training process starts.",
    "starting": "The training process starts.",
    "preparing": "Loads the backbone and the version in use.",
    "drawing known people": "Draws the people that the model was first trained on, so that it does not forget them. "
    "They are kept for the next run.",
    "reading known people": "Reads the people that the model was trained on, so that it does not forget them.",
    "reading the gallery": "Reads pictures of the gallery.",
}
"""What a run does in stages that have no message."""


def preparing(job: JobRow) -> str:
    """Return what a run does in its stage where that takes long; empty for other stages."""
    return _PREPARING.get(job.stage, "")


def seconds_of_last(job: JobRow, jobs: Sequence[JobRow]) -> float | None:
    """How long the last run took that trained, of the same kind, backbone and mode; None where there was none.

    `jobs` are of the same kind, newest first. A run of fine-tuning chooses its mode after it has read the gallery;
    until then there is no run to compare it with.
    """
    for other in jobs:
        same = other.params.get("backbone") == job.params.get("backbone")
        same = same and other.result.get("mode") == job.result.get("mode")
        if same and other.started_at and other.finished_at and other.result.get("version"):
            return (other.finished_at - other.started_at).total_seconds()
    return None


def most_help(view: LearningView) -> str:
    """What the people who mark can do that would help most."""
    ready = view.ready
    if view.job is not None:
        return "Marks made from now on count for the run after this one."
    if not view.hits:
        return "What would help most: search for people and mark those that fit as hits."
    if ready.missing:
        people = "person" if ready.missing == 1 else "people"
        return f"What would help most: mark a hit and a miss for {ready.missing:,} more {people}."
    return "What would help most: hits and misses for people that were not marked yet make the quality check surer."


def start_text(view: LearningView) -> str:
    """What the button that starts a run would do."""
    ready = view.ready
    if ready.missing:
        have = f"{ready.captions:,} {'description' if ready.captions == 1 else 'descriptions'} of {ready.people:,} "
        have += f"different {'person' if ready.people == 1 else 'people'}"
        return (
            f"The quality check could not judge a run yet: it needs {ready.needed:,} descriptions of different people "
            f"with a hit and a miss each that the version in use has not learnt from; so far: {have}."
        )
    return (
        f"Learns new weights from all {view.total_marks:,} marks in the background. "
        "What is in use changes only if the quality check finds them better."
    )


def why_not_start(view: LearningView) -> str:
    """Why no run can be started; empty where one can."""
    if not view.may_train:
        return "Only an administrator of this app may start a run."
    if not view.hits:
        return "There is nothing to learn from yet: mark at least one result as a hit first."
    return ""


def why_no_roll_back(view: LearningView, back: str | None) -> str:
    """Why nothing can be rolled back; empty where it can."""
    if not view.may_train:
        return "Only an administrator of this app may roll back."
    if back is None:
        return "No other version has served before this one."
    return "Wait for the run that is under way." if view.job else ""


def chart(rows: Sequence[VersionRow], serving: str) -> JSON:
    """Points of the line chart: every version, with R@1 on the same fixed set or None where it was not measured."""
    name, values = measured_on_base(rows)
    points = [{"id": row.id, "value": values.get(row.id), "in_use": row.id == serving} for row in rows]
    missing = [row.id for row in rows if row.id not in values] if len(rows) > 1 else []
    return {"set": name, "points": points if len(values) > 1 else [], "missing": missing}


def origins(rows: Sequence[VersionRow], serving: str) -> list[str]:
    """What the version in use gained from adaptation and what from marks, a sentence for each version of its line."""
    by_id, said = {row.id: row for row in rows}, list[str]()
    version: str | None = serving
    while version is not None and version in by_id:
        row = by_id[version]
        numbers, version = row.gate.get("numbers") or {}, row.parent
        if row.gate.get("learnt_from") == "adaptation":
            after, before = numbers.get("styled_after"), numbers.get("styled_before")
            text = "known people in the gallery's style are recognised with {after} instead of {before} of certainty"
        else:
            after, before = numbers.get("order_after"), numbers.get("order_before")
            text = "a hit beats a miss in {after} instead of {before} of pairs held out"
        if isinstance(after, float) and isinstance(before, float):
            source = "adaptation, without marks" if row.gate.get("learnt_from") == "adaptation" else "marks"
            said.append(f"{row.id}, from {source}: {text.format(after=_percent(after), before=_percent(before))}.")
    return said[::-1]


def verdict_in_short(version: VersionView) -> str:
    """The quality check's verdict in one line: the decision, and its reason up to the first colon or full stop."""
    if not version.decision:
        return ""
    reason = version.reason.partition(": ")[0].partition(". ")[0].rstrip(".")
    return f"{version.decision}, {reason[:160]}" if reason else version.decision


def table_of(view: LearningView, rows: Sequence[VersionRow], by_hand: frozenset[str]) -> str:
    """All versions as CSV with every figure that is known, for a spreadsheet."""
    figures = list(dict.fromkeys(name for row in rows for name in _figures(row)))
    facts = {row.id: row for row in rows}
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*_CSV, *figures])
    for one in view.versions:
        row = facts.get(one.id)
        known = _figures(row) if row else {}
        values = [
            one.id, one.parent, one.status, one.created_at.isoformat(), one.learnt_from, one.decision, one.reason,
            one.marks.get("hits"), one.marks.get("misses"), one.serving, one.id in by_hand,
        ]  # fmt: skip
        writer.writerow([_cell(value) for value in (*values, *(known.get(name) for name in figures))])
    return out.getvalue()


def _figures(row: VersionRow) -> dict[str, float]:
    numbers = row.gate.get("numbers") or {}
    return {name: value for some in (row.metrics, numbers) for name, value in some.items() if isinstance(value, float)}


def _cell(value: object) -> object:
    """A text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _of_100(share: float) -> str:
    return f"{round(100 * share)} of 100"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
