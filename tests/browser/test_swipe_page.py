"""Swiping on a phone, in the enlarged view and in Review."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visit
from tests.browser.steps import card, search, settled, tab
from tests.browser.test_looks import violations

SWIPE = """(node, by) => {
    const box = node.getBoundingClientRect(), y = box.top + 60;
    const send = (type, x) => node.dispatchEvent(new PointerEvent(type,
        { pointerType: 'touch', clientX: x, clientY: y, bubbles: true, cancelable: true }));
    send('pointerdown', 200);
    send('pointermove', 200 + by / 2);
    send('pointermove', 200 + by);
    send('pointerup', 200 + by);
}"""


def swipe(node: Locator, by: int) -> None:
    node.evaluate(SWIPE, by)


def test_swipes_judge_and_go_on(visit: Visit, shots: Path) -> None:
    page = visit(width=400)
    search(page)
    card(page, 1).locator(".up-photo").click()
    large = page.locator(".up-large-box")
    swipe(large, 40)
    expect(page.get_by_role("dialog", name="Rank 1", exact=True)).to_be_visible()
    swipe(large, 120)
    expect(page.get_by_role("dialog", name="Rank 2", exact=True)).to_be_visible()
    swipe(large, -120)
    expect(page.get_by_role("dialog", name="Rank 3", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    settled(page)
    expect(card(page, 1)).to_have_attribute("data-verdict", "hit")
    expect(card(page, 2)).to_have_attribute("data-verdict", "miss")
    tab(page, "Review")
    asked = page.locator(".up-suggestion")
    expect(asked).to_be_visible()
    where = page.locator(".up-suggestion-side > .up-fine").first
    expect(where).to_contain_text("1 of ")
    page.screenshot(path=shots / "review-400-light.png")
    for height in (860, 600):  # the verdicts are in sight above the tabs, however short the phone
        page.set_viewport_size({"width": 400, "height": height})
        last = asked.get_by_role("button", name="Wrong person").bounding_box()
        tabs = page.get_by_role("tablist").bounding_box()
        assert last
        assert tabs
        assert last["y"] + last["height"] <= tabs["y"]
    swipe(asked, -150)
    expect(where).to_contain_text("2 of ")
    expect(page.locator(".up-session")).to_contain_text("1 mark in this session")
    page.set_viewport_size({"width": 1280, "height": 860})
    page.screenshot(path=shots / "review-1280-light.png")
    assert violations(page) == []
