"""Settings of a round: ranges, number of steps, and the mode by hand or by how long embedding the gallery takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import get_args

import pytest

from tests.learn_config import altered
from train.finetuning.config import (
    LEARNING,
    PATIENCE,
    LearnConfig,
    Mode,
    Optimisation,
    choose_mode,
    format_duration,
)


@pytest.mark.parametrize(
    ("pictures", "per_second", "mode", "said"),
    [
        (600, 200.0, "full", "embedding 600 pictures again takes about 3 s on cpu."),
        (1, 1000.0, "full", "about 1 s"),
        (int(PATIENCE), 1.0, "full", "60 minutes on cpu."),
        (int(PATIENCE) + 1, 1.0, "text", "60 minutes on cpu, more than 60 minutes."),
        (1_000_000, 8.0, "text", "embedding 1,000,000 pictures again takes about 35 hours on cpu"),
        (1_000_000, 2000.0, "full", "8 minutes"),
    ],
)
def test_auto_goes_by_gallery_size_and_device(pictures: int, per_second: float, mode: str, said: str) -> None:
    choice = choose_mode("auto", pictures, per_second, "cpu")
    assert choice.mode == mode
    assert said in choice.reason


@pytest.mark.parametrize("mode", ["full", "text"])
def test_by_hand_nothing_is_weighed(mode: str) -> None:
    choice = choose_mode(mode, 10**9, 0.001, "cpu")  # type: ignore[arg-type]
    assert choice.mode == mode
    assert "as asked" in choice.reason


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="a mode is auto, full, text, not 'image'"):
        choose_mode("image", 1, 1.0, "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1, "1 s"), (89, "89 s"), (91, "2 minutes"), (5399, "90 minutes"), (5400, "2 hours"), (36_000, "10 hours")],
)
def test_a_duration_is_given_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_the_number_of_steps_follows_the_captions_with_hits() -> None:
    config = Optimisation(passes=10, min_steps=5, max_steps=1000)
    assert config.steps(16, 4) == 40
    assert config.steps(17, 4) == 43, "a part of a step is a step"
    assert Optimisation(passes=10, min_steps=5, max_steps=30).steps(16, 4) == 30
    assert Optimisation(passes=10, min_steps=50, max_steps=1000).steps(16, 4) == 50
    assert config.steps(0, 4) == 5


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        *(({name: 0}, rf"\.{name} is at least 1, not 0") for name in ("queries", "hits", "max_steps", "anchors")),
        *(
            ({name: -0.5}, rf"\.{name} is at least 0, not -0.5")
            for name in (
                "misses", "negative_only", "replay", "passes", "min_steps", "weight_decay", "person", "push",
                "distil", "drift", "forget",
            )
        ),
        ({"drift": float("nan")}, r"Retention\.drift is at least 0, not nan"),
        ({"distil": float("inf")}, r"Retention\.distil is at least 0, not inf"),
        ({"lr": 0.0}, "needs 0 < lr < 1"),
        ({"lr": 2.0}, "needs 0 < lr < 1"),
        ({"average": 1.0}, "0 <= average < 1"),
        ({"hidden_words": 1.0}, r"Sampling\.hidden_words is below 1: a caption without words teaches nothing"),
        *(
            ({name: share}, rf"Sampling\.{name} is a share in \[0, 1\], not {share}")
            for name in ("occluded", "hidden_words", "relearn")
            for share in (-0.1, 1.1)
        ),
        *(({"mix": mix}, r"Optimisation\.mix is a share in \(0, 1\]") for mix in (0.0, 1.1)),
    ],
)  # fmt: skip
def test_a_config_out_of_range_is_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        altered(LearnConfig(), **wrong)


def test_every_mode_has_its_settings() -> None:
    assert set(LEARNING) == set(get_args(Mode))
    assert LEARNING["full"] == LearnConfig()


def test_text_mode_spends_nothing_on_pictures_that_stay_as_they_are() -> None:
    text = asdict(LEARNING["text"])
    assert (text["sampling"]["occluded"], text["optimisation"]["person"]) == (0, 0)
