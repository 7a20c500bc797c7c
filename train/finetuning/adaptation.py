"""Domain adaptation: learn the style of a gallery without any label, before there are marks.

What the served version knows (labelled pairs) is learnt again with part of the pictures in the gallery's style
(`train.style`) and with strips of gallery pictures over their edges, while the served version is the
teacher: each altered picture and text stays near where the teacher puts the unaltered one.

Nobody labels the gallery, so three measures without its labels decide (`judge_adaptation`): pairs that were held back,
shown in the gallery's style, must be separated better beyond doubt; altered copies of gallery pictures must still find
their originals; and the base set must not fall. What the first is worth is measured by
`python -m tests.benchmarks.adaptation`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.backbones import device_of
from core.encoder import normalise
from core.model import UPPerson
from train.augment import augment_pixels, drop_words, occlude
from train.captioned_images import CaptionedPictures
from train.embed import embed_captions, embed_pixels
from train.finetuning.config import Optimisation
from train.finetuning.gate import GateConfig, Verdict, interval
from train.finetuning.loop import Descent, Step, distance, encode, trainable
from train.finetuning.sampler import Replay
from train.finetuning.start import r1, start_model
from train.losses import TEMPERATURE, masked_sdm
from train.style import Style

LEAST_PICTURES = 50
"""A gallery of fewer pictures says too little of its style."""

CONSISTENCY_FALL = 0.02
"""This share of the gallery's altered copies may stop finding their originals."""


@dataclass(frozen=True, slots=True)
class AdaptConfig:
    """A step takes `batch` known pairs, a share `styled` of their pictures in the gallery's style, of which a share
    `occluded` is covered at an edge. `distil` weighs the distance to the teacher, `hidden_words` is the share of the
    words left out."""

    batch: int = 128
    styled: float = 0.5
    occluded: float = 0.5
    hidden_words: float = 0.15
    distil: float = 300.0
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(lr=2.5e-3, max_steps=100, mix=0.6))


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What adaptation needs: the served version, pairs that it knows (`known`; `watched` are held back from training),
    the base set, and the gallery's pictures uint8 (N, H, W, 3)."""

    served: UPPerson
    known: CaptionedPictures
    watched: CaptionedPictures
    base: CaptionedPictures
    gallery: NDArray[np.uint8]
    config: AdaptConfig = field(default_factory=AdaptConfig)
    gate: GateConfig = field(default_factory=GateConfig)


def adapt(
    given: Adaptation,
    *,
    progress: Callable[[str, float], None] = lambda _stage, _share: None,
    note: Callable[[Step], None] = lambda _: None,
) -> tuple[UPPerson, Verdict]:
    """Train and judge an adapted version. `served` does not change, `note` gets each step.

    Raises ValueError for a gallery of fewer than `LEAST_PICTURES` pictures.
    """
    if len(given.gallery) < LEAST_PICTURES:
        raise ValueError(
            f"the gallery has {len(given.gallery)} pictures: adaptation needs {LEAST_PICTURES} to learn their style"
        )
    progress("measuring", 0.0)
    learning = "learning the gallery's style"
    model = train(given, progress=lambda share: progress(learning, 0.05 + 0.75 * share), note=note)
    progress("measuring", 0.8)
    return model, judge_adaptation(measure(given, model, progress=lambda share: progress("judging", share)), given.gate)


def train(
    given: Adaptation,
    model: UPPerson | None = None,
    *,
    progress: Callable[[float], None] = lambda _: None,
    note: Callable[[Step], None] = lambda _: None,
) -> UPPerson:
    """The adapted model, not judged: `model`, or fresh PETL weights on what serves. `note` gets each step."""
    config, known = given.config, given.known
    rng = np.random.default_rng(config.optimisation.seed)
    style = Style(given.gallery)
    teacher = [torch.from_numpy(rows) for rows in teacher_rows(given.served, known)]
    model = model or start_model(given.served)
    backbone = model.backbone

    device = device_of(backbone.clip)

    def draw() -> tuple[Tensor, Tensor, NDArray[np.int64]]:
        chosen = rng.choice(len(known.pids), min(config.batch, len(known.pids)), replace=False)
        pixels = known.pixels[chosen].copy()
        count = round(len(chosen) * config.styled)
        if count:
            pixels[:count] = occlude(style.apply(pixels[:count], rng), given.gallery, config.occluded, rng)
        pictures = normalise(torch.from_numpy(augment_pixels(pixels, rng)), mean=backbone.mean, std=backbone.std)
        tokens = backbone.tokenize([drop_words(known.captions[index], config.hidden_words, rng) for index in chosen])
        return pictures, tokens, chosen

    def loss(drawn: tuple[Tensor, Tensor, NDArray[np.int64]], most: int) -> Tensor:
        pictures, tokens, chosen = drawn
        images, texts = encode(model, pictures, tokens, most)
        pids = torch.from_numpy(known.pids[chosen]).to(device)
        same = (pids[:, None] == pids[None, :]).float()
        near = distance(texts, teacher[0][chosen].to(device)) + distance(images, teacher[1][chosen].to(device))
        return masked_sdm(texts @ images.T, same) + config.distil * near

    steps = config.optimisation.max_steps
    run = Descent(model, trainable(model, ("image", "text")), config.optimisation, steps)
    run.until(steps, draw, loss, progress=progress, note=note)
    run.finish(config.optimisation.mix)
    return model


