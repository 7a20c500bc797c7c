"""Drawn pedestrians as a data set: nobody is in two splits."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from train.datasets import SPLITS, DataSetError
from train.pedestrians.drawn_splits import synthetic_data_set


def test_drawn_people_are_different_ones_in_each_split(tmp_path: Path) -> None:
    data = synthetic_data_set("street", (32, 12), people=2, judged=1, cache=tmp_path)
    assert {name: asdict(data[name].counts) for name in SPLITS} == {
        "train": {"people": 2, "pictures": 4, "captions": 4},
        "val": {"people": 1, "pictures": 2, "captions": 2},
        "test": {"people": 1, "pictures": 2, "captions": 2},
    }
    pictures = [np.asarray(data[name].pictures) for name in SPLITS]
    assert all(each.shape[1:] == (32, 12, 3) for each in pictures)
    assert not set(data["train"].captions) & set(data["test"].captions)
    assert set(synthetic_data_set("street", (32, 12), judged=1, cache=tmp_path, only=["val"]).splits) == {"val"}
    with pytest.raises(DataSetError, match="at least one person in every split"):
        synthetic_data_set("street", (32, 12), people=0)


def test_foreign_people_are_a_data_set_too(tmp_path: Path) -> None:
    data = synthetic_data_set("foreign", (32, 12), people=2, judged=1, cache=tmp_path)
    assert data.name == "foreign"
    assert {name: data[name].counts.pictures for name in SPLITS} == {"train": 4, "val": 2, "test": 2}
    street = synthetic_data_set("street", (32, 12), people=2, judged=1, cache=tmp_path)
    for name in SPLITS:
        assert not set(data[name].captions) & set(street[name].captions)
        assert not np.array_equal(np.asarray(data[name].pictures), np.asarray(street[name].pictures))
    assert len(list(tmp_path.iterdir())) == 6  # kept apart
