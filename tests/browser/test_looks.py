"""How the pages look and whom they leave out: pictures at two widths and themes, accessibility, no sideways scroll."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.steps import search, settled, show_tools, tab, tally

WIDTHS = (1280, 400)
THEMES = ("light", "dark")
STATES = ("start", "filters", "results", "enlarged", "like", "keys", "review", "marks", "learning")
ONCE = ("filters", "like")
"""States looked at in one theme of each width only: their parts are those of others."""


def go_to(page: Page, state: str) -> None:
    if state == "filters":
        show_tools(page)
        expect(page.locator(".up-choice").first).to_be_visible()
    elif state == "results":
        page.keyboard.press("Escape")
        search(page)
        for key in "axw":
            page.keyboard.press(key)
        expect(tally(page, "wrong_person")).to_have_text("1")
    elif state == "enlarged":
        page.keyboard.press("Enter")
        expect(page.locator(".up-large")).to_be_visible()
        page.locator(".up-large").evaluate("image => image.decode()")
    elif state == "like":
        page.locator("[data-act=like]").click()
        expect(page.locator(".up-query")).to_have_text("Pictures like this one")
        show_tools(page)
        expect(page.locator(".up-sample")).to_be_visible()
        page.keyboard.press("Escape")
    elif state == "keys":
        page.keyboard.press("Escape")
        page.keyboard.press("?")
    elif state == "review":
        page.keyboard.press("Escape")
        tab(page, "Review")
        expect(page.locator(".up-suggestion-photo")).to_be_visible()
        page.locator(".up-suggestion-photo").evaluate("image => image.decode()")
    elif state == "marks":
        tab(page, "My marks")
        expect(page.locator("#up-marks .up-mark")).to_have_count(3)
    elif state == "learning":
        tab(page, "Learning")
        expect(page.locator(".up-version").first).to_be_visible()
    settled(page)


def violations(page: Page) -> list[str]:
    """Serious and critical violations of accessibility."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node.get('failureSummary', '')}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page(visit: Visit, shots: Path, width: int, theme: str) -> None:
    page = visit(width=width, theme=theme)
    for state in STATES:
        if state in ONCE and (width < 1000) == (theme == "light"):
            continue
        go_to(page, state)
        file = shots / f"{state}-{width}-{theme}.png"
        page.screenshot(path=file)
        with Image.open(file) as picture:
            grey = np.asarray(picture.convert("L"), float)
        assert picture.size[0] == width
        assert grey.std() > 5, f"{file.name} is blank"
        if state not in ("enlarged", "keys"):  # those lie on a shade
            assert (np.median(grey[:40]) < 128) == (theme == "dark")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{state} scrolls sideways"
        assert violations(page) == [], state
