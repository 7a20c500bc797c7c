"""Drawn pedestrians as a data set with train, val and test splits."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import get_args

import numpy as np

from train.datasets import SPLITS, DataSet, DataSetError, Split, SplitName
from train.pedestrians.generator import AnyDomain, load, takes
from train.pedestrians.people import Use

DOMAINS: tuple[AnyDomain, ...] = get_args(AnyDomain)


def synthetic_data_set(
    domain: AnyDomain,
    size: tuple[int, int],
    *,
    people: int = 2000,
    judged: int = 200,
    cache: Path | None = None,
    only: Collection[SplitName] = SPLITS,
) -> DataSet:
    """Drawn pedestrians at `size` (H, W): `people` train identities in two pictures, `judged` for each of val and test.

    Nobody is in two splits, and settings may be chosen on val: its people are never reported on. With a `cache` folder
    they are drawn once; of the splits, `only` these are.
    """
    if min(people, judged) < 1:
        raise DataSetError(f"expected at least one person in every split, not {people} and {judged}")
    uses: dict[SplitName, tuple[Use, int]] = {
        "train": ("training", people), "val": ("validation", judged), "test": ("test", judged),
    }  # fmt: skip
    splits: dict[SplitName, Split] = {}
    for split in only:
        use, count = uses[split]
        data = load(takes(domain, use, count, 2), size, cache=cache)
        splits[split] = Split(data.pixels, data.pids, data.captions, np.arange(len(data.captions)))
    return DataSet(domain, splits)
