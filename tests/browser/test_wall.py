"""The picture wall: how many whole pictures fit, that nothing moves, its size, and thousands of results."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from store import Gallery, NewImage
from tests.browser.conftest import StartApp, Visit
from tests.browser.steps import CAPTION, card, focused_rank, search, see_all, settled, verdicts
from tests.conftest import RunningApp

MANY = 2_000
WHOLE = """() => [...document.querySelectorAll('.up-card')].map(card => {
    const image = card.querySelector('img'), box = image.getBoundingClientRect();
    const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
    const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
    const left = box.left + (box.width - width) / 2, top = box.top + (box.height - height) / 2;
    const corners = [[left + 3, top + 3], [left + width - 3, top + 3], [left + 3, top + height - 3],
        [left + width - 3, top + height - 3]];
    const whole = image.naturalWidth > 0 && getComputedStyle(image).objectFit === 'contain'
        && corners.every(([x, y]) => card.contains(document.elementFromPoint(x, y)));
    return { whole, left, top, width, height };
})"""
BOXES = """() => [...document.querySelectorAll('.up-card, .up-bar, #up-tools, #up-search')].map(node => {
    const box = node.getBoundingClientRect();
    return [box.left, box.top, box.width, box.height].map(Math.round);
})"""


def whole_pictures(page: Page) -> list[dict[str, float]]:
    """Where the pictures lie that are on screen from corner to corner, uncropped and uncovered."""
    page.locator(".up-photo img").evaluate_all(
        "images => Promise.all(images.slice(0, 24).map(image => image.decode()))"
    )
    return [one for one in page.evaluate(WHOLE) if one["whole"]]


def test_16_whole_pictures_fit_on_a_laptop(visit: Visit) -> None:
    page = visit(width=1440)
    page.set_viewport_size({"width": 1440, "height": 900})
    search(page)
    found = whole_pictures(page)
    assert len(found) >= 16
    assert min(one["width"] for one in found) >= 120
    assert min(one["height"] for one in found) >= 330
    assert found[0]["top"] <= 200


def test_4_whole_pictures_fit_on_a_phone_in_two_columns(visit: Visit) -> None:
    page = visit(width=400)
    page.set_viewport_size({"width": 400, "height": 800})
    search(page)
    page.evaluate("window.scrollTo(0, 0)")
    whole = whole_pictures(page)
    assert len(whole) >= 4
    photos = page.locator(".up-photo").evaluate_all(
        "photos => photos.map(photo => photo.getBoundingClientRect().width)"
    )
    empty = [width - one["width"] for width, one in zip(photos, whole, strict=False)]
    assert max(empty) < 4, "a picture fills its part of the card, and the verdicts have the rest"
    lefts = page.locator(".up-card").evaluate_all("cards => cards.map(card => card.getBoundingClientRect().left)")
    assert len(set(lefts)) == 2
    bar = page.locator(".up-bar").bounding_box()
    tabs = page.get_by_role("tablist").bounding_box()
    assert bar
    assert tabs
    assert bar["y"] + bar["height"] <= tabs["y"] + 1
    assert round(tabs["y"] + tabs["height"]) == 800


def test_a_search_leaves_room_for_the_results(visit: Visit) -> None:
    page = visit()
    expect(page.locator("#up-intro")).to_be_visible()
    expect(page.locator(".up-steps")).to_be_visible()
    search(page)
    for gone in ("#up-intro", "#up-examples", ".up-steps"):
        expect(page.locator(gone)).to_be_hidden()
    page.mouse.wheel(0, 700)
    page.wait_for_function("window.scrollY > 300")
    box = page.locator(CAPTION).bounding_box()
    assert box
    assert 0 <= box["y"] < 20, "the description stays in sight"


def test_nothing_moves_while_marking(visit: Visit) -> None:
    page = visit()
    search(page)
    before = page.evaluate(BOXES)
    for key in ("a", "x", "w", "Backspace", "Shift+X", "Control+z"):
        page.keyboard.press(key)
        settled(page)
        page.evaluate("window.scrollTo(0, 0)")
        assert page.evaluate(BOXES) == before, key
    page.locator(".up-verdict[data-verdict=hit]").nth(4).hover()
    assert page.evaluate(BOXES) == before


def test_the_size_of_pictures_is_remembered(visit: Visit) -> None:
    page = visit("?q=a+man")
    slider = page.get_by_label("Size of the pictures")
    heights = []
    for size in ("0", "1", "2", "3"):
        slider.fill(size)
        box = card(page, 1).bounding_box()
        assert box
        heights.append(box["height"])
    assert heights == sorted(heights)
    assert heights[3] > 2 * heights[0]
    page.reload()
    expect(slider).to_have_value("3")
    expect(slider).to_have_attribute("aria-valuetext", "XL")
    again = card(page, 1).bounding_box()
    assert again
    assert again["height"] == heights[3]


def test_a_card_says_its_state_in_words(visit: Visit) -> None:
    page = visit()
    search(page)
    page.keyboard.press("w")
    expect(card(page, 1).locator(".up-state")).to_have_text("Wrong person")
    expect(card(page, 1).locator(".up-state svg")).to_be_visible()
    expect(card(page, 1)).to_have_attribute("aria-label", re.compile("Wrong person$"))


@pytest.fixture(scope="module")
def large_app(launch: StartApp) -> RunningApp:
    """An app whose gallery holds thousands of small pictures of several shapes."""
    running = launch("large")
    gallery, random = Gallery(running.data_dir / "gallery"), np.random.default_rng(0)
    new = []
    for number in range(MANY):
        file, shape = io.BytesIO(), (int(random.integers(30, 40)), int(random.integers(9, 21)), 3)
        Image.fromarray(random.integers(0, 255, shape, np.uint8)).save(file, "PNG")
        new.append(NewImage(data=file.getvalue(), uri=f"{number}.png", width=shape[1], height=shape[0], source="noise"))
    ids = gallery.add(new)
    _, some = gallery.vectors("mini-v0", gallery.ids()[:1])
    rows = random.standard_normal((len(ids), some.shape[1])).astype(np.float32)
    gallery.embed("mini-v0", ids, rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return running


def test_thousands_of_results_keep_the_page_small(visit: Visit, large_app: RunningApp) -> None:
    page = visit("?q=a+man&source=noise", of=large_app)
    while page.locator("[data-act=many]").count():
        page.locator("[data-act=many]").click()
        expect(page.locator("[data-act=many]:disabled")).to_have_count(0)
    expect(page.locator(".up-results-foot")).to_contain_text(re.compile(r"of 2,000|all: 2,000"))
    most = 0
    for top in range(0, page.evaluate("document.documentElement.scrollHeight"), 2_500):
        page.evaluate("top => window.scrollTo(0, top)", top)
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        most = max(most, page.locator(".up-card").count())
        seen = page.evaluate("document.elementFromPoint(700, 500).closest('.up-card') !== null")
        assert seen or top > 2_500, "there is a picture wherever one looks"
    assert 24 <= most <= 400
    page.evaluate("window.scrollTo(0, 0)")
    page.locator(".up-card[aria-posinset='1']").focus()
    for _ in range(12):
        page.keyboard.press("ArrowDown")
    focused = page.evaluate("document.activeElement.getAttribute('aria-posinset')")
    assert int(focused) > 60
    page.keyboard.press("a")
    settled(page)
    marked = page.locator(f".up-card[aria-posinset='{focused}']")
    expect(marked).to_have_attribute("data-verdict", "hit")
    page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
    page.evaluate("window.scrollTo(0, 0)")
    marked = page.locator(f".up-card[aria-posinset='{focused}']")
    page.evaluate("() => new Promise(done => setTimeout(done, 100))")
    if marked.count():
        expect(marked).to_have_attribute("data-verdict", "hit")


def test_the_start_shows_pictures_to_begin_with(visit: Visit) -> None:
    page = visit()
    expect(page.locator(".up-card")).to_have_count(24)
    expect(page.locator(".up-steps li")).to_have_count(3)
    keys = page.locator(".up-steps kbd").all_inner_texts()
    assert keys == ["/", "Enter", "A", "X", "W"]
    image_id = str(card(page, 3).get_attribute("data-image"))
    card(page, 3).locator(".up-photo").click()
    page.get_by_role("dialog").get_by_role("button", name="More like this").click()
    expect(page.locator(".up-query")).to_have_text("Pictures like this one")
    expect(card(page, 1)).to_have_attribute("data-image", image_id)
    see_all(page)
    assert focused_rank(page) == 1
    assert set(verdicts(page)) == {""}
