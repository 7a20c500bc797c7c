"""My marks: listed, filtered, taken back."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.steps import CAPTION, RED, search, settled, tab, tally, verdicts


def test_nothing_marked_yet(visit: Visit) -> None:
    page = visit("?tab=marks")
    expect(page.locator("#up-marks .up-empty")).to_contain_text("No marks yet")


def test_list_filter_and_take_back(visit: Visit) -> None:
    page = visit()
    search(page)
    for key in "axw":
        page.keyboard.press(key)
    settled(page)
    tab(page, "My marks")
    marks = page.locator(".up-mark")
    expect(marks).to_have_count(3)
    assert marks.evaluate_all("rows => rows.map(row => row.dataset.verdict)") == ["wrong_person", "miss", "hit"]
    expect(marks.first).to_contain_text(RED)
    expect(page).to_have_url(re.compile("tab=marks"))

    page.get_by_role("button", name="Miss 1").click()
    expect(marks).to_have_count(1)
    marks.get_by_role("button", name="Take back").focus()
    page.keyboard.press("u")
    expect(page.locator("#up-marks .up-empty")).to_contain_text("No such marks")
    page.get_by_role("button", name="All 2").click()
    expect(marks).to_have_count(2)

    tab(page, "Search")
    assert verdicts(page)[:3] == ["hit", "", "wrong_person"]
    expect(tally(page, "miss")).to_have_text("0")
    page.reload()
    expect(page.locator(".up-card").first).to_be_visible()
    assert verdicts(page)[:3] == ["hit", "", "wrong_person"]


def test_a_mark_leads_back_to_its_search(visit: Visit) -> None:
    page = visit()
    search(page)
    page.keyboard.press("a")
    settled(page)
    tab(page, "My marks")
    page.locator(".up-mark-caption a").click()
    expect(page.locator(CAPTION)).to_have_value(RED)
    expect(page.locator(".up-card").first).to_be_visible()
    assert verdicts(page)[0] == "hit"
