"""The learning page: marks, the run under way, the versions, and what people may do about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import gradio as gr

from app.app_errors import NotAllowedError, known_errors, without_paths
from app.pages.component import JSON, Action, island, sentence, text_of
from app.pages.learning_summary import (
    KINDS,
    chart,
    ended,
    headline,
    most_help,
    next_step,
    origins,
    preparing,
    seconds_of_last,
    start_text,
    table_of,
    verdict_in_short,
    why_no_roll_back,
    why_not_start,
)
from app.search.serialise import iso
from app.search.views import LearningView, VersionView
from app.services import Services
from store import JobRow
from store.records import EXPORT_FORMATS
from store.versions import measured_on_base

_TEMPLATE = """
<section class="up-learning" aria-label="Learning">
  <div data-part="line" role="status" hidden></div>
  <div class="up-facts-part" data-part="facts"></div>
  <div class="up-chart-part" data-part="chart"></div>
  <div class="up-run-part" data-part="run"></div>
  <div class="up-versions-part" data-part="versions"></div>
  <div class="up-hidden" data-part="live" aria-live="polite"></div>
</section>
"""

_EXPORT = """
<h2>Your data set</h2>
<p>Everybody's current marks, split by person, with a card that describes them. Names become pseudonyms.</p>
"""
_FORMATS = [
    ("Parquet with pictures", "parquet"),
    ("CUHK-PEDES (hits only)", "cuhk-pedes"),
    ("Folders of pictures", "imagefolder"),
    ("Marks only (JSON lines)", "jsonl"),
]
assert tuple(name for _, name in _FORMATS) == EXPORT_FORMATS
_LINE = '<p class="up-notice up-notice-error" role="status" hidden></p>'
_SHOW = """
const line = element.querySelector("p");
watch("value", () => {
  line.textContent = props.value.message;
  line.hidden = !props.value.message;
  line.classList.toggle("up-notice-error", !props.value.done);
});
"""
_DOWNLOAD = "(said) => { if (said.done) setTimeout(() => document.querySelector('#up-file')?.click(), 50); }"

_LEARNT_FROM = {"adaptation": "adapted to the gallery, no marks", "marks": "learnt from marks"}


class LearningPage:
    """Lays the page out in the Blocks context it is built in."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.panel = island(
            {},
            template=_TEMPLATE,
            script=("learning_chart.js", "learning_run.js", "learning.js", "learning_versions.js"),
            elem_id="up-learning",
            services=services,
            actions=actions(services),
        )
        with gr.Row(elem_classes="up-export"):
            gr.HTML(html_template=_EXPORT, apply_default_css=False)
            format = gr.Dropdown(
                _FORMATS, value="parquet", label="Format", scale=0, min_width=280, elem_id="up-export-format"
            )
            ask = gr.Button("Export marks", scale=0, min_width=150, elem_id="up-export")
            self.file = gr.DownloadButton("Download", scale=0, min_width=150, visible="hidden", elem_id="up-file")
        self.message = gr.HTML(
            {"message": "", "done": False}, html_template=_LINE, js_on_load=_SHOW, apply_default_css=False
        )
        ask.click(
            self.export, format, [self.file, self.message], show_progress="hidden", api_visibility="private"
        ).success(None, self.message, js=_DOWNLOAD, api_visibility="private")

    def opened(self, request: gr.Request) -> JSON:
        """The panel's board as it is now."""
        return board(self.services.learning_view(self.services.identity.user_of(request)), self.services)

    def export(self, format: str, request: gr.Request) -> tuple[Any, JSON]:
        """A file to download, or why there is none."""
        try:
            path = self.services.export(format, self.services.identity.user_of(request))
        except known_errors() as error:
            return gr.skip(), {"message": sentence(str(error)), "done": False}
        said = f"{path.name} is ready, and your browser saves it. What it holds lies in the data folder's exports, too."
        return str(path), {"message": said, "done": True}


