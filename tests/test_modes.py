"""The mode of a round: by hand, or by how long embedding the gallery anew would take."""

from __future__ import annotations

import pytest

from train.finetuning.config import PATIENCE, choose_mode


@pytest.mark.parametrize(
    ("pictures", "per_second", "mode", "said"),
    [
        (600, 200.0, "full", "embedding 600 pictures anew takes about 3 s on cpu."),
        (1, 1000.0, "full", "about 1 s"),
        (int(PATIENCE), 1.0, "full", "60 minutes on cpu."),
        (int(PATIENCE) + 1, 1.0, "text", "60 minutes on cpu, more than 60 minutes."),
        (1_000_000, 8.0, "text", "embedding 1,000,000 pictures anew takes about 35 hours on cpu"),
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
