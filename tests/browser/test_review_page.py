"""Review: suggestions judged by key, taken back, skipped, and contradictions between two people."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.settings import Settings
from app.state import State
from tests.browser.conftest import StartApp, Visit
from tests.browser.steps import RED, search, settled, tab, tally, verdicts
from tests.browser.test_looks import violations

COLOURS = ("red", "blue", "green", "black", "white", "grey", "brown", "yellow", "pink", "purple")


def where(page: Page) -> str:
    return page.locator(".up-suggestion-side > .up-fine").first.inner_text()


@pytest.mark.long
def test_judge_skip_and_take_back(visit: Visit, launch: StartApp, shots: Path) -> None:
    app = launch("review")
    page = visit("?tab=review", of=app)
    expect(page.locator("#up-review .up-empty")).to_contain_text("Nothing to review yet")
    tab(page, "Search")
    search(page)
    page.keyboard.press("a")
    page.keyboard.press("x")
    settled(page)
    tab(page, "Review")
    expect(page.locator(".up-suggestion-caption")).to_have_text(f"“{RED}”")
    expect(page).to_have_url(re.compile("tab=review"))
    total = int(where(page).split()[-1])
    assert where(page) == f"1 of {total}"
    first = page.locator(".up-suggestion-photo").get_attribute("src")

    page.keyboard.press("w")
    expect(page.locator(".up-suggestion-side > .up-fine").first).to_have_text(f"2 of {total}")
    page.keyboard.press("Backspace")
    expect(page.locator(".up-suggestion-side > .up-fine").first).to_have_text(f"1 of {total}")
    assert page.locator(".up-suggestion-photo").get_attribute("src") == first
    page.keyboard.press("x")
    for number in range(2, total + 1):
        expect(page.locator(".up-suggestion-side > .up-fine").first).to_have_text(f"{number} of {total}")
        page.keyboard.press("Space")
    expect(page.locator("#up-review .up-empty")).to_contain_text("1 mark made")
    page.keyboard.press("Space")  # one too many asks for nothing
    settled(page)
    expect(page.locator("#up-review .up-empty")).to_contain_text("1 mark made")
    tab(page, "Search")
    expect(tally(page, "miss")).to_have_text("2")
    assert verdicts(page).count("miss") == 2

    other = visit(of=app)
    search(other)
    other.keyboard.press("x")
    settled(other)
    tab(other, "Review")
    row = other.locator(".up-contested")
    expect(row).to_contain_text("1 hit, 1 miss")
    other.screenshot(path=shots / "contested.png", full_page=True)
    assert violations(other) == []
    row.get_by_role("button", name="Hit").click()
    expect(row).to_contain_text("2 hits, 0 misses")


@pytest.mark.long
def test_24_keys_at_30_ms_judge_24_suggestions(visit: Visit, launch: StartApp) -> None:
    app = launch("review-fast")
    page = visit(of=app)
    for colour in COLOURS:  # a description brings three suggestions
        search(page, f"A woman in a {colour} coat")
        page.keyboard.press("a")
        page.keyboard.press("x")
    settled(page)
    tab(page, "Review")
    expect(page.locator(".up-suggestion-side > .up-fine").first).to_have_text("1 of 24")
    shown = []
    pressed = ["axw"[number % 3] for number in range(24)]
    for key in pressed:
        shown.append(str(page.locator(".up-suggestion-photo").get_attribute("src")).split("/")[-1].split("?")[0])
        page.keyboard.press(key)
        page.wait_for_timeout(30)
    expect(page.locator("#up-review .up-empty")).to_contain_text("24 marks made")
    settled(page)
    tab(page, "My marks")
    given = 2 * len(COLOURS)
    expect(page.locator("#up-marks .up-mark")).to_have_count(24 + given)
    state = State(Settings(data_dir=app.data_dir))
    try:
        kept = [(mark.image_id, mark.verdict) for mark in state.marks.current()][given:]
    finally:
        state.close()
    verdict = {"a": "hit", "x": "miss", "w": "wrong_person"}
    assert kept == [(image, verdict[key]) for image, key in zip(shown, pressed, strict=True)]
