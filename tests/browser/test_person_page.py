"""The person page: reached from an enlarged picture and from marks."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.steps import card, search, settled, tab
from tests.browser.test_looks import violations


def test_all_pictures_of_a_person(visit: Visit, shots: Path) -> None:
    page = visit()
    search(page)
    page.keyboard.press("a")
    settled(page)
    page.keyboard.press("Enter")
    page.locator("[data-act=person]").click()
    expect(page.locator(".up-person h2")).to_contain_text("Person sample-")
    expect(page.locator(".up-person-picture")).to_have_count(4)
    assert "tab=person&pid=sample-" in page.url
    expect(page.get_by_role("tab")).to_have_count(5)
    page.screenshot(path=shots / "person-1280-light.png", full_page=True)
    assert violations(page) == []
    page.go_back()
    expect(card(page, 1)).to_be_visible()
    tab(page, "My marks")
    page.locator("#up-marks [data-act=person]").click()
    expect(page.locator(".up-person .up-purpose")).to_contain_text("joined by hits")
    page.set_viewport_size({"width": 400, "height": 800})
    page.evaluate("document.body.classList.add('dark')")
    page.screenshot(path=shots / "person-400-dark.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert violations(page) == []
    page.locator(".up-person-picture").first.click()
    expect(page.locator(".up-query")).to_have_text("Pictures like this one")
