"""Filters by whatever people's pictures are said to be, on an app of its own and far from UTC."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from core import Backbone, Encoder, UPPerson
from store import Gallery, NewImage
from tests.browser.conftest import OPEN, PATIENCE, StartApp
from tests.browser.steps import card, search
from tests.conftest import RunningApp

KEYS = ("constructor", "toString", "hasOwnProperty")


@pytest.fixture(scope="module")
def app_of_oddities(launch: StartApp, mini: Backbone) -> RunningApp:
    """Four pictures whose metadata is called like what every JavaScript object has."""
    running = launch("oddities")
    gallery = Gallery(running.data_dir / "gallery")
    new = []
    for number, pid in enumerate(["p,2", "p", "2", 'a "b"']):
        file = io.BytesIO()
        Image.new("RGB", (48, 128), (60 * number, 90, 30)).save(file, "PNG")
        new.append(
            NewImage(
                data=file.getvalue(), uri=f"{number}.png", width=48, height=128, source="own", pid=pid,
                captured_at=datetime(2024, 5, 6 + number, 23, 30, tzinfo=UTC),
                metadata=dict.fromkeys((*KEYS, "__proto__"), f"v{number}"),
            )
        )  # fmt: skip
    gallery.add(new)
    gallery.hide_source("sample")
    encoder = Encoder(UPPerson(mini, None))
    gallery.fill("mini-v0", encoder.encode_images, dim=encoder.dim)
    return running


@pytest.fixture
def page(browser: Browser, app_of_oddities: RunningApp) -> Iterator[Page]:
    """A page in New Zealand, where 23:30 UTC is the next day. No script of it may fail."""
    context = browser.new_context(timezone_id="Pacific/Auckland")
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.goto(app_of_oddities.url)
    opened.locator(OPEN).filter(visible=True).first.wait_for()
    yield opened
    context.close()
    assert faults == []


def test_every_key_of_metadata_can_be_filtered_by(page: Page) -> None:
    for number, key in enumerate(KEYS):
        page.locator(f"[data-facet='meta.{key}']").get_by_label("v1").check()
        expect(page.locator("[data-head=filters] .up-fine")).to_have_text(f"{number + 1} in use")
    search(page)
    expect(page.locator(".up-card")).to_have_count(1)
    assert all(f"meta.{key}=v1" in page.url for key in KEYS)
    page.reload()
    expect(page.locator(".up-card")).to_have_count(1)
    expect(page.locator("[data-head=filters] .up-fine")).to_have_text("3 in use")


@pytest.mark.parametrize(
    ("typed", "ids"),
    [('"p,2"', ["p,2"]), ("p, 2", ["p", "2"]), ('"p,2" , p', ["p,2", "p"]), ('"a ""b"""', ['a "b"'])],
)
def test_a_person_may_have_a_comma(page: Page, typed: str, ids: list[str]) -> None:
    box = page.get_by_label("Person ids")
    box.fill(typed)
    box.blur()
    search(page)
    expect(page.locator(".up-card")).to_have_count(len(ids))
    page.reload()
    page.locator(".up-card").first.wait_for()
    expect(page.get_by_label("Person ids")).to_have_value(typed.replace(" ,", ","))


def test_the_day_that_is_shown_is_the_day_that_is_filtered_by(page: Page) -> None:
    page.get_by_label("from").fill("2024-05-06")
    page.get_by_label("to", exact=True).fill("2024-05-06")
    search(page)
    expect(page.locator(".up-card")).to_have_count(1)
    card(page, 1).locator("img").click()
    expect(page.locator(".up-facts-long")).to_contain_text("6 May 2024, 23:30:00 UTC")
