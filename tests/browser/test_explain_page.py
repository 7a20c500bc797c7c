"""Why this picture: in the enlarged view, on demand."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.steps import card, search
from tests.browser.test_looks import violations


def test_a_heat_map_and_the_words_that_matter(visit: Visit, shots: Path) -> None:
    page = visit()
    search(page, "A woman in a red zzyzx")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Rank 1", exact=True)
    expect(dialog.locator(".up-heat")).to_have_count(0)
    dialog.get_by_role("button", name="Why this picture").click()
    words = dialog.locator(".up-why-words li")
    expect(words).to_have_count(6)
    expect(words.last).to_contain_text("zzyzx: not known to the model")
    heat = dialog.get_by_role("img", name=re.compile("agrees with the description most in its"))
    expect(heat).to_be_visible()
    box, image = heat.bounding_box(), dialog.locator(".up-large").bounding_box()
    assert box
    assert image
    assert abs(box["height"] - image["height"]) < 3
    page.screenshot(path=shots / "why-1280-light.png")
    assert violations(page) == []
    page.keyboard.press("e")
    expect(heat).to_have_count(0)
    page.keyboard.press("ArrowRight")  # another picture is not explained unless asked
    expect(page.get_by_role("dialog", name="Rank 2", exact=True)).to_be_visible()
    expect(page.locator(".up-heat")).to_have_count(0)
    page.keyboard.press("e")
    expect(page.locator(".up-heat")).to_be_visible()
    page.keyboard.press("a")
    expect(page.get_by_role("dialog", name="Rank 3", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    expect(card(page, 2)).to_have_attribute("data-verdict", "hit")
    page.set_viewport_size({"width": 400, "height": 800})
    page.evaluate("document.body.classList.add('dark')")
    card(page, 2).locator(".up-photo").click()
    expect(page.locator(".up-heat")).to_be_visible()
    page.screenshot(path=shots / "why-400-dark.png")
    assert violations(page) == []