def actions(services: Services) -> dict[str, Action]:
    """What the panel can ask of the server; each answers with a new board."""

    def after(user: str) -> JSON:
        return {"board": board(services.learning_view(user), services)}

    def train(_: JSON, user: str) -> JSON:
        services.train(user)
        return after(user)

    def measure(payload: JSON, user: str) -> JSON:
        services.measure(text_of(payload, "version"), user)
        return after(user)

    def cancel(_: JSON, user: str) -> JSON:
        services.cancel(user)
        return after(user)

    def promote(payload: JSON, user: str) -> JSON:
        services.promote(text_of(payload, "version"), user)
        return after(user)

    def rollback(_: JSON, user: str) -> JSON:
        services.rollback(user)
        return after(user)

    def delete(payload: JSON, user: str) -> JSON:
        if not services.is_admin(user):
            raise NotAllowedError("only an administrator of this app may delete versions: sign in as one, or ask one")
        services.state.remove_version(text_of(payload, "version"))
        return after(user)

    def table(_: JSON, user: str) -> JSON:
        view = services.learning_view(user)
        rows = services.state.versions.list(view.backbone)
        return {"csv": table_of(view, rows, frozenset(by_hand(services))), "name": f"versions-{view.backbone}.csv"}

    def log(_: JSON, user: str) -> JSON:
        return asdict(services.run_log(user))

    return {
        "train": train, "cancel": cancel, "promote": promote, "rollback": rollback, "delete": delete, "table": table,
        "log": log, "measure": measure,
    }  # fmt: skip


def by_hand(services: Services) -> dict[str, str]:
    """The versions that a person put into use last, whatever the quality check said, and how."""
    last = {change.version: change for change in services.state.versions.history(services.retriever.backbone.name)}
    return {
        version: "brought back by hand" if change.kind == "rollback" else "promoted by hand"
        for version, change in last.items()
        if change.by not in ("gate", "setup")
    }


def board(view: LearningView, services: Services) -> JSON:
    """The learning view as the panel's script draws it."""
    columns = metric_columns(view.versions)
    by_id = {version.id: version for version in view.versions}
    rows, hands = services.state.versions.list(view.backbone), by_hand(services)
    back = services.rollback_target()
    needed = {row.parent for row in rows} | {row.vectors for row in rows if row.vectors != row.id}
    needed |= {row.id for row in rows if row.folder is None}
    needed |= {change.version for change in services.state.versions.history(view.backbone)}
    return {
        "tiles": [
            {"label": "New marks", "value": f"{view.new_marks:,}", "note": "since the last run"},
            {"label": "Hits", "value": f"{view.hits:,}", "note": f"of {view.total_marks:,} marks"},
            {
                "label": "For the quality check",
                "value": f"{min(view.ready.captions, view.ready.people, view.ready.needed):,} of {view.ready.needed:,}",
                "note": "descriptions with a hit and a miss",
            },
            {"label": "In use", "value": view.serving, "note": f"backbone {view.backbone}"},
        ],
        "headline": headline(view, measured_on_base(rows)[1]),
        "next": next_step(view),
        "help": most_help(view),
        "origins": origins(rows, view.serving),
        "cutoff": services.cutoffs.refresh().text(view.serving),
        "chart": chart(rows, view.serving),
        "problem": without_paths(view.problem),
        "serving": view.serving,
        "may_train": view.may_train,
        "start": {
            "why_not": why_not_start(view),
            "what": start_text(view),
        },
        "job": _running(view.job, services) if view.job else None,
        "last": ended(view.last_job, view.serving) if view.last_job and not view.job else None,
        "cancelled": None if view.job else _cancelled(services),
        "columns": columns,
        "versions": [
            _version(version, by_id.get(version.parent or ""))
            | {"compare": compared(version, view.serving), "by_hand": hands.get(version.id, "")}
            | {"short": sentence(verdict_in_short(version)), "needed": version.id in needed}
            for version in view.versions
        ],
        "roll_back": {"to": back, "why_not": why_no_roll_back(view, back)},
    }