def teacher_rows(model: UPPerson, pairs: CaptionedPictures) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit rows of captions and of pictures, (M, E) each."""
    return embed_captions(model, pairs.captions), embed_pixels(model, pairs.pixels)


def replayed(served: UPPerson, known: CaptionedPictures) -> Replay:
    """`known` pairs to replay in a round on marks, as the served version sees them."""
    return Replay(known, *teacher_rows(served, known))


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """What is known of an adapted version without labels of the gallery, before and after.

    `styled` (M,): of each held-back caption, the share of its softmax over all held-back pictures in the gallery's
    style that falls on its own person; `pids` (M,). `consistency`: the share of gallery pictures that are the first
    result of their own altered copy. `base`: R@1 on the base set.
    """

    styled_before: NDArray[np.float64]
    styled_after: NDArray[np.float64]
    pids: NDArray[np.int64]
    consistency_before: float
    consistency_after: float
    base_before: float
    base_after: float


def measure(given: Adaptation, model: UPPerson, *, progress: Callable[[float], None] = lambda _: None) -> Unlabelled:
    """Compare `model` with the served version; reads no caption or person of the gallery."""
    rng = np.random.default_rng(given.gate.seed)
    watched, gallery = given.watched, given.gallery
    styled = occlude(Style(gallery).apply(watched.pixels, rng), gallery, given.config.occluded, rng)
    altered = augment_pixels(occlude(gallery, gallery, 1.0, rng), rng)
    found: list[tuple[NDArray[np.float64], float, float]] = []
    for number, one in enumerate((given.served, model)):
        scores = embed_captions(one, watched.captions) @ embed_pixels(one, styled).T
        weights = torch.from_numpy(scores / TEMPERATURE).softmax(dim=1).numpy()
        own = (weights * (watched.pids[:, None] == watched.pids[None, :])).sum(axis=1).astype(np.float64)
        near = (embed_pixels(one, altered) @ embed_pixels(one, gallery).T).argmax(axis=1)
        found.append((own, float((near == np.arange(len(gallery))).mean()), r1(one, given.base)))
        progress(0.8 + 0.1 * number)
    before, after = found
    return Unlabelled(before[0], after[0], watched.pids, before[1], after[1], before[2], after[2])


def judge_adaptation(found: Unlabelled, config: GateConfig) -> Verdict:
    """Promote only what separates known people better in the gallery's style and loses nothing else."""
    change = interval(found.styled_after - found.styled_before, found.pids, config)
    before = float(found.styled_before.mean())
    numbers: dict[str, Any] = {
        "styled_before": before,
        "styled_after": before + change.mean,
        "styled_change": change.numbers(),
        "consistency_before": found.consistency_before,
        "consistency_after": found.consistency_after,
        "base_before": found.base_before,
        "base_after": found.base_after,
    }
    seen = (
        f"known people in the gallery's style are found with {before + change.mean:.1%} instead of {before:.1%} "
        f"of the probability ({config.level:.0%} interval of the change {change.low:+.1%} to {change.high:+.1%}), "
        f"altered copies of {found.consistency_after:.1%} instead of {found.consistency_before:.1%} of the gallery's "
        f"pictures find their originals, and R@1 on the base set went from {found.base_before:.1%} to "
        f"{found.base_after:.1%}"
    )
    if change.low <= 0:
        return Verdict("rejected", f"the gallery's style is not learnt beyond doubt: {seen}.", numbers)
    if found.base_before - found.base_after > config.base_fall + 1e-9:
        return Verdict("rejected", f"it forgets: {seen}; at most {config.base_fall:.1%} may be lost there.", numbers)
    if found.consistency_before - found.consistency_after > CONSISTENCY_FALL + 1e-9:
        return Verdict("rejected", f"it confuses pictures of the gallery: {seen}.", numbers)
    return Verdict("promoted", f"adapted to the gallery's style without any mark: {seen}.", numbers)
