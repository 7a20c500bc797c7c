"""What people do on the pages, in the words of the tests."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

CAPTION = "#up-caption textarea"
RED = "A woman in a red coat with a black backpack"


def search(page: Page, caption: str = RED) -> None:
    """Type a description, press Enter, wait for its results and for the focus to be on the first."""
    page.fill(CAPTION, caption)
    page.press(CAPTION, "Enter")
    expect(page.locator(".up-query")).to_have_text(f"“{caption}”")
    expect(card(page, 1)).to_be_focused()


def card(page: Page, rank: int) -> Locator:
    """The card of a rank."""
    return page.locator(".up-card").nth(rank - 1)


def verdicts(page: Page) -> list[str]:
    """The verdict of every card, "" for none."""
    return page.locator(".up-card").evaluate_all("cards => cards.map(card => card.dataset.verdict)")


def focused_rank(page: Page) -> int:
    """The rank of the card that has the focus; 0 if none has."""
    return page.evaluate("[...document.querySelectorAll('.up-card')].indexOf(document.activeElement) + 1")


def tally(page: Page, verdict: str) -> Locator:
    """The running count of one verdict."""
    return page.locator(f".up-count[data-verdict={verdict}] b")


def tab(page: Page, name: str) -> None:
    """Open a page by its tab."""
    page.get_by_role("tab", name=name).click()


def see_all(page: Page) -> None:
    """Scroll down through all cards, as a person does who looks at each, and up again."""
    height = page.evaluate("document.documentElement.scrollHeight")
    for top in [*range(0, height, 500), 0]:
        page.evaluate("top => window.scrollTo(0, top)", top)
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 60)))")


def show_tools(page: Page) -> None:
    """Open the drawer that holds picture, "without" and filters, where the page is too narrow for the rail."""
    drawer = page.locator("[data-tool=drawer]")
    if drawer.is_visible():
        drawer.click()


def settled(page: Page) -> None:
    """Wait until nothing is on its way to the server, and no mark waits to be sent."""
    page.wait_for_function("!window.upQueue || window.upQueue.length() === 0")
    page.wait_for_load_state("networkidle")
