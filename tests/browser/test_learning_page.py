"""The learning page on an app that has not learnt yet."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect

from app.settings import Settings
from app.state import State
from core import Backbone, PetlConfig, UPPerson, save_petl
from store import VersionRow
from tests.browser.conftest import BACKGROUND, StartApp, Visit
from tests.browser.steps import search, settled, tab
from tests.browser.test_looks import violations
from tests.conftest import RunningApp, candidate

LOGGED = '{"learning": {"lr": 0.002, "seed": 11}, "mode": "full"}'


@pytest.fixture(scope="module")
def fresh(launch: StartApp) -> RunningApp:
    """An app that nobody else marks in: training reads everybody's marks."""
    return launch("learning")


def test_counts_policy_versions_and_export(visit: Visit, fresh: RunningApp) -> None:
    page = visit("?tab=learning", of=fresh)
    expect(page.locator(".up-tile").filter(has_text="New marks")).to_contain_text("0")
    train = page.get_by_role("button", name="Fine-tune now")
    expect(train).to_be_disabled()
    expect(page.locator(".up-start")).to_contain_text("mark at least one result as a hit")
    version = page.locator(".up-version")
    expect(version).to_have_count(1)
    expect(version).to_contain_text("mini-v0")
    expect(version).to_contain_text("In use")
    expect(page.get_by_role("button", name="Roll back")).to_be_disabled()

    page.get_by_role("button", name="Export marks").click()  # nothing to export: said in words, and it stays
    expect(page.locator(".up-notice-error:visible").filter(has_text="mark")).to_be_visible(timeout=BACKGROUND)

    tab(page, "Search")
    search(page)
    for key in "axx":
        page.keyboard.press(key)
    settled(page)
    tab(page, "Learning")
    expect(page).to_have_url(re.compile("tab=learning"))
    expect(page.locator(".up-tile").filter(has_text="New marks")).to_contain_text("3")
    expect(page.locator(".up-policy")).to_have_text(re.compile("197 more marks"))
    expect(train).to_be_enabled()

    with page.expect_download(timeout=BACKGROUND) as download:
        page.get_by_role("button", name="Export marks").click()
    assert re.fullmatch(r"\d{8}-parquet-[0-9a-f]{12}\.parquet", download.value.suggested_filename)
    assert sorted(pq.read_table(download.value.path())["verdict"].to_pylist()) == ["hit", "miss", "miss"]

    page.get_by_label("Format").click()
    page.get_by_role("option", name="Marks only").click()
    with page.expect_download(timeout=BACKGROUND) as download:
        page.get_by_role("button", name="Export marks").click()
    assert len(download.value.path().read_text().splitlines()) == 3


def test_the_page_counts_by_itself(visit: Visit, fresh: RunningApp) -> None:
    page, other = visit("?tab=learning", of=fresh), visit(of=fresh)
    tile = page.locator(".up-tile").filter(has_text="New marks").locator("b")
    before = int(tile.inner_text())
    search(other, "A man in a blue shirt")
    other.keyboard.press("x")
    expect(tile).to_have_text(str(before + 1))


def test_a_run_with_too_few_marks_says_how_many_more_it_needs(visit: Visit, fresh: RunningApp) -> None:
    page = visit(of=fresh)
    search(page, "A woman in a white dress")
    page.keyboard.press("a")
    settled(page)
    tab(page, "Learning")
    page.get_by_role("button", name="Fine-tune now").click()
    expect(page.locator(".up-last")).to_contain_text("could not decide", timeout=BACKGROUND)
    expect(page.locator(".up-last")).to_contain_text("needed")
    expect(page.locator(".up-notice:visible")).to_have_count(0)
    expect(page.locator(".up-version")).to_have_count(1)


