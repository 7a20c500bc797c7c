"""Compare: two rankings side by side, lines between the same pictures, hits that rose and fell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.settings import Settings
from app.state import State
from core import Backbone
from tests.browser.conftest import StartApp, Visit
from tests.browser.steps import RED, search, settled, tab
from tests.browser.test_looks import violations
from tests.conftest import RunningApp, candidate


@pytest.fixture(scope="module")
def two_versions(launch: StartApp, mini: Backbone) -> RunningApp:
    """An app with a candidate that was never promoted."""
    running = launch("compare")
    state = State(Settings(data_dir=running.data_dir))
    gate = {"decision": "rejected", "reason": "not better beyond doubt"}
    try:
        candidate(state, mini, parent="mini-v0", status="rejected", gate=gate)
    finally:
        state.close()
    return running


def places(page: Page, side: int) -> list[tuple[str, str]]:
    cards = page.locator(".up-side").nth(side).locator(".up-place")
    return [
        tuple(pair) for pair in cards.evaluate_all("all => all.map(one => [one.dataset.image, one.dataset.change])")
    ]


def test_two_rankings_side_by_side(visit: Visit, two_versions: RunningApp) -> None:
    page = visit("?tab=learning", of=two_versions)
    page.locator("[data-version=mini-v1] [data-act=compare]").click()
    expect(page.locator(".up-moves")).to_contain_text("None of the marked descriptions has a hit")
    page.get_by_label("Description", exact=True).fill(RED)
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator(".up-place")).to_have_count(48)
    assert "tab=compare&a=mini-v0&b=mini-v1&q=A+woman" in page.url
    before, after = dict(places(page, 0)), dict(places(page, 1))
    assert set(after) - set(before) == {image for image, change in after.items() if change == "new"}
    assert set(before) - set(after) == {image for image, change in before.items() if change == "gone"}
    assert {"up", "down"} <= set(after.values())

    both = next(image for image in after if image in before)
    page.locator(f".up-side [data-image='{both}']").first.hover()
    line = page.locator(".up-link")
    expect(line).to_be_visible()
    left, right = line.locator("line").evaluate("line => ['x1', 'x2'].map(name => Number(line.getAttribute(name)))")
    assert right > left > 0
    page.mouse.move(2, 2)
    expect(line).to_be_hidden()
    page.locator(f".up-side [data-image='{both}']").first.focus()
    expect(line).to_be_visible()

    page.get_by_role("button", name="Swap the versions").click()
    expect(page.locator(".up-side h3").first).to_have_text("Before: mini-v1")
    assert dict(places(page, 1)).keys() == before.keys()
    page.go_back()
    expect(page.locator(".up-side h3").first).to_have_text("Before: mini-v0")
    page.reload()
    expect(page.locator(".up-place")).to_have_count(48)
    expect(page.get_by_label("Description", exact=True)).to_have_value(RED)
    tab(page, "Search")
    expect(page).not_to_have_url(re.compile("[?&](a|b|q|tab)="))
    expect(page.locator(".up-query-start")).to_have_text("In this gallery")


def test_hits_that_moved_open_by_one_click(visit: Visit, two_versions: RunningApp, shots: Path) -> None:
    page = visit(of=two_versions)
    for caption in (RED, "A man in a blue shirt"):
        search(page, caption)
        for key in "axaxa":
            page.keyboard.press(key)
    settled(page)
    page.goto(f"{two_versions.url}?tab=compare&a=mini-v0&b=mini-v1")
    expect(page.locator(".up-moves")).to_contain_text("Of 6 hits for 2 descriptions")
    first = page.locator(".up-move").first
    caption = first.locator(".up-move-text span").last.inner_text()
    first.click()
    expect(page.locator(".up-sides h2")).to_have_text(caption)
    expect(page.locator(".up-place")).to_have_count(48)
    expect(page.locator(".up-place-mark").first).to_be_visible()
    page.locator(".up-place").first.click()
    expect(page.get_by_role("dialog", name="Rank 1 by mini-v0")).to_be_visible()
    page.keyboard.press("Escape")
    assert violations(page) == []
    page.screenshot(path=shots / "compare-1280-light.png", full_page=True)
    page.set_viewport_size({"width": 400, "height": 800})
    page.evaluate("document.body.classList.add('dark')")
    page.screenshot(path=shots / "compare-400-dark.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    expect(page.get_by_role("tab")).to_have_count(5)
    assert violations(page) == []


def test_one_version_alone_and_wrong_names_say_so(visit: Visit, two_versions: RunningApp) -> None:
    page = visit("?tab=compare")
    expect(page.locator("#up-compare .up-empty")).to_contain_text("one version so far")
    strange = visit("?tab=compare&a=mini-v0&b=%3Cimg%20src=x%3E&q=a+man", of=two_versions)
    expect(strange.locator("#up-compare .up-notice-error")).to_contain_text("no version '<img src=x>'")
    assert strange.locator("img[src='x']").count() == 0
