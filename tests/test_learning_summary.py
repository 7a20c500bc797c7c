"""The sentences of the Learning page never contradict each other, at any moment of a run."""

from __future__ import annotations

import csv
import io
import itertools
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.app_errors import TrainingError
from app.pages import learning_summary as summary
from app.pages.learning_page import board
from app.readiness import Ready
from app.search.views import LearningView
from app.services import Services
from store import JobRow, VersionRow
from store.versions import measured_on_base
from tests.conftest import add_version
from tests.test_layout import NOW, job, version

BASE = "drawn studio"


def row(name: str, parent: str | None, **gate: Any) -> VersionRow:
    return VersionRow(id=name, backbone="mini", parent=parent, folder=parent and f"models/{name}", gate=gate)


ROWS = [
    row("mini-v0", None),
    row("mini-v1", "mini-v0", learnt_from="adaptation", decision="promoted", numbers={
        "base_set": BASE, "base_before": 0.93, "base_after": 0.92, "styled_before": 0.34, "styled_after": 0.52}),
    row("mini-v2", "mini-v1", learnt_from="marks", decision="rejected", reason="it forgets: much.", numbers={
        "base_set": BASE, "base_before": 0.92, "base_after": 0.8, "order_before": 0.7, "order_after": 0.8}),
    row("mini-v3", "mini-v1"),
]  # fmt: skip
JOBS = [
    None,
    *(
        job(kind=kind, state=state, stage=stage)
        for kind in ("finetune", "adapt", "measure")
        for state, stage in (("queued", "queued"), ("running", "training"), ("running", "judging"),
                             ("running", "promoting"), ("cancelling", "training"))
    ),
]  # fmt: skip
ENDS = [
    None,
    *(job(state="done", finished_at=NOW, result={"decision": decision, "version": "mini-v1", "reason": "so it is."})
      for decision in ("promoted", "rejected", "undecided", "suspicious")),
    job(state="failed", finished_at=NOW, message="out of memory"),
]  # fmt: skip


def view(**more: Any) -> LearningView:
    given: dict[str, Any] = {
        "backbone": "mini", "serving": "mini-v1", "problem": "", "new_marks": 20, "hits": 5, "total_marks": 60,
        "marks_needed": 180, "policy": "Fine-tuning starts by itself after 180 more marks.",
        "ready": Ready(4, 4, 10), "job": None, "last_job": None,
        "versions": tuple(version(one.id, parent=one.parent, serving=one.id == "mini-v1") for one in ROWS[::-1]),
    }  # fmt: skip
    return LearningView(**(given | more))


def sentences(shown: dict[str, Any]) -> str:
    last = shown["last"] or {}
    said = [shown["headline"], shown["next"], shown["help"], last.get("title"), last.get("reason")]
    return " ".join(filter(None, [*said, *([] if shown["job"] else [shown["start"]["what"]])]))


@pytest.mark.parametrize("serving", ["mini-v0", "mini-v1", "mini-v3"])
def test_sentences_agree_at_every_moment_of_a_run(services: Services, serving: str) -> None:
    for under_way, last, hits, ready in itertools.product(JOBS, ENDS, (0, 5), (Ready(4, 4, 10), Ready(12, 12, 10))):
        given = view(job=under_way, last_job=last, hits=hits, ready=ready, serving=serving)
        shown = board(given, services)
        said = sentences(shown)
        assert set(re.findall(r"(mini-v\d), which is in use|(mini-v\d) is in use|(mini-v\d) stays in use", said)) <= {
            (serving, "", ""), ("", serving, ""), ("", "", serving),
        } or "was promoted and is in use" in said  # fmt: skip
        if "was promoted and is in use" in said:
            assert serving == "mini-v1"
        if under_way is not None:
            assert not re.search("starts by itself|is due|could not judge a run|was cancelled|Fine-tune", said), said
            assert shown["last"] is None
            assert ("being cancelled" in said) == (under_way.state == "cancelling")
            assert ("is being measured" in said) == (under_way.kind == "measure" and under_way.state != "cancelling")
            assert ("adapts to the gallery" in said) == (under_way.kind == "adapt" and under_way.state != "cancelling")
        else:
            assert not re.search("A run (learns|adapts|is being)|is being measured", said), said
            assert ("mark a hit and a miss for 6 more people" in said) == (hits > 0 and ready.missing > 0)
            assert ("could not judge a run yet" in said) == (ready.missing > 0)


