"""Opening what strangers send: every format and mode as RGB, everything unfit refused with a sentence."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from app.web.thumbnails import as_served
from core import images
from core.core_errors import PictureError
from core.images import FORMATS, PICTURE_SUFFIXES, as_loaders_read, format_of, open_picture, upright

WIDTH, HEIGHT = 16, 32


def person() -> NDArray[np.uint8]:
    """Rows from dark to light, red above and blue below: no two orientations look alike."""
    ramp = np.linspace(0, 255, WIDTH, dtype=np.uint8)
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[: HEIGHT // 2, :, 0] = ramp
    picture[HEIGHT // 2 :, :, 2] = ramp
    return picture


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size; it holds no pixels, so decoding it would fail."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_opens_as_rgb(kind: str) -> None:
    lossless = kind in ("PNG", "BMP", "TIFF")
    options: dict[str, Any] = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    opened = open_picture(encoded(Image.fromarray(person()), kind, **options))
    assert (opened.mode, opened.size) == ("RGB", (WIDTH, HEIGHT))
    difference = np.abs(np.asarray(opened).astype(int) - person())
    assert difference.max() == 0 if lossless else difference.mean() < 12


def test_a_path_and_its_bytes_give_the_same(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(person()), "PNG")
    path = tmp_path / "person.png"
    path.write_bytes(data)
    assert np.array_equal(np.asarray(open_picture(path)), np.asarray(open_picture(data)))


def test_suffixes_belong_to_the_formats() -> None:
    Image.init()
    kinds = {Image.EXTENSION[suffix] for suffix in PICTURE_SUFFIXES}
    assert kinds - {"MPO"} == set(FORMATS)  # of an MPO, which is JPEGs in a row, the first is read


STORED_AS = {  # what a camera stores when it says "orientation N": the turn that EXIF asks for, undone
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_pictures_are_turned_as_their_exif_says(kind: str, orientation: int) -> None:
    turn, exif = STORED_AS[orientation], Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(person()) if turn is None else Image.fromarray(person()).transpose(turn)
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    opened = open_picture(encoded(stored, kind, exif=exif, **options))
    assert opened.size == (WIDTH, HEIGHT)
    assert np.abs(np.asarray(opened).astype(int) - person()).mean() < (8 if kind == "JPEG" else 0.001)


def test_turning_twice_changes_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    once = open_picture(encoded(Image.fromarray(person()), "PNG", exif=exif))
    assert once.size == (HEIGHT, WIDTH)
    assert not once.info
    assert np.array_equal(np.asarray(upright(once)), np.asarray(once))


def test_exif_that_cannot_be_written_again_does_no_harm() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = TiffImagePlugin.IFDRational(72, 1)
    data = bytearray(encoded(Image.fromarray(person()), "JPEG", exif=exif))
    entry = data.index(struct.pack(">HH", 0x011A, 5)) + 2
    for kind in (1, 2, 3, 4, 7, 9, 11, 12, 200):  # resolution as bytes, text, short ...: cameras do such things
        data[entry : entry + 2] = struct.pack(">H", kind)
        assert open_picture(bytes(data)).size == (HEIGHT, WIDTH)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0neither II nor MM", b"Exif\0\0II*\0\xff\xff\xff\xff", b"II"])
def test_exif_that_cannot_be_read_does_no_harm(exif: bytes) -> None:
    assert open_picture(encoded(Image.fromarray(person()), "PNG", exif=exif)).size == (WIDTH, HEIGHT)


def test_grey_and_two_colours() -> None:
    ramp = np.tile(np.linspace(0, 255, WIDTH, dtype=np.uint8), (HEIGHT, 1))
    opened = np.asarray(open_picture(encoded(Image.fromarray(ramp), "PNG")))
    assert np.array_equal(opened, np.repeat(ramp[..., None], 3, axis=2))
    two = np.asarray(open_picture(encoded(Image.fromarray(ramp > 127), "PNG")))
    assert np.array_equal(two[0, :, 1], np.where(ramp[0] > 127, 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB with a transparent colour"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    left = np.zeros((HEIGHT, WIDTH), bool)
    left[:, : WIDTH // 2] = True
    grey = Image.fromarray(np.where(left, 10, 90).astype(np.uint8))
    if mode == "P":
        data = encoded(grey.convert("P"), "PNG", transparency=10)
    elif mode.startswith("RGB with"):
        data = encoded(grey.convert("RGB"), "PNG", transparency=(10, 10, 10))
    else:
        picture = grey.convert(mode)
        picture.putalpha(Image.fromarray(np.where(left, 0, 255).astype(np.uint8)))
        data = encoded(picture, "PNG")
    opened = np.asarray(open_picture(data))
    assert (opened[left] == 255).all()
    assert (opened[~left] == 90).all()


def test_half_transparent_is_half_white() -> None:
    opened = open_picture(encoded(Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 128)), "PNG"))
    assert np.abs(np.asarray(opened).astype(int) - 127).max() <= 1


def test_palette_and_cmyk() -> None:
    colours = Image.fromarray(person())
    palette = np.asarray(open_picture(encoded(colours.quantize(64), "PNG"))).astype(int)
    assert np.abs(palette - person()).mean() < 6
    red = Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0))
    opened = np.asarray(open_picture(encoded(red, "JPEG", quality=95))).astype(int)
    assert np.abs(opened - (255, 0, 0)).max() < 12


def test_sixteen_bits_and_floats_keep_their_range() -> None:
    ramp = np.linspace(0, 1, WIDTH)
    expected = np.rint(ramp * 255)

    def grey(values: NDArray[Any], kind: str) -> NDArray[np.int64]:
        opened = open_picture(encoded(Image.fromarray(np.tile(values, (HEIGHT, 1))), kind))
        assert opened.mode == "RGB"
        return np.asarray(opened)[0, :, 0].astype(np.int64)

    for kind in ("PNG", "TIFF"):
        assert np.abs(grey((ramp * 65535).astype(np.uint16), kind) - expected).max() <= 1
    dark = grey((ramp * 255).astype(np.uint16), "PNG")
    assert dark.max() <= 1  # a dark 16-bit picture stays dark
    assert np.abs(grey((ramp * 255).astype(np.int32), "TIFF") - expected).max() <= 1
    assert np.abs(grey((ramp * 65535).astype(np.int32), "TIFF") - expected).max() <= 1
    for white in (1.0, 255.0, 65535.0, 1e6):
        assert np.abs(grey((ramp * white).astype(np.float32), "TIFF") - expected).max() <= 1
    assert np.abs(grey((ramp * 0.1).astype(np.float32), "TIFF") - expected * 0.1).max() <= 1


def test_floats_that_are_no_numbers_are_black() -> None:
    odd = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    odd[0, :3] = np.nan, np.inf, -3e38
    opened = np.asarray(open_picture(encoded(Image.fromarray(odd), "TIFF")))
    assert (opened[0, :3] == 0).all()
    assert (opened[1:] == 127).all()


def test_of_an_animation_the_first_frame() -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert open_picture(data).getpixel((3, 3)) == (255, 0, 0), kind


def test_jpegs_with_several_pictures_open() -> None:
    first, second = (Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("white", "black"))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert open_picture(data).getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning", "ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_and_broken_pictures_are_refused(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for broken in (data[: len(data) // 2], data[:20], data[:1]):
        with pytest.raises(PictureError, match="copy it again"):
            open_picture(broken)


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (12_000, 9_000), (20_000_000, 10)])
def test_a_huge_picture_is_refused_by_its_header_without_decoding(width: int, height: int) -> None:
    data = png_claiming(width, height)
    assert len(data) < 100
    with pytest.raises(PictureError, match=r"too large.* at most 100 megapixels are taken, crop it"):
        open_picture(data)


def test_the_largest_size_taken_is_read_on() -> None:
    with pytest.raises(PictureError, match="damaged and could not be decoded"):  # so its pixels were asked for
        open_picture(png_claiming(10_000, 10_000))


def with_chunk(data: bytes, kind: bytes, content: bytes, *, sound: bool = True) -> bytes:
    """The PNG with one more chunk behind its header."""
    checksum = zlib.crc32(kind + content) ^ (not sound)
    return data[:33] + struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum) + data[33:]


@pytest.mark.parametrize(
    ("kind", "content", "sound"),
    [
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000), True),
        (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"x" * 2_000_000), True),
        (b"iCCP", b"profile\0\0" + zlib.compress(bytes(2_000_000)), True),
        (b"iCCP", b"profile\0\0no zlib stream", True),
        (b"tEXt", b"Comment\0hello", False),
        (b"gAMA", b"\0\0\0\0", False),
        (b"eXIf", b"MM\0*nonsense", False),
        (b"ruSt", b"anything", False),
    ],
)
def test_a_png_is_read_whatever_its_descriptions_hold(kind: bytes, content: bytes, sound: bool) -> None:
    plain = encoded(Image.fromarray(person()).convert("RGBA"), "PNG")
    data = with_chunk(plain, kind, content, sound=sound)
    assert np.array_equal(np.asarray(open_picture(data)), np.asarray(open_picture(plain)))
    assert as_served(data) == (data, "image/png")


def test_a_png_without_its_descriptions_is_still_turned_and_transparent() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({"exif": exif.tobytes()}, {"transparency": 3}):
        picture = Image.fromarray(person()) if "exif" in options else Image.new("L", (WIDTH, HEIGHT), 3)
        plain = encoded(picture, "PNG", **options)
        read = open_picture(with_chunk(plain, b"tEXt", b"a\0b", sound=False))
        assert np.array_equal(np.asarray(read), np.asarray(open_picture(plain)))


def test_a_png_that_is_damaged_where_it_matters_says_where() -> None:
    data = bytearray(encoded(Image.fromarray(person()), "PNG"))
    data[20] ^= 1
    with pytest.raises(PictureError, match=r"the checksum of its IHDR chunk is wrong.*copy it again"):
        open_picture(bytes(data))
    with pytest.raises(PictureError, match=r"it ends before its last chunk.*copy it again"):
        open_picture(encoded(Image.effect_noise((64, 64), 90), "PNG")[:900])


def test_an_ordinary_file_leaves_as_it_is() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        for picture in (Image.fromarray(person()), Image.fromarray(person()).convert("L")):
            data = encoded(picture, kind)
            assert as_loaders_read(data) is data


def odd_pictures() -> Iterator[tuple[str, bytes]]:
    """Files that a loader that opens them and converts to RGB shows in another way than the pages, or not at all."""
    picture, exif = Image.fromarray(person()), Image.Exif()
    exif[0x0112] = 6
    yield "turned", encoded(picture, "JPEG", exif=exif.tobytes())
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(picture.size))
    yield "transparent", encoded(clear, "PNG")
    yield "transparent colour", encoded(Image.new("L", (WIDTH, HEIGHT), 3), "PNG", transparency=3)
    yield "palette", encoded(picture.quantize(8), "PNG")
    grey = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
    yield "16 bits", encoded(Image.fromarray(grey), "PNG")
    yield "16 bits, TIFF", encoded(Image.fromarray(grey), "TIFF")
    yield "ink", encoded(picture.convert("CMYK"), "JPEG")
    yield "animated", encoded(picture, "WEBP", save_all=True, append_images=[Image.new("RGB", picture.size)])
    yield "text", with_chunk(encoded(picture, "PNG"), b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000))
    yield from ((kind, encoded(picture, kind)) for kind in FORMATS if kind in ("GIF", "TIFF", "AVIF"))


@pytest.mark.parametrize(
    ("name", "data"), list(odd_pictures()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_any_other_file_leaves_as_what_the_pages_show(name: str, data: bytes) -> None:
    given = as_loaders_read(data)
    with Image.open(io.BytesIO(given)) as loaded:
        assert (loaded.format, loaded.mode) == ("PNG", "RGB"), name
        assert np.array_equal(np.asarray(loaded.convert("RGB")), np.asarray(open_picture(data)))
    assert as_loaders_read(given) is given


@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_is_known_by_its_first_bytes(kind: str) -> None:
    assert format_of(encoded(Image.fromarray(person()), kind)) == kind
    assert format_of(b"text") == format_of(b"") == ""


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 400), (400, 7)])
def test_a_tiny_picture_is_refused_with_its_size(width: int, height: int) -> None:
    with pytest.raises(PictureError, match=f"the picture is {width}x{height} pixels.* use a larger crop"):
        open_picture(encoded(Image.new("RGB", (width, height)), "PNG"))
    assert open_picture(encoded(Image.new("RGB", (8, 8)), "PNG")).size == (8, 8)


@pytest.mark.parametrize(
    "data",
    [
        b"this is text, whatever its name says",
        b"\0" * 1000,
        b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='90' height='90'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n",  # would be handed to Ghostscript
    ],
)
def test_what_is_no_picture_is_refused_and_named(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "holiday.jpg"
    path.write_bytes(data)
    for source, name in ((path, r"^holiday\.jpg: "), (data, "^")):
        with pytest.raises(PictureError, match=name + "expected a picture .JPEG, .* could not be recognised"):
            open_picture(source)


def test_no_bytes_no_file_no_access(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"^expected a picture, got an empty file \(0 bytes\)"):
        open_picture(b"")
    empty = tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(PictureError, match=r"^empty\.png: expected a picture, got an empty file"):
        open_picture(empty)
    with pytest.raises(PictureError, match=r"^gone\.png: the file could not be read \(No such file"):
        open_picture(tmp_path / "gone.png")
    with pytest.raises(PictureError, match=r"the file could not be read \(Is a directory"):
        open_picture(tmp_path)


def test_the_name_stands_before_every_refusal(tmp_path: Path) -> None:
    tiny = encoded(Image.new("RGB", (1, 1)), "PNG")
    for name, data in (("tiny.png", tiny), ("huge.png", png_claiming(12_000, 9_000))):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(PictureError, match=f"^{name}: the picture is "):
            open_picture(path)


def test_what_comes_back_stands_on_its_own() -> None:
    data = encoded(Image.fromarray(person()), "PNG")
    first = open_picture(data)
    first.putpixel((0, 0), (1, 2, 3))
    assert open_picture(data).getpixel((0, 0)) == (0, 0, 0)
    source = Image.fromarray(person())
    upright(source).putpixel((0, 0), (1, 2, 3))
    assert source.getpixel((0, 0)) == (0, 0, 0)


def test_large_pictures_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take a gigabyte while it is decoded; small ones do not wait."""
    monkeypatch.setattr(images, "LARGE_PIXELS", 1_000)
    large = encoded(Image.new("RGB", (40, 40)), "PNG")
    with ThreadPoolExecutor(1) as thread:
        with images.large_pictures:
            waiting = thread.submit(open_picture, large)
            assert open_picture(encoded(Image.fromarray(person()), "PNG")).size == (WIDTH, HEIGHT)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.1)
        assert waiting.result(timeout=60).size == (40, 40)


