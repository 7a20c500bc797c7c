"""The learning page on an app that has not learnt yet."""

from __future__ import annotations

import re

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import StartApp, Visit
from tests.browser.steps import search, settled, tab
from tests.conftest import RunningApp


@pytest.fixture(scope="module")
def fresh(launch: StartApp) -> RunningApp:
    """An app that nobody else marks in: training reads everybody's marks."""
    return launch("learning")


def test_counts_policy_versions_and_export(visit: Visit, fresh: RunningApp) -> None:
    page = visit("?tab=learning", of=fresh)
    expect(page.locator(".up-tile").filter(has_text="New marks")).to_contain_text("0")
    train = page.get_by_role("button", name="Fine-tune now")
    expect(train).to_be_disabled()
    expect(page.locator(".up-start")).to_contain_text("mark at least one result as a hit")
    version = page.locator(".up-version")
    expect(version).to_have_count(1)
    expect(version).to_contain_text("mini-v0")
    expect(version).to_contain_text("Serving")
    expect(page.get_by_role("button", name="Roll back")).to_be_disabled()

    page.get_by_role("button", name="Export marks").click()  # nothing to export: said in words, and it stays
    expect(page.locator(".up-notice-error:visible").filter(has_text="mark")).to_be_visible()

    tab(page, "Search")
    search(page)
    for key in "axx":
        page.keyboard.press(key)
    settled(page)
    tab(page, "Learning")
    expect(page).to_have_url(re.compile("tab=learning"))
    expect(page.locator(".up-tile").filter(has_text="New marks")).to_contain_text("3")
    expect(page.locator(".up-policy")).to_have_text(re.compile("197 more marks"))
    expect(train).to_be_enabled()

    with page.expect_download() as download:
        page.get_by_role("button", name="Export marks").click()
    table = pq.read_table(download.value.path())
    assert sorted(table["verdict"].to_pylist()) == ["hit", "miss", "miss"]
    assert download.value.suggested_filename.endswith(".parquet")


def test_the_page_counts_by_itself(visit: Visit, fresh: RunningApp) -> None:
    page, other = visit("?tab=learning", of=fresh), visit(of=fresh)
    tile = page.locator(".up-tile").filter(has_text="New marks").locator("b")
    before = int(tile.inner_text())
    search(other, "A man in a blue shirt")
    other.keyboard.press("x")
    expect(tile).to_have_text(str(before + 1))
