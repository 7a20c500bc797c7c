"""The pages: one Gradio app with a tab for each, its theme, its style sheet."""

from __future__ import annotations

import os
from typing import Any

import gradio as gr
from gradio.utils import get_space

from app.pages.compare_page import ComparePage
from app.pages.component import static
from app.pages.learning_page import LearningPage
from app.pages.marks_page import MarksPage
from app.pages.person_page import PersonPage
from app.pages.review_page import ReviewPage
from app.pages.search_page import SearchPage
from app.services import Services
from app.settings import Settings
from app.web import api

TITLE = "UP-Person Search"
PAGES = ("search", "review", "marks", "learning", "compare", "person")
OTHERS = ("compare", "person")
"""Pages whose description in the address is no search."""
_UPLOADS_KEPT = (3600, 24 * 3600)
"""Seconds: how often uploaded files are looked at, and how old they get; the page says that it is a day."""

_SYSTEM = ("ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_SYSTEM_MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace")

_HEADER = """
<header class="up-header">
  <div class="up-brand">
    <svg viewBox="0 0 32 32" aria-hidden="true" class="up-logo">
      <rect width="32" height="32" rx="9"></rect>
      <circle cx="14" cy="10.5" r="4"></circle>
      <path d="M6.5 25c.5-5.5 3.3-8.5 7.5-8.5c2 0 3.7.7 5 2M18.5 23l2.7 2.7l5-5.5"></path>
    </svg>
    <h1>UP-Person Search</h1>
  </div>
</header>
"""

_SIGN_IN = "<b>Searching is free; marking needs sign-in,</b> so that nobody can spoil what others taught."
_EMPTIED = "A restart of this Space loses all marks and versions: administrators export what is to be kept."
_BACKED_UP = (
    "Marks are backed up, with the names of those who made them, and come back to an empty disk after a restart; "
    "trained versions do not."
)


def build(services: Services) -> gr.Blocks:
    """The app's pages on these services. Pictures are read from `picture/<image_id>` next to the page."""
    with gr.Blocks(title=TITLE, fill_width=True, analytics_enabled=False, delete_cache=_UPLOADS_KEPT) as demo:
        api.register(services)  # first: the endpoints take their names before the pages' handlers can
        gr.HTML(html_template=_HEADER, apply_default_css=False, elem_id="up-header")
        if services.settings.sign_in and get_space() and os.environ.get("OAUTH_CLIENT_ID"):
            gr.LoginButton("Sign in with Hugging Face", elem_id="up-login", size="sm", scale=0)
        with gr.Tabs(elem_id="up-tabs", elem_classes="up-tabs") as tabs:
            with gr.Tab("Search", id="search") as search_tab:
                search = SearchPage(services, notes=rules(services.settings))
            with gr.Tab("Review", id="review", render_children=True) as review_tab:
                review = ReviewPage(services)
            with gr.Tab("My marks", id="marks", render_children=True) as marks_tab:
                marks = MarksPage(services)
            with gr.Tab("Learning", id="learning", render_children=True) as learning_tab:
                learning = LearningPage(services)
            with gr.Tab("Compare", id="compare", render_children=True) as compare_tab:
                compare = ComparePage(services)
            with gr.Tab("Person", id="person", render_children=True, elem_id="up-person-tab") as person_tab:
                person = PersonPage(services)
        timer = gr.Timer(2, active=False)
        hidden: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

        def opened(request: gr.Request) -> tuple[Any, ...]:
            page = str(dict(request.query_params).get("tab") or "search")
            page = page if page in PAGES else "search"
            return (
                gr.Tabs(selected=page),
                gr.Timer(active=page == "learning"),
                *search.opened(request, searches=page not in OTHERS),
                review.opened(request) if page == "review" else gr.skip(),
                marks.opened(request),
                learning.opened(request),
                compare.opened(request),
                person.opened(request) if page == "person" else gr.skip(),
            )

        outputs = [tabs, timer, search.caption, search.tools, search.grid, review.panel, marks.list, learning.panel]
        outputs += [compare.panel, person.panel]
        loaded = demo.load(opened, None, outputs, **hidden)
        loaded.then(None, js="() => { window.upOpened = true; }", **hidden)
        timer.tick(learning.opened, None, learning.panel, **hidden)
        review_tab.select(review.opened, None, review.panel, **hidden)
        marks_tab.select(marks.opened, None, marks.list, **hidden)
        learning_tab.select(learning.opened, None, learning.panel, **hidden)
        compare_tab.select(compare.opened, None, compare.panel, **hidden)
        every = (search_tab, review_tab, marks_tab, learning_tab, compare_tab, person_tab)
        for tab, page in zip(every, PAGES, strict=True):
            tab.select(lambda page=page: gr.Timer(active=page == "learning"), None, timer, **hidden)
            tab.select(None, js=_remember(page), **hidden)
    return demo


def rules(settings: Settings) -> str:
    """What a visitor should know before marking: who may, and what becomes of marks at a restart. Markup of ours."""
    said = [_SIGN_IN] if settings.sign_in else []
    if settings.backup_repo:
        said.append(_BACKED_UP)
    elif get_space():
        said.append(_EMPTIED)
    return " ".join(said)


def _remember(page: str) -> str:
    """Script that keeps the open page in the address: `?tab=…`, for `?page=…` is Gradio's own.

    Not before the page that the address asks for was opened: Gradio also reports the first tab as it is built, and
    what that wrote into the address was then asked for.
    """
    change = "url.searchParams.delete('tab')" if page == "search" else f"url.searchParams.set('tab', '{page}')"
    if page != "compare":  # whose names mean nothing elsewhere
        change += "; url.searchParams.delete('a'); url.searchParams.delete('b')"
    return (
        "() => { if (!window.upOpened) return; const url = new URL(window.location.href); "
        f"{change}; if (url.href !== window.location.href) window.history.replaceState({{}}, '', url); "
        f"document.dispatchEvent(new CustomEvent('up:page', {{ detail: '{page}' }})); }}"
    )


def theme() -> gr.themes.Base:
    """Calm, dense, one accent; the fonts of the system, so that nothing is fetched."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_md,
        font=_SYSTEM,
        font_mono=_SYSTEM_MONO,
    )


def launch_options() -> dict[str, Any]:
    """What `Blocks.launch` needs for the pages to look and behave as they should."""
    return {"theme": theme(), "css": static("app.css"), "footer_links": ["api", "settings"]}
