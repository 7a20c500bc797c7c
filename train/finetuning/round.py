"""One round of fine-tuning: marks in, a candidate and the gate's verdict out. Knows nothing of the store.

Two-fold cross-fit: a model trained on one half of the captions is judged on the other half, pooled over both; the
candidate itself trains on all marks. So nothing is judged by what it was trained on, and no mark is wasted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.backbones import Backbone
from core.model import UPPerson
from core.petl import PetlConfig, Tower
from train.captioned_images import CaptionedPictures
from train.embed import embed_captions, embed_pixels
from train.finetuning.adaptation import with_look
from train.finetuning.gate import Evidence, GateConfig, Verdict, check_marks, hit_precision, hits_over_misses, judge
from train.finetuning.loop import Held, LearnConfig, Memory, learn
from train.finetuning.modes import Mode
from train.finetuning.pairs import POSITIVE, Judged, Pairs, build, halves
from train.losses import TEMPERATURE
from train.metrics import rank_metrics

MINI_PETL = PetlConfig(prefix_length=4, lora_rank=8, adapter_reduction=8)
"""PETL sizes for `mini`, whose blocks are 192 wide; others take the paper's CUHK-PEDES sizes."""

LEARNING: Mapping[Mode, LearnConfig] = {
    "full": LearnConfig(),
    "text": LearnConfig(look=0.0, hold=0.0),
}
"""What was chosen on the validation identities for each mode."""

HELD_BACK, LEAST_HELD_BACK = 0.15, 20
"""This share of the pairs known before is not replayed: it tells how much a model forgets, and so how far to go. Fewer
could not, and then all are replayed."""

REST = 1000
"""At most this many pictures stand for the gallery when hits are ranked among misses and the rest."""


