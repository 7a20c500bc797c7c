"""Times searches in a real browser, from Enter to painted pictures: `python -m tests.benchmarks.painting`.

An app of its own with `mini` and 10,000 drawn and noise pictures, Chromium at 1440 x 900. A search counts as painted
when the first eight of its results are decoded and a frame with them has been shown. The same captions asked of the web
API beside it show what the page adds.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from gradio_client import Client
from PIL import Image
from playwright.sync_api import sync_playwright

from store import Gallery, NewImage
from tests.browser.conftest import CHROMIUM
from tests.browser.steps import CAPTION
from tests.conftest import start_app

COLOURS = ("red", "blue", "green", "black", "white", "grey", "brown", "yellow", "pink", "orange")
CLOTHES = ("coat", "jacket", "shirt", "dress", "jumper")
PAINTED = """caption => { window.painted = new Promise(done => {
    let began;
    const look = () => {
        const said = document.querySelector('.up-query')?.textContent === `“${caption}”`;
        const images = [...document.querySelectorAll('.up-card img')].slice(0, 8);
        if (!said || images.length < 8 || !images.every(image => image.complete && image.naturalWidth))
            return requestAnimationFrame(look);
        Promise.all(images.map(image => image.decode())).then(() =>
            requestAnimationFrame(() => setTimeout(() => done(performance.now() - began))));
    };
    document.addEventListener('keydown', () => { began = performance.now(); look(); }, {once: true, capture: true});
}); }"""


def fill(data: Path, pictures: int) -> None:
    """Noise beside the sample, with random unit rows as vectors."""
    gallery, random = Gallery(data / "gallery"), np.random.default_rng(0)
    missing = pictures - len(gallery.ids())
    for first in range(0, missing, 1_000):
        new = []
        for number in range(first, min(missing, first + 1_000)):
            file = io.BytesIO()
            Image.fromarray(random.integers(0, 255, (96, 32, 3), np.uint8)).resize((128, 384)).save(file, "JPEG")
            new.append(NewImage(data=file.getvalue(), uri=f"{number}.jpg", width=128, height=384, source="noise"))
        ids = gallery.add(new)
        _, some = gallery.vectors("mini-v0", gallery.ids()[:1])
        rows = random.standard_normal((len(ids), some.shape[1])).astype(np.float32)
        gallery.embed("mini-v0", ids, rows / np.linalg.norm(rows, axis=1, keepdims=True))


def captions(count: int) -> list[str]:
    return [
        f"a {('woman', 'man')[number % 2]} in a {COLOURS[number % 10]} {CLOTHES[number // 10 % 5]}, number {number}"
        for number in range(count)
    ]


def painted(url: str, asked: list[str]) -> list[float]:
    """Milliseconds of each search on the page."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        raise SystemExit("no Chromium on PATH: install it (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        page.wait_for_selector(".up-card")
        found = []
        for caption in asked:
            page.fill(CAPTION, caption)
            page.evaluate(PAINTED, caption)
            page.press(CAPTION, "Enter")
            found.append(page.evaluate("window.painted"))
            page.wait_for_timeout(250)  # a person looks at what was found
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--searches", type=int, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        app = start_app(data, UPPERSON_SAMPLE_SIZE="120", UPPERSON_ADAPT="off")
        try:
            fill(data, given.pictures)
            asked = captions(given.searches + 5)
            page = painted(app.url, asked)[5:]
            client, answered = Client(app.url, verbose=False), []
            for caption in asked:
                began = time.perf_counter()
                client.predict(caption, api_name="/search")
                answered.append(1000 * (time.perf_counter() - began))
        finally:
            app.stop()
    print(f"| {given.pictures:,} pictures, ms | p50 | p95 |\n| --- | --- | --- |")
    for name, times in (("web API, answered", answered[5:]), ("page, painted", page)):
        print(f"| {name} | {np.percentile(times, 50):.0f} | {np.percentile(times, 95):.0f} |")


if __name__ == "__main__":
    main()
