"""Saved searches: a name and a link, kept by the browser."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.steps import CAPTION, RED, search
from tests.browser.test_looks import violations


def test_searches_are_saved_opened_and_deleted(visit: Visit) -> None:
    page = visit()
    page.evaluate("localStorage.removeItem('up-saved-searches')")
    page.get_by_role("button", name="Save this search").click()
    expect(page.locator("#up-tools .up-notice")).to_contain_text("Search for something first")
    page.locator("[data-facet='meta.view']").get_by_label("front").check()
    search(page)
    page.get_by_role("button", name="Save this search").click()
    dialog = page.get_by_role("dialog", name="Save this search")
    expect(dialog.get_by_label("Name")).to_have_value(RED)
    hostile = "<img src=x onerror=alert(1)> ${alert(2)}"
    dialog.get_by_label("Name").fill(hostile)
    page.keyboard.press("Enter")
    saved = page.locator(".up-saved a")
    expect(saved).to_have_text([hostile])
    assert page.locator("img[src='x']").count() == 0
    assert violations(page) == []
    page.goto(page.url.partition("?")[0])
    expect(page.locator(CAPTION)).to_have_value("")
    saved.click()
    expect(page.locator(CAPTION)).to_have_value(RED)
    expect(page.get_by_text("within 1 filter")).to_be_visible()
    page.get_by_role("button", name="Delete saved search").click()
    expect(saved).to_have_count(0)
    page.evaluate("localStorage.setItem('up-saved-searches', '{\"broken\": [')")
    page.reload()
    expect(page.locator("[data-act=save]")).to_be_visible()
