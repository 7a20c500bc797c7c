"""Searching and marking, by clicks and by keys."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Visit
from tests.browser.steps import CAPTION, RED, card, focused_rank, search, see_all, settled, tab, tally, verdicts


def ranks(page: Page) -> list[int]:
    return [int(text.strip("#")) for text in page.locator(".up-rank").all_inner_texts()]


def test_search_shows_24_ranked_results_with_scores_pictures_and_cameras(visit: Visit) -> None:
    page = visit()
    expect(page.get_by_role("heading", level=1)).to_have_text("UP-Person Search")
    expect(page.locator(".up-model")).to_contain_text("ViT-B-16")
    search(page)
    assert ranks(page) == list(range(1, 25))
    scores = page.locator(".up-card .up-score").all_inner_texts()
    assert [float(score) for score in scores] == sorted(map(float, scores), reverse=True)
    assert all(re.fullmatch(r"-?\d\.\d{3}", score) for score in scores)
    expect(card(page, 1)).to_contain_text("camera")
    assert (
        page.locator(".up-photo img").first.evaluate("image => image.decode().then(() => image.naturalHeight)") == 384
    )


def test_the_address_repeats_the_search(visit: Visit) -> None:
    page = visit()
    search(page)
    search(page, "A man in black trousers")
    page.reload()
    expect(page.locator(".up-query")).to_have_text("“A man in black trousers”")
    expect(page.locator(CAPTION)).to_have_value("A man in black trousers")
    page.go_back()
    expect(page.locator(".up-query")).to_have_text(f"“{RED}”")
    expect(page.locator(CAPTION)).to_have_value(RED)
    page.go_forward()
    expect(page.locator(".up-query")).to_have_text("“A man in black trousers”")


def test_example_and_clear(visit: Visit) -> None:
    page = visit()
    example = page.locator(".up-chip").first
    caption = example.inner_text()
    example.click()
    expect(page.locator(".up-query")).to_have_text(f"“{caption}”")
    expect(page.locator(CAPTION)).to_have_value(caption)
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator(".up-steps")).to_be_visible()
    expect(page.locator(CAPTION)).to_have_value("")
    assert "q=" not in page.url
    expect(page.locator(".up-query, .up-rank")).to_have_count(0)


def test_marking_by_button(visit: Visit) -> None:
    page = visit()
    search(page)
    card(page, 2).get_by_role("button", name="Hit", exact=True).click()
    assert verdicts(page)[:3] == ["", "hit", ""]
    expect(card(page, 2)).to_have_attribute("aria-label", re.compile(r"^Rank 2, .*Hit$"))
    expect(card(page, 2).locator(".up-state")).to_have_text("Hit")  # in words, not by colour alone
    expect(card(page, 3)).to_be_focused()
    expect(tally(page, "hit")).to_have_text("1")
    expect(page.locator(".up-until")).to_contain_text("until the next training")
    card(page, 2).get_by_role("button", name="Wrong person").click()
    expect(tally(page, "wrong_person")).to_have_text("1")
    expect(tally(page, "hit")).to_have_text("0")
    card(page, 2).get_by_role("button", name="Wrong person").click()  # once more keeps it
    settled(page)
    assert verdicts(page)[1] == "wrong_person"
    expect(tally(page, "wrong_person")).to_have_text("1")
    card(page, 2).focus()
    page.keyboard.press("u")  # takes back what the card with the frame has
    expect(tally(page, "wrong_person")).to_have_text("0")
    assert verdicts(page)[1] == ""
    assert focused_rank(page) == 2


def test_marking_by_key_skipping_and_undoing(visit: Visit) -> None:
    page = visit()
    search(page)
    for key in ("a", "x", "w"):
        page.keyboard.press(key)
    assert verdicts(page)[:4] == ["hit", "miss", "wrong_person", ""]
    assert focused_rank(page) == 4
    page.keyboard.press("Space")
    assert focused_rank(page) == 5
    page.keyboard.press("a")
    expect(tally(page, "hit")).to_have_text("2")
    page.keyboard.press("Backspace")
    expect(tally(page, "hit")).to_have_text("1")
    assert verdicts(page)[:5] == ["hit", "miss", "wrong_person", "", ""]
    assert focused_rank(page) == 5
    page.keyboard.press("Control+z")
    expect(tally(page, "wrong_person")).to_have_text("0")
    page.keyboard.press("w")  # the focus has stayed on the results
    expect(tally(page, "wrong_person")).to_have_text("1")
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(tally(page, "wrong_person")).to_have_text("0")
    page.get_by_role("button", name="Skip", exact=True).click()
    assert focused_rank(page) == 4
    settled(page)
    page.reload()
    expect(tally(page, "miss")).to_have_text("1")
    assert verdicts(page)[:4] == ["hit", "miss", "", ""]


def test_the_rest_become_misses_and_one_undo_takes_that_back(visit: Visit) -> None:
    page = visit()
    search(page)
    page.keyboard.press("a")
    see_all(page)
    rest = page.get_by_role("button", name=re.compile("rest as misses"))
    expect(rest).to_have_text("Mark the rest as misses (23)")
    rest.click()
    expect(tally(page, "miss")).to_have_text("23")
    assert verdicts(page) == ["hit"] + ["miss"] * 23
    expect(rest).to_be_disabled()
    page.locator(".up-notice").get_by_role("button", name="Undo").click()
    expect(tally(page, "miss")).to_have_text("0")
    assert verdicts(page) == ["hit"] + [""] * 23


def test_arrows_move_in_two_dimensions(visit: Visit) -> None:
    page = visit()
    search(page)
    tops = page.locator(".up-card").evaluate_all("cards => cards.map(card => card.getBoundingClientRect().top)")
    per_row = tops.count(tops[0])
    assert per_row > 2
    moves = {"ArrowRight": 2, "ArrowDown": 2 + per_row, "ArrowLeft": 1 + per_row, "ArrowUp": 1}
    for key, rank in moves.items():
        page.keyboard.press(key)
        assert focused_rank(page) == rank, key
    page.keyboard.press("ArrowUp")
    assert focused_rank(page) == 1


def test_enlarging(visit: Visit) -> None:
    page = visit()
    search(page)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Rank 1", exact=True)
    image_id = card(page, 1).get_attribute("data-image")
    for fact in ("Score", "Camera", "Person", "My mark", "Version", image_id):
        expect(dialog).to_contain_text(str(fact))
    signs = dialog.locator(".up-inspect-side .up-icon path").evaluate_all(
        "paths => paths.map(one => one.getAttribute('d'))"
    )
    assert len(signs) >= 8
    assert len(set(signs)) == len(signs), "each action has a sign of its own"
    page.keyboard.press("a")  # goes on to the next, as the grid does
    dialog = page.get_by_role("dialog", name="Rank 2", exact=True)
    page.keyboard.press("ArrowLeft")
    first = page.get_by_role("dialog", name="Rank 1", exact=True)
    expect(first.get_by_role("button", name="Hit", exact=True)).to_have_attribute("aria-pressed", "true")
    first.get_by_role("button", name="Next").click()
    dialog.get_by_role("button", name="Miss", exact=True).click()
    expect(page.get_by_role("dialog", name="Rank 3", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(card(page, 3)).to_be_focused()
    assert verdicts(page)[:3] == ["hit", "miss", ""]
    card(page, 5).get_by_role("button", name="Enlarge rank 5").click()
    expect(page.get_by_role("dialog", name="Rank 5", exact=True)).to_be_visible()


def test_help_names_every_key(visit: Visit) -> None:
    page = visit()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    keys = dialog.locator("kbd").all_inner_texts()
    named = {
        "A",
        "X",
        "W",
        "U",
        "Space",
        "Backspace",
        "Shift+X",
        "Ctrl+Z",
        "Ctrl+Shift+Z",
        "Enter",
        "/",
        "?",
        "Esc",
        "←",
    }
    assert named <= set(keys)
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    search(page)
    page.get_by_role("button", name="Keys", exact=True).click()
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()


def test_keys_are_inert_while_typing(visit: Visit) -> None:
    page = visit()
    search(page)
    page.keyboard.press("/")
    expect(page.locator(CAPTION)).to_be_focused()
    page.keyboard.type("wax? a/x w")
    page.keyboard.press("Backspace")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(CAPTION)).to_have_value("wax? a/x ")
    assert set(verdicts(page)) == {""}
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"


def test_show_more_goes_on_with_the_ranking(visit: Visit) -> None:
    page = visit()
    search(page)
    page.keyboard.press("a")
    more = page.locator(".up-results-foot").get_by_role("button", name=re.compile("Show 24 more"))
    more.click()
    expect(page.locator(".up-card")).to_have_count(48)
    assert ranks(page) == list(range(1, 49))
    assert len(set(page.locator(".up-card").evaluate_all("cards => cards.map(card => card.dataset.image)"))) == 48
    assert focused_rank(page) == 25
    page.keyboard.press("a")
    expect(tally(page, "hit")).to_have_text("2")
    for shown in (72, 96, 120):
        more.click()
        expect(page.locator(".up-card")).to_have_count(shown)
    expect(page.locator(".up-results-foot")).to_have_text("That is all: 120 pictures.")


def test_weak_matches_are_marked_from_the_first_on(visit: Visit) -> None:
    page = visit()
    search(page)
    page.locator("[data-act=many]").click()
    expect(page.locator(".up-card")).to_have_count(120)
    expect(page.locator(".up-weak")).to_have_count(1)
    above, below = page.locator(".up-card:has(.up-weak)").evaluate(
        """card => [card.previousElementSibling, card].map(
            card => parseFloat(card.querySelector('.up-score').textContent))"""
    )
    tops = page.locator(".up-card").evaluate_all("cards => cards.map(card => card.getBoundingClientRect().top)")
    rows = [tops.count(top) for top in dict.fromkeys(tops)]
    assert len(set(rows[:-1])) == 1, "no row of the wall breaks at the line"
    first = page.locator(".up-card").evaluate_all("cards => cards.findIndex(card => card.querySelector('.up-weak'))")
    names = page.locator(".up-card").evaluate_all("cards => cards.map(card => card.getAttribute('aria-label'))")
    assert ["weak match" in name for name in names] == [rank >= first for rank in range(120)]
    best = float(card(page, 1).locator(".up-score").inner_text())
    gap = float(re.search(r"more than (\d\.\d+)", str(page.locator(".up-weak").get_attribute("title")))[1])  # type: ignore[index]
    assert best - above <= gap + 0.001
    assert best - below >= gap - 0.001


def test_words_that_the_model_never_learnt_are_named(visit: Visit) -> None:
    page = visit()
    search(page, "A woman in red lederhosen with a tuba")
    results = page.locator("#up-results [data-part=line]")
    expect(results).to_contain_text("does not know: lederhosen, tuba")
    rest = page.locator("[data-act=rest]")
    expect(rest).to_be_visible()
    search(page, "qwertz zuiop")
    expect(results).to_contain_text("knows no word")
    expect(rest).to_be_hidden()  # such results say nothing, so nobody should mark them by the dozen


def test_an_empty_search_keeps_what_is_shown(visit: Visit) -> None:
    page = visit()
    go, hint = page.get_by_role("button", name="Search", exact=True), page.locator(".up-toast")
    expect(card(page, 1)).to_be_visible()  # the start page shows the gallery
    shown = page.locator(".up-card").count()
    go.click()
    expect(hint).to_contain_text("Describe a person first")
    expect(hint).not_to_have_class(re.compile("up-notice-error"))
    expect(page.locator(CAPTION)).to_be_focused()
    expect(page.locator(".up-card")).to_have_count(shown)
    search(page)
    expect(hint).to_be_hidden()
    for _ in range(2):  # the second time, the same is said again
        page.fill(CAPTION, "  ")
        page.press(CAPTION, "Enter")
        expect(hint).to_contain_text("Describe a person first")
        hint.get_by_role("button").click()
    expect(page.locator(".up-query")).to_have_text(f"“{RED}”")
    assert len(verdicts(page)) == 24


def test_a_description_that_is_too_long_is_refused_in_words(visit: Visit) -> None:
    page = visit()
    line = page.locator("#up-results .up-notice-error")
    page.fill(CAPTION, "x" * 10_000)
    page.press(CAPTION, "Enter")
    expect(line).to_contain_text("10,000 characters")
    search(page)
    expect(line).to_have_count(0)
    page.goto(page.url.split("?")[0] + "?q=" + "y" * 2_000)
    expect(line).to_contain_text("2,000 characters")


def test_what_people_type_is_shown_and_never_run(visit: Visit) -> None:
    page = visit()
    page.on("dialog", lambda dialog: (_ for _ in ()).throw(AssertionError(dialog.message)))
    hostile = "A man ${alert(1)} {{value}} <img src=x onerror=alert(1)> `${document.title='run'}`"
    search(page, hostile)
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    expect(page.locator(".up-inspect-caption")).to_have_text(f"“{hostile}”")
    page.keyboard.press("Escape")
    settled(page)
    page.reload()
    expect(page.locator(".up-query")).to_have_text(f"“{hostile}”")
    tab(page, "My marks")
    expect(page.locator(".up-mark-caption")).to_have_text(f"“{hostile}”")
    assert page.title() == "UP-Person Search"
    assert page.locator("img[src='x']").count() == 0


def test_a_refused_mark_goes_back_and_says_why(visit: Visit) -> None:
    strange = ["0" * 64]  # not among the results

    def tamper(route: Route) -> None:
        body = json.loads(route.request.post_data or "{}")
        if body.get("fn_name") == "mark" and strange:
            body["data"]["image_ids"] = [strange.pop()]
        route.continue_(post_data=json.dumps(body))

    page = visit(meddle=tamper)
    search(page)
    page.keyboard.press("a")
    expect(page.locator("#up-results .up-notice-error")).to_be_visible()
    assert verdicts(page)[0] == ""
    expect(card(page, 1)).to_be_focused()
    page.keyboard.press("a")
    expect(tally(page, "hit")).to_have_text("1")
    expect(page.locator("#up-results .up-notice-error")).to_have_count(0)


def test_users_do_not_see_each_others_marks(visit: Visit) -> None:
    one, other = visit(), visit()
    search(one)
    one.keyboard.press("a")
    expect(tally(one, "hit")).to_have_text("1")
    search(other)
    assert set(verdicts(other)) == {""}
    expect(tally(other, "hit")).to_have_text("0")