def test_progress_and_cancel(visit: Visit, fresh: RunningApp) -> None:
    """A job as the training process would keep it, in its own steps."""
    page = visit("?tab=learning", of=fresh)
    state = State(Settings(data_dir=fresh.data_dir))
    try:
        run = state.jobs.queue("finetune", {"backbone": "mini"})
        state.jobs.start(run.id, os.getpid())
        bar = page.get_by_role("progressbar")
        for stage, fraction in (("training fold 1 of 2", 0.25), ("judging", 0.82)):
            assert state.jobs.beat(run.id, stage=stage, fraction=fraction, message="step 12")
            expect(page.locator(".up-stage")).to_have_text(stage.capitalize())
            expect(bar).to_have_js_property("value", fraction)
            expect(page.locator(".up-share")).to_have_text(f"{fraction:.0%}".replace("%", " %"))
        expect(page.locator(".up-run")).to_contain_text("so far")
        expect(page.get_by_role("button", name="Fine-tune now")).to_have_count(0)
        page.get_by_role("button", name="Cancel", exact=True).click()
        asked = page.get_by_role("dialog", name="Cancel this run?")
        asked.get_by_role("button", name="Keep as it is").click()
        assert state.jobs.get(run.id).state == "running"
        page.get_by_role("button", name="Cancel", exact=True).click()
        asked.get_by_role("button", name="Cancel the run").click()
        expect(page.get_by_role("button", name="Cancelling …")).to_be_disabled()
        assert not state.jobs.beat(run.id, stage="judging", fraction=0.9, message="")  # it is to stop
        state.jobs.finish(run.id, "cancelled", message="Cancelled; nothing that is served has changed.", result={})
        expect(page.locator(".up-cancelled")).to_contain_text("A run was cancelled. It changed nothing")
        expect(page.locator(".up-last").filter(has_text="cancelled")).to_have_count(0)
        expect(page.get_by_role("button", name="Fine-tune now")).to_be_enabled()
    finally:
        state.close()


def test_a_run_shows_its_loss_settings_and_log(visit: Visit, fresh: RunningApp, shots: Path) -> None:
    page = visit("?tab=learning", of=fresh)
    state = State(Settings(data_dir=fresh.data_dir))
    try:
        run = state.jobs.queue("finetune", {"backbone": "mini"})
        state.jobs.start(run.id, os.getpid())
        log = state.settings.logs_dir / f"finetune-{run.id}.log"
        hostile = "<img src=x onerror=alert(1)> ${alert(2)} {{3}}"
        log.write_text(f"{hostile}\nsettings {LOGGED}\nstep 1 of 3 · loss 1.5000\n", encoding="utf-8")
        page.get_by_text("Loss, settings and log").click()
        detail = page.locator(".up-run-log")
        expect(detail.locator("pre")).to_have_text(hostile)
        expect(detail.locator("figcaption")).to_contain_text("1.500 at first, 1.500 at last")
        expect(detail.locator("dl").first).to_have_text("learning: seed11")
        with log.open("a", encoding="utf-8") as file:
            file.write(
                "step 2 of 3 · loss 0.7500\nstep 3 of 3 · loss 0.5000\nstep 1 of 2 · loss 1.2500\njudging: 82%\n"
            )
        expect(detail.locator("pre")).to_contain_text("judging: 82%")  # live
        expect(detail.locator("polyline")).to_have_count(2)
        expect(detail.get_by_role("img")).to_have_attribute(
            "aria-label", "Loss over 4 steps of 2 trainings: 1.500 at first, 1.250 at last"
        )
        detail.get_by_text("Settings (2)").click()
        expect(detail).to_contain_text("0.002")
        page.screenshot(path=shots / "learning-run-1280.png", full_page=True)
        assert violations(page) == []
        state.jobs.finish(
            run.id, "failed", message="It was a test.", result={"decision": "failed", "reason": "A test."}
        )
        expect(page.locator(".up-last")).to_contain_text("The last run failed")
        expect(detail.locator("pre")).to_contain_text("judging: 82%")  # of the last run, too
        assert page.locator("img[src='x']").count() == 0
        log.unlink()
    finally:
        state.close()
    page.reload()
    page.get_by_text("Loss, settings and log").click()
    expect(page.locator(".up-run-log")).to_contain_text("There is no log of this run")


