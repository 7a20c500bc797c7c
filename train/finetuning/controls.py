"""What a round holds against its own marks: the same marks shuffled, and people held out. Pure: no I/O, no model.

What shuffled marks reach too does not come from the marks. And a part of the people that a fold trains on is held out
of its steps: their marks are ranked by the model after some shares of the steps, and the fold keeps the weights of the
best. The marks that judge the fold have no part in it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from train.finetuning.pairs import Pairs, relate

LENGTHS = (0.5, 0.75, 1.0)
"""Shares of the steps after which held-out marks are ranked. The last is all of them."""
HELD_OUT, LEAST = 5, 8
"""One of so many people with a hit is held out, where that gives at least so many captions: fewer would choose by
chance, and then all steps are taken."""


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
    hit = (pairs.judged > 0).any(axis=1)
    people = np.unique(pairs.groups[hit & pairs.fresh])
    chosen = np.random.default_rng(seed).permutation(people)[: len(people) // HELD_OUT]
    held = np.isin(pairs.groups, chosen)
    if int((held & hit).sum()) < LEAST:
        return pairs, None
    theirs = np.asarray((pairs.judged[held] > 0).any(axis=0))
    training = pairs.subset(~held, without_images=theirs)
    return (training, pairs.subset(held)) if training.hits else (pairs, None)


def best_length(found: NDArray[np.float64]) -> int:
    """The longest length that is not clearly worse than the best one, as its place in `LENGTHS`.

    `found` (L, C): how well each of the held-out captions is ranked after each length, NaN where nothing is compared.
    Clearly is by more than one standard error of the difference, caption by caption.
    """
    means = np.nanmean(found, axis=1)
    top = int(means.argmax())
    for place in range(len(found) - 1, top, -1):
        apart = found[top] - found[place]
        apart = apart[~np.isnan(apart)]
        error = apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else 0.0
        if apart.mean() <= error:
            return place
    return top
