"""Batches follow from seed, epoch and place alone, and are shared among processes without loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.backbones import Backbone
from tests.layouts import lay_out
from tests.small_clip import small_backbone
from train.datasets import Split, read_data_set
from train.supervised.batches import BatchConfig, Batches, epoch_pairs


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return read_data_set("cuhk-pedes", lay_out(tmp_path_factory.mktemp("set"), "cuhk-pedes"))["train"]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone()


def test_an_epoch_takes_every_pair_once_in_another_order_each_time() -> None:
    pids, config = np.arange(30) // 3, BatchConfig(10, seed=3)
    one, two = epoch_pairs(pids, config, 0), epoch_pairs(pids, config, 1)
    assert one.shape == (3, 10)
    assert sorted(one.ravel().tolist()) == sorted(two.ravel().tolist()) == list(range(30))
    assert one.tolist() != two.tolist()
    assert one.tolist() == epoch_pairs(pids, config, 0).tolist()
    assert one.tolist() != epoch_pairs(pids, BatchConfig(10, seed=4), 0).tolist()


def test_what_fills_no_batch_is_left_and_a_small_set_goes_round() -> None:
    assert epoch_pairs(np.arange(25), BatchConfig(10), 0).shape == (2, 10)
    small = epoch_pairs(np.arange(3), BatchConfig(8), 0)
    assert small.shape == (1, 8)
    assert set(small.ravel().tolist()) == {0, 1, 2}


def test_identity_sampling_puts_pairs_of_a_person_side_by_side() -> None:
    pids = np.array([5] * 7 + [6] * 4 + [7] + [8] * 12)
    rows = epoch_pairs(pids, BatchConfig(8, instances=4), 0)
    assert rows.shape == (3, 8)  # 2 + 1 + 1 + 3 groups fill three batches and leave one group
    groups = pids[rows].reshape(-1, 4)
    assert (groups == groups[:, :1]).all()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"size": 1}, "at least 2 pairs"),
        ({"size": 10, "instances": 4}, "cannot be made of groups of 4"),
        ({"masked": 1.0}, r"lies in \[0, 1\)"),
    ],
)
def test_settings_that_make_no_batch_are_refused(config: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BatchConfig(**config)  # type: ignore[arg-type]


def test_processes_and_workers_share_what_one_process_sees(split: Split, backbone: Backbone) -> None:
    config = BatchConfig(8)
    whole = list(Batches(split, backbone, config).epoch(2))
    parts = [list(Batches(split, backbone, config, number=n, processes=2, workers=n).epoch(2)) for n in (0, 1)]
    assert len(whole) == 4
    for number, batch in enumerate(whole):
        for name in ("pixels", "tokens"):
            joined = torch.cat([getattr(part[number], name) for part in parts])
            assert torch.equal(getattr(batch, name), joined)
        assert all(torch.equal(part[number].pids, batch.pids) for part in parts)
    with pytest.raises(ValueError, match="cannot be shared evenly among 3 processes"):
        Batches(split, backbone, config, number=0, processes=3)


def test_from_any_step_on_the_batches_are_the_same(split: Split, backbone: Backbone) -> None:
    batches = Batches(split, backbone, BatchConfig(8))
    whole, rest = list(batches.epoch(1)), list(batches.epoch(1, first=2))
    assert len(rest) == 2
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.pids, other.pids)


def test_only_masked_captions_differ_from_what_is_written(split: Split, backbone: Backbone) -> None:
    plain = next(Batches(split, backbone, BatchConfig(8, masked=0)).epoch(0))
    hidden = next(Batches(split, backbone, BatchConfig(8, masked=0.5)).epoch(0))
    row = epoch_pairs(split.caption_pids, BatchConfig(8), 0)[0]
    assert torch.equal(plain.tokens, backbone.tokenize([split.captions[pair] for pair in row]))
    assert torch.equal(plain.pixels, hidden.pixels)
    changed = plain.tokens != hidden.tokens
    assert changed.any()
    assert (hidden.tokens.argmax(dim=1) == plain.tokens.argmax(dim=1)).all()
    assert (hidden.tokens[changed] == 49405).any()


def test_a_small_vocabulary_is_asked_for_words_it_knows(split: Split, mini: Backbone) -> None:
    assert mini.known_tokens is not None
    batches = Batches(split, mini, BatchConfig(16, masked=0.9))
    known = {*mini.known_tokens.tolist(), 49405, 0}
    written = set(mini.tokenize(list(split.captions)).ravel().tolist())
    assert set(next(batches.epoch(0)).tokens.ravel().tolist()) <= known | written


def test_captions_too_long_are_cut_before_the_end_mark_and_counted(split: Split, backbone: Backbone) -> None:
    captions = ["a man " * 37, "a man " * 37 + "in", "a man " * 60, *split.captions[3:]]  # 74, 75 and 120 words
    batches = Batches(replace(split, captions=tuple(captions)), backbone, BatchConfig(32, masked=0))
    assert batches.cut() == 1
    tokens = next(batches.epoch(0)).tokens
    assert (tokens.max(dim=1).values == 49407).all()
    assert (tokens[:, -1] == 49407).sum() == 2


def test_pictures_come_at_the_backbones_size(split: Split, backbone: Backbone) -> None:
    batch = next(Batches(split, backbone, BatchConfig(4)).epoch(0))
    assert batch.pixels.shape == (4, 3, 48, 16)
    assert batch.pixels.dtype == torch.float32
