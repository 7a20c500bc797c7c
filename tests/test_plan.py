"""How deep a round tunes, and how long it says that takes."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from core.model import UPPerson
from tests.coloured import people
from tests.small_clip import small_backbone
from tests.test_round import QUICK, given, known_before
from train.finetuning.activations import ToKeep
from train.finetuning.adaptation import Adaptation, AdaptConfig
from train.finetuning.gate import GateConfig
from train.finetuning.round import check
from train.jobs.plan import (
    Speed,
    Work,
    _timed,
    check_minutes,
    choose_depth,
    estimate,
    measure,
    work_of,
    work_of_adaptation,
)

HERE = people()
SPEED = Speed(embed=0.2, last=0.02, block=0.2, text=0.01)
WORK = Work(
    steps=200, pictures=200, captions=150, kept=3000, ranked=1300, judged=0, trainings=5, blocks=12,
)  # fmt: skip


def test_a_deep_round_takes_longer() -> None:
    seconds = [WORK.seconds(SPEED, depth) for depth in (1, 2, 3, 6, None)]
    assert seconds == sorted(seconds)
    assert WORK.seconds(SPEED, 12) == WORK.seconds(SPEED, None)
    assert WORK.seconds_of_text(SPEED) < seconds[0]


def test_a_step_in_parts_takes_longer() -> None:
    parts = replace(WORK, at_once=256)
    assert parts.seconds(SPEED, 1) == WORK.seconds(SPEED, 1)
    assert parts.seconds(SPEED, 2) > 1.2 * WORK.seconds(SPEED, 2)


def test_all_blocks_are_tuned_where_there_is_time() -> None:
    plan = choose_depth(WORK, replace(SPEED, block=1e-4, embed=1e-3, last=1e-4), 30, "cpu")
    assert plan.depth is None
    assert plan.seconds < 1800


@pytest.mark.parametrize(("minutes", "depth"), [(100, 1), (200, 2), (400, 3), (100_000, None)])
def test_the_budget_decides_how_many_blocks_learn(minutes: float, depth: int | None) -> None:
    plan = choose_depth(WORK, SPEED, minutes, "cpu")
    assert plan.depth == depth
    assert plan.seconds <= 60 * minutes
    if depth:
        assert "of 12 blocks" in plan.reason
        assert f"UPPERSON_TRAIN_MINUTES is {minutes}" in plan.reason


def test_where_nothing_fits_the_last_block_is_tuned_and_that_is_said() -> None:
    plan = choose_depth(WORK, SPEED, 1, "cpu")
    assert plan.depth == 1
    assert plan.seconds > 60
    assert "Only the last of 12 blocks of each tower is tuned" in plan.reason
    assert "Even that takes longer" in plan.reason


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_a_budget_of_nothing_is_refused(minutes: float) -> None:
    with pytest.raises(ValueError, match="more than 0 minutes"):
        check_minutes(minutes)


def test_the_estimate_is_a_sentence() -> None:
    plan = choose_depth(WORK, SPEED, 200, "cpu")
    assert estimate(plan, 600).startswith("About ")
    assert "and 10 minutes to embed the gallery if it is promoted. Only the last 2 of 12" in estimate(plan, 600)
    assert "gallery" not in estimate(plan, 0.0)


def test_the_work_of_a_round_is_counted_from_its_marks() -> None:
    here = given(small_backbone(), known=known_before(140))
    gate = GateConfig()
    pairs, _, refusal = check(here.marks, (), gate)
    assert refusal is None
    wanted = ToKeep(here.pixels, list(here.pixels), list(pairs.image_ids), here.known, here.base)
    work = work_of(pairs, wanted, QUICK, gate, here.served)
    assert work.trainings == 5, "two folds, a control of each, the candidate"
    steps = QUICK.optimisation.steps(16, QUICK.sampling.queries)
    assert steps <= work.steps <= 5 * steps
    assert 0 < work.pictures <= len(here.pixels) + QUICK.sampling.replay
    assert work.blocks == 2


def test_the_work_of_an_adaptation_is_counted_from_its_batch_and_pictures() -> None:
    served, known = UPPerson(small_backbone()), known_before(40)
    gallery = np.stack(list(HERE.pixels.values()))
    here = Adaptation(served, known, known_before(20), known_before(20), gallery, AdaptConfig(batch=24))
    work = work_of_adaptation(here)
    steps = here.config.optimisation.max_steps
    assert (work.steps, work.pictures, work.captions, work.trainings) == (steps, 24, 24, 1)
    assert work_of_adaptation(replace(here, config=AdaptConfig(batch=128))).pictures == len(known.pids)
    assert work.seconds(SPEED, None) > steps * 24 * SPEED.last


def test_a_call_that_others_hold_up_does_not_count() -> None:
    waits = iter([0.0, 0.3, 0.01, 0.3, 0.01, 0.01, 0.01, 0.01, 0.01])
    assert _timed(lambda: time.sleep(next(waits))) < 0.2


def test_the_speed_is_measured_without_a_trace() -> None:
    model = UPPerson(small_backbone())
    before = model.training
    speed = measure(model, list(HERE.pixels.values()), HERE.captions)
    assert min(speed.embed, speed.last, speed.block, speed.text) > 0
    assert speed.embed < 1
    assert model.training is before
    assert not any(parameter.requires_grad for parameter in model.parameters())
