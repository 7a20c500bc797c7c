"""What to mark next: the candidates whose marks would teach most, each with its reason. Pure: no I/O, no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from store.records import caption_key
from train.finetuning.pairs import Contested, Judged

Reason = Literal["conflict", "disagreement", "uncertain"]

PER_CAPTION = 3
"""At most so many suggestions of one caption in a batch: ten near twins teach little more than three."""
LEAST_MARKS = 30
"""Marks on the results looked at from which a share of hits is said."""
LEAP = 5.0
"""Versions disagree about a picture when its ranks differ by this factor or more."""
NEAR = 10
"""... and one of them has it among this many first: deeper down a rank is noise."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The first pictures of one caption under one version, best first, with their scores."""

    caption: str
    image_ids: tuple[str, ...]
    scores: tuple[float, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A pair to judge, and why. `rank` and `score` under the ranking's version; both None for a contested picture
    that lies deeper than the ranking goes. `worth` in [0, 1] compares suggestions of one reason."""

    caption: str
    image_id: str
    reason: Reason
    why: str
    worth: float
    rank: int | None
    score: float | None


def rankings(
    captions: Sequence[str], image_ids: Sequence[str], scores: NDArray[np.floating], version: str, *, top: int = 100
) -> list[Ranking]:
    """The `top` pictures of each caption from all `scores` (C, N), ties in the order of the pictures."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        Ranking(caption, tuple(image_ids[at] for at in best), tuple(map(float, line[best])), version)
        for caption, best, line in zip(captions, order, scores, strict=True)
    ]


def suggest(
    current: Sequence[Ranking],
    marks: Iterable[Judged],
    *,
    k: int,
    former: Sequence[Ranking] = (),
    contested: Sequence[Contested] = (),
    mine: Collection[tuple[str, str]] = (),
) -> list[Suggestion]:
    """At most `k` pairs that nobody judged, or that users contradict each other about, the reasons in turn.

    `current` ranks by the served version, `former` by another one, matched by caption key. `mine`: the (caption key,
    picture) that the user has judged; those are not asked again. An uncertain pair is one whose chance of
    being a hit, estimated from the scores of all marks so far, is near one half.
    """
    marks = list(marks)
    taken = {(caption_key(mark.caption), mark.image_id) for mark in marks} | set(mine)
    by_reason = [
        _conflicts(current, contested, mine),
        _disagreements(current, former, taken),
        _uncertain(current, marks, taken),
    ]
    queues = [sorted(found, key=lambda one: (-one.worth, one.caption, one.image_id)) for found in by_reason]
    chosen: dict[tuple[str, str], Suggestion] = {}
    count: Counter[str] = Counter()
    for one in chain.from_iterable(zip_longest(*queues)):
        if one is None or len(chosen) == k:
            continue
        key = caption_key(one.caption)
        if (key, one.image_id) not in chosen and count[key] < PER_CAPTION:
            chosen[key, one.image_id] = one
            count[key] += 1
    return list(chosen.values())


def _conflicts(
    current: Sequence[Ranking], contested: Sequence[Contested], mine: Collection[tuple[str, str]]
) -> list[Suggestion]:
    places = {
        (caption_key(ranking.caption), image): (rank, score)
        for ranking in current
        for rank, (image, score) in enumerate(zip(ranking.image_ids, ranking.scores, strict=True), start=1)
    }
    found = []
    for one in contested:
        key = (caption_key(one.caption), one.image_id)
        if key in mine:
            continue
        rank, score = places.get(key, (None, None))
        why = f"People contradict each other, {_count(one.hits, 'hit')} to {_count(one.misses, 'miss')}"
        worth = 1 - abs(one.hits - one.misses) / (one.hits + one.misses)
        found.append(Suggestion(one.caption, one.image_id, "conflict", why, worth, rank, score))
    return found


def _disagreements(
    current: Sequence[Ranking], former: Sequence[Ranking], taken: Collection[tuple[str, str]]
) -> list[Suggestion]:
    before = {caption_key(ranking.caption): ranking for ranking in former}
    found = []
    for now in current:
        key = caption_key(now.caption)
        other = before.get(key)
        if other is None:
            continue
        ranks = {image: rank for rank, image in enumerate(other.image_ids, start=1)}
        for rank, (image, score) in enumerate(zip(now.image_ids, now.scores, strict=True), start=1):
            then = ranks.get(image, len(other.image_ids) + 1)
            high, low = sorted((rank, then))
            if (key, image) in taken or high > NEAR or low < LEAP * high:
                continue
            beyond = "" if image in ranks else "below "
            why = f"Rank {rank} by {now.version}, {beyond}{then - bool(beyond)} by {other.version}"
            found.append(Suggestion(now.caption, image, "disagreement", why, 1 - high / low, rank, score))
    return found


