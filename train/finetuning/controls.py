"""Control for learning from marks: the same marks with verdicts shuffled within each caption. Pure."""

from __future__ import annotations

import numpy as np

from train.finetuning.pairs import Pairs, relate


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
