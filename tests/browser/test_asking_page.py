"""A picture, "without …", filters, near duplicates and adding pictures, on an app of their own."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from core import Backbone, Encoder, UPPerson
from store import Gallery, NewImage
from tests.browser.conftest import StartApp, Visit
from tests.browser.steps import CAPTION, card, focused_rank, search, see_all, settled, tally, verdicts
from tests.conftest import SAMPLE, RunningApp

COPIES = 2


@pytest.fixture(scope="module")
def app_of_copies(launch: StartApp, mini: Backbone) -> RunningApp:
    """An app whose gallery holds the first picture three times: as it is, as a worse JPEG, and half as large."""
    running = launch("asking")
    gallery = Gallery(running.data_dir / "gallery")
    data = gallery.data(gallery.ids()[0])
    with Image.open(io.BytesIO(data)) as image:
        picture = image.convert("RGB")
    new = []
    for number, copy in enumerate([picture, picture.resize((64, 192))], 1):
        file = io.BytesIO()
        copy.save(file, "JPEG", quality=60)
        facts = {"camera": "gate", "metadata": {"weather": "rain", "frame": number}}
        new.append(
            NewImage(data=file.getvalue(), uri=f"deep/copy {number}.jpg", width=copy.width, height=copy.height,
                     source="copies", **facts)  # type: ignore[arg-type]
        )  # fmt: skip
    gallery.add(new)
    encoder = Encoder(UPPerson(mini, None))
    gallery.fill("mini-v0", encoder.encode_images, dim=encoder.dim)
    return running


@pytest.fixture(scope="module")
def original(app_of_copies: RunningApp, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The picture of which there are copies, as a file."""
    gallery = Gallery(app_of_copies.data_dir / "gallery")
    path = tmp_path_factory.mktemp("query") / "somebody.jpg"
    path.write_bytes(gallery.data(gallery.ids()[0]))
    return path


def shown_total(page: Page) -> str:
    return page.locator(".up-results-head .up-fine").first.inner_text().partition(" ranked")[0]


def test_filters_and_without_stand_in_the_address(visit: Visit, app_of_copies: RunningApp) -> None:
    page = visit(of=app_of_copies)
    rain = page.locator("[data-facet='meta.weather']").get_by_label("rain")
    expect(page.locator("[data-act=no-filters]")).to_be_hidden()
    rain.check()  # nothing is asked yet: the gallery's pictures that pass
    expect(page.locator(".up-card")).to_have_count(COPIES)
    expect(page.locator(".up-query-start")).to_have_text("Pictures that pass the filters")
    expect(rain).to_be_focused()
    expect(page.locator("[data-act=no-filters]")).to_be_visible()
    assert "meta.weather=rain" in page.url
    search(page)
    assert shown_total(page) == f"{COPIES} pictures"
    assert "meta.weather=rain" in page.url
    expect(page.locator(".up-conditions")).to_have_text("within 1 filter")
    page.reload()
    expect(page.locator("[data-head=filters]")).to_have_text("Filters1 in use")
    expect(page.locator(".up-conditions")).to_have_text("within 1 filter")
    page.locator("[data-act=no-filters]").click()
    expect(page.locator(".up-conditions")).to_have_count(0)
    assert "meta.weather" not in page.url
    assert shown_total(page) == f"{SAMPLE + COPIES} pictures"
    page.locator("#up-without").focus()
    page.keyboard.type("a hat, axw")  # the focus is in the box: keys are its own
    page.keyboard.press("Enter")
    expect(page.locator(".up-conditions")).to_have_text("without “a hat, axw”")
    expect(page.locator(".up-no-lesson")).to_contain_text("not trained on")
    assert set(verdicts(page)) == {""}
    page.go_back()
    expect(page.locator(".up-conditions")).to_have_count(0)
    expect(page.locator("#up-without")).to_have_value("")
    page.go_forward()
    expect(page.locator("#up-without")).to_have_value("a hat, axw")
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator(".up-steps")).to_be_visible()
    expect(page.locator("[data-head=without]")).to_have_text("Without")
    assert "without" not in page.url


def test_one_filter_value_too_many_is_refused(visit: Visit, app_of_copies: RunningApp) -> None:
    page = visit("?" + "&".join(f"meta.weather=w{number}" for number in range(200)), of=app_of_copies)
    rain = page.locator("[data-facet='meta.weather']").get_by_label("rain")
    expect(page.locator(".up-card, .up-empty").first).to_be_visible()
    rain.click()
    expect(page.locator(".up-notice-error:visible")).to_contain_text("at most 200 values together")
    expect(rain).not_to_be_checked()


