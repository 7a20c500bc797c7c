"""How well a model finds people by words, and words by pictures: the field's protocol on one split.

Text to image: every caption is a query, all pictures are the gallery, those of the same person are correct. Image to
text is the same the other way round. Under `accelerate launch` the processes share the encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from core.backbones import load_backbone
from core.checkpoints import load_released, load_version, read_petl_config
from core.encoder import Encoder
from core.model import UPPerson
from train.datasets import Counts, Split
from train.metrics import RankMetrics, rank_metrics_of

T = TypeVar("T")
_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Report:
    """Fractions in both directions, and how much they are of."""

    text_to_image: RankMetrics
    image_to_text: RankMetrics
    counts: Counts

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        """Return a table in percent."""
        lines = [f"{'':15}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'mAP':>7}{'mINP':>7}{'queries':>9}"]
        for name, m in (("text to image", self.text_to_image), ("image to text", self.image_to_text)):
            shares = "".join(f"{100 * value:7.2f}" for value in (m.r1, m.r5, m.r10, m.mean_ap, m.mean_inp))
            lines.append(f"{name:15}{shares}{m.queries:9,}")
        return "\n".join(lines)


def evaluate(model: UPPerson, split: Split, *, progress: bool = True) -> Report:
    """Embed all of `split` and rank it both ways. Puts the model into evaluation mode. Raises PictureError."""
    encoder = Encoder(model, batch_size=_AT_ONCE)
    captions = _embed(encoder.encode_texts, split.captions, "captions", progress=progress)
    pictures = [p if isinstance(p, Path) else Image.fromarray(p) for p in split.pictures]
    images = _embed(encoder.encode_images, pictures, "pictures", progress=progress)
    return Report(
        rank_metrics_of(captions, images, split.caption_pids, split.pids),
        rank_metrics_of(images, captions, split.pids, split.caption_pids),
        split.counts,
    )


def load_model(
    backbone: str, *, weights: Path | None = None, version: Path | None = None, released: Path | None = None
) -> UPPerson:
    """Return the model to judge: the plain `backbone`, or that of a version's folder, or a checkpoint of the released
    code.

    Raises CoreError when something is damaged or does not fit, ValueError when both are given.
    """
    if version and released:
        raise ValueError("expected a version's folder or a released checkpoint, not both")
    if released:
        return load_released(released)
    if version is None:
        return UPPerson(load_backbone(backbone, weights=weights))
    name, _ = read_petl_config(version)
    return load_version(load_backbone(name, weights=weights), version)


def _embed(
    encode: Callable[[Sequence[T]], NDArray[np.float32]], items: Sequence[T], what: str, *, progress: bool
) -> NDArray[np.float32]:
    """Rows of all items; each process encodes its share of them."""
    state = PartialState()
    own = items[state.process_index :: state.num_processes]
    hidden = None if progress and state.is_main_process else True
    starts = tqdm(range(0, len(own), _AT_ONCE), desc=what, disable=hidden, leave=False)
    mine = [encode(own[start : start + _AT_ONCE]) for start in starts] or [encode([])]
    parts = gather_object([np.concatenate(mine)])
    rows = np.empty((len(items), parts[0].shape[1]), np.float32)
    for number, part in enumerate(parts):
        rows[number :: len(parts)] = part
    return rows
