"""The style of a gallery: its light, tint, blur and noise move over, what a picture shows stays."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from train import pedestrians
from train.style import MAX_GAIN, RINGS, Style

SIZE = (64, 24)


@pytest.fixture(scope="module")
def studio() -> NDArray[np.uint8]:
    return pedestrians.load(pedestrians.takes("studio", "training", 24, 1), SIZE).pixels


@pytest.fixture(scope="module")
def street() -> NDArray[np.uint8]:
    return pedestrians.load(pedestrians.takes("street", "training", 24, 1), SIZE).pixels


def fine_power(pixels: NDArray[np.uint8]) -> float:
    """Mean squared difference of neighbours: what blur lowers and noise raises."""
    return float((np.diff(pixels.astype(np.float64), axis=1) ** 2).mean())


def test_light_and_tint_move_over(studio: NDArray[np.uint8], street: NDArray[np.uint8]) -> None:
    styled = Style(street).apply(studio, np.random.default_rng(0))
    assert styled.shape == studio.shape
    assert styled.dtype == np.uint8
    near, far = (np.abs(one.mean(axis=(0, 1, 2)) - street.mean(axis=(0, 1, 2))).max() for one in (styled, studio))
    assert near < 0.35 * far


@pytest.mark.parametrize("blurred", [True, False])
def test_blur_and_noise_move_over(studio: NDArray[np.uint8], blurred: bool) -> None:
    floats = studio.astype(np.float64)
    if blurred:
        other = sum(np.roll(floats, (dy, dx), (1, 2)) for dy in range(5) for dx in range(5)) / 25
    else:
        other = floats + np.random.default_rng(1).normal(0, 40, floats.shape)
    gallery = np.clip(other, 0, 255).astype(np.uint8)
    styled = Style(gallery).apply(studio, np.random.default_rng(0))
    plain, wanted = fine_power(studio), fine_power(gallery)
    assert abs(fine_power(styled) - wanted) < 0.4 * abs(plain - wanted)


def test_what_is_seen_stays(studio: NDArray[np.uint8], street: NDArray[np.uint8]) -> None:
    """A picture in the style resembles itself more than it resembles any other."""
    styled = Style(street).apply(studio, np.random.default_rng(0))

    def unit(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        flat = pixels.astype(np.float64).reshape(len(pixels), -1)
        flat -= flat.mean(axis=1, keepdims=True)
        return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))

    assert (unit(styled) @ unit(studio).T).argmax(axis=1).tolist() == list(range(len(studio)))


def test_the_same_seed_gives_the_same_pictures(studio: NDArray[np.uint8], street: NDArray[np.uint8]) -> None:
    style = Style(street)
    once, again, other = (style.apply(studio, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_flat_pictures_are_survived() -> None:
    flat = np.full((2, *SIZE, 3), 90, np.uint8)
    assert np.abs(Style(flat).apply(flat, np.random.default_rng(0)).astype(int) - 90).max() <= 1


def test_there_may_be_more_pictures_than_are_worked_on_at_once(studio: NDArray[np.uint8]) -> None:
    """They are worked on 64 at a time; sizes and order stay."""
    many = np.concatenate([studio] * 6)[:130]
    styled = Style(many).apply(many, np.random.default_rng(0))
    assert styled.shape == many.shape
    assert np.abs(styled.mean(axis=(1, 2, 3)) - many.mean(axis=(1, 2, 3))).mean() < 40


def test_an_empty_band_is_raised_no_further_than_the_bound() -> None:
    """A flat picture in the style of noise keeps its content: what it lacks comes as noise, not as contrast."""
    noise = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), dtype=np.uint8)
    faint = np.full((1, *SIZE, 3), 128, np.uint8)
    faint[:, :32] += 2
    styled = Style(noise).apply(faint, np.random.default_rng(0)).astype(float)
    step = styled[0, :32].mean() - styled[0, 32:].mean()
    assert 0 < step < 2 * MAX_GAIN + 6
    assert Style(noise).powers.shape == (4, RINGS + 1)


def test_the_styled_pictures_stay_as_they_were(studio: NDArray[np.uint8], street: NDArray[np.uint8]) -> None:
    before = studio.copy()
    Style(street).apply(studio, np.random.default_rng(0))
    assert np.array_equal(studio, before)
