"""The gallery: pictures are selected without a query and forgotten, and the sample comes back by a click."""

from __future__ import annotations

import io

from PIL import Image
from playwright.sync_api import expect

from store import Gallery
from tests.browser.conftest import StartApp, Visit
from tests.browser.steps import card, settled
from tests.conftest import SAMPLE


def test_forget_selected_pictures_and_bring_the_sample_back(visit: Visit, launch: StartApp) -> None:
    app = launch("gallery")
    page = visit(of=app)
    gallery = Gallery(app.data_dir / "gallery")
    ids = [str(card(page, rank).get_attribute("data-image")) for rank in (1, 2)]
    for rank in (1, 2):
        card(page, rank).locator(".up-photo").click(modifiers=["Control"])
    expect(page.locator(".up-picked-bar b")).to_have_text("2 selected")
    page.get_by_role("button", name="Forget").click()
    page.get_by_role("dialog", name="Forget 2 pictures?").get_by_role("button", name="Keep as it is").click()
    assert gallery.count() == SAMPLE
    page.get_by_role("button", name="Forget").click()
    page.get_by_role("dialog", name="Forget 2 pictures?").get_by_role("button", name="Forget").click()
    expect(page.locator(".up-toast")).to_contain_text("2 pictures and 0 marks forgotten")
    expect(page.locator(".up-card")).to_have_count(22)
    assert {row.id for row in gallery.rows(ids)} == set()

    file = io.BytesIO()
    Image.new("RGB", (64, 192), "teal").save(file, "PNG")
    page.locator("[data-tool=add]").click()
    expect(page.locator(".up-sample-note")).to_contain_text("steps aside for pictures of your own")
    expect(page.locator("[data-act=sample]")).to_have_count(0)
    page.set_input_files(
        "input[aria-label='Pictures or a zip to add']",
        {"name": "own.png", "mimeType": "image/png", "buffer": file.getvalue()},
    )
    page.locator("[data-act=again]").click()
    expect(page.locator(".up-sample-note")).to_contain_text("no search shows it")
    expect(page.locator(".up-card")).to_have_count(1)
    page.locator("[data-act=sample]").click()
    expect(page.get_by_role("dialog", name="Add pictures")).to_be_hidden()
    expect(page.locator(".up-card")).to_have_count(24)
    settled(page)
    assert gallery.hidden_sources == ()
    assert gallery.count() == SAMPLE - 2 + 1, "what was forgotten stays forgotten"
