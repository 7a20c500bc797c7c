"""Opening pictures that strangers send: everything is checked before it is decoded."""

from __future__ import annotations

import io
import re
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from core.core_errors import PictureError

_AVIF = features.check("avif")  # Pillow has it where the platform does
PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".png", ".apng", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
    | ({".avif"} if _AVIF else set())
)  # fmt: skip
SMALLEST_SIDE = 8
MOST_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", *(("AVIF",) if _AVIF else ()))
MOST_SCANS = 100
_SCANNED_PIXELS = 1_000_000_000
"""Pixels that all scans of a progressive JPEG may have together, which take a second or two to decode: a file of a few
kilobytes may hold thousands of scans. Programs write some ten."""
_USUAL_SCANS = 20
_SLOW = {("BMP", 1): 4_000_000, ("BMP", 2): 4_000_000, ("TIFF", "lzma"): 8_000_000}
"""Pixels by format and kind of compression, where unpacking more takes over two seconds: Pillow reads the run lengths
of a BMP in Python."""

LARGE_PIXELS = 16_000_000
large_pictures = threading.Lock()
"""Larger pictures are decoded one at a time: each of them may take a gigabyte meanwhile."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DRAWN_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")
"""The chunks that decide what is seen: size, palette, transparency, orientation, pixels."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of EXIF's orientation."""

_MARKER = re.compile(rb"\xff+[^\x00\xff\x01\xd0-\xd8]")
"""A JPEG marker that is followed by the length of its segment, or ends the picture."""
_START_OF_SCAN, _END_OF_PICTURE = 0xDA, 0xD9