def test_promote_roll_back_and_delete(visit: Visit, fresh: RunningApp, mini: Backbone, shots: Path) -> None:
    state = State(Settings(data_dir=fresh.data_dir))
    try:
        petl = PetlConfig(prefix_length=2, lora_rank=2, adapter_reduction=16)
        save_petl(UPPerson(mini, petl), state.settings.models_dir / "mini-v1")
        numbers = {"base_set": "drawn", "base_before": 0.25, "base_after": 0.5, "order_before": 0.7, "order_after": 0.8}
        gate = {
            "decision": "rejected", "reason": "not better beyond doubt: it is a test.", "learnt_from": "marks",
            "numbers": numbers,
        }  # fmt: skip
        row = VersionRow(
            id="mini-v1", backbone="mini", parent="mini-v0", status="rejected", folder="models/mini-v1", gate=gate,
            metrics={"base_r1": 0.5}, mark_counts={"hits": 3, "misses": 5},
        )  # fmt: skip
        state.versions.add(row)
    finally:
        state.close()
    searching, page = visit(of=fresh), visit("?tab=learning", of=fresh)
    search(searching)
    new = page.locator("[data-version=mini-v1]")
    expect(new).to_contain_text("Rejected")
    expect(new).to_contain_text("50.0 %")
    verdict = page.locator(".up-reason summary")
    expect(verdict).to_have_text("Quality check: Rejected, not better beyond doubt")
    expect(page.get_by_text("Not better beyond doubt: it is a test.")).to_be_hidden()
    verdict.click()
    expect(page.get_by_text("Not better beyond doubt: it is a test.")).to_be_visible()
    expect(page.locator(".up-headline")).to_have_text(
        "25 of 100 test descriptions find the right person first with mini-v0, which is in use."
    )
    expect(page.get_by_role("img", name=re.compile("mini-v0 25.0 %, mini-v1 50.0 %"))).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert [(row["version"], row["status"], row["base_after"]) for row in rows] == [
        ("mini-v1", "rejected", "0.5"), ("mini-v0", "active", ""),
    ]  # fmt: skip

    new.get_by_role("button", name="Promote mini-v1").click()
    dialog = page.get_by_role("dialog", name="Let mini-v1 serve?")
    dialog.get_by_role("button", name="Keep as it is").click()
    expect(new).to_contain_text("Rejected")
    new.get_by_role("button", name="Promote mini-v1").click()
    dialog.get_by_role("button", name="Promote").click()
    expect(new).to_contain_text("In use")
    expect(new).to_contain_text("promoted by hand")
    expect(page.locator(".up-headline")).to_contain_text("50 of 100 test descriptions")
    expect(page.locator(".up-headline")).to_contain_text("25 did with mini-v0")
    expect(page.locator(".up-origins")).to_contain_text("a hit beats a miss in 80 % instead of 70 % of pairs held out")
    expect(page.locator("[data-act=delete]")).to_have_count(0)

    searching.keyboard.press("x")  # marking shows that the results are of another version
    notice = searching.locator("#up-results .up-notice").filter(has_text="A newer version, mini-v1, is in use now")
    expect(notice).to_be_visible()
    searching.get_by_role("button", name="Search again").click()
    expect(searching.locator(".up-results-head")).to_contain_text("ranked by mini-v1")

    page.get_by_role("button", name="Roll back to mini-v0").click()
    page.get_by_role("dialog", name="Roll back?").get_by_role("button", name="Roll back").click()
    expect(page.locator("[data-version=mini-v0]")).to_contain_text("In use")
    expect(new).to_contain_text("Retired")
    expect(page.locator("[data-version=mini-v0]")).to_contain_text("brought back by hand")
    expect(page.locator("[data-act=delete]")).to_have_count(0)  # the history names it
    state = State(Settings(data_dir=fresh.data_dir))
    try:
        assert candidate(state, mini, parent="mini-v0") == "mini-v2"
    finally:
        state.close()
    expect(page.locator(".up-missing")).to_contain_text("Never measured on the test descriptions: mini-v2.")
    page.get_by_role("button", name="Measure mini-v2").click()
    expect(page.locator(".up-run")).to_contain_text("Measuring a version")
    expect(page.locator(".up-policy")).to_contain_text("A version is being measured. mini-v0 stays in use.")
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("dialog", name="Cancel this run?").get_by_role("button", name="Cancel the run").click()
    expect(page.locator(".up-cancelled")).to_contain_text("A run was cancelled", timeout=BACKGROUND)

    page.get_by_role("button", name="Delete mini-v2").click()
    page.screenshot(path=shots / "learning-delete-1280.png")
    page.get_by_role("dialog", name="Delete mini-v2?").get_by_role("button", name="Delete").click()
    expect(page.locator("[data-version=mini-v2]")).to_have_count(0)
    assert not (fresh.data_dir / "models" / "mini-v2").exists()
    page.screenshot(path=shots / "learning-1280-light.png", full_page=True)
    assert violations(page) == []
    page.set_viewport_size({"width": 400, "height": 800})
    page.evaluate("document.body.classList.add('dark')")
    page.screenshot(path=shots / "learning-400-dark.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert violations(page) == []