@dataclass(frozen=True, slots=True)
class Round:
    """All that a round needs. `pixels` gives uint8 (H, W, 3) of every marked picture and of `rest`, which are ids of
    gallery pictures that stand for the whole. `learnt`: keys of the captions that `served` has learnt from. Without
    `base` promotion is never automatic. `mode` "text": the candidate encodes pictures just as `served` does."""

    backbone: Backbone
    served: UPPerson
    marks: Sequence[Judged]
    pixels: Mapping[str, NDArray[np.uint8]]
    rest: Sequence[str]
    learnt: Collection[str] = ()
    replay: CaptionedPictures | None = None
    base: CaptionedPictures | None = None
    learning: LearnConfig = field(default_factory=LearnConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    mode: Mode = "full"


@dataclass(slots=True)
class Outcome:
    """The verdict, the candidate (None when nothing was trained) and the share of new weights in it, metrics and
    seconds by stage."""

    verdict: Verdict
    model: UPPerson | None = None
    mix: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


Pictures = Mapping[str, NDArray[np.float32]]
"""Unit rows (E,) by image id."""

Progress = Callable[[str, float], None]
"""Told the stage and the share of the whole round done, in [0, 1]; may raise `Cancelled`."""


def fine_tune(given: Round, *, progress: Progress = lambda _stage, _share: None) -> Outcome:
    """Check the marks, train both folds and the candidate, judge. Changes nothing but the model it returns."""
    clock = _Clock()
    progress("checking", 0.0)
    pairs = build(given.marks, learnt=given.learnt)
    refusal = refuse(pairs, given.gate)
    if refusal is not None:
        return Outcome(refusal)

    folds = halves(pairs, seed=given.gate.seed)
    work = [pairs, *(fold for fold, _ in folds)]
    ends = np.cumsum([0.0, *(given.learning.steps(part) for part in work)])
    ends *= 0.8 / ends[-1]
    shown = list(dict.fromkeys([*pairs.image_ids, *given.rest]))
    served = _pictures(given, given.served, shown)
    progress("checking", 0.0)  # a sign of life: with a large backbone each of these takes minutes
    known, watched = held_back(given.replay)
    watch = None if watched is None else watching(watched, given.served)
    progress("checking", 0.0)
    replay = replayed(known, [given.pixels[image] for image in given.rest], given.learning)
    held = frozen = None
    if given.learning.hold and given.learning.replay and known is not None and replay is not None:
        held = hold(plain(given.served), known, replay)  # where each round is to leave it, or losses add up
        progress("checking", 0.0)
    if given.mode == "text":
        frozen = Memory(served, None if replay is None else embed_pixels(given.served, replay.pixels))
    marked = {mark.image_id for mark in given.marks}
    unmarked = [image for image in given.rest if image not in marked]  # in both folds: nothing is judged by them
    clock.lap("judging")

    def train(number: int, stage: str, mix: float | None = None) -> tuple[UPPerson, float]:
        model = start_model(given.backbone, given.served, mode=given.mode)
        low, high = ends[number], ends[number + 1]
        mix = learn(
            model,
            work[number],
            given.pixels,
            replay,
            given.learning if mix is None else replace(given.learning, mix=mix),
            frozen=frozen,
            held=held,
            unmarked=unmarked,
            forgotten=watch if mix is None else None,
            progress=lambda share: progress(stage, low + (high - low) * share),
        )
        clock.lap(stage)
        return model, mix

    candidate, mix = train(0, "training on all marks")
    before, after, groups = [], [], []
    for number, (_, held_out) in enumerate(folds):
        model, _ = train(number + 1, f"training fold {number + 1} of 2", mix)  # what is judged is what would serve
        before.append(_ranking(given.served, served, held_out, given.rest))
        pictures = served if frozen else _pictures(given, model, shown)
        after.append(_ranking(model, pictures, held_out, given.rest))
        groups.append(held_out.groups)
        clock.lap("judging")
    progress("judging", 0.82)
    (order_before, precision_before), (order_after, precision_after) = (np.hstack(side) for side in (before, after))
    held_out_change = (order_before, order_after, precision_before, precision_after, np.concatenate(groups))
    evidence = Evidence(*held_out_change, *_on_base(given, candidate, progress))
    verdict = judge(evidence, given.gate)
    clock.lap("judging")
    metrics = {
        "hits": pairs.hits,
        "misses": pairs.misses,
        "conflicts": len(pairs.conflicts),
        "held_out_precision": verdict.numbers["held_out_after"],
        "base_r1": evidence.base_after,
    }
    return Outcome(verdict, candidate, mix, metrics, clock.seconds)


def _on_base(given: Round, candidate: UPPerson, progress: Progress) -> tuple[float | None, float | None, float | None]:
    """R@1 on the base set of the plain backbone, the served version and the candidate; None without a base set."""
    if given.base is None:
        return None, None, None
    images = embed_pixels(given.served, given.base.pixels)
    progress("judging", 0.85)
    before = _r1(given.served, given.base, images)
    start = before if given.served.config is None else _r1(plain(given.served), given.base)
    progress("judging", 0.9)
    return start, before, _r1(candidate, given.base, images if given.mode == "text" else None)


def refuse(pairs: Pairs, gate: GateConfig) -> Verdict | None:
    """Why nothing is to be trained on these pairs; None when something can be."""
    if pairs.hits == 0:
        reason = "no hits: fine-tuning needs pictures that fit their description. Mark some hits and try again."
        return Verdict("undecided", reason, {"hits": 0, "misses": pairs.misses})
    order = hits_over_misses(pairs.judged, pairs.scores, pairs.shown_by)
    refusal = check_marks(order, pairs.groups, pairs.fresh, gate)
    folds = halves(pairs, seed=gate.seed)
    if refusal is None and not all(training.hits and held_out.hits for training, held_out in folds):
        reason = (
            "the marks cannot be split by person: the same pictures are hits for nearly all captions, so nothing is "
            "left to judge by. Mark hits for captions of other people."
        )
        return Verdict("undecided", reason, {"hits": pairs.hits, "misses": pairs.misses})
    return refusal


def held_back(known: CaptionedPictures | None) -> tuple[CaptionedPictures | None, CaptionedPictures | None]:
    """What is replayed, and what is held back to watch forgetting by: None where nothing is known, or too little."""
    count = 0 if known is None else round(HELD_BACK * len(known.pids))
    if known is None or count < LEAST_HELD_BACK:
        return known, None
    cut = len(known.pids) - count
    return known.part(slice(cut)), known.part(slice(cut, None))


def watching(known: CaptionedPictures, served: UPPerson) -> Callable[[UPPerson], float]:
    """How much more confused a model is on these pairs than the plain backbone or `served`, whichever is less."""
    before = min(confusion(model, known) for model in {served, plain(served)})
    return lambda model: confusion(model, known) - before


def confusion(model: UPPerson, known: CaptionedPictures) -> float:
    """The share of a caption's softmax over all pictures that falls on other people's, in the mean. A smooth form of
    what R@1 misses."""
    scores = embed_captions(model, known.captions) @ embed_pixels(model, known.pixels).T
    weights = torch.from_numpy(scores / TEMPERATURE).softmax(dim=1).numpy()
    return float(weights[known.pids[:, None] != known.pids[None, :]].sum() / len(weights))


def replayed(
    known: CaptionedPictures | None, gallery: Sequence[NDArray[np.uint8]], learning: LearnConfig
) -> CaptionedPictures | None:
    """What is replayed: the pairs known before and, if `learning` says so, the same in the look of the gallery."""
    if known is None or not learning.look or not gallery:
        return known
    return with_look(known, np.stack(gallery), learning.look)


def plain(model: UPPerson) -> UPPerson:
    """The backbone of a model without PETL weights; the model itself where it has none."""
    return model if model.config is None else UPPerson(model.backbone)


def hold(model: UPPerson, known: CaptionedPictures, replay: CaptionedPictures) -> Held:
    """Where `model` puts what is replayed: `known`, and some of it once more in another look (`replayed`), which is to
    come where it is without that look."""
    again = np.concatenate([np.arange(len(known.pids)), np.arange(len(replay.pids) - len(known.pids))])
    return Held(embed_captions(model, known.captions)[again], embed_pixels(model, known.pixels)[again])


def petl_config(backbone: Backbone) -> PetlConfig:
    """The PETL sizes that a backbone starts with."""
    return MINI_PETL if backbone.name == "mini" else PetlConfig()


def start_model(backbone: Backbone, served: UPPerson, *, mode: Mode = "full") -> UPPerson:
    """A model to train: a copy of the served PETL weights, and fresh ones in the towers that have none yet but shall
    learn. In mode "text" it encodes pictures just as `served` does."""
    config = served.config or petl_config(backbone)
    theirs = served.config.towers if served.config else ()
    wanted = {*theirs, "text"} if mode == "text" else {"image", "text"}
    both: tuple[Tower, ...] = ("image", "text")
    model = UPPerson(backbone, replace(config, towers=tuple(tower for tower in both if tower in wanted)))
    weights = served.petl_parameters()
    with torch.no_grad():
        for name, parameter in model.petl_parameters().items():
            if name in weights:
                parameter.copy_(weights[name])
    return model


def _pictures(given: Round, model: UPPerson, ids: Sequence[str]) -> Pictures:
    rows = embed_pixels(model, np.stack([given.pixels[image] for image in ids]))
    return dict(zip(ids, rows, strict=True))


def _ranking(model: UPPerson, pictures: Pictures, held_out: Pairs, gallery: Sequence[str]) -> NDArray[np.float64]:
    """Of each held-out caption (2, C): the share of its (hit, miss) pairs in order, and the average precision of its
    hits among its misses and the rest of the gallery. `pictures` are embedded by `model`."""
    ids = dict.fromkeys([*held_out.image_ids, *gallery])
    scores = embed_captions(model, held_out.captions) @ np.stack([pictures[image] for image in ids]).T
    columns = len(held_out.image_ids)
    judged = np.zeros(scores.shape, np.int8)
    judged[:, :columns] = held_out.judged
    rest = np.ones(scores.shape, bool)
    # Other pictures of the same person, and those that users dispute, may be true matches.
    rest[:, :columns] = (held_out.relation != POSITIVE) & ~held_out.withheld
    return np.stack([hits_over_misses(judged, scores), hit_precision(judged, scores, rest)])


def _r1(model: UPPerson, data: CaptionedPictures, images: NDArray[np.float32] | None = None) -> float:
    """R@1 on a set; `images` (N, E): its pictures' rows, where they are known already."""
    rows = embed_pixels(model, data.pixels) if images is None else images
    scores = embed_captions(model, data.captions) @ rows.T
    return rank_metrics(scores, data.pids, data.pids).r1


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 1)
        self._last = now
