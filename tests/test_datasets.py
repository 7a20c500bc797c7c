"""The field's layouts are read as they are, and all that is wrong with one is reported."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.layouts import PEOPLE, lay_out, rows
from train.datasets import LAYOUTS, SPLITS, Counts, DataSetError, Split, read_data_set
from train.pedestrians.drawn_splits import synthetic_data_set


def pids(split: Split) -> set[int]:
    return set(split.pids.tolist())


@pytest.mark.parametrize("name", ["cuhk-pedes", "rstpreid"])
@pytest.mark.parametrize("below", [False, True])
def test_pictures_captions_and_people_are_those_listed(tmp_path: Path, name: str, below: bool) -> None:
    root = tmp_path / LAYOUTS[name].title
    lay_out(root, name)
    data = read_data_set(name, tmp_path if below else root)
    for split in SPLITS:
        listed = rows(name, splits=(split,))
        found = data[split]
        assert found.pictures == tuple(root / "imgs" / row[LAYOUTS[name].path] for row in listed)
        assert found.captions == tuple(caption for row in listed for caption in row["captions"])
        assert found.caption_pids.tolist() == [row["id"] for row in listed for _ in row["captions"]]
        assert found.counts == Counts(len(PEOPLE[split]), len(listed), 2 * len(listed))


def test_another_size_than_published_is_noted_and_refused_on_demand(tmp_path: Path) -> None:
    root = lay_out(tmp_path, "cuhk-pedes")
    (note,) = read_data_set("cuhk-pedes", root).notes
    assert note.startswith("this is not the published CUHK-PEDES: train has 8 people, expected 11,003; ")
    assert "test has 6 pictures, expected 3,074; test has 12 captions, expected 6,156" in note
    with pytest.raises(DataSetError, match=r"is not the published CUHK-PEDES: train has 8 people.*--expect-published"):
        read_data_set("cuhk-pedes", root, published=True)


@pytest.mark.parametrize("list_name", ["ICFG_PEDES.json", "ICFG-PEDES.json"])
def test_icfg_val_is_held_out_of_train_by_person(tmp_path: Path, list_name: str) -> None:
    listed = [row | {"id": row["id"] + 100 * n, "file_path": f"{n}/{row['file_path']}"}
              for n in range(3) for row in rows("icfg-pedes", splits=("train", "test"))]  # fmt: skip
    root = lay_out(tmp_path, "icfg-pedes", listed)
    (root / "ICFG_PEDES.json").rename(root / list_name)
    data = read_data_set("icfg-pedes", root)
    assert pids(data["train"]) | pids(data["val"]) == {pid + 100 * n for n in range(3) for pid in PEOPLE["train"]}
    assert not pids(data["train"]) & pids(data["val"])
    assert pids(data["test"]) == {pid + 100 * n for n in range(3) for pid in PEOPLE["test"]}
    assert len(pids(data["val"])) == 2
    assert data.notes[-1] == "ICFG-PEDES has no val split: 2 people of train are held out for it"
    (root / list_name).write_text(json.dumps(listed[::-1]))
    assert pids(read_data_set("icfg-pedes", root)["val"]) == pids(data["val"])


def test_the_old_split_of_rstpreid_is_refused(tmp_path: Path) -> None:
    sizes = (("train", 3901), ("val", 100), ("test", 100))
    splits = [split for split, count in sizes for _ in range(count)]
    listed = [{"split": s, "img_path": "a.jpg", "captions": ["a man"], "id": pid} for pid, s in enumerate(splits)]
    (tmp_path / "imgs").mkdir()
    (tmp_path / "data_captions.json").write_text(json.dumps(listed))
    with pytest.raises(DataSetError, match="old, wrong split of RSTPReid: 3,901, 100 and 100 people"):
        read_data_set("rstpreid", tmp_path)


def test_missing_pictures_are_counted_and_ten_shown(tmp_path: Path) -> None:
    root = lay_out(tmp_path, "cuhk-pedes")
    gone = [row["file_path"] for row in rows("cuhk-pedes")][:12]
    for path in gone:
        os.unlink(root / "imgs" / path)
    with pytest.raises(DataSetError) as error:
        read_data_set("cuhk-pedes", root)
    assert str(error.value).startswith(f"12 of 28 pictures are missing below {root / 'imgs'}: {'; '.join(gone[:10])}; ")
    assert "; and 2 more. Unpack" in str(error.value)
    assert gone[10] not in str(error.value)


def test_a_person_in_two_splits_is_refused(tmp_path: Path) -> None:
    listed = rows("cuhk-pedes")
    listed[-1]["id"], listed[-3]["id"] = 3, 9
    with pytest.raises(DataSetError, match=r"2 people are in more than one split: 3 \(train, test\); 9 \(val, test\)"):
        read_data_set("cuhk-pedes", lay_out(tmp_path, "cuhk-pedes", listed))


def test_a_picture_of_two_people_is_refused(tmp_path: Path) -> None:
    listed = rows("cuhk-pedes")
    listed[2]["file_path"] = listed[0]["file_path"]
    with pytest.raises(DataSetError, match=r"1 pictures show more than one person: train/001_1\.png"):
        read_data_set("cuhk-pedes", lay_out(tmp_path, "cuhk-pedes", listed))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"captions": []}, "captions should be a list of at least one text"),
        ({"captions": "a man"}, "captions should be a list of at least one text"),
        ({"captions": ["a man", " "]}, "a caption is empty or no text"),
        ({"captions": [7]}, "a caption is empty or no text"),
        ({"split": "valid"}, "split is train, val or test, not 'valid'"),
        ({"id": "7"}, "id should be a whole number, not '7'"),
        ({"id": True}, "id should be a whole number, not True"),
        ({"file_path": "../../etc/passwd"}, r"file_path should be a place below imgs, not '\.\./\.\./etc/passwd'"),
        ({"file_path": "/etc/passwd"}, "file_path should be a place below imgs, not '/etc/passwd'"),
        ({"file_path": None}, "file_path should be a place below imgs, not None"),
    ],
)
def test_broken_rows_are_reported_with_their_number(tmp_path: Path, broken: dict[str, Any], said: str) -> None:
    root = lay_out(tmp_path, "cuhk-pedes")
    listed = rows("cuhk-pedes")
    listed[4] |= broken
    del listed[6]["id"]
    (root / "reid_raw.json").write_text(json.dumps([*listed, "row"]))
    with pytest.raises(DataSetError, match=rf"3 of 29 rows are broken: row 5: {said}; row 7: it lacks id; row 29: exp"):
        read_data_set("cuhk-pedes", root)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "reid_raw.json").rename(root / "other.json"), r"expected imgs and reid_raw\.json in it.*"
         r"it holds imgs, other\.json"),
        (lambda root: (root / "reid_raw.json").rename(root / "caption_all.json"),
         r"says no splits: .* has reid_raw\.json, too"),
        (lambda root: (root / "imgs").rename(root / "pictures"), r"holds reid_raw\.json but no folder imgs"),
        (lambda root: (root / "reid_raw.json").write_text("[{"), "could not be read as JSON"),
        (lambda root: (root / "reid_raw.json").write_text("{}"), "should be a list of pictures"),
        (lambda root: (root / "reid_raw.json").write_text("[]"), "should be a list of pictures"),
        (lambda root: (root / "reid_raw.json").write_bytes(b"\xff\xfe["), "could not be read as JSON"),
        (lambda root: root.rename(root.with_name("away")), "no folder .*: expected that of CUHK-PEDES"),
    ],
)  # fmt: skip
def test_what_is_no_such_layout_is_said(tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    root = lay_out(tmp_path / "set", "cuhk-pedes")
    spoil(root)
    with pytest.raises(DataSetError, match=said):
        read_data_set("cuhk-pedes", root)


def test_a_split_without_pictures_is_refused(tmp_path: Path) -> None:
    listed = rows("rstpreid", splits=("train",))
    with pytest.raises(DataSetError, match="has no picture of split val and test"):
        read_data_set("rstpreid", lay_out(tmp_path, "rstpreid", listed))


def test_the_fingerprint_is_of_captions_people_places_and_pixels(tmp_path: Path) -> None:
    data = read_data_set("cuhk-pedes", lay_out(tmp_path / "a", "cuhk-pedes"))
    assert data.fingerprint() == read_data_set("cuhk-pedes", lay_out(tmp_path / "b", "cuhk-pedes")).fingerprint()
    split = data["test"]
    files = split.pictures
    assert isinstance(files, tuple)
    others = [
        replace(split, captions=("another", *split.captions[1:])),
        replace(split, pids=split.pids + 1),
        replace(split, of=split.of[::-1].copy()),
        replace(split, pictures=(files[0].with_name("another.png"), *files[1:])),
    ]
    found = {replace(data, splits={**data.splits, "test": other}).fingerprint() for other in (split, *others)}
    assert len(found) == 5
    drawn = synthetic_data_set("street", (24, 12), people=2, judged=1)
    pixels = drawn["val"].pictures
    assert not isinstance(pixels, tuple)
    brighter = replace(drawn["val"], pictures=pixels + np.uint8(1))
    assert replace(drawn, splits={**drawn.splits, "val": brighter}).fingerprint() != drawn.fingerprint()


def test_people_of_icfg_may_be_numbered_again_in_each_split(tmp_path: Path) -> None:
    listed = rows("icfg-pedes", splits=("train", "test"))
    for row in listed:
        row["id"] -= min(PEOPLE[row["split"]])
    data = read_data_set("icfg-pedes", lay_out(tmp_path / "again", "icfg-pedes", listed))
    assert data["test"].counts.people == len(PEOPLE["test"])
    assert pids(data["test"]) < pids(data["train"]) | pids(data["val"])
    assert "3 numbers of people are in more than one split: taken for other people" in data.notes
    leaked = [*listed, {**listed[0], "split": "test"}]
    with pytest.raises(DataSetError, match=r"1 pictures show more than one person: train/001_1\.png"):
        read_data_set("icfg-pedes", lay_out(tmp_path / "leaked", "icfg-pedes", leaked))


def test_paths_and_bytes_as_other_systems_write_them_are_read(tmp_path: Path) -> None:
    listed = rows("cuhk-pedes")
    for row in listed:
        row["file_path"] = row["file_path"].replace("train/", "Caf\N{LATIN SMALL LETTER E WITH ACUTE}/")
    root = lay_out(tmp_path, "cuhk-pedes", listed)
    composed = root / "imgs" / "Caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    composed.rename(composed.with_name("Cafe\N{COMBINING ACUTE ACCENT}"))
    plain = read_data_set("cuhk-pedes", root)
    for row in listed:
        row["file_path"] = f"imgs\\{row['file_path']}".replace("/", "\\")
    (root / "reid_raw.json").write_text("\N{BYTE ORDER MARK}" + json.dumps(listed), encoding="utf-8")
    spelled = read_data_set("cuhk-pedes", root)
    assert spelled.fingerprint() == plain.fingerprint()
    for split in SPLITS:
        assert isinstance(spelled[split].pictures, tuple)
        assert all(Path(file).is_file() for file in spelled[split].pictures)
