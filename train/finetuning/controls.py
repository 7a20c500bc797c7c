"""Controls of a round: the same marks shuffled, and people held out. Pure: no I/O, no model.

What shuffled marks reach too does not come from the marks. And some of the people that a fold trains on are held out of
its steps: the fold keeps the weights after the share of the steps by which their pictures are ranked best. The marks
that judge the fold have no part in it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from train.finetuning.pairs import Pairs, relate

LENGTHS = (0.5, 0.75, 1.0)
"""Shares of the steps after which held-out marks are ranked. The last is all of them."""
HELD_OUT, LEAST = 5, 6
"""One of so many people with both a hit and a miss is held out, where that gives at least so many people: fewer would
choose by chance, and then all steps are taken."""


def shuffled(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    """The same pairs, the verdicts of each caption permuted over its judged pictures.

    Captions, pictures, the number of hits of each caption, and so the number of steps, stay; what the marks say does
    not. A mark's agreement goes with its verdict. Captions that shared a person stay joined.
    """
    judged, agreement = pairs.judged.copy(), pairs.agreement.copy()
    for row in range(len(judged)):
        here = np.flatnonzero(judged[row])
        order = rng.permutation(here)
        judged[row, here], agreement[row, here] = pairs.judged[row, order], pairs.agreement[row, order]
    return Pairs(
        captions=pairs.captions,
        image_ids=pairs.image_ids,
        relation=relate(judged, pairs.groups, pairs.withheld),
        judged=judged,
        withheld=pairs.withheld,
        other_person=pairs.other_person,
        scores=pairs.scores,
        shown_by=pairs.shown_by,
        groups=pairs.groups,
        fresh=pairs.fresh,
        ranks=pairs.ranks,
        agreement=agreement,
        contested=pairs.contested,
    )


def hold_out(pairs: Pairs, *, seed: int = 0) -> tuple[Pairs, Pairs | None]:
    """Split pairs into those to train on and those that say how long; None for too few.

    No caption and no person is in both, and no verdict on pictures of the held-out people is trained on.
    """
    compared = (pairs.judged > 0).any(axis=1) & (pairs.judged < 0).any(axis=1)
    people = np.unique(pairs.groups[compared & pairs.fresh])
    chosen = np.random.default_rng(seed).permutation(people)[: len(people) // HELD_OUT]
    if len(chosen) < LEAST:
        return pairs, None
    held = np.isin(pairs.groups, chosen)
    theirs = np.asarray((pairs.judged[held] > 0).any(axis=0))
    training = pairs.subset(~held, without_images=theirs)
    return (training, pairs.subset(held)) if training.hits else (pairs, None)


def best_length(found: NDArray[np.float64]) -> int:
    """The longest length that is not clearly worse than the best one, as its place in `LENGTHS`.

    `found` (L, P): how well the pictures of each held-out person are ranked after each length, NaN where nothing can be
    compared. Clearly is by more than two standard errors of the difference, and of `LEAST` people or more.
    """
    found = found[:, ~np.isnan(found).any(axis=0)]
    last, people = len(found) - 1, found.shape[1]
    if people < LEAST:
        return last
    top = int(found.mean(axis=1).argmax())
    for place in range(last, top, -1):
        apart = found[top] - found[place]
        if apart.mean() <= 2 * apart.std(ddof=1) / np.sqrt(people):
            return place
    return top
