"""Pictures as they are served: by id, in a format every browser shows, small ones from memory."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from PIL import Image

from core.images import format_of, open_picture

THUMBNAIL = (256, 384)
"""Width and height that a thumbnail fits into."""
_MEMORY = 64_000_000
_SHOWN_AS_IS = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
}


def as_served(data: bytes) -> tuple[bytes, str]:
    """Return a picture's bytes and MIME type; formats that browsers do not show are turned into PNG."""
    mime = _SHOWN_AS_IS.get(format_of(data))
    if mime is not None:
        return data, mime
    out = io.BytesIO()
    open_picture(data).save(out, "PNG")
    return out.getvalue(), "image/png"


class Thumbnails:
    """Small JPEGs, the latest of them kept in at most `memory` bytes; safe to use from several threads."""

    def __init__(self, *, memory: int = _MEMORY) -> None:
        self._memory = memory
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def of(self, image_id: str, forgotten: int, read: Callable[[], bytes]) -> bytes:
        """Return the thumbnail of `image_id`, made from `read()` when it is not kept.

        `forgotten` says how often pictures were forgotten before `read` is called: what one read that was under way
        at that time brings is kept for nobody.
        """
        key = image_id, forgotten
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        picture = open_picture(read())
        picture.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=88)
        small = out.getvalue()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = small
                self._bytes += len(small)
            while self._bytes > self._memory:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return small

    def clear(self) -> None:
        """Keep none of them any longer."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0
