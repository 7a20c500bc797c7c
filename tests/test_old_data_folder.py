"""A data folder made by the version of November 2026 opens and works: nothing that users have is lost."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.doctor import check_state
from app.search.views import SearchRequest
from app.services import Services
from app.settings import Settings
from core import load_backbone
from store import Filters
from tests.conftest import ROOT
from tests.learn_config import learning
from tests.test_export import export_marks
from train.finetuning import replay
from train.finetuning.gate import GateConfig
from train.finetuning.job import JobConfig, run_job
from train.jobs.stores import open_stores

PACKED = ROOT / "tests/data/data_folder_november.tar.xz"
CAPTION = "somebody with a red coat and green trousers"


def unpack(target: Path) -> Path:
    with tarfile.open(PACKED) as packed:
        packed.extractall(target, filter="data")
    return target / "data"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The app on the old folder, for tests that leave no trace."""
    services = Services.open(Settings(data_dir=unpack(tmp_path_factory.mktemp("old")), sample_size=4, adapt="off"))
    yield services
    services.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Services]:
    """The app on a copy of the old folder, for one test."""
    services = Services.open(Settings(data_dir=unpack(tmp_path), sample_size=4, adapt="off"))
    yield services
    services.close()


def old_export(services: Services) -> Path:
    """The file of marks as the old version exported them."""
    (file,) = services.settings.exports_dir.glob("*/marks.jsonl")
    return file


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_it_is_small_enough_to_keep() -> None:
    assert PACKED.stat().st_size <= 300_000


def test_its_pictures_and_facts_are_there(opened: Services) -> None:
    gallery = opened.state.gallery
    assert (gallery.count(), gallery.count(source="crops"), gallery.count(source="sample")) == (29, 26, 3)
    facets = opened.facets()
    assert facets.metadata["side"] == {"back": 13, "front": 13}
    assert facets.captured_from is not None
    assert facets.captured_from.isoformat() == "2026-11-01T10:00:00+00:00"
    for image_id in gallery.ids():
        assert opened.picture(image_id)[1] in ("image/png", "image/jpeg")


def test_its_search_gives_what_it_gave(own: Services) -> None:
    assert own.search(SearchRequest(CAPTION, k=5), "ada").version == "mini-v1"
    own.rollback("ada")
    then = {row["image_id"]: row for row in rows(old_export(own)) if row["caption"] == CAPTION}
    now = {c.image_id: c for c in own.search(SearchRequest(CAPTION, k=29), "ada").candidates}
    assert len(then) >= 8
    for image_id, row in then.items():
        assert now[image_id].score == pytest.approx(row["score"], abs=1e-5)
        assert now[image_id].verdict == row["verdict"]
    by_then = sorted(then, key=lambda image_id: then[image_id]["rank"])
    assert by_then == sorted(then, key=lambda image_id: now[image_id].rank)


def test_its_pictures_can_be_filtered(opened: Services) -> None:
    front = Filters(metadata=(("side", "front"),))
    assert len(opened.search(SearchRequest(CAPTION, filters=front, k=29), "alan").candidates) == 13


def test_its_current_marks_are_those_it_exported(opened: Services) -> None:
    assert opened.stats() == {
        "total": 107, "hits": 28, "misses": 78, "wrong_person": 1, "captions": 14, "images": 27, "users": 2,
    }  # fmt: skip
    current = {(mark.caption, mark.image_id, mark.verdict) for mark in opened.state.marks.current()}
    assert current == {(row["caption"], row["image_id"], row["verdict"]) for row in rows(old_export(opened))}


def test_its_last_mark_can_be_undone(own: Services) -> None:
    assert [mark.verdict for mark in own.undo("grace")] == ["hit"]
    assert own.stats("grace")["total"] == 2


def test_it_exports_the_same_bytes(opened: Services, tmp_path: Path) -> None:
    export_marks(opened.state.marks, opened.state.gallery, tmp_path / "now", format="jsonl")
    assert (tmp_path / "now" / "marks.jsonl").read_bytes() == old_export(opened).read_bytes()


def test_its_versions_and_runs_are_listed(opened: Services) -> None:
    base, newest = opened.state.versions.list("mini")
    assert (newest.id, newest.status, newest.folder) == ("mini-v1", "active", "models/mini-v1")
    assert (base.id, base.status) == ("mini-v0", "retired")
    assert base.metrics["street"]["r1"] == 0.246
    (run,) = opened.jobs()
    assert (run.state, run.result["decision"]) == ("done", "undecided")


def test_a_check_finds_nothing_wrong(opened: Services) -> None:
    assert check_state(opened.state, load_backbone("mini")).findings == ()


def test_it_learns_from_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unpack(tmp_path)
    monkeypatch.setattr(replay, "REPLAY_PEOPLE", 4)
    monkeypatch.setattr(replay, "BASE_PEOPLE", 10)
    short = learning(1, lr=1e-4, queries=4, misses=2, replay=2)
    with open_stores(folder) as stores:
        result = run_job(stores, None, JobConfig(learning=short, gate=GateConfig(base_fall=0.9)))
        assert result["version"] == "mini-v2"
        made = stores.versions.get("mini-v2")
        assert made.parent == "mini-v1"
        assert made.mark_counts["hits"] >= 20
        assert (folder / str(made.folder) / "petl.safetensors").is_file()