_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_BEGINNINGS = (
    (b"\xff\xd8\xff", "JPEG"), (PNG_SIGNATURE, "PNG"), (b"GIF8", "GIF"), (b"BM", "BMP"), (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
)  # fmt: skip


def format_of(data: bytes) -> str:
    """Return which of `FORMATS` a picture's bytes are in, by their beginning alone; empty if it is none of them."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    return next((kind for beginning, kind in _BEGINNINGS if data.startswith(beginning)), "")


def open_picture(source: bytes | Path, *, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Decode a picture as RGB, turned as its EXIF orientation says; of an animation, the first frame.

    Raises PictureError when it is empty, broken, of another format, narrower than 8 pixels, larger than `most_pixels`
    or a JPEG of too many scans. The size is read from the header and scans are counted, so a bomb is never unpacked.
    """
    name = f"{source.name}: " if isinstance(source, Path) else ""
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise PictureError(
            f"{name}the file could not be read ({error.strerror or error}): check that it is there and readable"
        ) from error
    if not data:
        raise PictureError(f"{name}expected a picture, got an empty file (0 bytes): copy it again from its source")
    try:
        try:
            return _decoded(data, most_pixels)
        except PictureError as error:
            if not data.startswith(PNG_SIGNATURE):
                raise
            return _without_descriptions(data, error, most_pixels)
    except PictureError as error:
        raise PictureError(f"{name}{error}") from error


def _decoded(data: bytes, most_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MOST_PIXELS decides, in `upright`
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureError(_too_large("", most_pixels)) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        if data[4:8] == b"ftyp" and data[8:12] in _HEIC:
            raise PictureError("the picture is HEIC, as phones save it, which is not taken: save it as JPEG") from error
        raise PictureError(
            f"expected a picture ({', '.join(FORMATS)}), but it could not be recognised: "
            "copy it again, or save it in one of these formats"
        ) from error
    with picture:
        _check_size(picture, most_pixels)
        if picture.format in ("JPEG", "MPO"):
            _check_scans(data, picture.width * picture.height)
        _check_compression(picture)
        return upright(picture)


def _without_descriptions(data: bytes, error: PictureError, most_pixels: int) -> Image.Image:
    """Return a PNG that failed with `error`, read without its texts and profiles: Pillow limits their size, and gives
    up where the checksum of one is wrong. Raises PictureError with the true reason.
    """
    fault = _png_damage(data)
    if fault:
        raise PictureError(f"the PNG is damaged ({fault}): copy it again from its source") from error
    plain = _pixels_only(data)
    if plain == data:
        raise error
    return _decoded(plain, most_pixels)


def as_loaders_read(data: bytes) -> bytes:
    """Return the picture's file, if every loader reads from it what `open_picture` gives; else a PNG of that.

    Loaders open a file and convert it to RGB: many ignore its orientation, put what is transparent on black, clip
    16 bits, or lack the format. Raises PictureError.
    """
    if _is_plain(data):
        return data
    out = io.BytesIO()
    open_picture(data).save(out, "PNG")
    return out.getvalue()


def _is_plain(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP", "BMP")) as picture:
            odd = getattr(picture, "is_animated", False) or picture.has_transparency_data or _turn(picture)
            return picture.mode in ("RGB", "L") and not odd
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):  # of another format, or opened in another way
        return False


def upright(picture: Image.Image) -> Image.Image:
    """Return an opened picture as RGB, turned as its EXIF orientation says, on white where it is transparent.

    The result carries no EXIF, so doing it twice changes nothing. Raises PictureError as `open_picture` does.
    """
    _check_size(picture, MOST_PIXELS)
    try:
        with large_pictures if picture.width * picture.height > LARGE_PIXELS else nullcontext():
            picture.load()
            turn, rgb = _turn(picture), _to_rgb(picture)
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise PictureError(f"the picture is damaged and could not be decoded ({error}): copy it again") from error
    turned = rgb if turn is None else rgb.transpose(turn)
    turned.info.clear()
    return turned


def _check_size(picture: Image.Image, most_pixels: int) -> None:
    width, height = picture.size
    if min(width, height) < SMALLEST_SIDE:
        raise PictureError(
            f"the picture is {width}x{height} pixels; a person cannot be seen in less than "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE}: use a larger crop"
        )
    if width * height > most_pixels:
        raise PictureError(_too_large(f" ({width}x{height})", most_pixels))


def _check_compression(picture: Image.Image) -> None:
    """Raise PictureError if a picture is packed in a way that takes too long to unpack at its size."""
    most = _SLOW.get((picture.format or "", picture.info.get("compression", "")), MOST_PIXELS)
    if picture.width * picture.height > most:
        raise PictureError(
            f"the picture is a {picture.format} of {picture.width}x{picture.height} pixels that is packed in a way "
            "which takes long to open: save it again as PNG or JPEG"
        )


def _check_scans(data: bytes, pixels: int) -> None:
    """Raise PictureError if a JPEG has more scans than a picture of its size may have."""
    most = min(MOST_SCANS, max(_USUAL_SCANS, _SCANNED_PIXELS // pixels))
    scans = _scans(data, most)
    if scans > most:
        raise PictureError(
            f"the picture is a JPEG of more than {most} scans, which is made to take long to open: save it again as a "
            "plain JPEG or PNG"
        )


def _scans(data: bytes, most: int) -> int:
    """Return how many scans the first picture of a JPEG file begins, counted no further than one beyond `most`.

    Walks from marker to marker. In the data of a scan 0xFF is followed by 0 or the number of a restart, so the next
    other marker ends it.
    """
    at, scans = 2, 0
    while scans <= most:
        found = _MARKER.search(data, at)
        if found is None:
            return scans
        kind = data[found.end() - 1]
        if kind == _END_OF_PICTURE:
            return scans
        scans += kind == _START_OF_SCAN
        length = int.from_bytes(data[found.end() : found.end() + 2])
        at = found.end() + max(2, length)
    return scans


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """Return what puts the picture upright; None where its EXIF says nothing, or nothing that can be read.

    Not `ImageOps.exif_transpose`: it rewrites the whole EXIF and fails on odd values that cameras leave there.
    """
    try:
        orientation = picture.getexif().get(_ORIENTATION)
    except (ValueError, SyntaxError):
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _too_large(size: str, most_pixels: int) -> str:
    limit = most_pixels // 1_000_000
    return f"the picture is too large{size}: at most {limit} megapixels are taken, crop it to the person first"


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Return a copy as RGB, keeping the whole range of 16-bit and float grey, which PIL would clip."""
    if picture.mode.startswith("I") or picture.mode == "F":
        grey = np.nan_to_num(np.asarray(picture, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        # Such files do not say what white is: 65535 in 16 bits, else the first customary white that holds all.
        customary = (65535.0,) if picture.mode.startswith("I;16") else (1.0, 255.0, 65535.0)
        brightest = float(grey.max())
        white = next((white for white in customary if brightest <= white), brightest)
        picture = Image.fromarray((np.clip(grey, 0, white) * (255.0 / white)).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, picture).convert("RGB")
    return picture.convert("RGB")


def _pixels_only(data: bytes) -> bytes:
    """Return the PNG `data` with the chunks that decide what is seen, in their order.

    Optional chunks are left out where they are damaged. The pixels are the same.
    """
    parts: list[bytes | memoryview] = [PNG_SIGNATURE]
    parts += [
        whole for kind, whole, sound in _png_chunks(data) if kind in _DRAWN_CHUNKS and (sound or kind[:1].isupper())
    ]
    return b"".join(parts)


def _png_damage(data: bytes) -> str:
    """Return what is wrong with the chunks that every PNG needs; empty when it is nothing that a checksum shows."""
    kinds = [(kind, sound) for kind, _, sound in _png_chunks(data)]
    broken = next((kind for kind, sound in kinds if not sound and kind[:1].isupper()), None)
    if broken is not None:
        return f"the checksum of its {broken.decode('ascii', 'replace')} chunk is wrong"
    return "" if kinds and kinds[-1][0] == b"IEND" else "it ends before its last chunk"


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Kind, whole chunk, and whether its checksum agrees, up to where the file breaks off."""
    view, at = memoryview(data), len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        if end > len(data):
            return
        whole = view[at:end]
        yield bytes(whole[4:8]), whole, zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")
        at = end
