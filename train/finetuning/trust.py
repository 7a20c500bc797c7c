"""Do the marks agree with the ranking they were made on? Pure.

A user who marks truthfully calls results near the top hits more often than results below, in one search and over all
searches. Somebody who turns verdicts around does the opposite. Each user is checked alone, so one hostile user does not
spoil what others say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from train.finetuning.gate import Verdict
from train.finetuning.pairs import Judged

LEAST_MARKS = 30
"""A user with fewer hits and misses is not checked: it could be chance."""

RESAMPLES, LEVEL = 1000, 0.95


def agreement(marks: Sequence[Judged]) -> float:
    """How often a hit was shown with a higher score than a miss of the same version, over all such pairs of marks.

    Ties count half; chance is 0.5. NaN without a pair. Simulated truthful users of 300 marks are between 0.58 and 0.82,
    inverted ones between 0.18 and 0.42.
    """
    return _agreement(*_columns(marks))


def check_agreement(marks: Sequence[Judged]) -> Verdict | None:
    """Why nothing is to be learnt from these marks: they contradict the ranking they were made on, or agree with it no
    more than chance. None when they agree, or are too few to say."""
    scores, hits, versions = _columns(marks)
    if len(scores) < LEAST_MARKS:
        return None
    found = _agreement(scores, hits, versions)
    if not found <= 0.5:
        return None
    captions = np.unique([mark.caption for mark in marks if mark.verdict in ("hit", "miss")], return_inverse=True)[1]
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(0, captions.max() + 1, captions.max() + 1), minlength=captions.max() + 1)
        draws.append(_agreement(scores, hits, versions, times[captions]))
    high = float(np.nanquantile(draws, 1 - (1 - LEVEL) / 2))
    numbers = {"agreement": found, "agreement_high": high, "marks": len(scores)}
    against = f"a hit was shown above a miss in {found:.0%} of pairs, up to {high:.0%} allowing for chance"
    if high < 0.5:
        reason = f"the marks look inverted or hostile: {against}. Nothing was trained; an administrator should look."
        return Verdict("suspicious", reason, numbers)
    reason = f"the marks agree with the results they were made on no more than chance: {against}. Nothing was trained."
    return Verdict("undecided", reason, numbers)


def trusted(marks: Sequence[Judged]) -> tuple[list[Judged], str]:
    """The marks of users who pass `check_agreement`, and a sentence about those left out, empty for none."""
    users: dict[str, list[Judged]] = defaultdict(list)
    for mark in marks:
        users[getattr(mark, "user", "")].append(mark)
    refused = {user for user, theirs in users.items() if check_agreement(theirs) is not None}
    kept = [mark for mark in marks if getattr(mark, "user", "") not in refused]
    if not refused:
        return kept, ""
    left = len(marks) - len(kept)
    who = "one user" if len(refused) == 1 else f"{len(refused)} users"
    return kept, f"Left out: {left} marks of {who}, which contradict the results they were made on."


def _columns(marks: Sequence[Judged]) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Scores, whether each is a hit, and the number of the version that showed it, of hits and misses."""
    judged = [mark for mark in marks if mark.verdict in ("hit", "miss")]
    versions = {name: number for number, name in enumerate(sorted({mark.version for mark in judged}))}
    return (
        np.array([mark.score for mark in judged], np.float64),
        np.array([mark.verdict == "hit" for mark in judged], bool),
        np.array([versions[mark.version] for mark in judged], np.int64),
    )


def _agreement(
    scores: NDArray[np.float64],
    hits: NDArray[np.bool_],
    versions: NDArray[np.int64],
    times: NDArray[np.int64] | None = None,
) -> float:
    """`agreement` of marks, each counted so many `times`; by sorting, so that many marks take little memory."""
    times = np.ones(len(scores), np.int64) if times is None else times
    won = total = 0.0
    for version in np.unique(versions):
        here = versions == version
        values, place = np.unique(scores[here], return_inverse=True)
        up = np.bincount(place, weights=times[here] * hits[here], minlength=len(values))
        down = np.bincount(place, weights=times[here] * ~hits[here], minlength=len(values))
        below = np.cumsum(down) - down
        won += float((up * (below + 0.5 * down)).sum())
        total += float(up.sum() * down.sum())
    return won / total if total else float("nan")
