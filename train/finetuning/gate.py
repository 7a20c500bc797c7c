"""The gate: may a candidate replace the served version? Pure functions of numbers.

Judged by held-out marks (two-fold cross-fit, split by caption and by person) and by a fixed base set. Feedback can
make a model worse (SeeSaw, arXiv 2208.06497), so doubt keeps the served version.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Decision = Literal["promoted", "rejected", "undecided", "suspicious"]


@dataclass(frozen=True, slots=True)
class GateConfig:
    """`captions`: how many need both a hit and a miss.

    As fractions: how far the precision of hits in the gallery (`precision_fall`) and R@1 on the base set, from
    `base_least` or more (`base_fall`), may fall. `level` of the two-sided intervals: a candidate that is no better
    passes one of them by chance in (1 - level) / 2 of cases. `resamples` of the bootstrap.
    """

    captions: int = 10
    precision_fall: float = 0.06
    base_fall: float = 0.01
    base_least: float = 0.2
    level: float = 0.9
    resamples: int = 4000
    seed: int = 0

    def __post_init__(self) -> None:
        falls = all(0 <= fall < 1 for fall in (self.precision_fall, self.base_fall)) and 0 <= self.base_least <= 1
        if self.captions < 2 or self.resamples < 100 or not 0.5 < self.level < 1 or not falls:
            raise ValueError(f"GateConfig is out of range: {self}")


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` clusters with its bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int

    def numbers(self) -> dict[str, float | int | None]:
        """As JSON can hold it: None for what is not finite."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate decides, the reason in words, and the numbers behind it (stored with the version)."""

    decision: Decision
    reason: str
    numbers: dict[str, Any]


def hits_over_misses(
    judged: NDArray[np.int8], scores: NDArray[np.floating], shown_by: NDArray[np.integer] | None = None
) -> NDArray[np.float64]:
    """Per caption, the share of its (hit, miss) pairs in which the hit scores higher (ties count half): AUC (C,).

    `judged` (C, N) is +1, -1 or 0, `scores` (C, N). Where `shown_by` (C, N) says which version each score is of, only
    scores of one version are compared. NaN where a caption has no pair to compare.
    """
    out = np.full(len(judged), np.nan)
    for row, (verdicts, values) in enumerate(zip(judged, scores, strict=True)):
        hits, misses = verdicts > 0, verdicts < 0
        difference = values[hits][:, None] - values[misses][None, :]
        if shown_by is not None:
            difference = difference[shown_by[row, hits][:, None] == shown_by[row, misses][None, :]]
        if difference.size:
            out[row] = float((difference > 0).mean() + 0.5 * (difference == 0).mean())
    return out


def hit_precision(
    judged: NDArray[np.int8], scores: NDArray[np.floating], rest: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Per caption, the average precision of its hits among its misses and the rest (C,); NaN without a hit.

    `rest` (C, N) says which unjudged pictures stand in for the gallery as non-matches.
    """
    out = np.full(len(judged), np.nan)
    for row in range(len(judged)):
        hits = np.sort(scores[row][judged[row] > 0])[::-1]
        others = np.sort(scores[row][(judged[row] < 0) | (rest[row] & (judged[row] == 0))])
        if len(hits):
            above = len(others) - np.searchsorted(others, hits, side="left")  # a tie counts against the hit
            place = np.arange(1, len(hits) + 1)
            out[row] = float((place / (place + above)).mean())
    return out


def interval(values: NDArray[np.float64], clusters: NDArray[np.int64], config: GateConfig) -> Interval:
    """Mean of `values` (C,) with a bootstrap interval that resamples whole `clusters` (C,), i.e. people.

    NaN values are left out. With fewer than two clusters the interval is everything: (-inf, inf). Plain percentiles
    are too narrow for few clusters (ten of pure noise pass for better in 6 % of cases, not 2.5 %), so they are moved
    outwards as Student's t asks (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 5.3).
    """
    kept = ~np.isnan(values)
    values, clusters = values[kept], clusters[kept]
    _, index = np.unique(clusters, return_inverse=True)
    number = int(index.max()) + 1 if len(index) else 0
    mean = float(values.mean()) if len(values) else float("nan")
    if number < 2:
        return Interval(mean, float("-inf"), float("inf"), number)
    total, count = np.bincount(index, weights=values), np.bincount(index).astype(float)
    draws = np.random.default_rng(config.seed).integers(0, number, (config.resamples, number))
    means = total[draws].sum(axis=1) / count[draws].sum(axis=1)
    tail = _expanded((1 - config.level) / 2, number)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), number)


def _expanded(tail: float, number: int) -> float:
    """The tail to cut off so that a percentile interval over `number` clusters is as wide as Student's t would be."""
    freedom = number - 1
    z = NormalDist().inv_cdf(1 - tail)
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)  # Abramowitz-Stegun 26.7.5
    return NormalDist().cdf(-t * (number / freedom) ** 0.5)