def test_the_last_run_that_trained_says_how_long_it_takes() -> None:
    def ended(seconds: float, backbone: str = "mini", **result: Any) -> JobRow:
        later = NOW + timedelta(seconds=seconds)
        return job(state="done", finished_at=later, params={"backbone": backbone}, result=result)

    now = job(params={"backbone": "mini"}, result={"mode": "full"})
    too_few, other = ended(2, decision="undecided"), ended(900, "ViT-B-16", version="ViT-B-16-v1", mode="full")
    runs = [
        now, too_few, other, ended(20, version="mini-v3", mode="text"), ended(150, version="mini-v2", mode="full"),
        ended(90, version="mini-v1", mode="full"),
    ]  # fmt: skip
    assert summary.seconds_of_last(now, runs) == 150
    assert summary.seconds_of_last(replace(now, result={"mode": "text"}), runs) == 20
    assert summary.seconds_of_last(now, [now, too_few, other]) is None
    assert summary.seconds_of_last(replace(now, result={}), runs) is None, "its mode is not chosen yet"
    adapted = [now, ended(30, version="mini-v4")]
    assert summary.seconds_of_last(replace(now, kind="adapt", result={}), adapted) == 30, "adaptation has no modes"


def test_all_versions_are_measured_on_the_same_set() -> None:
    other = row("mini-v4", "mini-v1", numbers={"base_set": "another", "base_before": 0.1, "base_after": 0.2})
    name, values = measured_on_base([*ROWS, other])
    assert (name, values) == (BASE, {"mini-v0": 0.93, "mini-v1": 0.92, "mini-v2": 0.8})
    drawn = summary.chart(ROWS, "mini-v1")
    assert [(one["id"], one["value"], one["in_use"]) for one in drawn["points"]] == [
        ("mini-v0", 0.93, False), ("mini-v1", 0.92, True), ("mini-v2", 0.8, False), ("mini-v3", None, False),
    ]  # fmt: skip
    assert drawn["missing"] == ["mini-v3"]
    asked = summary.chart([*ROWS[:3], row("mini-v3", "mini-v1", measured={"another": 0.5, BASE: 0.75})], "mini-v1")
    assert (asked["points"][-1]["value"], asked["missing"]) == (0.75, [])
    alone = summary.chart(ROWS[:1], "mini-v0")
    assert (alone["points"], alone["missing"]) == ([], [])


def test_the_first_sentence_is_plain() -> None:
    measured = measured_on_base(ROWS)[1]
    assert summary.headline(view(), measured) == (
        "92 of 100 test descriptions find the right person first with mini-v1, which is in use; "
        "93 did with mini-v0, where it began."
    )
    assert summary.headline(view(serving="mini-v3"), measured) == (
        "mini-v3 is in use; it was never measured on the test descriptions."
    )
    alone = view(serving="mini-v0", versions=(version("mini-v0", serving=True),))
    assert summary.headline(alone, {}) == "mini-v0 is in use; nothing was learnt here yet."


def test_what_adaptation_and_what_marks_gained_is_kept_apart() -> None:
    assert summary.origins(ROWS, "mini-v2") == [
        "mini-v1, from adaptation, without marks: known people in the gallery's style are recognised with 52 % "
        "instead of 34 % of certainty.",
        "mini-v2, from marks: a hit beats a miss in 80 % instead of 70 % of pairs held out.",
    ]
    assert summary.origins(ROWS, "mini-v0") == []


def test_the_verdict_fits_into_a_line_and_the_table_into_a_spreadsheet() -> None:
    judged = version("mini-v2", decision="rejected", reason="it forgets: R@1 went from 92 % to 80 %. More.")
    assert summary.verdict_in_short(judged) == "rejected, it forgets"
    assert summary.verdict_in_short(version("mini-v3")) == ""
    hostile = version("mini-v2", reason='=HYPERLINK("http://x")', created_at=datetime(2026, 1, 2, tzinfo=UTC))
    (line,) = csv.DictReader(io.StringIO(summary.table_of(view(versions=(hostile,)), ROWS, frozenset({"mini-v2"}))))
    assert line["reason"] == '\'=HYPERLINK("http://x")'
    assert (line["version"], line["by hand"], line["base_after"], line["styled_after"]) == (
        "mini-v2",
        "True",
        "0.8",
        "",
    )


def test_deleting_a_version_leaves_nothing_of_it(services: Services) -> None:
    name, state = add_version(services), services.state
    services.retriever.prepare(name)
    assert name in state.gallery.versions()
    running = state.jobs.queue("finetune", {})
    with pytest.raises(TrainingError, match="a run is under way"):
        state.remove_version(name)
    state.jobs.request_cancel(running.id)
    state.remove_version(name)
    assert name not in state.gallery.versions()
    assert not (services.settings.models_dir / name).exists()
    assert [one.id for one in services.versions()] == ["mini-v0"]
