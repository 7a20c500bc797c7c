"""`Encoder`: pictures and captions in, unit rows out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from core.backbones import Backbone, device_of
from core.device import BatchSize, autocast
from core.images import open_picture, upright
from core.merge import merge
from core.model import UPPerson

T = TypeVar("T")


Rows = NDArray[np.float32]


class Encoder:
    """Encodes pictures and captions with one model version; may be called from several threads.

    The model is put into evaluation mode and serves as it is now, with its PETL weights merged: after training it
    further, make another Encoder. Forward passes take turns in one thread of its own, in the order that they are asked
    for, on the device of the backbone, large models in `core.device.half_type`. A batch that does not fit into its
    memory is halved.
    """

    def __init__(self, model: UPPerson, *, batch_size: int = 32) -> None:
        self.model = model.eval()
        self._merged = merge(model)
        self.batch_size = batch_size
        self._batch = BatchSize(batch_size, device_of(model.backbone.clip))
        # One thread has one pool of PyTorch's threads, and those that wait for it wake at once, not one after another.
        self._thread = ThreadPoolExecutor(1, "encoder")
        self.queue: deque[tuple[list[str], Future[Rows]]] = deque()

    @property
    def backbone(self) -> Backbone:
        """The frozen CLIP below."""
        return self.model.backbone

    @property
    def dim(self) -> int:
        """E, the width of an embedding."""
        return self.backbone.embed_dim

    def encode_images(self, pictures: Sequence[Image.Image | Path | bytes]) -> NDArray[np.float32]:
        """Return float32 unit rows (B, E) of pictures, files or encoded bytes. Raises PictureError."""
        rows = [
            self.run(self._merged.encode_image, torch.stack([pixels_of(p, self.backbone) for p in batch]))
            for batch in _batches(pictures, self.batch_size)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the rows (B, E) of `encode_images` for pixels that `small_pixels` made, uint8 (B, H, W, 3)."""
        mean, std = self.backbone.mean, self.backbone.std
        rows = [
            self.run(
                self._merged.encode_image,
                normalise(torch.from_numpy(pixels[start : start + self.batch_size]), mean=mean, std=std),
            )
            for start in range(0, len(pixels), self.batch_size)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def encode_texts(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 unit rows (B, E) of captions; those beyond the context length are cut.

        What other threads wait for meanwhile is encoded in the same forward passes.
        """
        if not captions:
            return np.empty((0, self.dim), np.float32)
        found = []
        for batch in _batches(captions, self.batch_size):  # of many captions, so that others need not wait for all
            rows: Future[Rows] = Future()
            self.queue.append((list(batch), rows))
            self._thread.submit(self._encode_waiting)
            found.append(rows)
        return np.concatenate([rows.result() for rows in found])

    def _encode_waiting(self) -> None:
        """Encode what waits, as many captions as a batch takes, if anybody still does."""
        waiting: list[tuple[list[str], Future[Rows]]] = []
        while self.queue and sum(len(theirs) for theirs, _ in [*waiting, self.queue[0]]) <= self.batch_size:
            waiting.append(self.queue.popleft())
        if not waiting:
            return
        try:
            captions = [caption for theirs, _ in waiting for caption in theirs]
            every = self._run(self._merged.encode_text, self.backbone.tokenize(captions))
            ends = np.cumsum([len(theirs) for theirs, _ in waiting])
            for (_, rows), part in zip(waiting, np.split(every, ends[:-1]), strict=True):
                rows.set_result(part)
        except BaseException as fault:  # noqa: BLE001 - raised in the threads that wait
            for _, rows in waiting:
                rows.set_exception(fault)

    def run(self, encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Rows:
        """Encode one batch into unit rows, one batch at a time."""
        return self._thread.submit(self._run, encode, inputs).result()

    def _run(self, encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Rows:
        device = self._batch.device
        with torch.inference_mode(), autocast(device, enabled=self.backbone.large):
            out = self._batch.encode(lambda part: encode(part.to(device)), inputs)
            unit: Rows = torch.nn.functional.normalize(out.float(), dim=-1).cpu().numpy()
        return unit


def pixels_of(picture: Image.Image | Path | bytes, backbone: Backbone) -> Tensor:
    """Return a picture as normalised pixels (3, H, W) at the backbone's size, resized without a crop."""
    rgb = upright(picture) if isinstance(picture, Image.Image) else open_picture(picture)
    small = torch.from_numpy(small_pixels(rgb, backbone))
    return normalise(small[None], mean=backbone.mean, std=backbone.std)[0]


def small_pixels(rgb: Image.Image, backbone: Backbone) -> NDArray[np.uint8]:
    """Return an upright RGB picture (`open_picture`) as uint8 (H, W, 3) at the backbone's size."""
    height, width = backbone.image_size
    return np.array(rgb.resize((width, height), Image.Resampling.BICUBIC))


def normalise(pixels: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale uint8 pixels (B, H, W, 3) to [0, 1], then by mean and std per channel; return float32 (B, 3, H, W)."""
    return ((pixels.float() / 255 - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2).contiguous()


def _batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