def judges(order: NDArray[np.float64], groups: NDArray[np.int64], fresh: NDArray[np.bool_]) -> tuple[int, int]:
    """How many captions can judge a candidate, and of how many people; arguments as of `check_marks`."""
    usable = ~np.isnan(order) & fresh
    return int(usable.sum()), len(np.unique(groups[usable]))


def check_marks(
    order: NDArray[np.float64], groups: NDArray[np.int64], fresh: NDArray[np.bool_], config: GateConfig
) -> Verdict | None:
    """Before training: enough marks, and not against all sense? None means go on.

    `order` (C,) is `hits_over_misses` under the versions that showed the pictures, `groups` (C,) the people, `fresh`
    (C,) those that the served version has not learnt from: only they can show whether the next one is better. If the
    interval of hits over misses lies below chance, over all captions or over the fresh ones, the marks are inverted
    or hostile, and an administrator has to look.
    """
    known = ~np.isnan(order)
    usable, people = judges(order, groups, fresh)
    numbers: dict[str, Any] = {"captions": usable, "people": people, "needed": config.captions}
    for part in (fresh, np.ones_like(fresh)):
        if len(np.unique(groups[known & part])) < config.captions:
            continue
        found = interval(order[part], groups[part], config)
        numbers["hits_over_misses"] = asdict(found)
        if found.high < 0.5:
            return Verdict(
                "suspicious",
                f"hits rank below misses under the version that showed them: a hit beats a miss in {found.mean:.0%} "
                f"of pairs ({config.level:.0%} interval {found.low:.0%} to {found.high:.0%}; chance is 50 %). The "
                "marks look inverted or hostile, so nothing was trained: an administrator should look at them.",
                numbers,
            )
    if min(usable, people) < config.captions:
        more = config.captions - min(usable, people)
        learnt = int((known & ~fresh).sum())
        but = f" (the serving version has learnt from {learnt} others, which cannot judge its successor)"
        return Verdict(
            "undecided",
            f"too little to judge by: {usable} {'new ' if learnt else ''}{'caption' if usable == 1 else 'captions'} of "
            f"{people} {'person has' if people == 1 else 'people have'} both a hit and a miss, {config.captions} are "
            f"needed{but if learnt else ''}. Mark hits and misses for {more} more, "
            "each of another person.",
            numbers,
        )
    return None


