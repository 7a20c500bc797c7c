"""The process that decodes visitors' pictures, with real pictures and real limits."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from PIL import Image

from app.web.decoding import PictureDecoder
from core.core_errors import PictureError
from core.images import open_picture
from tests.test_images import encoded, of_many_scans

SIZE = (256, 128)


@pytest.fixture(scope="module")
def decoder() -> Iterator[PictureDecoder]:
    opened = PictureDecoder(SIZE)
    yield opened
    opened.close()


def test_a_decoded_picture_is_that_of_open_picture(decoder: PictureDecoder) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    expected = open_picture(data).resize((128, 256), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(decoder.open(data)), np.asarray(expected))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty file"),
        (b"no picture", "could not be recognised"),
        (encoded(Image.new("L", (5001, 5000)), "PNG"), "at most 25 megapixels"),
        (of_many_scans(500, 64), "more than 100 scans"),
    ],
)
def test_what_is_refused_says_why(decoder: PictureDecoder, data: bytes, says: str) -> None:
    with pytest.raises(PictureError, match=says):
        decoder.open(data)


def test_a_picture_that_takes_too_long_costs_nobody_else() -> None:
    slow = of_many_scans(40, 5000)
    patient, impatient = PictureDecoder(SIZE), PictureDecoder(SIZE, seconds=0.05)
    try:
        impatient.open(encoded(Image.new("RGB", (64, 64)), "PNG"))
        with pytest.raises(PictureError, match=r"longer than 0\.05 seconds"):
            impatient.open(slow)
        assert impatient.open(encoded(Image.new("RGB", (64, 64)), "PNG")).size == (128, 256)
        assert patient.open(slow).size == (128, 256)
    finally:
        patient.close()
        impatient.close()


def test_a_decoder_that_crashes_starts_again(decoder: PictureDecoder) -> None:
    data = encoded(Image.new("RGB", (64, 64)), "PNG")
    decoder.open(data)
    former = decoder_pid(decoder)
    os.kill(former, signal.SIGSEGV)
    decoder._process.join(10)  # type: ignore[union-attr]
    assert decoder.open(data).size == (128, 256)
    assert decoder_pid(decoder) != former


def decoder_pid(decoder: PictureDecoder) -> int:
    assert decoder._process is not None
    assert decoder._process.pid is not None
    return decoder._process.pid


def test_large_pictures_leave_no_memory_behind(decoder: PictureDecoder) -> None:
    out = io.BytesIO()
    Image.new("RGBA", (5000, 5000), (90, 20, 30, 128)).save(out, "PNG")
    decoder.open(encoded(Image.new("RGB", (64, 64)), "PNG"))
    ours, child = psutil.Process(), psutil.Process(decoder_pid(decoder))
    before = ours.memory_info().rss + child.memory_info().rss
    for _ in range(10):
        decoder.open(out.getvalue())
    time.sleep(0.1)
    assert ours.memory_info().rss + child.memory_info().rss - before < 50_000_000
