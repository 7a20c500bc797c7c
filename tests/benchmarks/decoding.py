"""The slowest pictures that visitors may search by: how long each takes to decode, and what memory is left afterwards.

`python -m tests.benchmarks.decoding [--json] [--only JPEG] [--pictures 100]`: of each format, files of 25 megapixels,
the most that is taken, that are slow to decode: noise, interlaced or in many scans, of at most 50 MB, the most that an
upload may have. Times are those of the processor. Ends with exit code 1 if one takes longer than two seconds, or if 100
large pictures leave more than 200 MB behind.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import psutil
from PIL import Image

from app.web.decoding import MOST_PIXELS, PictureDecoder
from core.core_errors import PictureError
from core.images import PNG_SIGNATURE

SIDE = int(MOST_PIXELS**0.5)
MOST_BYTES = 50_000_000
MOST_SECONDS, MOST_LEFT_BYTES, PICTURES = 2.0, 200_000_000, 100

_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PAETH = 4

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


def of_run_lengths() -> bytes:
    """A BMP of 4 megapixels, the most that is taken of this kind, in runs of one pixel each."""
    side = 2000
    body = np.zeros((side, 2 * side + 2), np.uint8)  # each row ends with two zeros
    body[:, :-2:2] = 1
    body[:, 1:-2:2] = _rng.integers(0, 256, (side, side))
    packed, palette = body.tobytes() + b"\0\1", bytes(range(256)) * 4
    start = 14 + 40 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(packed), 0, 0, start)
    return head + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(packed), 0, 0, 256, 0) + palette + packed


def interlaced() -> bytes:
    """An interlaced PNG of 16 bits a value, whose rows are filtered in the slowest way."""
    rows = bytearray()
    for x, y, across, down in _PASSES:
        width, height = -(-(SIDE - x) // across), -(-(SIDE - y) // down)
        drawn = _rng.integers(0, 4, (height, 1 + 6 * width), dtype=np.uint8)
        drawn[:, 0] = _PAETH
        rows += drawn.tobytes()
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


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
    yield "PNG interlaced, of 16 bits", interlaced
    yield "WEBP lossless, noise", lambda: encoded(noise(16), "WEBP", lossless=True, quality=0, method=0)
    yield "WEBP", lambda: encoded(noise(64), "WEBP", quality=75, method=0)
    yield "AVIF noise", lambda: encoded(noise(64), "AVIF", quality=90, speed=10)
    yield "AVIF smooth", lambda: encoded(smooth(), "AVIF", quality=75, speed=10)
    yield "AVIF with all colours", lambda: encoded(noise(256), "AVIF", quality=60, speed=10, subsampling="4:4:4")
    yield "GIF noise", lambda: encoded(noise(256).getchannel(0), "GIF")
    yield "BMP", lambda: encoded(noise(256).getchannel(0), "BMP")
    yield "BMP in run lengths", of_run_lengths
    yield "TIFF lzma", lambda: encoded(noise(16).crop((0, 0, 2828, 2828)), "TIFF", compression="lzma")  # 8 megapixels
    for method in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "zstd"):
        yield f"TIFF {method}", lambda method=method: encoded(noise(8), "TIFF", compression=method)  # type: ignore[misc]


def measure(only: str, pictures: int) -> tuple[dict[str, float | str], float]:
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
        began = processor_seconds()
        try:
            decoder.open(data)
            found[name] = round(processor_seconds() - began, 2)
            large = [*large, data][-2:]
        except PictureError as error:
            found[name] = f"refused after {processor_seconds() - began:.2f} s: {error}"
    before = memory()
    for number in range(pictures if large else 0):
        decoder.open(large[number % len(large)])
    left = memory() - before
    decoder.close()
    return found, left


def processor_seconds() -> float:
    """What the processes that decode have needed so far, whatever else this machine does."""
    used = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return float(sum(one.user + one.system for one in used))


def memory() -> float:
    """Bytes of this process and its children."""
    process = psutil.Process(os.getpid())
    return float(sum(one.memory_info().rss for one in (process, *process.children(recursive=True))))


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--only", default="", help="formats that begin so")
    arguments.add_argument("--pictures", type=int, default=PICTURES, help="large ones, after which memory is measured")
    given = arguments.parse_args()
    found, left = measure(given.only, given.pictures)
    said = {"processor_seconds": found, "pictures": given.pictures, "left_afterwards_mb": round(left / 1e6, 1)}
    print(json.dumps(said, indent=None if given.json else 2))
    slow = [name for name, seconds in found.items() if isinstance(seconds, float) and seconds > MOST_SECONDS]
    return 1 if slow or left > MOST_LEFT_BYTES else 0


if __name__ == "__main__":
    sys.exit(main())
