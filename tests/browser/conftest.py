"""A running app and a browser that drives it.

Chromium is taken from PATH. Every page made by `visit` fails its test at the end when the console showed an error or
anything was asked of another machine. Pictures of pages go to $SCREENSHOTS_DIR, or to a temporary folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is missing: pip install -r requirements-dev.txt")

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Route, expect, sync_playwright

from tests.conftest import RunningApp, start_app

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
OPEN = (
    ".up-steps, .up-card, .up-notice, .up-tiles, .up-mark-list li, .up-suggestion, .up-review .up-empty, "
    ".up-compare-form, .up-compare .up-empty, .up-person h2"
)
"""What stands on a page that is ready."""

PATIENCE = 30_000
"""Milliseconds to wait for what should come at once: other tests and training share the processors."""

BACKGROUND = 300_000
"""Milliseconds to wait for an export or a run: processes of the lowest priority, which get what others leave."""

StartApp = Callable[..., RunningApp]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartApp]:
    """Starts apps on fresh data folders and stops them in the end: `launch("name", UPPERSON_SAMPLE_SIZE="120")`."""
    apps: list[RunningApp] = []

    def start(name: str, **environment: str) -> RunningApp:
        alone = {"UPPERSON_ADAPT": "off"} | environment  # or a run would take the processor, and change the ranking
        apps.append(start_app(tmp_path_factory.mktemp(name) / "data", **alone))
        return apps[-1]

    yield start
    for app in apps:
        app.stop()


@pytest.fixture(scope="package")
def app(launch: StartApp) -> RunningApp:
    """One app for all tests that do not care what others marked; every page of `visit` is another user."""
    return launch("shared", UPPERSON_SAMPLE_SIZE="120")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, closed after these tests: Playwright keeps an event loop running that others could not live with."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip("no Chromium on PATH: install it (Debian: apt-get install chromium) to run the browser tests")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def warm(browser: Browser) -> Iterator[BrowserContext]:
    """A browser context that keeps its cache from test to test: Gradio's scripts are read and compiled once."""
    context = browser.new_context()
    yield context
    context.close()


@dataclass
class Watch:
    """What a page did that no page may do."""

    url: str
    allowed: tuple[str, ...] = ()
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(text in message.text for text in self.allowed):
            self.errors.append(message.text)

    def request(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.strangers.append(request.url)


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, warm: BrowserContext, app: RunningApp) -> Iterator[Visit]:
    """Opens the app as a new user: `visit("?q=a+man", width=400, theme="dark", of=app, allowed=("Failed to load",))`.

    `allowed` names console errors that the test brings about. `meddle` gets every request of the page's parts before
    the app does; it is set up before the page opens, since Chromium does not promise that a page which is open already
    asks it from its next request on.
    """
    watches: list[Watch] = []
    pages: list[Page] = []

    def open_page(
        query: str = "",
        *,
        width: int = 1280,
        theme: str = "light",
        of: RunningApp | None = None,
        allowed: tuple[str, ...] = (),
        meddle: Callable[[Route], None] | None = None,
    ) -> Page:
        watch = Watch((of or app).url, allowed)
        page = browser.new_page() if pages else warm.new_page()  # the first user of a test, or one more
        page.set_viewport_size({"width": width, "height": 860})
        page.set_default_timeout(PATIENCE)
        if meddle:
            page.route("**/component_server/", meddle)
        page.on("console", watch.console)
        page.on("pageerror", lambda error: watch.errors.append(str(error)))
        page.on("request", watch.request)
        watches.append(watch)
        pages.append(page)
        join = "&" if query else "?"
        page.goto(f"{watch.url}{query}{join}__theme={theme}")
        page.locator(OPEN).filter(visible=True).first.wait_for()
        return page

    warm.clear_cookies()
    yield open_page
    for page in pages:
        page.close()
    assert [watch.errors for watch in watches if watch.errors] == [], "the console showed errors"
    assert [watch.strangers for watch in watches if watch.strangers] == [], "something was asked of another machine"


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of pages are kept."""
    given = os.environ.get("SCREENSHOTS_DIR")
    folder = Path(given) if given else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
