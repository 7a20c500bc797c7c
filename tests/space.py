"""The app as a Hugging Face Space would run it: `python -m tests.space` (root, Linux, Chromium on PATH).

A copy of the committed files, run by uid 1000 with a home it cannot write, in a network of its own that holds nothing
but this machine, with SPACE_ID and the OAUTH_ variables set. A real browser searches, tries to mark without signing in,
and learns why not; the page says what a restart does; what administrators do is refused to a program, too. `--fresh`
installs requirements.txt into a new venv first, which takes minutes and a network.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UID = 1000
INSIDE = "UP_SPACE_INSIDE"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--fresh", action="store_true", help="install requirements.txt into a new venv")
    arguments.add_argument("--shots", type=Path, help="keep a picture of the page in this folder")
    given = arguments.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("this script makes a user and a network of its own: run it as root")
    if INSIDE in os.environ:
        return try_it(Path(os.environ[INSIDE]), given.shots)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        python = Path(sys.executable)
        if given.fresh:
            subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
            python = folder / "venv" / "bin" / "python"
            subprocess.run([python, "-m", "pip", "install", "-q", "-r", ROOT / "requirements.txt"], check=True)
        environment = os.environ | {INSIDE: scratch, "UP_SPACE_PYTHON": str(python)}
        return subprocess.call(
            ["unshare", "--net", sys.executable, "-m", "tests.space", *sys.argv[1:]], env=environment
        )


def try_it(folder: Path, shots: Path | None) -> int:
    raise_loopback()
    home, app = folder / "home", folder / "home" / "app"
    app.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", app], input=archive.stdout, check=True)
    for path in (app, *app.rglob("*")):
        os.chown(path, UID, UID)
    home.chmod(0o555)
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home), "SYSTEM": "spaces", "SPACE_ID": "ada/search",
        "SPACE_HOST": "ada-search.hf.space",
        "OAUTH_CLIENT_ID": "id", "OAUTH_CLIENT_SECRET": "secret", "OAUTH_SCOPES": "openid profile",
        "OPENID_PROVIDER_URL": "https://huggingface.co", "PYTHONDONTWRITEBYTECODE": "1",
        "UPPERSON_SAMPLE_SIZE": os.environ.get("UPPERSON_SAMPLE_SIZE", "60"), "UPPERSON_ADAPT": "off",
    }  # fmt: skip
    command = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", os.environ["UP_SPACE_PYTHON"], "app.py"]
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=app, env=environment)
    try:
        wait_for("http://127.0.0.1:7860/", process)
        print(f"it serves after {time.monotonic() - began:.1f} s", flush=True)
        be_refused()
        browse(shots)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    strangers = [path for path in home.iterdir() if path != app]
    assert not strangers, f"it wrote outside its folder: {strangers}"
    print("It started, served a search, and refused a mark and what administrators do, saying why.")
    return 0


def raise_loopback() -> None:
    with socket.socket() as probe:
        fcntl.ioctl(probe, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"the app ended with code {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise SystemExit("the app did not serve within 300 seconds")


def be_refused() -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client("http://127.0.0.1:7860/", verbose=False)
    found = client.predict("a man in a black jacket", None, "", 4, {}, api_name="/search")
    image_id = found["candidates"][0]["image_id"]
    for name, arguments, why in (
        ("mark", (found["query_id"], image_id, "hit"), "signed-in people only"),
        ("train", (), "only an administrator"),
        ("cancel", (), "only an administrator"),
        ("promote", ("mini-v0",), "only an administrator"),
        ("rollback", (), "only an administrator"),
        ("export", ("jsonl",), "only an administrator"),
        ("forget", (image_id,), "only an administrator"),
    ):
        try:
            said = client.predict(*arguments, api_name=f"/{name}")
        except AppError as error:
            said = str(error)
        assert why in str(said), f"/{name} says to somebody who has not signed in: {said}"


def browse(shots: Path | None) -> None:
    from playwright.sync_api import expect, sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise SystemExit("no Chromium on PATH (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(60_000)
        page.goto("http://127.0.0.1:7860/")
        expect(page.locator("#up-sign-in")).to_contain_text("marking needs sign-in", timeout=60_000)
        expect(page.locator("#up-sign-in")).to_contain_text("A restart of this Space loses all marks and versions")
        expect(page.get_by_role("button", name="Sign in with Hugging Face")).to_be_visible()
        page.fill("#up-caption textarea", "A woman in a red coat")
        page.press("#up-caption textarea", "Enter")
        expect(page.locator(".up-card").first).to_be_focused(timeout=60_000)
        page.keyboard.press("a")
        expect(page.locator(".up-notice-error:visible")).to_contain_text("signed-in people only", timeout=60_000)
        if shots is not None:
            shots.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=shots / "space.png")
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
