"""One round of fine-tuning: marks in, a candidate and the gate's verdict out. Knows nothing of the store.

Prepare, train folds, judge. Two-fold cross-fit: a model trained on one half of the captions is judged on the other
half, pooled over both; the candidate trains on all marks. People held out of each fold's training say how long.
Beside each fold a control trains on the same marks with their verdicts shuffled, for the same number of steps: what it
reaches too does not come from the marks (`train.finetuning.controls`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.model import UPPerson
from train.captioned_images import CaptionedPictures
from train.embed import embed_captions, embed_pixels
from train.finetuning.activations import KeptRound, ToKeep, keep
from train.finetuning.adaptation import replayed
from train.finetuning.config import LearnConfig, Mode
from train.finetuning.controls import hold_out, shuffled
from train.finetuning.gate import (
    Evidence,
    GateConfig,
    OnBase,
    Verdict,
    check_marks,
    hit_precision,
    hits_over_misses,
    judge,
)
from train.finetuning.loop import Learnt, Step, learn
from train.finetuning.pairs import POSITIVE, Judged, Pairs, build, halves
from train.finetuning.sampler import Replay
from train.finetuning.start import confusion, held_back, r1, start_model
from train.finetuning.trust import check_agreement, trusted
from train.memory import give_back_memory

REST = 1000
"""At most this many pictures represent the gallery when hits are ranked among misses and the rest."""

CONTROLLED = 2
"""Folds beside which a control trains."""


@dataclass(frozen=True, slots=True)
class Round:
    """All that a round needs.

    `pixels` maps every marked picture and those of `rest` to uint8 (H, W, 3); `rest` are ids of gallery pictures that
    represent the whole. `learnt`: keys of the captions that `served` has learnt from. `known` are pairs that `served`
    knows, to replay; `base` is a set of other people that it knows, by which forgetting is judged: without it promotion
    is never automatic. `origin` is the version of the lineage whose R@1 on `base` must not be lost, by default
    `served`. In mode "text" the candidate encodes pictures exactly as `served` does. `depth`: only so many of the last
    blocks of each tower learn, and what they begin with is kept in the folder `scratch`, in mode "full". `tracks`: the
    track of a camera of those pictures that have one.
    """

    served: UPPerson
    marks: Sequence[Judged]
    pixels: Mapping[str, NDArray[np.uint8]]
    rest: Sequence[str]
    learnt: Collection[str] = ()
    known: CaptionedPictures | None = None
    base: CaptionedPictures | None = None
    origin: UPPerson | None = None
    learning: LearnConfig = field(default_factory=LearnConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    mode: Mode = "full"
    depth: int | None = None
    scratch: Path | None = None
    tracks: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """The verdict, the candidate (None when nothing was trained), the shares of new weights in it and of the steps that
    it took, metrics, and seconds by stage."""

    verdict: Verdict
    model: UPPerson | None = None
    mix: float | None = None
    length: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


Pictures = Mapping[str, NDArray[np.float32]]
"""Unit rows (E,) by image id."""

Progress = Callable[[str, float], None]
"""Receives the stage and the share of the whole round done, in [0, 1]; may raise `Cancelled`."""


def fine_tune(
    given: Round,
    *,
    progress: Progress = lambda _stage, _share: None,
    note: Callable[[Step], None] = lambda _: None,
) -> Outcome:
    """Check the marks, train folds, control and candidate, and judge. Changes nothing but the model it returns.

    `note` gets every step of every training.
    """
    progress("checking", 0.0)
    pairs, left_out, refusal = check(given.marks, given.learnt, given.gate)
    if refusal is not None:
        return Outcome(refusal)
    with closing(_Work(given, pairs, progress, note)) as work:
        evidence, length = _train_folds(work)
        # Where fewer passes were better than those of a fold, the candidate makes no more of them.
        candidate, learnt = work.train(pairs, "training on all marks", fold=length < 1, length=length)
        progress("judging", 0.82)
        evidence = replace(evidence, base=_on_base(work, candidate))
    verdict = judge(evidence, given.gate)
    if left_out:
        verdict = replace(verdict, reason=f"{verdict.reason} {left_out}")
    work.clock.lap("judging")
    metrics = {
        "hits": pairs.hits,
        "misses": pairs.misses,
        "conflicts": len(pairs.conflicts),
        "held_out_precision": verdict.numbers["held_out_after"],
        "base_r1": None if evidence.base is None else evidence.base.after,
    }
    return Outcome(verdict, candidate, learnt.mix, learnt.length, metrics, work.clock.seconds)


def check(marks: Sequence[Judged], learnt: Collection[str], gate: GateConfig) -> tuple[Pairs, str, Verdict | None]:
    """The pairs of all users that can be trusted, a sentence about marks left out, and why nothing is to be trained."""
    kept, left_out = trusted(marks)
    pairs = build(kept, learnt=learnt)
    refusal = (None if kept else check_agreement(marks)) or refuse(pairs, gate)
    if refusal is not None and left_out:
        refusal = replace(refusal, reason=f"{refusal.reason} {left_out}")
    return pairs, left_out, refusal


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


class _Work:
    """What the folds, the control and the candidate share: rows of the served version, replayed pairs, the clock."""

    def __init__(self, given: Round, pairs: Pairs, progress: Progress, note: Callable[[Step], None]) -> None:
        self.given, self.progress, self.note, self.clock = given, progress, note, _Clock()
        self.folds = halves(pairs, seed=given.gate.seed)
        trained = [(part, given.learning.of_fold()) for part in self._trained()] + [(pairs, given.learning)]
        ends = np.cumsum([0.0, *(_captions_seen(part, learning) for part, learning in trained)])
        self.ends, self.trained = 0.8 * ends / ends[-1], 0  # where all steps are taken
        self.shown = list(dict.fromkeys([*pairs.image_ids, *given.rest]))
        self.kept: KeptRound | None = None
        if given.depth is not None and given.mode == "full":
            assert given.scratch is not None
            wanted = ToKeep(given.pixels, self.shown, pairs.image_ids, given.known, given.base)
            self.kept = keep(
                given.served, given.depth, given.scratch, wanted, given.learning.sampling,
                progress=lambda: progress("preparing pictures", 0.0),
            )  # fmt: skip
            self.clock.lap("preparing pictures")
        self.served = self.rows(given.served, self.shown)
        progress("checking", 0.0)
        known, watched = held_back(given.known if self.kept is None else self.kept.known)
        self.watch = None if watched is None else _watching(self, watched)
        progress("checking", 0.0)
        self.replay: Replay | None = None
        if known is not None and given.learning.sampling.replay:
            self.replay = replayed(given.served, known) if self.kept is None else self.kept.replay(given.served)
        marked = {mark.image_id for mark in given.marks}
        self.unmarked = [image for image in given.rest if image not in marked]  # in both folds: nothing judges by them
        give_back_memory()
        self.clock.lap("judging")

    def _trained(self) -> list[Pairs]:
        return [fold for number, (fold, _) in enumerate(self.folds) for _ in range(1 + (number < CONTROLLED))]

    def train(
        self, pairs: Pairs, stage: str, *, fold: bool = True, held_out: Pairs | None = None, length: float = 1.0
    ) -> tuple[UPPerson, Learnt]:
        """A model that learnt these pairs, starting from the served version, for the share `length` of the steps or for
        as long as `held_out` is ranked better. `fold`: with as many passes as a fold makes."""
        given, kept = self.given, self.kept
        model = start_model(given.served, mode=given.mode, depth=given.depth if kept else None)
        low, high = self.ends[self.trained], self.ends[self.trained + 1]
        self.trained += 1
        learnt = learn(
            model,
            pairs,
            kept.places if kept else self.served if given.mode == "text" else given.pixels,
            self.replay,
            given.learning.of_fold() if fold else given.learning,
            frozen=given.mode == "text",
            kept=kept.activations if kept else None,
            unmarked=self.unmarked,
            tracks=given.tracks,
            forgotten=self.watch,
            held_out=None if held_out is None else lambda model: self.ranked(model, held_out),
            length=length,
            progress=lambda share: self.progress(stage, low + (high - low) * share),
            note=self.note,
        )
        self.clock.lap(stage)
        return model, learnt

    def rows(self, model: UPPerson, images: Sequence[str]) -> Pictures:
        """Rows of these pictures, in mode "text" of all."""
        if self.given.mode == "text" and model is not self.given.served:
            return self.served
        if self.kept is None:
            found = embed_pixels(model, np.stack([self.given.pixels[image] for image in images]))
        else:
            found = self.kept.rows(model, np.array([self.kept.places[image][0] for image in images]))
        return dict(zip(images, found, strict=True))

    def ranked(self, model: UPPerson, held_out: Pairs) -> NDArray[np.float64]:
        """How well a model ranks the pictures of the captions of each held-out person among themselves (P,): the mean
        of what `_ranking` has, NaN where nothing can be compared."""
        found = _ranking(model, self.rows(model, held_out.image_ids), held_out, ()).mean(axis=0)
        people = [found[(held_out.groups == person) & ~np.isnan(found)] for person in np.unique(held_out.groups)]
        return np.array([theirs.mean() if len(theirs) else np.nan for theirs in people])

    def close(self) -> None:
        """Delete what was kept."""
        if self.kept is not None:
            self.kept.activations.close()

    def ranking(self, model: UPPerson, held_out: Pairs) -> NDArray[np.float64]:
        """See `_ranking`."""
        rows = self.served if model is self.given.served else self.rows(model, self.shown)
        return _ranking(model, rows, held_out, self.given.rest)


def _captions_seen(pairs: Pairs, learning: LearnConfig) -> int:
    count, queries = int((pairs.judged > 0).any(axis=1).sum()), learning.sampling.queries
    return learning.optimisation.steps(count, queries) * min(count, queries)


def _train_folds(work: _Work) -> tuple[Evidence, float]:
    """Held-out evidence of both folds and of their controls, and the mean length of the folds' training."""
    rng = np.random.default_rng(work.given.gate.seed)
    sides: list[tuple[NDArray[np.float64], ...]] = []
    lengths: list[float] = []
    for number, (half, judging) in enumerate(work.folds):
        training, held_out = hold_out(half, seed=work.given.gate.seed)
        model, learnt = work.train(training, f"training fold {number + 1} of 2", held_out=held_out)
        lengths.append(learnt.length)
        before, after = work.ranking(work.given.served, judging), work.ranking(model, judging)
        control = np.full_like(after, np.nan)
        work.clock.lap("judging")
        if number < CONTROLLED:
            other, _ = work.train(shuffled(training, rng), "training the control", length=learnt.length)
            control = work.ranking(other, judging)
            work.clock.lap("judging")
        sides.append((before, after, control))
    before, after, control = (np.hstack(each) for each in zip(*sides, strict=True))
    groups = np.concatenate([judging.groups for _, judging in work.folds])
    evidence = Evidence(before[0], after[0], before[1], after[1], groups, control[0])
    return evidence, float(np.mean(lengths))


def _on_base(work: _Work, candidate: UPPerson) -> OnBase | None:
    """R@1 on the base set of the lineage's origin, the served version and the candidate; None without a base set."""
    given, kept = work.given, work.kept
    if given.base is None:
        return None
    images = embed_pixels(given.served, given.base.pixels) if kept is None else kept.rows(given.served, kept.base)
    work.progress("judging", 0.85)
    before = r1(given.served, given.base, images)
    origin = before if given.origin is None else r1(given.origin, given.base)
    work.progress("judging", 0.9)
    if kept is not None:
        images = kept.rows(candidate, kept.base)
    after = r1(candidate, given.base, images if given.mode == "text" or kept is not None else None)
    return OnBase(origin, before, after)


def _watching(work: _Work, known: CaptionedPictures) -> Callable[[UPPerson], float]:
    """How much more confused a model is on these pairs than the served version, its teacher."""
    given, kept = work.given, work.kept
    frozen = embed_pixels(given.served, known.pixels) if given.mode == "text" else None

    def confused(model: UPPerson) -> float:
        return confusion(model, known, frozen if kept is None else kept.rows(model, kept.watched))

    before = confused(given.served)
    return lambda model: confused(model) - before


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


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 1)
        self._last = now
