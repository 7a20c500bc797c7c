"""Marking many results fast: by key, by selection, undone and redone, and while the server is away."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Visit
from tests.browser.steps import card, focused_rank, search, see_all, settled, tab, tally, verdicts

KEYS = {"a": "hit", "x": "miss", "w": "wrong_person"}


def expect_stored(page: Page, wanted: list[tuple[int, str]]) -> None:
    """Assert what the server has kept, as My marks lists it: ranks and verdicts, oldest first."""
    settled(page)
    tab(page, "My marks")
    expect(page.locator("#up-marks .up-mark")).to_have_count(len(wanted))
    rows = page.locator("#up-marks .up-mark").evaluate_all(
        "rows => rows.map(row => [row.title.match(/rank (\\d+)/)[1], row.dataset.verdict])"
    )
    tab(page, "Search")
    assert [(int(rank), verdict) for rank, verdict in reversed(rows)] == wanted


@pytest.mark.parametrize("where", ["wall", "detail"])
def test_24_keys_at_30_ms_mark_24_results_in_order(visit: Visit, where: str) -> None:
    page = visit()
    search(page)
    if where == "detail":
        page.keyboard.press("Enter")
    pressed = ["axw"[number % 3] for number in range(24)]
    for key in pressed:
        page.keyboard.press(key)
        page.wait_for_timeout(30)
    if where == "detail":
        page.keyboard.press("Escape")
    wanted = [(rank, KEYS[key]) for rank, key in enumerate(pressed, 1)]
    assert verdicts(page) == [verdict for _, verdict in wanted]
    expect(tally(page, "miss")).to_have_text("8")
    expect(tally(page, "wrong_person")).to_have_text("8")
    expect_stored(page, wanted)


def test_marks_survive_10_seconds_without_the_server(visit: Visit) -> None:
    away = [False]

    def lose(route: Route) -> None:
        if away[0]:
            route.abort()
        else:
            route.continue_()

    page = visit(meddle=lose, allowed=("ERR_FAILED",))
    search(page)
    page.keyboard.press("a")
    expect(tally(page, "hit")).to_have_text("1")
    away[0] = True
    for key in "xwx":
        page.keyboard.press(key)
    sign = page.locator(".up-lost")
    expect(sign).to_contain_text("The server does not answer. 3 actions wait here")
    page.wait_for_timeout(10_000)
    page.keyboard.press("a")
    page.keyboard.press("w")
    page.keyboard.press("Control+z")  # the last of them has not been sent: it never is
    expect(sign).to_contain_text("4 actions wait here")
    assert verdicts(page)[:6] == ["hit", "miss", "wrong_person", "miss", "hit", ""]
    away[0] = False
    sign.get_by_role("button", name="Try now").click()
    expect(sign).to_be_hidden()
    expect_stored(page, [(1, "hit"), (2, "miss"), (3, "wrong_person"), (4, "miss"), (5, "hit")])


def test_an_undo_whose_answer_is_lost_counts_once(visit: Visit) -> None:
    lost: list[str] = []

    def lose_first_undo(route: Route) -> None:
        if json.loads(route.request.post_data or "{}").get("fn_name") == "undo" and not lost:
            lost.append("undo")
            route.fetch()  # the server acts, but its answer does not arrive
            route.abort()
        else:
            route.continue_()

    page = visit(meddle=lose_first_undo, allowed=("ERR_FAILED",))
    search(page)
    for key in "axw":
        page.keyboard.press(key)
    expect(tally(page, "wrong_person")).to_have_text("1")
    page.keyboard.press("Control+z")
    expect(tally(page, "wrong_person")).to_have_text("0")
    assert lost == ["undo"]
    expect_stored(page, [(1, "hit"), (2, "miss")])


def test_undo_and_redo_by_keys(visit: Visit) -> None:
    page = visit()
    search(page)
    for key in "ax":
        page.keyboard.press(key)
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    expect(tally(page, "hit")).to_have_text("0")
    page.keyboard.press("Control+Shift+Z")
    expect(tally(page, "hit")).to_have_text("1")
    page.keyboard.press("Control+Shift+Z")
    expect(tally(page, "miss")).to_have_text("1")
    assert verdicts(page)[:3] == ["hit", "miss", ""]
    page.keyboard.press("Control+Shift+Z")
    expect(page.locator(".up-toast")).to_contain_text("nothing to redo")
    card(page, 1).focus()
    page.keyboard.press("Backspace")  # taking back is an action, too
    expect(tally(page, "hit")).to_have_text("0")
    page.keyboard.press("Control+z")
    expect(tally(page, "hit")).to_have_text("1")
    page.keyboard.press("Control+Shift+Z")
    expect(tally(page, "hit")).to_have_text("0")
    expect_stored(page, [(2, "miss")])


def test_a_selection_is_marked_and_undone_as_one(visit: Visit) -> None:
    page = visit()
    search(page)
    card(page, 2).locator(".up-photo").click(modifiers=["Shift"])
    card(page, 5).locator(".up-photo").click(modifiers=["Shift"])
    picked = page.locator(".up-card.up-picked")
    expect(picked).to_have_count(5)
    expect(page.locator("[data-part=picked]")).to_contain_text("5 selected")
    card(page, 1).locator(".up-photo").click(modifiers=["Control"])
    expect(picked).to_have_count(4)
    page.keyboard.press("x")
    expect(tally(page, "miss")).to_have_text("4")
    assert verdicts(page)[:6] == ["", *["miss"] * 4, ""]
    expect(picked).to_have_count(0)
    assert focused_rank(page) == 6
    page.keyboard.press("Control+z")
    expect(tally(page, "miss")).to_have_text("0")
    assert set(verdicts(page)) == {""}
    card(page, 7).focus()
    for _ in range(2):
        page.keyboard.press("Shift+ArrowRight")  # the same without a mouse
    expect(picked).to_have_count(3)
    page.keyboard.press("Escape")
    expect(picked).to_have_count(0)
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_frame_drawn_with_the_mouse_selects(visit: Visit) -> None:
    page = visit()
    search(page)
    first, third = card(page, 1).bounding_box(), card(page, 3).bounding_box()
    assert first
    assert third
    page.mouse.move(first["x"] + 40, first["y"] + 60)
    page.mouse.down()
    page.mouse.move(third["x"] + 20, third["y"] + 160, steps=5)
    page.mouse.up()
    expect(page.locator(".up-card.up-picked")).to_have_count(3)
    expect(page.get_by_role("dialog")).to_have_count(0)  # the end of the drag enlarges nothing
    page.locator("[data-part=picked]").get_by_role("button", name="Hit", exact=True).click()
    expect(tally(page, "hit")).to_have_text("3")
    assert verdicts(page)[:4] == ["hit", "hit", "hit", ""]


def test_the_rest_are_those_that_were_on_screen(visit: Visit) -> None:
    page = visit()
    search(page)
    page.keyboard.press("a")
    seen = page.locator(".up-card").evaluate_all(
        """cards => cards.map(card => card.getBoundingClientRect())
            .filter(box => (Math.min(innerHeight, box.bottom) - box.top) / box.height >= 0.6).length"""
    )
    assert 8 <= seen < 24
    page.keyboard.press("Shift+X")
    expect(tally(page, "miss")).to_have_text(str(seen - 1))
    assert verdicts(page) == ["hit", *["miss"] * (seen - 1), *[""] * (24 - seen)]
    expect(page.locator(".up-toast")).to_contain_text(f"{24 - seen} further down left")
    see_all(page)
    page.keyboard.press("Shift+X")
    expect(tally(page, "miss")).to_have_text("23")
    page.keyboard.press("Control+z")
    expect(tally(page, "miss")).to_have_text(str(seen - 1))