def of_many_scans(scans: int, side: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    data = encoded(Image.new("RGB", (side, side), (120, 60, 30)), "JPEG", progressive=True)
    starts = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    return data[:-2] + data[starts[-1] : -2] * (scans - len(starts)) + b"\xff\xd9"


@pytest.mark.parametrize(("scans", "side", "taken"), [(100, 64, True), (101, 64, False), (40, 5000, True)])
def test_jpegs_of_too_many_scans_are_refused(scans: int, side: int, taken: bool) -> None:
    data = of_many_scans(scans, side)
    if taken:
        assert open_picture(data).size == (side, side)
    else:
        with pytest.raises(PictureError, match="JPEG of more than 100 scans"):
            open_picture(data)


def test_the_larger_a_jpeg_the_fewer_scans() -> None:
    with pytest.raises(PictureError, match="JPEG of more than 62 scans"):
        open_picture(of_many_scans(63, 4000))


def test_scans_of_a_thumbnail_and_other_segments_do_not_count() -> None:
    data = encoded(Image.fromarray(person()), "JPEG")
    segment = b"\xff\xda" * 500
    comment = b"\xff\xfe" + (2 + len(segment)).to_bytes(2) + segment
    assert open_picture(data[:2] + comment + data[2:] + segment).size == (WIDTH, HEIGHT)


def test_a_caller_may_take_fewer_pixels() -> None:
    data = encoded(Image.new("RGB", (2000, 1001)), "PNG")
    with pytest.raises(PictureError, match=r"too large \(2000x1001\): at most 2 megapixels"):
        open_picture(data, most_pixels=2_000_000)


def of_run_lengths(side: int) -> bytes:
    """A grey BMP in which each row is one run, or several of 255."""
    row = b"".join(bytes((min(255, side - start), 90)) for start in range(0, side, 255)) + b"\0\0"
    packed, palette = row * side + b"\0\1", b"".join(bytes((n, n, n, 0)) for n in range(256))
    start = 54 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(packed), 0, 0, start)
    return head + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(packed), 0, 0, 256, 0) + palette + packed


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_what_takes_long_to_unpack_is_refused_where_it_is_large(kind: str) -> None:
    def made(side: int) -> bytes:
        if kind == "BMP":
            return of_run_lengths(side)
        return encoded(Image.new("RGB", (side, side), (90, 90, 90)), "TIFF", compression="lzma")

    assert open_picture(made(600)).getpixel((599, 0)) == (90, 90, 90)
    with pytest.raises(PictureError, match=f"a {kind} of 2900x2900 pixels that is packed in a way which takes long"):
        open_picture(made(2900))


def test_a_picture_of_a_phone_is_named_whatever_the_file_is_called(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(PictureError, match=r"a\.jpg: the picture is HEIC, .*: save it as JPEG"):
        open_picture(tmp_path / "a.jpg")
