"""What the served version knew before: drawn people, a data set where it lies, a kept sample, or nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.backbones import Backbone
from core.core_errors import PictureError
from tests.layouts import lay_out, rows
from tests.small_clip import small_backbone
from train import pedestrians
from train.datasets import DataSetError
from train.finetuning import replay
from train.finetuning.replay import (
    SAMPLE_FILE,
    Known,
    Source,
    known_before,
    read_known,
    read_sample,
    source_of,
    write_sample,
)

BACKBONE = small_backbone()


def many(name: str, *, judging: int = 25) -> list[dict[str, Any]]:
    """The small data set with so many more people in val."""
    listed = rows(name)
    model = [row for row in listed if row["split"] == "val" and row["id"] == 9]
    more = [
        row | {"id": 100 + number, "file_path": f"val/{100 + number}_{row['file_path'][-5]}.png"}
        for number in range(judging - 3)
        for row in model
    ]
    return listed + more


def data_set(folder: Path) -> Source:
    return Source("data set", path=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "CUHK-PEDES", "cuhk-pedes", many("cuhk-pedes"))


def test_train_pairs_are_replayed_and_val_pairs_judge(folder: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    found = known_before(BACKBONE, data_set(folder), cache=tmp_path, progress=shares.append)
    assert found.replay is not None
    assert found.base is not None
    assert sorted(found.replay.pids.tolist()) == list(range(1, 9)), "one picture of each person of train"
    assert sorted(found.base.pids.tolist()) == sorted([*range(9, 12), *range(100, 122)] * 2), "two of each of val"
    listed = {(row["id"], row["captions"][0]): folder / "imgs" / row["file_path"] for row in many("cuhk-pedes")}
    for part in (found.replay, found.base):
        for pixels, caption, pid in zip(part.pixels, part.captions, part.pids.tolist(), strict=True):
            file = next(path for (one, words), path in listed.items() if (one, words) == (pid, caption))
            height, width = BACKBONE.image_size
            expected = Image.open(file).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
            # both pictures of a person are the same noise here, so only the person can be recognised
            np.testing.assert_array_equal(pixels, np.asarray(expected))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    again = known_before(BACKBONE, data_set(folder), cache=tmp_path)
    assert again.base is not None
    assert again.base.captions == found.base.captions
    assert again.name == found.name != "nothing"


def test_no_more_people_than_are_wanted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "REPLAY_PEOPLE", 3)
    monkeypatch.setattr(replay, "BASE_PEOPLE", 5)
    found = known_before(BACKBONE, data_set(folder), cache=tmp_path)
    assert found.replay is not None
    assert found.base is not None
    assert len(set(found.replay.pids.tolist())) == len(found.replay.pids) == 3
    assert (len(set(found.base.pids.tolist())), len(found.base.pids)) == (5, 10)


def test_a_picture_of_the_gallery_cannot_judge(folder: Path, tmp_path: Path) -> None:
    judging = folder / "imgs" / "val" / "009_1.png"
    searched = [hashlib.sha256(judging.read_bytes()).hexdigest()]
    with pytest.raises(DataSetError, match=r"val.0\d\d_\d\.png is in the gallery too"):
        known_before(BACKBONE, data_set(folder), cache=tmp_path, gallery=searched)
    others = [hashlib.sha256(b"another picture").hexdigest()]
    assert known_before(BACKBONE, data_set(folder), cache=tmp_path, gallery=others).base is not None


def test_what_has_no_val_split_judges_by_people_held_out_of_train(tmp_path: Path) -> None:
    listed = [
        row | {"id": row["id"] + 100 * n, "file_path": f"{n}/{row['file_path']}"}
        for n in range(30)
        for row in rows("icfg-pedes", splits=("train", "test"))
    ]
    found = known_before(BACKBONE, data_set(lay_out(tmp_path / "ICFG-PEDES", "icfg-pedes", listed)), cache=tmp_path)
    assert found.replay is not None
    assert found.base is not None
    replayed, judging = set(found.replay.pids.tolist()), set(found.base.pids.tolist())
    assert (len(replayed), len(judging)) == (216, 24)
    assert not replayed & judging


def test_too_few_to_judge_by_are_refused(tmp_path: Path) -> None:
    small = lay_out(tmp_path / "small", "cuhk-pedes")
    with pytest.raises(DataSetError, match="has 3 people in val: expected at least 20"):
        known_before(BACKBONE, data_set(small), cache=tmp_path)


def test_a_folder_of_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataSetError, match=r"holds no data set: expected the folder of one, with one of reid_raw\.json"
    ):
        known_before(BACKBONE, data_set(tmp_path), cache=tmp_path)
    for name in ("cuhk-pedes", "rstpreid"):
        lay_out(tmp_path, name)
    with pytest.raises(DataSetError, match="holds cuhk-pedes and rstpreid"):
        known_before(BACKBONE, data_set(tmp_path), cache=tmp_path)


def test_a_picture_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    for file in (folder / "imgs" / "train").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"00\d_\d\.png"):
        known_before(BACKBONE, data_set(folder), cache=tmp_path)


def test_nobody_says_what_another_backbone_knew(tmp_path: Path) -> None:
    assert known_before(BACKBONE, Source("nothing"), cache=tmp_path) == Known()


def test_drawn_people_are_replayed_and_others_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "REPLAY_PEOPLE", 4)
    monkeypatch.setattr(replay, "BASE_PEOPLE", 3)
    mini: Backbone = replace(BACKBONE, name="mini")
    found = known_before(mini, Source("drawn", "studio"), cache=tmp_path)
    assert found.replay is not None
    assert found.base is not None
    assert (len(found.replay.pids), len(found.base.pids)) == (4, 6)
    assert len(list(tmp_path.glob("*.npy"))) == 2
    assert found.name == f"drawn studio people {pedestrians.VERSION}"


@pytest.mark.parametrize("domain", ["street", "foreign"])
def test_a_version_of_fit_replays_the_drawn_people_it_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, domain: str
) -> None:
    monkeypatch.setattr(replay, "REPLAY_PEOPLE", 4)
    monkeypatch.setattr(replay, "BASE_PEOPLE", 3)
    found = known_before(BACKBONE, Source("drawn", domain, people=2), cache=tmp_path)
    assert found.replay is not None
    assert len(found.replay.pids) == 2, "no more people than it has seen"
    trained = pedestrians.load(pedestrians.takes(domain, "training", 2, 1), BACKBONE.image_size)  # type: ignore[call-overload]
    np.testing.assert_array_equal(found.replay.pixels, trained.pixels)


# What a version says of itself


def test_a_version_names_the_data_set_it_was_trained_on(folder: Path, tmp_path: Path) -> None:
    facts = {"trained_on": {"name": "cuhk-pedes", "root": str(folder), "people": 2000}}
    assert source_of(facts, tmp_path) == Source("data set", "cuhk-pedes", folder)
    drawn = {"trained_on": {"name": "foreign", "root": None, "people": 500}}
    assert source_of(drawn, tmp_path) == Source("drawn", "foreign", people=500)


def test_a_version_that_learnt_from_marks_says_nothing_of_it(tmp_path: Path) -> None:
    assert source_of({}, tmp_path) is None
    assert source_of({"known": "drawn studio people 3", "trained_on": "cuhk-pedes"}, tmp_path) is None


def test_a_data_set_gone_from_its_place_is_replaced_by_the_sample(tmp_path: Path) -> None:
    facts = {"trained_on": {"name": "cuhk-pedes", "root": str(tmp_path / "gone"), "people": 2000}}
    assert source_of(facts, tmp_path) == Source("nothing", "cuhk-pedes")
    (tmp_path / SAMPLE_FILE).write_bytes(b"here")
    assert source_of(facts, tmp_path) == Source("sample", path=tmp_path / SAMPLE_FILE)
    assert source_of({}, tmp_path) == Source("sample", path=tmp_path / SAMPLE_FILE)


@pytest.mark.parametrize(
    "trained_on",
    [{}, {"name": "moon"}, {"name": "foreign", "people": "many"}, {"name": "cuhk-pedes", "root": 7}, {"name": None}],
)
def test_facts_that_make_no_sense_name_nothing(tmp_path: Path, trained_on: dict[str, object]) -> None:
    found = source_of({"trained_on": trained_on}, tmp_path)
    assert found is not None
    assert found.kind == "nothing"


# A kept sample


def test_a_kept_sample_is_read_back_as_it_was(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / SAMPLE_FILE
    write_sample(file, read_known(folder), BACKBONE, 5)
    pairs, base = read_sample(file, BACKBONE.image_size)
    assert (len(pairs.pids), len(base.pids)) == (5, 10)
    assert len(set(pairs.pids.tolist())) == len(set(base.pids.tolist())) == 5
    listed = {(row["id"], row["captions"][0]) for row in many("cuhk-pedes")}
    assert set(zip(pairs.pids.tolist(), pairs.captions, strict=True)) <= listed
    found = known_before(BACKBONE, Source("sample", path=file), cache=tmp_path)
    assert found.replay is not None
    assert found.base is not None
    np.testing.assert_array_equal(found.replay.pixels, pairs.pixels)
    assert found.base.captions == base.captions
    assert found.name == "a kept sample of the data set it was trained on"


def damaged(kind: str, file: Path) -> None:
    data = file.read_bytes()
    if kind == "gone":
        file.unlink()
    elif kind == "cut off":
        file.write_bytes(data[: len(data) // 2])
    elif kind == "changed":
        middle = len(data) // 2
        file.write_bytes(data[:middle] + bytes(255 - byte for byte in data[middle : middle + 64]) + data[middle + 64 :])
    elif kind == "another array":
        with file.open("wb") as out:
            np.save(out, np.zeros(3))
    elif kind == "other arrays":
        with file.open("wb") as out:
            np.savez(out, replay_pixels=np.zeros(3))
    else:
        file.write_bytes({"empty": b"", "no archive": b"nothing of the kind"}[kind])


@pytest.mark.parametrize("kind", ["gone", "empty", "no archive", "cut off", "changed", "another array", "other arrays"])
def test_a_damaged_sample_is_refused_with_a_sentence(folder: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / SAMPLE_FILE
    write_sample(file, read_known(folder), BACKBONE, 5)
    damaged(kind, file)
    with pytest.raises(
        DataSetError, match=r"known_pairs\.npz beside the version's weights cannot be read .*add it again"
    ):
        known_before(BACKBONE, Source("sample", path=file), cache=tmp_path)


def test_a_sample_of_another_picture_size_is_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / SAMPLE_FILE
    write_sample(file, read_known(folder), BACKBONE, 5)
    with pytest.raises(DataSetError, match=r"has pictures \(5, 48, 16, 3\): expected \(5, 64, 32, 3\), uint8"):
        read_sample(file, (64, 32))
