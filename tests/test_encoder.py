"""Encoder: unit rows, whatever the source, the batch size and the thread."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from core.core_errors import PictureError
from core.encoder import Encoder, normalise, pixels_of, small_pixels
from core.model import UPPerson
from core.petl import PetlConfig
from tests.small_clip import small_backbone, stir

CAPTIONS = ["a woman in a red coat", "man", "", "black shoes, a very long scarf and blue jeans", "coat " * 500]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(stir(UPPerson(small_backbone(), PetlConfig(prefix_length=2, lora_rank=2))))


def picture(seed: int, size: tuple[int, int] = (24, 60)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 3, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def assert_unit_rows(rows: NDArray[np.float32], count: int) -> None:
    assert rows.dtype == np.float32
    assert rows.shape == (count, 32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_rows_are_unit_float32_and_differ_by_input(encoder: Encoder) -> None:
    assert encoder.dim == encoder.backbone.embed_dim == 32
    texts, images = encoder.encode_texts(CAPTIONS), encoder.encode_images([picture(n) for n in range(5)])
    for rows in (texts, images):
        assert_unit_rows(rows, 5)
        assert (rows @ rows.T - np.eye(5)).max() < 0.9999


def test_an_empty_list_gives_no_rows(encoder: Encoder) -> None:
    for rows in (encoder.encode_images([]), encoder.encode_texts([])):
        assert rows.shape == (0, 32)
        assert rows.dtype == np.float32


def test_rows_are_the_models_embeddings_at_length_one(encoder: Encoder) -> None:
    model, backbone = encoder.model, encoder.backbone
    with torch.inference_mode():
        raw = model.encode_image(torch.stack([pixels_of(picture(n), backbone) for n in range(3)])).numpy()
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_images([picture(n) for n in range(3)]), expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_the_batch_size_does_not_matter(encoder: Encoder, batch_size: int) -> None:
    other = Encoder(encoder.model, batch_size=batch_size)
    pictures = [picture(n) for n in range(5)]
    np.testing.assert_allclose(other.encode_texts(CAPTIONS), encoder.encode_texts(CAPTIONS), atol=1e-5)
    np.testing.assert_allclose(other.encode_images(pictures), encoder.encode_images(pictures), atol=1e-5)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_nothing_is_refused(encoder: Encoder, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, not {batch_size}"):
        Encoder(encoder.model, batch_size=batch_size)


def test_eight_threads_get_what_one_gets(encoder: Encoder) -> None:
    def both(n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return encoder.encode_texts([CAPTIONS[n % 5], CAPTIONS[1]]), encoder.encode_images([picture(n), picture(n + 1)])

    alone = [both(n) for n in range(32)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(both, range(32)))
    for (texts, images), (texts_again, images_again) in zip(alone, together, strict=True):
        np.testing.assert_allclose(texts_again, texts, atol=1e-6)
        np.testing.assert_allclose(images_again, images, atol=1e-6)


def test_pictures_files_and_bytes_are_the_same(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "person.png"
    path.write_bytes(encoded(picture(0)))
    rows = encoder.encode_images([picture(0), path, path.read_bytes()])
    np.testing.assert_allclose(rows[1:], rows[:1].repeat(2, axis=0), atol=1e-6)


def test_a_picture_that_is_turned_or_transparent_is_the_same_as_an_object(encoder: Encoder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(picture(0), exif=exif)
    see_through = picture(1).convert("RGBA")
    see_through.putalpha(Image.linear_gradient("L").resize(see_through.size))
    for data in (turned, encoded(see_through), encoded(picture(2).convert("L"))):
        rows = encoder.encode_images([data, Image.open(io.BytesIO(data))])
        np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


def test_a_broken_picture_is_refused(encoder: Encoder) -> None:
    data = encoded(picture(0, (100, 200)))
    with pytest.raises(PictureError, match="damaged"):
        encoder.encode_images([picture(1), data[: len(data) // 2]])
    with pytest.raises(PictureError, match="damaged"):
        encoder.encode_images([Image.open(io.BytesIO(data[: len(data) // 2]))])
    with pytest.raises(PictureError, match="4x4 pixels"):
        encoder.encode_images([Image.new("RGB", (4, 4))])


def test_pixels_are_scaled_whole_and_normalised_per_channel(encoder: Encoder) -> None:
    backbone = encoder.backbone
    plain = Image.new("RGB", (99, 41), (255, 0, 51))
    pixels = pixels_of(plain, backbone)
    assert pixels.shape == (3, 48, 16)
    expected = (torch.tensor([1.0, 0.0, 0.2]) - torch.tensor(backbone.mean)) / torch.tensor(backbone.std)
    torch.testing.assert_close(pixels, expected[:, None, None].expand(3, 48, 16))
    halves = Image.new("RGB", (40, 60), "white")
    halves.paste("black", (0, 0, 40, 30))
    column = pixels_of(halves, backbone)[0, :, 8]
    assert float(column[:20].max()) < -1.5 < 1.5 < float(column[28:].min())  # no crop: both halves are there


def test_normalise_keeps_the_pictures_apart() -> None:
    pixels = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).view(2, 4, 5, 3)
    out = normalise(pixels, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0))
    assert out.shape == (2, 3, 4, 5)
    assert float(out[1, 2, 3, 4]) == pytest.approx((119 / 255 - 1.0) / 2.0)
    assert float(out[0, 1, 0, 2]) == pytest.approx((7 / 255 - 0.5) / 0.5)


def test_encoding_leaves_no_gradient_and_puts_the_model_into_evaluation(encoder: Encoder) -> None:
    model = UPPerson(encoder.backbone, PetlConfig(prefix_length=0, lora_rank=1)).train()
    Encoder(model).encode_texts(["a man"])
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_pixels_made_before_give_the_same_rows(encoder: Encoder) -> None:
    pictures = [picture(number, (20 + number, 60)) for number in range(5)]
    pixels = np.stack([small_pixels(one, encoder.backbone) for one in pictures])
    assert pixels.shape == (5, *encoder.backbone.image_size, 3)
    assert np.array_equal(encoder.encode_pixels(pixels), encoder.encode_images(pictures))
    assert_unit_rows(encoder.encode_pixels(pixels[:0]), 0)


def held_up(encoder: Encoder, waiting: int, asked: Sequence[Callable[[], Any]]) -> list[Future[Any]]:
    """What these calls return when each begins while the encoder is busy, `waiting` of them with captions."""
    begun, go_on = threading.Event(), threading.Event()

    def busy(inputs: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return inputs

    with ThreadPoolExecutor(len(asked) + 1) as threads:
        threads.submit(encoder.run, busy, torch.ones(1, 2))
        assert begun.wait(30)
        found = [threads.submit(call) for call in asked]
        while len(encoder.queue) < waiting:
            time.sleep(0.001)
        go_on.set()
    return found


def tokenizing(call: Callable[[Sequence[str]], object]) -> Encoder:
    """An encoder that calls this with the captions of each forward pass first."""
    backbone = small_backbone()

    def tokenize(captions: list[str]) -> Tensor:
        call(captions)
        return backbone.tokenize(captions)

    return Encoder(UPPerson(replace(backbone, tokenize=tokenize)))


def test_captions_that_wait_share_a_forward_pass() -> None:
    captions = [f"a person in coat number {number}" for number in range(12)]
    passes: list[int] = []
    encoder = tokenizing(lambda given: passes.append(len(given)))
    alone = [encoder.encode_texts([caption]) for caption in captions]
    passes.clear()
    rows = held_up(encoder, len(captions), [partial(encoder.encode_texts, [caption]) for caption in captions])
    assert passes == [len(captions)]
    for row, expected in zip(rows, alone, strict=True):
        np.testing.assert_allclose(row.result(), expected, atol=1e-5)


def test_a_fault_reaches_everybody_who_waits_and_nobody_else() -> None:
    def refuse(captions: Sequence[str]) -> None:
        if "fault" in captions:
            raise RuntimeError("out of memory")

    encoder = tokenizing(refuse)
    asked = held_up(encoder, 3, [partial(encoder.encode_texts, [caption]) for caption in ("a man", "fault", "a dog")])
    assert [str(one.exception()) for one in asked] == ["out of memory"] * 3
    assert_unit_rows(encoder.encode_texts(["a man"]), 1)
