"""The switch that re-orders the unmarked results by the marks of their search."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.steps import search, settled, verdicts


def order(page: Page) -> list[str]:
    return page.locator(".up-card").evaluate_all("cards => cards.map(card => card.dataset.image)")


def test_marks_reorder_the_rest_and_back(visit: Visit, shots: Path) -> None:
    page = visit()
    search(page)
    switch = page.get_by_role("button", name="Re-rank by my marks")
    back = page.get_by_role("button", name="Order of the search")
    expect(switch).to_be_hidden()
    page.keyboard.press("a")
    page.keyboard.press("x")
    settled(page)
    before = order(page)
    switch.click()
    expect(back).to_be_visible()
    settled(page)
    after = order(page)
    assert after[:2] == before[:2]
    assert after != before
    assert verdicts(page)[:2] == ["hit", "miss"]
    page.screenshot(path=shots / "reranked.png")
    page.locator(".up-card").nth(2).focus()
    page.keyboard.press("x")
    settled(page)
    assert verdicts(page)[2] == "miss", "what moved up can be marked"
    back.click()
    expect(back).to_be_hidden()
    assert order(page) == before
