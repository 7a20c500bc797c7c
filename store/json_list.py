"""Lists that people have: JSON of any length, read piece by piece, and the encoding of a text file."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

_CHUNK = 1 << 16  # characters
_LONGEST = 1 << 22  # characters of one value


def text_encoding(file: Path) -> str:
    """UTF-16 where the file begins as such, as Windows' programs write it; else UTF-8, its byte order mark left out.

    Raises OSError.
    """
    with file.open("rb") as opened:
        head = opened.read(2)
    return "utf-16" if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def list_values(text: TextIO) -> Iterator[Any]:
    """The values of the JSON list in `text`, one after the other, however long it is. Raises ValueError where it is
    none, breaks off, or holds a value of more than four million characters."""
    decode = json.JSONDecoder().raw_decode
    buffer = text.read(_CHUNK).lstrip()
    if not buffer.startswith("["):
        raise ValueError("holds no list")
    first = True
    while True:
        # `buffer` begins with what comes before a value: the list's bracket or a comma.
        try:
            end = buffer[1:].lstrip() if first else buffer
            if end.startswith("]"):
                if (end[1:] + text.read(_CHUNK)).strip():
                    raise ValueError("goes on after its list: copy it again from its source")
                return
            if buffer[:1] not in ("[" if first else ",", ""):
                raise ValueError("is no JSON: copy it again from its source")
            rest = buffer[1:].lstrip()
            value, stop = decode(rest)
            if stop < len(rest):  # else a number could go on
                yield value
                buffer, first = rest[stop:].lstrip(), False
                continue
        except json.JSONDecodeError:
            pass  # it goes on beyond the buffer
        more = text.read(max(_CHUNK, len(buffer)))
        if not more or len(buffer) > _LONGEST:
            raise ValueError("breaks off or is no JSON: copy it again from its source")
        buffer = (buffer + more).lstrip()
