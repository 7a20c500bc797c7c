"""Data sets of the Hub as a gallery, read offline from folders laid out like them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image
from typer.testing import CliRunner

from app.app_errors import IndexingError
from app.cli import cli
from app.indexing.entries import Entry
from app.indexing.hub_set import HubSet, HubSource, parse_columns
from app.indexing.report import SkipList
from app.services import Services

COLOURS = ("red", "green", "blue")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def picture(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 32), colour).save(file, "PNG")
    return file.getvalue()


def parquet(folder: Path, split: str = "train", **columns: list[Any]) -> Path:
    """A data set of one Parquet file, as `push_to_hub` lays it out."""
    images = [{"bytes": picture(colour), "path": None} for colour in COLOURS]
    given = {"image": images} | columns
    kinds = {"image": datasets.Image()} if "image" in given else {}
    data = datasets.Dataset.from_dict(given)
    for name, kind in kinds.items():
        data = data.cast_column(name, kind)
    if "label" in given:
        data = data.cast_column("label", datasets.ClassLabel(names=["front", "back"]))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    data.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def drain(source: HubSource) -> tuple[list[Entry], dict[str, str]]:
    skipped = SkipList()
    entries = list(source.entries(skipped))
    return entries, {one.path: one.reason for one in skipped.first}


def test_pictures_come_with_what_is_known_of_them(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "people", caption=["a", "b", "c"], person_id=[7, 8, 8], label=[0, 1, 1])
    source = HubSource(f"hub:{folder}")
    entries, skipped = drain(source)
    assert source.name == "people train"
    assert skipped == {}
    assert [entry.name for entry in entries] == ["train/1", "train/2", "train/3"]
    assert [entry.read(10_000) for entry in entries] == [picture(colour) for colour in COLOURS]
    assert [entry.facts.pid for entry in entries] == ["7", "8", "8"]
    assert entries[1].facts.metadata == {"caption": "b", "label": "back"}


def test_columns_can_be_named(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "people", who=["x", "y", "z"], lens=[1, 2, 3], pid=[5, 5, 5])
    entries, _ = drain(HubSource(f"hub:{folder}:train", parse_columns("pid=who, camera=lens")))
    assert [(entry.facts.pid, entry.facts.camera) for entry in entries] == [("x", "1"), ("y", "2"), ("z", "3")]


def test_a_folder_of_pictures_with_metadata_is_a_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(picture(colour))
    rows = [{"file_name": f"{colour}.png", "pid": colour} for colour in COLOURS]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    entries, _ = drain(HubSource(f"hub:{folder}"))
    assert {entry.facts.pid: entry.read(10_000) for entry in entries} == {c: picture(c) for c in COLOURS}


def test_a_data_set_without_pictures_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "words"
    (folder / "data").mkdir(parents=True)
    datasets.Dataset.from_dict({"text": ["a"], "pid": [1]}).to_parquet(folder / "data" / "train-0.parquet")
    with pytest.raises(IndexingError, match="no column of pictures: its columns are 'text', 'pid'"):
        HubSource(f"hub:{folder}")
    with pytest.raises(IndexingError, match="no column of pictures called 'text'"):
        HubSource(f"hub:{folder}", {"image": "text"})


def test_a_split_or_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "people")
    with pytest.raises(IndexingError, match=r"no split 'test': write hub:.*:SPLIT with one of train"):
        HubSource(f"hub:{folder}:test")
    with pytest.raises(IndexingError, match=r"no column 'who' \(--columns\); its columns are 'image'"):
        HubSource(f"hub:{folder}", {"pid": "who"})


@pytest.mark.parametrize("place", ["hub:", "hub:name", "hub:a/b/c", "hub:a/b:tr/ain", "hub:../x", "hub:https://x/y"])
def test_a_name_of_another_form_is_refused(place: str) -> None:
    with pytest.raises(IndexingError, match="expected hub:user/name"):
        HubSet.parse(place)


@pytest.mark.parametrize("text", ["pid", "who=pid", "pid=", "=x", "image=a,nobody=b"])
def test_columns_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(IndexingError, match="--columns is like"):
        parse_columns(text)


def test_a_file_outside_the_data_set_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture("black"))
    folder = tmp_path / "people"
    (folder / "data").mkdir(parents=True)
    outside = datasets.Dataset.from_dict({"image": [{"bytes": None, "path": str(tmp_path / "secret.png")}]})
    outside.cast_column("image", datasets.Image(decode=False)).to_parquet(folder / "data" / "train-0.parquet")
    entries, _ = drain(HubSource(f"hub:{folder}"))
    with pytest.raises(Exception, match="not the data set's own"):
        entries[0].read(10_000)


def test_it_is_indexed_by_the_command_line_and_again_after_a_stop(tmp_path: Path, services: Services) -> None:
    folder = parquet(tmp_path / "people", person_id=[7, 8, 8])
    data_dir = str(services.settings.data_dir)
    services.close()
    command = ["index", f"hub:{folder}", "--data-dir", data_dir, "--json"]
    first = json.loads(CliRunner().invoke(cli, command).stdout.splitlines()[-1])
    assert (first["added"], first["known"], first["source"]) == (3, 0, "people train")
    second = json.loads(CliRunner().invoke(cli, command).stdout.splitlines()[-1])
    assert (second["added"], second["known"]) == (0, 3)
