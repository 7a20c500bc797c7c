"""Keys can be changed: in a dialog, for every page, kept by the browser."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.steps import card, search, settled, tab, verdicts
from tests.browser.test_looks import violations

KEPT = "localStorage.getItem('up-keys')"


def test_changed_keys_hold_on_every_page(visit: Visit, shots: Path) -> None:
    page = visit()
    page.evaluate("localStorage.removeItem('up-keys')")
    search(page)
    page.keyboard.press("?")
    page.get_by_role("button", name="Change keys").click()
    dialog = page.get_by_role("dialog", name="Change keys")
    expect(dialog.get_by_role("button", name="Back to the usual keys")).to_be_disabled()
    hit, back = dialog.locator("[data-action=hit]"), dialog.locator("[data-action=back]")

    hit.click()
    page.keyboard.press("x")
    expect(dialog).to_contain_text("X is taken by “Miss”: press another key")
    page.keyboard.press("Control+k")
    expect(dialog).to_contain_text("Ctrl+K belongs to the browser")
    page.keyboard.press("ArrowLeft")
    expect(dialog).to_contain_text("ArrowLeft has its own use")
    page.keyboard.press("j")
    expect(hit).to_have_text("J")
    expect(hit).to_be_focused()
    back.click()
    page.keyboard.press("Escape")
    expect(back).to_have_text("BackspaceU")
    back.press("Enter")
    page.keyboard.press("Space")
    expect(dialog).to_contain_text("Space is taken by “Skip to the next unmarked result”")
    page.keyboard.press("Delete")
    expect(back).to_have_text("Delete")
    page.screenshot(path=shots / "change-keys.png")
    assert violations(page) == []
    dialog.get_by_role("button", name="Close").click()

    card(page, 1).focus()
    page.keyboard.press("a")
    assert verdicts(page)[0] == ""
    page.keyboard.press("j")
    page.keyboard.press("x")
    assert verdicts(page)[:2] == ["hit", "miss"]
    expect(card(page, 3).locator("[data-verdict=hit]")).to_have_attribute(
        "title", "Hit (J): fits the words and is the person"
    )
    page.keyboard.press("Enter")
    page.keyboard.press("j")  # in the detail view, too
    page.keyboard.press("Escape")
    assert verdicts(page)[2] == "hit"
    settled(page)

    tab(page, "Review")
    expect(page.locator(".up-suggestion-keys")).to_have_text(
        "Keys: J hit, X miss, W wrong person, Space skip, Delete take back"
    )
    page.keyboard.press("j")
    expect(page.locator(".up-session")).to_contain_text("1 mark in this session")
    page.keyboard.press("Delete")
    expect(page.locator(".up-session")).to_contain_text("0 marks in this session")
    settled(page)

    tab(page, "My marks")
    expect(page.locator("#up-marks")).to_contain_text("take it back (Delete)")
    marks = page.locator(".up-mark")
    expect(marks).to_have_count(3)
    marks.nth(1).focus()
    page.keyboard.press("j")
    expect(marks.nth(1)).to_have_attribute("data-verdict", "hit")
    page.keyboard.press("Delete")
    expect(marks).to_have_count(2)
    settled(page)

    page.goto(page.url.partition("?")[0])  # kept
    expect(page.locator(".up-steps kbd").nth(2)).to_have_text("J")
    page.keyboard.press("?")
    page.get_by_role("button", name="Change keys").click()
    page.get_by_role("button", name="Back to the usual keys").click()
    expect(page.get_by_role("dialog")).to_contain_text("The usual keys are back.")
    page.keyboard.press("Escape")
    expect(page.locator(".up-steps kbd").nth(2)).to_have_text("A")
    assert page.evaluate(KEPT) == "{}"
    for broken in ('{"hit": ["', '{"hit": "X"}', '{"fly": "F"}', "[3]", '{"hit": "Ctrl+W"}'):
        page.evaluate("text => localStorage.setItem('up-keys', text)", broken)
        page.evaluate("document.dispatchEvent(new Event('up:keys'))")
        expect(page.locator(".up-steps kbd").nth(2)).to_have_text("A")
    page.evaluate("localStorage.removeItem('up-keys')")