def test_a_picture_alone_and_with_words(visit: Visit, app_of_copies: RunningApp, original: Path) -> None:
    page = visit(of=app_of_copies)
    page.set_input_files("input[aria-label='Picture to search by']", str(original))
    expect(page.locator(".up-query")).to_have_text("By a picture")
    expect(card(page, 1)).to_contain_text("1.000")
    expect(page.locator(".up-sample")).to_be_visible()
    expect(page.locator(".up-weights")).to_be_hidden()
    assert "?q=" not in page.url
    search(page, "a woman in a white dress")
    expect(page.locator(".up-conditions")).to_have_text("with a picture (weight 50 %)")
    page.locator(".up-weights input").fill("100")
    expect(page.locator(".up-conditions")).to_have_text("with a picture (weight 100 %)")
    expect(card(page, 1)).to_contain_text("1.000")
    page.locator("[data-act=remove]").click()
    expect(page.locator(".up-conditions")).to_have_count(0)
    page.evaluate(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], 'pasted.jpg', { type: 'image/jpeg' }));
            const box = document.querySelector('#up-caption textarea');
            box.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }));
        }""",
        list(original.read_bytes()),
    )
    expect(page.locator(".up-conditions")).to_have_text("with a picture (weight 50 %)")
    page.set_input_files(
        "input[aria-label='Picture to search by']", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"}
    )
    expect(page.locator("#up-tools .up-notice-error")).to_contain_text("is no picture")
    page.set_input_files(
        "input[aria-label='Picture to search by']", {"name": "a.png", "mimeType": "image/png", "buffer": b"x"}
    )
    expect(page.locator("#up-results .up-notice-error")).to_contain_text("could not be recognised")


def test_inspecting_shows_all_and_finds_more_like_it(visit: Visit, app_of_copies: RunningApp) -> None:
    page = visit("?q=a+man&source=copies", of=app_of_copies)
    card(page, 1).focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Rank 1", exact=True)
    for fact in ("copies", "copy", "weather", "rain", "×"):
        expect(dialog).to_contain_text(fact)
    expect(dialog).not_to_contain_text("deep/")
    image_id = card(page, 1).get_attribute("data-image")
    dialog.get_by_role("button", name="More like this").click()
    expect(page.locator(".up-query")).to_have_text("Pictures like this one")
    expect(card(page, 1)).to_have_attribute("data-image", str(image_id))
    assert f"like={image_id}" in page.url
    assert "source=copies" in page.url
    page.reload()
    expect(page.locator(".up-query")).to_have_text("Pictures like this one")
    expect(page.locator(".up-sample")).to_be_visible()


def test_near_duplicates_are_folded_into_one_card(visit: Visit, app_of_copies: RunningApp, original: Path) -> None:
    page = visit(of=app_of_copies)
    page.set_input_files("input[aria-label='Picture to search by']", str(original))
    fold = card(page, 1).locator(".up-fold")
    expect(fold).to_have_text(f"+{COPIES} alike")
    ranks = page.locator(".up-rank")
    expect(ranks).to_have_text(["#1", *(f"#{rank}" for rank in range(2 + COPIES, 25))])
    card(page, 1).focus()
    page.keyboard.press("d")
    expect(ranks).to_have_text([f"#{rank}" for rank in range(1, 25)])
    expect(card(page, 2)).to_contain_text("nearly #1")
    assert focused_rank(page) == 1
    page.keyboard.press("d")
    expect(page.locator(".up-card")).to_have_count(24 - COPIES)
    page.keyboard.press("a")  # concerns this picture alone
    see_all(page)
    page.get_by_role("button", name=re.compile("rest as misses")).click()
    expect(page.locator(".up-toast")).to_contain_text(f"Marked {23 - COPIES} pictures as misses.")
    expect(page.locator(".up-toast")).to_contain_text("2 folded near duplicates left as they were.")
    page.locator("[data-act=folds]").click()
    assert verdicts(page) == ["hit", *[""] * COPIES, *["miss"] * (23 - COPIES)]
    expect(tally(page, "miss")).to_have_text(str(23 - COPIES))
    settled(page)


@pytest.mark.long
def test_pictures_are_added_with_a_report(visit: Visit, app_of_copies: RunningApp) -> None:
    page = visit(of=app_of_copies)
    search(page)
    before = shown_total(page)
    file = io.BytesIO()
    Image.new("RGB", (40, 120), "red").save(file, "PNG")
    page.locator("[data-tool=add]").click()
    page.set_input_files(
        "input[aria-label='Pictures or a zip to add']",
        [
            {"name": "red.png", "mimeType": "image/png", "buffer": file.getvalue()},
            {"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"},
        ],
    )
    dialog = page.get_by_role("dialog", name="Add pictures")
    expect(dialog.locator(".up-tile b")).to_have_text(["1", "0", "1"])
    expect(dialog.locator(".up-skipped li")).to_contain_text("broken.png")
    dialog.get_by_role("button", name="Done").click()
    assert shown_total(page) == before
    expect(page.locator("#up-results [data-part=line]")).to_contain_text(
        "Pictures were added: 1. These results are from"
    )
    page.get_by_role("button", name="Search again").click()
    expect(page.locator("#up-results [data-part=line]")).to_be_hidden()
    assert shown_total(page) == f"{1 + COPIES} pictures"  # the sample has stepped aside
    expect(page.locator(CAPTION)).to_be_visible()
