"""My marks: listed, filtered, taken back."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Route, expect

from tests.browser.conftest import Visit
from tests.browser.steps import CAPTION, RED, search, settled, tab, tally, verdicts
from tests.browser.test_looks import violations


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
    expect(page.locator(".up-mark-group")).to_contain_text(RED)
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


def test_grouped_by_description_changed_and_taken_back_together(visit: Visit, shots: Path) -> None:
    page = visit()
    for caption, keys in ((RED, "axx"), ("A man in a blue shirt", "wa")):
        search(page, caption)
        for key in keys:
            page.keyboard.press(key)
    settled(page)
    tab(page, "My marks")
    groups = page.locator(".up-mark-group")
    expect(groups).to_have_count(2)
    assert groups.locator("h2").all_inner_texts() == ["“A man in a blue shirt”", f"“{RED}”"]
    first = groups.first.locator(".up-mark").first
    first.get_by_role("button", name="Miss", exact=True).click()
    expect(first).to_have_attribute("data-verdict", "miss")
    expect(first.get_by_role("button", name="Miss", exact=True)).to_be_focused()
    page.keyboard.press("w")
    expect(first).to_have_attribute("data-verdict", "wrong_person")
    settled(page)
    page.screenshot(path=shots / "my-marks-1280.png")
    assert violations(page) == []
    groups.nth(1).get_by_role("button", name="Take back all").click()
    page.get_by_role("dialog", name="Take back 3 marks?").get_by_role("button", name="Take back").click()
    expect(groups).to_have_count(1)
    settled(page)
    page.set_viewport_size({"width": 400, "height": 800})
    page.screenshot(path=shots / "my-marks-400.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.reload()
    expect(groups).to_have_count(1)
    verdicts_now = page.locator(".up-mark").evaluate_all("rows => rows.map(row => row.dataset.verdict)")
    assert sorted(verdicts_now) == ["wrong_person", "wrong_person"]


def test_a_refused_change_leaves_a_later_one_alone(visit: Visit) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        if json.loads(route.request.post_data or "{}").get("fn_name") == "judge" and not held:
            held.append(route)
        else:
            route.continue_()

    page = visit(meddle=hold)
    search(page)
    page.keyboard.press("a")
    settled(page)
    tab(page, "My marks")
    mark = page.locator(".up-mark")
    mark.focus()
    page.keyboard.press("x")
    page.keyboard.press("w")
    expect(mark).to_have_attribute("data-verdict", "wrong_person")
    body = json.loads(held[0].request.post_data or "{}")
    body["data"]["image_id"] = "0" * 64  # not among the results
    held[0].continue_(post_data=json.dumps(body))
    expect(page.locator("#up-marks .up-notice-error")).to_be_visible()
    settled(page)
    expect(mark).to_have_attribute("data-verdict", "wrong_person")
