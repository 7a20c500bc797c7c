"""The slowest pictures that visitors may search by: how long each takes to decode, and what memory is left afterwards.

`python -m tests.benchmarks.decoding [--json] [--only JPEG]`: of each format, files of 25 megapixels, the most that is
taken, that are slow to decode: noise, interlaced or in many scans, of at most 50 MB, the most that an upload may have.
Ends with exit code 1 if one takes longer than two seconds, or if 100 large pictures leave more than 200 MB behind.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
from PIL import Image

from app.web.decoding import MOST_PIXELS, PictureDecoder
from core.core_errors import PictureError

SIDE = int(MOST_PIXELS**0.5)
MOST_BYTES = 50_000_000
MOST_SECONDS, MOST_LEFT_BYTES, PICTURES = 2.0, 200_000_000, 100

_rng = np.random.default_rng(0)


def noise(levels: int) -> Image.Image:
    """Noise that does not compress below log2(levels) bits for each value."""
    return Image.fromarray(_rng.integers(0, levels, (SIDE, SIDE, 3), dtype=np.uint8))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The file, written to disk first: some encoders need a real one for so much noise."""
    with tempfile.TemporaryFile() as file:
        picture.save(file, kind, **options)
        file.seek(0)
        return file.read()


def of_many_scans(data: bytes, scans: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    starts = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] == 0xDA]
    return data[:-2] + data[starts[-1] : -2] * (scans - len(starts)) + b"\xff\xd9"


def smooth() -> Image.Image:
    small = Image.fromarray(_rng.integers(0, 256, (SIDE // 16, SIDE // 16, 3), dtype=np.uint8))
    return small.resize((SIDE, SIDE))


def files() -> Iterator[tuple[str, Callable[[], bytes]]]:
    blank = Image.new("RGB", (SIDE, SIDE), (120, 60, 30))
    yield "JPEG in 40 scans", lambda: of_many_scans(encoded(blank, "JPEG", progressive=True), 40)
    yield "JPEG progressive, smooth", lambda: encoded(smooth(), "JPEG", progressive=True)
    yield "JPEG baseline, noise", lambda: encoded(noise(64), "JPEG", quality=95, subsampling=0)
    yield "PNG noise", lambda: encoded(noise(16), "PNG", compress_level=1)
    yield "PNG with transparency", lambda: encoded(smooth().convert("RGBA"), "PNG", compress_level=1)
    yield "PNG of 16 bits", lambda: encoded(Image.fromarray(np.zeros((SIDE, SIDE), np.uint16)), "PNG")
    yield "WEBP lossless, noise", lambda: encoded(noise(16), "WEBP", lossless=True, quality=0, method=0)
    yield "WEBP", lambda: encoded(noise(64), "WEBP", quality=75, method=0)
    yield "GIF noise", lambda: encoded(noise(256).getchannel(0), "GIF")
    yield "BMP", lambda: encoded(noise(256).getchannel(0), "BMP")
    for method in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "lzma", "zstd", "webp"):
        yield f"TIFF {method}", lambda method=method: encoded(noise(8), "TIFF", compression=method)  # type: ignore[misc]


def measure(only: str) -> tuple[dict[str, float | str], float]:
    decoder = PictureDecoder((256, 128), seconds=60)
    found: dict[str, float | str] = {}
    large: list[bytes] = []
    decoder.open(encoded(Image.new("RGB", (64, 64)), "PNG"))
    for name, make in files():
        if not name.startswith(only):
            continue
        try:
            data = make()
        except (OSError, ValueError) as error:
            found[name] = f"cannot be written here: {error}"
            continue
        if len(data) > MOST_BYTES:
            found[name] = f"is larger than an upload may be: {len(data):,} bytes"
            continue
        began = time.perf_counter()
        try:
            decoder.open(data)
            found[name] = round(time.perf_counter() - began, 2)
        except PictureError as error:
            found[name] = f"refused after {time.perf_counter() - began:.2f} s: {error}"
        large = [*large, data][-2:]
    before = memory()
    for number in range(PICTURES):
        decoder.open(large[number % len(large)])
    left = memory() - before
    decoder.close()
    return found, left


def memory() -> float:
    """Bytes of this process and its children."""
    process = psutil.Process(os.getpid())
    return float(sum(one.memory_info().rss for one in (process, *process.children(recursive=True))))


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--only", default="", help="formats that begin so")
    given = arguments.parse_args()
    found, left = measure(given.only)
    said = {"seconds": found, "left_after_100_mb": round(left / 1e6, 1)}
    print(json.dumps(said, indent=None if given.json else 2))
    slow = [name for name, seconds in found.items() if isinstance(seconds, float) and seconds > MOST_SECONDS]
    return 1 if slow or left > MOST_LEFT_BYTES else 0


if __name__ == "__main__":
    sys.exit(main())
