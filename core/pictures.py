"""Opening pictures that strangers send: everything is checked before it is decoded."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from core.errors import PictureError

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
SMALLEST_SIDE = 8
MOST_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def open_picture(source: bytes | Path) -> Image.Image:
    """Decode a picture as RGB, turned as its EXIF orientation says.

    Raises PictureError when it is empty, broken, of another format, narrower than 8 pixels or larger than
    100 megapixels; the size is read from the header, so a decompression bomb is never unpacked.
    """
    name = f"{source.name}: " if isinstance(source, Path) else ""
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise PictureError(f"{name}the file could not be read ({error.strerror or error})") from error
    if not data:
        raise PictureError(f"{name}expected a picture, got an empty file (0 bytes): copy it again from its source")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MOST_PIXELS decides, below
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, Image.DecompressionBombError):
            raise PictureError(f"{name}{_too_large('more than the decoder allows')}") from error
        raise PictureError(
            f"{name}expected a picture ({', '.join(FORMATS)}), but it could not be recognised"
        ) from error
    with picture:
        width, height = picture.size
        if min(width, height) < SMALLEST_SIDE:
            raise PictureError(
                f"{name}the picture is {width}x{height} pixels; a person cannot be seen in less than "
                f"{SMALLEST_SIDE}x{SMALLEST_SIDE}: use a larger crop"
            )
        if width * height > MOST_PIXELS:
            raise PictureError(f"{name}{_too_large(f'{width}x{height}')}")
        try:
            picture.load()
            return _to_rgb(ImageOps.exif_transpose(picture))
        except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
            raise PictureError(
                f"{name}the picture is damaged and could not be decoded ({error}): copy it again"
            ) from error


def _too_large(size: str) -> str:
    limit = MOST_PIXELS // 1_000_000
    return f"the picture is {size} pixels, but at most {limit} megapixels are taken: crop it to the person first"


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":  # 16-bit and float grey: PIL would clip, not scale
        grey = np.asarray(picture.convert("F"))
        top = 65535.0 if picture.mode != "F" and grey.max() > 255 else max(float(grey.max()), 1e-6)
        picture = Image.fromarray(np.clip(grey * (255.0 / top), 0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, picture).convert("RGB")
    return picture.convert("RGB")
