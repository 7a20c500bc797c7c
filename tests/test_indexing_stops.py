"""Indexing that is killed, interrupted or out of room, in a process of its own: the next run ends what was begun."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.settings import Settings
from app.state import State
from store import Gallery
from tests.conftest import ROOT, app_environment

COUNT = 1_500


def draw(folder: Path, count: int, *, size: tuple[int, int] = (32, 64)) -> Path:
    """So many different pictures, and a table with facts about each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(folder / f"{number:05d}.png")
    rows = [f"{number:05d}.png,{number // 4},c{number % 3},{number}" for number in range(count)]
    (folder / "list.csv").write_text("path,pid,camera,number\n" + "\n".join(rows) + "\n")
    return folder / "list.csv"


def command(place: Path, data_dir: Path) -> list[str]:
    return [sys.executable, "app.py", "index", str(place), "--data-dir", str(data_dir), "--json"]


def hear_sigint() -> None:
    """In a process about to start: it ignores Ctrl-C where a shell runs these tests in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(place: Path, data_dir: Path, **options: Any) -> subprocess.Popen[str]:
    environment = app_environment(OMP_NUM_THREADS="1")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    options.setdefault("preexec_fn", hear_sigint)
    return subprocess.Popen(command(place, data_dir), cwd=ROOT, env=environment, **pipes, **options)


def index(place: Path, data_dir: Path) -> dict[str, Any]:
    process = start(place, data_dir)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return dict(json.loads(out))


def content(data_dir: Path) -> tuple[dict[str, tuple[object, ...]], dict[str, np.ndarray]]:
    gallery = Gallery(data_dir / "gallery")
    rows = {
        r.id: (r.uri, r.pid, r.camera, dict(r.metadata), r.width, r.height, r.source)
        for r in gallery.rows(gallery.ids())
    }
    ids, vectors = gallery.vectors("mini-v0", sorted(rows))
    assert len(gallery.ids()) == len(rows)
    return rows, dict(zip(ids, vectors, strict=True))


def same(left: Path, right: Path) -> None:
    (rows, vectors), (wanted_rows, wanted) = content(left), content(right)
    assert rows == wanted_rows
    assert set(vectors) == set(wanted) == set(rows)
    assert max(float(np.abs(vectors[image_id] - wanted[image_id]).max()) for image_id in wanted) < 1e-6


def check(data_dir: Path) -> None:
    asked = [sys.executable, "app.py", "check", "--data-dir", str(data_dir)]
    done = subprocess.run(asked, cwd=ROOT, env=app_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.long
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_stopped_at_any_moment_the_next_run_ends_the_same(tmp_path: Path, kind: signal.Signals) -> None:
    """The first picture is in the gallery at a known moment; kills fall at random moments around and after it."""
    table = draw(tmp_path / "crops", COUNT)
    began = time.monotonic()
    whole = index(table, tmp_path / "whole")
    seconds = time.monotonic() - began
    assert whole["added"] == whole["embedded"] == COUNT
    data_dir, stops, counts = tmp_path / "data", 0, []
    rng = random.Random(int(kind))
    for _ in range(5):
        process = start(table, data_dir)
        time.sleep(seconds * rng.uniform(0.3, 0.9))
        process.send_signal(kind)
        out, err = process.communicate(timeout=120)
        stops += process.returncode != 0
        assert "Traceback" not in out + err
        counts.append(Gallery(data_dir / "gallery").count() if (data_dir / "gallery").exists() else 0)
    assert stops >= 2
    assert counts == sorted(counts)
    report = index(table, data_dir)
    assert report["added"] + report["known"] == COUNT
    same(data_dir, tmp_path / "whole")
    again = index(table, data_dir)
    assert (again["added"], again["known"], again["embedded"]) == (0, COUNT, 0)
    check(data_dir)


def no_room() -> None:
    """Files of this process end at 150 KB, as if the disk were full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))


@pytest.mark.long
def test_without_room_it_says_so_and_the_old_state_is_intact(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    index(draw(tmp_path / "few", 5), data_dir)
    before = content(data_dir)
    table = draw(tmp_path / "many", 200)
    process = start(table, data_dir, preexec_fn=no_room)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "has room" in json.loads(out)["error"]
    assert "Traceback" not in err
    after = content(data_dir)
    assert after[0] == before[0]
    assert set(after[1]) == set(before[1])
    check(data_dir)
    assert index(table, data_dir)["added"] == 195  # five are the same bytes as the few


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting wants root")
def test_on_a_full_disk_it_says_so_and_the_old_state_is_intact(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        data_dir = disk / "data"
        index(draw(tmp_path / "few", 5), data_dir)
        before = content(data_dir)
        process = start(draw(tmp_path / "many", 900), data_dir)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 1
        assert "has room" in json.loads(out)["error"]
        assert "Traceback" not in err
        after = content(data_dir)
        assert after[0].items() >= before[0].items()
        assert set(after[1]) <= set(after[0])
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_state_of_these_tests_is_that_of_the_app(tmp_path: Path) -> None:
    """`content` reads the folder that the settings name."""
    state = State(Settings(data_dir=tmp_path / "data"))
    try:
        assert state.gallery.uri == str(tmp_path / "data" / "gallery")
    finally:
        state.close()