@dataclass(frozen=True, slots=True)
class OnBase:
    """R@1 on the base set of the version that its line must not fall behind, of the served one and the candidate."""

    origin: float
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the gate judges by. Held-out values (C,) pooled over both folds, before and after, aligned; NaN where a
    caption says nothing: `order` is `hits_over_misses`, `precision` is `hit_precision`. `order_control` is that of the
    control, which learnt the same marks shuffled, on the captions that it can be judged by. `base` is None without a
    base set."""

    order_before: NDArray[np.float64]
    order_after: NDArray[np.float64]
    precision_before: NDArray[np.float64]
    precision_after: NDArray[np.float64]
    groups: NDArray[np.int64]
    order_control: NDArray[np.float64]
    base: OnBase | None = None


def judge(evidence: Evidence, config: GateConfig) -> Verdict:
    """Promote only what the marks made better: held-out hits rank above held-out misses better beyond doubt than under
    the served version and better than under the control, do not sink far among the rest of the gallery, and the base
    set does not fall.

    The marked results were chosen by the served version, which pulls the first two measures apart. Among marks alone
    any change looks a little better than it is: every miss is a mistake of the served version, none is the candidate's.
    The control, trained for as many steps on the same marks shuffled, looks better for the same reason, so the
    difference from it comes from what people said. Among the rest any change looks worse: a hit that the served version
    ranked low was never marked, and a picture marked as a hit by mistake ought to sink (tests/benchmarks/gate.py).
    """
    change = interval(evidence.order_after - evidence.order_before, evidence.groups, config)
    precision = interval(evidence.precision_after - evidence.precision_before, evidence.groups, config)
    by_marks = interval(evidence.order_after - evidence.order_control, evidence.groups, config)
    base = evidence.base
    before, order = float(np.nanmean(evidence.precision_before)), float(np.nanmean(evidence.order_before))
    numbers: dict[str, Any] = {
        "order_before": order,
        "order_after": order + change.mean,
        "order_change": asdict(change),
        "order_over_control": by_marks.numbers(),
        "held_out_before": before,
        "held_out_after": before + precision.mean,
        "held_out_change": asdict(precision),
    } | {f"base_{when}": None if base is None else getattr(base, when) for when in ("origin", "before", "after")}
    found = (
        f"on held-out marks of {change.n} people a hit beats a miss in {order + change.mean:.1%} of pairs instead of "
        f"{order:.1%} (change {config.level:.0%} interval {change.low:+.1%} to {change.high:+.1%}), and the precision "
        f"of hits in the gallery went from {before:.1%} to {before + precision.mean:.1%}"
    )
    control = f"shuffled marks reach {by_marks.mean:.1%} less on {by_marks.n} of these people"
    if change.low <= 0:
        return Verdict("rejected", f"not better beyond doubt: {found}.", numbers)
    if by_marks.n < 2:
        reason = f"not shown to be because of the marks: {by_marks.n} of these people can judge the control, two must"
        return Verdict("rejected", f"{reason}. ({found}.)", numbers)
    if not by_marks.low > 0:
        reason = f"not because of the marks: the same marks shuffled reach as much ({by_marks.low:+.1%} to "
        return Verdict("rejected", f"{reason}{by_marks.high:+.1%} on {by_marks.n} people). ({found}.)", numbers)
    if precision.mean < -config.precision_fall - 1e-9:
        most = f"at most {config.precision_fall:.1%} may be lost"
        return Verdict("rejected", f"its hits sink in the gallery: {found}; {most}.", numbers)
    if base is None:
        reason = f"{found}; {control}; but there is no base set: an administrator may promote it."
        return Verdict("undecided", reason, numbers)
    best = max(base.origin, base.before)
    if best < config.base_least:
        return Verdict(
            "undecided",
            f"{found}, but the base set cannot show what is forgotten: R@1 on it was {best:.1%} before, and "
            f"{config.base_least:.0%} at least is expected of what the model knows. An administrator may promote it.",
            numbers,
        )
    began = f"where the line of versions began: {base.origin:.1%}"
    kept = f"R@1 on the base set went from {base.before:.1%} to {base.after:.1%} ({began})"
    if best - base.after > config.base_fall + 1e-9:
        reason = f"it forgets: {kept}; at most {config.base_fall:.1%} may be lost. ({found}.)"
        return Verdict("rejected", reason, numbers)
    return Verdict("promoted", f"better because of the marks: {found}; {control}; {kept}.", numbers)
