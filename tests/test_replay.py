"""What a backbone knew before: drawn for mini, read from a data set's folder for any, nothing otherwise."""

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
from train.datasets import DataSetError
from train.finetuning import replay
from train.finetuning.replay import Known, known_before

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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "CUHK-PEDES", "cuhk-pedes", many("cuhk-pedes"))


def test_train_pairs_are_replayed_and_val_pairs_judge(folder: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    found = known_before(BACKBONE, folder, cache=tmp_path, progress=shares.append)
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
            # both pictures of a person are the same noise here, so only the person can be told
            np.testing.assert_array_equal(pixels, np.asarray(expected))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    again = known_before(BACKBONE, folder, cache=tmp_path)
    assert again.base is not None
    assert again.base.captions == found.base.captions
    assert again.name == found.name != "nothing"


def test_no_more_people_than_are_wanted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "REPLAY_PEOPLE", 3)
    monkeypatch.setattr(replay, "BASE_PEOPLE", 5)
    found = known_before(BACKBONE, folder, cache=tmp_path)
    assert found.replay is not None
    assert found.base is not None
    assert len(set(found.replay.pids.tolist())) == len(found.replay.pids) == 3
    assert (len(set(found.base.pids.tolist())), len(found.base.pids)) == (5, 10)


def test_a_picture_of_the_gallery_cannot_judge(folder: Path, tmp_path: Path) -> None:
    judging = folder / "imgs" / "val" / "009_1.png"
    searched = [hashlib.sha256(judging.read_bytes()).hexdigest()]
    with pytest.raises(DataSetError, match=r"val.0\d\d_\d\.png is in the gallery too"):
        known_before(BACKBONE, folder, cache=tmp_path, gallery=searched)
    others = [hashlib.sha256(b"another picture").hexdigest()]
    assert known_before(BACKBONE, folder, cache=tmp_path, gallery=others).base is not None


def test_what_has_no_val_split_judges_by_people_held_out_of_train(tmp_path: Path) -> None:
    listed = [
        row | {"id": row["id"] + 100 * n, "file_path": f"{n}/{row['file_path']}"}
        for n in range(30)
        for row in rows("icfg-pedes", splits=("train", "test"))
    ]
    found = known_before(BACKBONE, lay_out(tmp_path / "ICFG-PEDES", "icfg-pedes", listed), cache=tmp_path)
    assert found.replay is not None
    assert found.base is not None
    replayed, judging = set(found.replay.pids.tolist()), set(found.base.pids.tolist())
    assert (len(replayed), len(judging)) == (216, 24)
    assert not replayed & judging


def test_too_few_to_judge_by_are_refused(tmp_path: Path) -> None:
    small = lay_out(tmp_path / "small", "cuhk-pedes")
    with pytest.raises(DataSetError, match="has 3 people in val: expected at least 20"):
        known_before(BACKBONE, small, cache=tmp_path)


def test_a_folder_of_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataSetError, match=r"holds no data set: expected the folder of one, with one of reid_raw\.json"
    ):
        known_before(BACKBONE, tmp_path, cache=tmp_path)
    for name in ("cuhk-pedes", "rstpreid"):
        lay_out(tmp_path, name)
    with pytest.raises(DataSetError, match="holds cuhk-pedes and rstpreid"):
        known_before(BACKBONE, tmp_path, cache=tmp_path)


def test_a_picture_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    for file in (folder / "imgs" / "train").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"00\d_\d\.png"):
        known_before(BACKBONE, folder, cache=tmp_path)


def test_nobody_says_what_another_backbone_knew(tmp_path: Path) -> None:
    assert known_before(BACKBONE, None, cache=tmp_path) == Known()


def test_mini_knows_drawn_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "REPLAY_PEOPLE", 4)
    monkeypatch.setattr(replay, "BASE_PEOPLE", 3)
    mini: Backbone = replace(BACKBONE, name="mini")
    found = known_before(mini, None, cache=tmp_path)
    assert found.replay is not None
    assert found.base is not None
    assert (len(found.replay.pids), len(found.base.pids)) == (4, 6)
    assert len(list(tmp_path.glob("*.npy"))) == 2
