"""The look of a gallery: its light, tint, blur and noise move over, what a picture shows and says stays."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.coloured import known_before
from train import pedestrians
from train.finetuning.adaptation import Look, with_look

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
    worn = Look(street).put_on(studio, np.random.default_rng(0))
    assert worn.shape == studio.shape
    assert worn.dtype == np.uint8
    near, far = (np.abs(one.mean(axis=(0, 1, 2)) - street.mean(axis=(0, 1, 2))).max() for one in (worn, studio))
    assert near < 0.35 * far


@pytest.mark.parametrize("blurred", [True, False])
def test_blur_and_noise_move_over(studio: NDArray[np.uint8], blurred: bool) -> None:
    floats = studio.astype(np.float64)
    if blurred:
        other = sum(np.roll(floats, (dy, dx), (1, 2)) for dy in range(5) for dx in range(5)) / 25
    else:
        other = floats + np.random.default_rng(1).normal(0, 40, floats.shape)
    gallery = np.clip(other, 0, 255).astype(np.uint8)
    worn = Look(gallery).put_on(studio, np.random.default_rng(0))
    plain, wanted = fine_power(studio), fine_power(gallery)
    assert abs(fine_power(worn) - wanted) < 0.4 * abs(plain - wanted)


def test_what_is_seen_stays(studio: NDArray[np.uint8], street: NDArray[np.uint8]) -> None:
    """A picture with the look resembles itself more than it resembles any other."""
    worn = Look(street).put_on(studio, np.random.default_rng(0))

    def unit(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        flat = pixels.astype(np.float64).reshape(len(pixels), -1)
        flat -= flat.mean(axis=1, keepdims=True)
        return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))

    assert (unit(worn) @ unit(studio).T).argmax(axis=1).tolist() == list(range(len(studio)))


def test_the_same_seed_gives_the_same_pictures(studio: NDArray[np.uint8], street: NDArray[np.uint8]) -> None:
    look = Look(street)
    once, again, other = (look.put_on(studio, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_flat_pictures_are_survived() -> None:
    flat = np.full((2, *SIZE, 3), 90, np.uint8)
    assert np.abs(Look(flat).put_on(flat, np.random.default_rng(0)).astype(int) - 90).max() <= 1


@pytest.mark.parametrize(("share", "more"), [(0.5, 8), (1 / 3, 4)])
def test_known_pairs_come_again_with_their_captions(share: float, more: int) -> None:
    known = known_before(8)
    gallery = np.zeros((3, *known.pixels.shape[1:]), np.uint8)
    both = with_look(known, gallery, share)
    assert both.captions == known.captions + known.captions[:more]
    assert both.pids.tolist() == [*range(8), *range(more)]
    assert np.array_equal(both.pixels[:8], known.pixels)
    assert both.pixels[8:].mean() < 0.5 * known.pixels.mean()  # a black gallery darkens