def _running(job: JobRow, services: Services) -> JSON:
    began = job.started_at or job.created_at
    cancelling = job.state == "cancelling"
    return {
        "id": job.id,
        "title": "Cancelling" if cancelling else job.stage[:1].upper() + job.stage[1:] or "Queued",
        "kind": KINDS.get(job.kind, "A run"),
        "fraction": min(1.0, max(0.0, job.fraction)),
        "message": without_paths(job.message) or preparing(job),
        "usual": seconds_of_last(job, services.state.jobs.list(100, kind=job.kind)),
        "elapsed": max(0.0, (datetime.now(UTC) - began).total_seconds()),
        "cancelling": cancelling,
    }


def _cancelled(services: Services) -> JSON | None:
    """The run that ended last, if it was cancelled: it changed nothing, and the one before stays the last run."""
    ended = next((job for job in services.jobs(5) if job.finished_at is not None), None)
    if ended is None or ended.state != "cancelled":
        return None
    return {"when": iso(ended.finished_at), "text": "A run was cancelled. It changed nothing and does not count."}


def _version(version: VersionView, parent: VersionView | None) -> JSON:
    marks = [count for count in version.marks.values() if isinstance(count, int)]
    return {
        "id": version.id,
        "parent": version.parent,
        "status": _status(version),
        "serving": version.serving,
        "created_at": iso(version.created_at),
        "metrics": flat(version.metrics),
        "before": flat(parent.metrics) if parent else {},
        "decision_word": version.decision,
        "reason": sentence(version.reason),
        "forgotten": learnt_forgotten(version.forgotten),
        "learnt_from": _LEARNT_FROM.get(version.learnt_from, ""),
        "marks": version.marks.get("total", sum(marks)) if marks else None,
    }


def compared(version: VersionView, serving: str) -> JSON | None:
    """The two versions that show what this one changed: it and the one it came from, else it and the one in use."""
    before = version.parent or (version.id if version.id != serving else None)
    after = version.id if version.parent else serving
    return None if before is None else {"a": before, "b": after}


def _status(version: VersionView) -> str:
    """What the version does here: the pointer moves a moment before the app has read the weights and answers by it."""
    if version.serving:
        return "serving"
    return "promoted" if version.status == "active" else version.status


def learnt_forgotten(pictures: int) -> str:
    """What to say of a version that may have learnt from so many pictures forgotten since; empty for none."""
    if not pictures:
        return ""
    which = "a picture that was" if pictures == 1 else f"{pictures:,} pictures that were"
    return f"It may have learnt from {which} forgotten since: fine-tune again and promote that one instead."


def flat(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The fractions among metrics (counts are whole numbers), nested names joined by a space."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= {f"{name} {inner}": number for inner, number in flat(value).items()}
        elif isinstance(value, float) and 0 <= value <= 1:
            found[name] = value
    return found


_WORDS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "map": "mAP", "mean_ap": "mAP", "mean_inp": "mINP", "auc": "AUC"}
_TITLES = {
    "R@1": "share of descriptions whose first result is the right person",
    "mAP": "mean average precision",
}
MOST_COLUMNS = 4


def metric_columns(versions: tuple[VersionView, ...]) -> list[JSON]:
    """The columns of the table: what any version was measured by, R@1 first, then held-out marks; `MOST_COLUMNS`."""
    keys = list(dict.fromkeys(key for version in versions for key in flat(version.metrics)))
    keys.sort(key=lambda key: (not key.endswith("r1"), not key.startswith("held_out")))
    return [
        # Held-out marks differ from run to run: their figures cannot be set against the parent's.
        {"key": key, "label": _label(key), "title": _title(key), "comparable": not key.startswith("held_out")}
        for key in keys[:MOST_COLUMNS]
    ]


def _label(key: str) -> str:
    for raw, said in _WORDS.items():
        if key == raw:
            return said
        for joint in (" ", "_", "."):
            if key.endswith(joint + raw):
                return f"{said} {key[: -len(raw) - 1].replace('_', ' ')}"
    return key.replace("held_out", "held-out").replace("_", " ").capitalize()


def _title(key: str) -> str | None:
    return next((title for word, title in _TITLES.items() if word in _label(key)), None)
