"""Pictures that visitors search by are decoded in a process of their own, which may take so long and so much memory."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from PIL import Image

from app.app_errors import RequestError
from core.core_errors import PictureError
from train.memory import return_large_blocks

MOST_PIXELS = 25_000_000
"""Pixels of a picture that a visitor searches by; pictures of the gallery may have more."""
_SECONDS = 10.0
"""Time for one picture. On an idle processor the slowest that is taken needs two seconds
(tests/benchmarks/decoding.py); training may run beside."""
_WAIT_SECONDS = 30.0
_START_SECONDS = 60.0
_ADDRESS_SPACE = 4 * 2**30
_READY, _PICTURE, _REFUSED = b"r", b"p", b"x"

log = logging.getLogger(__name__)


class PictureDecoder:
    """Decodes one picture at a time in a process that starts with the first one; safe to use from several threads.

    A picture that takes too long, or that crashes the decoder, ends that process and nothing else.
    """

    def __init__(self, size: tuple[int, int], *, seconds: float = _SECONDS) -> None:
        """`size`: height and width that pictures are scaled to, those of the backbone."""
        self._size, self._seconds = size, seconds
        self._turn = threading.Lock()
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def open(self, data: bytes) -> Image.Image:
        """Decode an encoded picture as upright RGB at the backbone's size.

        Raises PictureError as `open_picture` does, and when the picture takes too long; RequestError when many others
        are before it.
        """
        if not self._turn.acquire(timeout=_WAIT_SECONDS):
            raise RequestError("many pictures are being opened at this moment: try again in a minute")
        try:
            answer = self._ask(data)
        finally:
            self._turn.release()
        if answer[:1] == _REFUSED:
            raise PictureError(answer[1:].decode())
        height, width = self._size
        return Image.frombytes("RGB", (width, height), answer[1:])

    def close(self) -> None:
        """End the process."""
        with self._turn:
            self._end()

    def _ask(self, data: bytes) -> bytes:
        pipe = self._started()
        try:
            pipe.send_bytes(data)
            if pipe.poll(self._seconds):
                return pipe.recv_bytes()
        except (EOFError, OSError) as error:
            self._end()
            log.warning("the process that decodes pictures ended at one: %s", error)
            raise PictureError(
                "the picture is damaged and could not be decoded: save it again as JPEG or PNG"
            ) from error
        except BaseException:
            self._end()
            raise
        self._end()
        raise PictureError(
            f"the picture takes longer than {self._seconds:g} seconds to open: make it smaller, or save it again as "
            "JPEG or PNG"
        )

    def _started(self) -> Connection:
        if self._process is not None and self._pipe is not None and self._process.is_alive():
            return self._pipe
        self._end()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_decode, args=(theirs, self._size), name="decoding", daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = ours
        try:
            if ours.poll(_START_SECONDS) and ours.recv_bytes() == _READY:
                return ours
        except (EOFError, OSError):
            log.exception("the process that decodes pictures ended while it started")
        self._end()
        raise RequestError("pictures cannot be opened at this moment: try again, or search by words")

    def _end(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        self._process = self._pipe = None


def _decode(pipe: Connection, size: tuple[int, int]) -> None:
    """The process: answers each encoded picture with its pixels, or with why it is not taken."""
    from core.images import open_picture

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process, too: the app ends it
    return_large_blocks()
    _limit_memory()
    height, width = size
    pipe.send_bytes(_READY)
    with suppress(EOFError, OSError):
        while True:
            data = pipe.recv_bytes()
            try:
                picture = open_picture(data, most_pixels=MOST_PIXELS)
                answer = _PICTURE + picture.resize((width, height), Image.Resampling.BICUBIC).tobytes()
                del picture
            except PictureError as error:
                answer = _REFUSED + str(error).encode()
            except MemoryError:
                answer = _REFUSED + b"the picture takes too much memory to open: make it smaller"
            del data
            pipe.send_bytes(answer)


def _limit_memory() -> None:
    if sys.platform != "linux":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
