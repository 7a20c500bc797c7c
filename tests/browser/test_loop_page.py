"""The whole loop by clicks and keys: describe, mark, fine-tune, and the better version serves."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from store import Gallery
from tests.browser.conftest import StartApp, Visit
from tests.browser.steps import card, search, see_all, tab, tally
from train import pedestrians

CAPTIONS = 80
TRAINING = 1_200_000
"""Milliseconds that a run may take here."""


def mark_all(page: Page, pids: dict[str, str], pid: str) -> int:
    """Mark by keys every result that shows `pid` as a hit and, by the button, the rest as misses; number of hits."""
    images = page.locator(".up-card").evaluate_all("cards => cards.map(card => card.dataset.image)")
    hits = [rank for rank, image in enumerate(images, start=1) if pids[image] == pid]
    for rank in hits:
        card(page, rank).focus()
        page.keyboard.press("a")
    see_all(page)
    page.get_by_role("button", name="Mark the rest as misses").click()
    return len(hits)


@pytest.mark.long
def test_marks_by_keys_train_a_version_that_the_gate_judges(visit: Visit, launch: StartApp, cache: Path) -> None:
    app = launch("loop", UPPERSON_SAMPLE_SIZE="600", UPPERSON_TRAIN_AFTER_MARKS="100000")
    (app.data_dir / "cache").symlink_to(cache)
    gallery = Gallery(app.data_dir / "gallery")
    pids = {row.id: str(row.pid) for row in gallery.rows(sorted(gallery.ids()))}
    page = visit(of=app)
    hits = 0
    asked = random.Random(0).sample(pedestrians.takes("street", "users", 150, 4), CAPTIONS)
    for number, take in enumerate(asked, start=1):
        search(page, take.caption(annotator=1))
        hits += mark_all(page, pids, f"sample-{take.pid:04d}")
        expect(tally(page, "hit")).to_have_text(f"{hits:,}")
        expect(tally(page, "miss")).to_have_text(f"{24 * number - hits:,}")

    tab(page, "Learning")
    page.get_by_role("button", name="Fine-tune now").click()
    expect(page.locator(".up-stage")).to_be_visible()
    ended = page.locator(".up-last-title")
    expect(ended).to_have_text(re.compile("mini-v1 was (promoted and is in use|rejected)"), timeout=TRAINING)
    promoted = "promoted" in ended.inner_text()
    new = page.locator("[data-version=mini-v1]")
    expect(new).to_contain_text("In use" if promoted else "Rejected")
    expect(page.locator(".up-reason").first).to_contain_text(
        f"Quality check: {'Promoted' if promoted else 'Rejected'}, "
    )

    tab(page, "Search")
    search(page)
    expect(page.locator(".up-results-head")).to_contain_text(f"ranked by mini-v{int(promoted)}")
