"""PNG files without what only describes them, for those whose descriptions are damaged or larger than Pillow takes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DRAWN = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")
"""The chunks that decide what is seen: size, palette, transparency, orientation, pixels."""


def pixels_only(data: bytes) -> bytes:
    """Return the PNG `data` with the chunks that decide what is seen, in their order.

    Optional chunks are left out where they are damaged. The pixels are the same.
    """
    parts: list[bytes | memoryview] = [SIGNATURE]
    parts += [whole for kind, whole, sound in _chunks(data) if kind in _DRAWN and (sound or kind[:1].isupper())]
    return b"".join(parts)


def damage(data: bytes) -> str:
    """Return what is wrong with the chunks that every PNG needs; empty when it is nothing that a checksum shows."""
    kinds = [(kind, sound) for kind, _, sound in _chunks(data)]
    broken = next((kind for kind, sound in kinds if not sound and kind[:1].isupper()), None)
    if broken is not None:
        return f"the checksum of its {broken.decode('ascii', 'replace')} chunk is wrong"
    return "" if kinds and kinds[-1][0] == b"IEND" else "it ends before its last chunk"


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Kind, whole chunk, and whether its checksum agrees, up to where the file breaks off."""
    view, at = memoryview(data), len(SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        if end > len(data):
            return
        whole = view[at:end]
        yield bytes(whole[4:8]), whole, zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")
        at = end