def _uncertain(
    current: Sequence[Ranking], marks: Sequence[Judged], taken: Collection[tuple[str, str]]
) -> list[Suggestion]:
    said: dict[tuple[str, str], int] = {}
    for mark in marks:
        if mark.verdict != "wrong_person":
            pair = (caption_key(mark.caption), mark.image_id)
            said[pair] = said.get(pair, 0) + (1 if mark.verdict == "hit" else -1)
    seen: list[tuple[float, bool]] = []
    for ranking in current:
        key = caption_key(ranking.caption)
        for image, score in zip(ranking.image_ids, ranking.scores, strict=True):
            vote = said.get((key, image), 0)
            if vote:
                seen.append((score - ranking.scores[0], vote > 0))
    chance = Chance.fitted(sorted(seen))  # sorted: the same sum whatever the order of the rankings
    found = []
    for ranking in current:
        key = caption_key(ranking.caption)
        for rank, (image, score) in enumerate(zip(ranking.image_ids, ranking.scores, strict=True), start=1):
            if (key, image) not in taken:
                p = chance.of(score - ranking.scores[0])
                why = _why_uncertain(p, rank, len(seen))
                found.append(Suggestion(ranking.caption, image, "uncertain", why, 4 * p * (1 - p), rank, score))
    return found


def _why_uncertain(chance: float, rank: int, marks: int) -> str:
    """The reason in plain words; a share only where marks enough were made to estimate it from."""
    if marks < LEAST_MARKS:
        return f"Rank {rank} may be a hit or a miss: few marks say so far which scores are hits"
    return f"Of {marks} marked results, about {round(10 * chance)} in 10 with a score like this are hits"


@dataclass(frozen=True, slots=True)
class Chance:
    """Chance of a hit by how far a score lies below its caption's best: a logistic curve."""

    at_top: float
    slope: float

    def of(self, gap: float) -> float:
        return float(1 / (1 + np.exp(-np.clip(self.at_top + self.slope * gap, -30, 30))))

    @classmethod
    def fitted(cls, seen: Sequence[tuple[float, bool]]) -> Chance:
        """By the most likely curve, held to even odds at the top and a tenth 0.2 below: what few marks hardly move.

        A hit is never less likely for a better score: where the marks say so, all scores get the same chance.
        """
        prior, tight = np.array([0.0, np.log(9) / 0.2]), np.array([0.5, 0.002])
        x = np.array([[1.0, gap] for gap, _ in seen]).reshape(len(seen), 2)
        y = np.array([hit for _, hit in seen], float)
        at_top, slope = _most_likely(x, y, prior, tight)
        if slope < 0:
            at_top, slope = *_most_likely(x[:, :1], y, prior[:1], tight[:1]), 0.0
        return cls(float(at_top), float(slope))


def _most_likely(
    x: NDArray[np.float64], y: NDArray[np.float64], prior: NDArray[np.float64], tight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights (W,) of the logistic curve for x (N, W) and y (N,) in 0, 1; how `tight` (W,) each is held to `prior`.

    Newton's method, each step halved until the loss, which is convex, falls: whole steps may leap to and fro for ever.
    """

    def loss(weights: NDArray[np.float64]) -> float:
        logits = x @ weights
        return float((np.logaddexp(0, logits) - y * logits).sum() + (tight * (weights - prior) ** 2).sum() / 2)

    weights = prior.copy()
    while True:
        p = np.exp(-np.logaddexp(0, -(x @ weights)))
        gradient = x.T @ (p - y) + tight * (weights - prior)
        step = np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + np.diag(tight), gradient)
        while np.abs(step).max() > 1e-9 and loss(weights - step) > loss(weights) - 1e-4 * float(gradient @ step):
            step = step / 2
        if np.abs(step).max() <= 1e-9:
            return weights
        weights = weights - step


def _count(number: int, verdict: str) -> str:
    many = {"hit": "hits", "miss": "misses"}[verdict]
    return f"{number} {verdict if number == 1 else many}"
