"""Marks -> pairs: what is known about which caption and which picture. Pure: no I/O, no model.

A mark is three-valued: hit, miss, or unknown when nobody judged the pair. Unknown is never a negative.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from store.records import caption_key

JOIN_OVERLAP = 0.5
"""Two captions mean the same person when they share this part of the smaller one's hits. One wrong hit then
does not tie two people together for good, as joining on any shared picture would."""

POSITIVE, UNKNOWN, NEGATIVE, SAFE = 1, 0, -1, -2


class Judged(Protocol):
    """What pairs need of a mark (`store.Mark` has it): `score` and `rank` are those that `version` showed."""

    @property
    def caption(self) -> str: ...
    @property
    def image_id(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def version(self) -> str: ...


class Recorded(Judged, Protocol):
    """A judgement that knows what else was asked with its caption."""

    @property
    def image_query(self) -> bool: ...
    @property
    def negative(self) -> str: ...


R = TypeVar("R", bound=Recorded)


@dataclass(frozen=True, slots=True)
class Contested:
    """A picture that users judged both ways for one caption, and how many said what."""

    caption: str
    image_id: str
    hits: int
    misses: int


@dataclass(frozen=True, slots=True)
class Pairs:
    """Captions (C) and pictures (N) with what is known of each pair.

    `relation` int8 (C, N): POSITIVE (a hit, or another picture that was hit for the same person), NEGATIVE (an
    explicit miss), SAFE (nobody judged it, but the picture was hit for another person only, and the caption's own
    person was hit elsewhere) or UNKNOWN.
    `judged` int8 (C, N): +1 hit, -1 miss, 0 neither, before identities are joined. `withheld` bool (C, N): somebody
    judged it, yet it is neither hit nor miss (a conflict, or the wrong person who fits the words): always UNKNOWN.
    `other_person` bool (C, N): somebody says that it fits the words but shows another person.
    `scores` float32 (C, N) at marking time, NaN where nobody said hit or miss, and `shown_by` int16 (C, N) the number
    of the version they are of, -1 there. `groups` (C,): captions with the same number mean the same person. `fresh`
    bool (C,): the served version has learnt from no caption of that person. `ranks` int32 (C, N) at marking time,
    from 1, and 0 where nobody said hit or miss. `agreement` float32 (C, N): how far hit and miss were agreed upon,
    1 of everybody, 1/3 where one of three contradicts, 0 at a tie and where nobody judged: what a mark counts in the
    loss. `contested` lists what was judged both ways, for review.
    """

    captions: tuple[str, ...]
    image_ids: tuple[str, ...]
    relation: NDArray[np.int8]
    judged: NDArray[np.int8]
    withheld: NDArray[np.bool_]
    other_person: NDArray[np.bool_]
    scores: NDArray[np.float32]
    shown_by: NDArray[np.int16]
    groups: NDArray[np.int64]
    fresh: NDArray[np.bool_]
    ranks: NDArray[np.int32]
    agreement: NDArray[np.float32]
    contested: tuple[Contested, ...]

    @property
    def conflicts(self) -> tuple[tuple[str, str], ...]:
        """(caption, image_id) that users judged both ways equally often: unknown until reviewed."""
        return tuple((one.caption, one.image_id) for one in self.contested if one.hits == one.misses)

    @property
    def hits(self) -> int:
        """Number of (caption, picture) pairs judged a hit."""
        return int((self.judged > 0).sum())

    @property
    def misses(self) -> int:
        """Number of (caption, picture) pairs judged a miss."""
        return int((self.judged < 0).sum())

    def subset(self, captions: NDArray[np.bool_], *, without_images: NDArray[np.bool_] | None = None) -> Pairs:
        """Only these captions (C,), and no verdict on pictures in `without_images` (N,)."""
        judged = self.judged[captions].copy()
        if without_images is not None:
            judged[:, without_images] = 0
        groups = self.groups[captions]
        keep = ((judged != 0) | self.withheld[captions]).any(axis=0)
        judged, withheld = judged[:, keep], self.withheld[captions][:, keep]
        return Pairs(
            tuple(c for c, chosen in zip(self.captions, captions, strict=True) if chosen),
            tuple(i for i, chosen in zip(self.image_ids, keep, strict=True) if chosen),
            relate(judged, groups, withheld),
            judged,
            withheld,
            self.other_person[captions][:, keep],
            self.scores[captions][:, keep],
            self.shown_by[captions][:, keep],
            groups,
            self.fresh[captions],
            self.ranks[captions][:, keep],
            self.agreement[captions][:, keep],
            self.contested,
        )


@dataclass(slots=True)
class _Pair:
    """What was said of one (caption, picture), and how it was shown: at the last of its marks in order."""

    hits: int = 0
    misses: int = 0
    fits: bool = False
    rank: int = 0
    score: float = float("nan")
    version: str = ""

    @property
    def votes(self) -> int:
        """How many said hit or miss."""
        return self.hits + self.misses

    @property
    def verdict(self) -> int:
        """+1, -1 or 0; what somebody says fits the words, though the wrong person, is no miss of them."""
        vote = (self.hits > self.misses) - (self.hits < self.misses)
        return max(0, vote) if self.fits else vote


def usable(marks: Iterable[R]) -> list[R]:
    """Marks whose caption is the whole query: with a picture or "without ..." in it the words alone say too little."""
    return [mark for mark in marks if not mark.image_query and not mark.negative]


def build(marks: Iterable[Judged], *, learnt: Collection[str] = ()) -> Pairs:
    """Current verdicts -> pairs. The order of the marks does not matter. `learnt`: keys (`caption_key`) of the captions
    that the served version has learnt from.

    Users who judge the same pair both ways are weighed by majority; a tie is a conflict and unknown.
    `wrong_person` (fits the words, but is not the person) is true for identity and poison for text learning: it
    counts neither as a hit nor as a miss of the caption, and bars the pair from being a negative of any kind.
    """
    said, texts = _collect(marks)
    keys = sorted({key for (key, _), pair in said.items() if pair.votes})
    said = {pair: what for pair, what in said.items() if pair[0] in keys}
    image_ids = sorted({image for _, image in said})
    versions = sorted({pair.version for pair in said.values() if pair.votes})
    row, column = ({name: number for number, name in enumerate(names)} for names in (keys, image_ids))
    judged = np.zeros((len(keys), len(image_ids)), np.int8)
    withheld, other_person = (np.zeros(judged.shape, bool) for _ in range(2))
    scores, agreement = np.full(judged.shape, np.nan, np.float32), np.zeros(judged.shape, np.float32)
    shown_by, ranks = np.full(judged.shape, -1, np.int16), np.zeros(judged.shape, np.int32)
    for (key, image), pair in said.items():
        at = row[key], column[image]
        judged[at], withheld[at], other_person[at] = pair.verdict, pair.verdict == 0, pair.fits and pair.verdict == 0
        if pair.votes:
            scores[at], ranks[at], shown_by[at] = pair.score, pair.rank, versions.index(pair.version)
            agreement[at] = abs(pair.hits - pair.misses) / pair.votes
    groups = join(judged)
    contested = tuple(
        Contested(texts[key], image, pair.hits, pair.misses)
        for (key, image), pair in sorted(said.items(), key=lambda item: item[0])
        if pair.hits and pair.misses
    )
    return Pairs(
        tuple(texts[key] for key in keys),
        tuple(image_ids),
        relate(judged, groups, withheld),
        judged,
        withheld,
        other_person,
        scores,
        shown_by,
        groups,
        ~np.isin(groups, groups[[key in learnt for key in keys]]),
        ranks,
        agreement,
        contested,
    )


def _collect(marks: Iterable[Judged]) -> tuple[dict[tuple[str, str], _Pair], dict[str, str]]:
    """Return what was said by (caption key, picture), and a caption of each key."""
    said: dict[tuple[str, str], _Pair] = defaultdict(_Pair)
    texts: dict[str, str] = {}
    for mark in sorted(marks, key=lambda m: (m.caption, m.image_id, m.verdict, m.version, m.score, m.rank)):
        key = caption_key(mark.caption)
        texts.setdefault(key, mark.caption)
        pair = said[key, mark.image_id]
        if mark.verdict == "wrong_person":
            pair.fits = True
            continue
        pair.hits += mark.verdict == "hit"
        pair.misses += mark.verdict == "miss"
        pair.rank, pair.score, pair.version = mark.rank, mark.score, mark.version
    return said, texts


def join(judged: NDArray[np.int8]) -> NDArray[np.int64]:
    """Group captions (C,) by person: those that share at least `JOIN_OVERLAP` of the smaller one's hits."""
    hits = (judged > 0).astype(np.int32)
    count = hits.sum(axis=1)
    shared = hits @ hits.T
    smaller = np.minimum(count[:, None], count[None, :])
    same = (shared > 0) & (shared >= JOIN_OVERLAP * smaller)
    groups = np.arange(len(judged))
    for a, b in np.argwhere(np.triu(same, 1)):
        if groups[a] != groups[b]:
            groups[groups == groups[b]] = groups[a]
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _hit_for_person(judged: NDArray[np.int8], groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a picture was hit for any caption of a caption's person, (C, N)."""
    number = int(groups.max()) + 1 if len(groups) else 0
    member = np.zeros((number, len(groups)), np.int32)
    member[groups, np.arange(len(groups))] = 1
    return np.asarray((member @ (judged > 0).astype(np.int32) > 0)[groups])


def relate(judged: NDArray[np.int8], groups: NDArray[np.int64], withheld: NDArray[np.bool_]) -> NDArray[np.int8]:
    """The relation matrix (C, N) of `Pairs` from verdicts (C, N), groups (C,) and pairs withheld (C, N)."""
    own = _hit_for_person(judged, groups)
    # A caption without any hit may mean a person who was hit in other words: nothing is safe of it.
    elsewhere = np.any(own, axis=0, keepdims=True) & ~own & own.any(axis=1, keepdims=True)
    relation = np.zeros(judged.shape, np.int8)
    relation[own & (judged >= 0)] = POSITIVE
    relation[elsewhere & (judged == 0)] = SAFE
    relation[(judged < 0) & ~own] = NEGATIVE  # missed here, hit by the same person's other caption: unknown
    relation[withheld] = UNKNOWN
    return relation


def image_relation(pairs: Pairs) -> NDArray[np.int8]:
    """What the marks say of two pictures, int8 (N, N): POSITIVE (one person), NEGATIVE (two people) or UNKNOWN.

    Hits of a person's captions show that person. A miss, and a picture marked as the wrong person, shows somebody else
    than the hits of its caption. A picture that is hit for two people says nothing. The diagonal is UNKNOWN.
    """
    if not len(pairs.groups):
        return np.zeros((len(pairs.image_ids), len(pairs.image_ids)), np.int8)
    member = np.zeros((int(pairs.groups.max()) + 1, len(pairs.groups)), np.int32)
    member[pairs.groups, np.arange(len(pairs.groups))] = 1
    hit, missed = (member @ flags > 0 for flags in (pairs.judged > 0, (pairs.judged < 0) | pairs.other_person))
    known = hit.sum(axis=0) == 1
    person = np.where(known, hit.argmax(axis=0), -1)
    both = known[:, None] & known[None, :]
    relation = np.where(both, np.where(person[:, None] == person[None, :], POSITIVE, NEGATIVE), UNKNOWN).astype(np.int8)
    apart = (hit & known).T.astype(np.int32) @ (missed & ~hit).astype(np.int32) > 0
    relation[(apart | apart.T) & (relation != POSITIVE)] = NEGATIVE
    np.fill_diagonal(relation, UNKNOWN)
    return relation


@dataclass(frozen=True, slots=True)
class Hardness:
    """How wrong the ranking was about each hit and miss, (C, N), NaN where a pair is neither.

    `rank` from 1: a hit is the harder the lower it stands, a miss the higher. `margin`: how far the pair lies on the
    wrong side of its caption's other verdict, a hit below the best miss or a miss above the worst hit; above 0 is out
    of order, NaN where there is nothing to compare with.
    """

    rank: NDArray[np.float32]
    margin: NDArray[np.float32]


def hardness(
    pairs: Pairs, scores: NDArray[np.floating] | None = None, *, others: NDArray[np.floating] | None = None
) -> Hardness:
    """Hardness at marking time, or under the model that gave `scores` (C, N) of the pairs' pictures.

    `others` (C, G): that model's scores of the rest of the gallery, which count for the rank. At marking time only
    scores of one version are compared.
    """
    rank = np.full(pairs.judged.shape, np.nan, np.float32)
    margin = rank.copy()
    values = pairs.scores if scores is None else scores
    for row, verdicts in enumerate(pairs.judged):
        here = np.flatnonzero(verdicts)
        if scores is None:
            rank[row, here] = pairs.ranks[row, here]
        else:
            line = values[row] if others is None else np.concatenate([values[row], others[row]])
            rank[row, here] = len(line) + 1 - np.searchsorted(np.sort(line), values[row, here], side="right")
        for at in here:
            against = here[verdicts[here] == -verdicts[at]]
            if scores is None:
                against = against[pairs.shown_by[row, against] == pairs.shown_by[row, at]]
            if len(against):
                margin[row, at] = (-verdicts[at] * (values[row, at] - values[row, against])).max()
    return Hardness(rank, margin)


def split(pairs: Pairs, *, seed: int = 0) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two halves of the fresh captions as masks (C,): no caption, and no person's captions, on both sides.

    Groups are dealt out at random, those with hits first, so that both halves get about as many of them.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(int(pairs.groups.max()) + 1) if len(pairs.groups) else np.empty(0, int)
    order = order[np.isin(order, pairs.groups[pairs.fresh])]
    hits = (pairs.judged > 0).sum(axis=1)
    weight = np.bincount(pairs.groups, weights=hits)
    order = order[np.argsort(weight[order] == 0, kind="stable")]
    return np.isin(pairs.groups, order[::2]), np.isin(pairs.groups, order[1::2])


def halves(pairs: Pairs, *, seed: int = 0) -> Sequence[tuple[Pairs, Pairs]]:
    """Two (train on, judge by) pairs for a cross-fit; captions that are not fresh are trained on in both.

    Verdicts on pictures of the judged half's people are left out of training, so no identity that is looked for is on
    both sides. Pictures of others may be: a miss of a held-out caption is often a miss of a trained one, too.
    """
    folds = []
    for judge in split(pairs, seed=seed)[::-1]:
        train = ~judge
        theirs = np.asarray((pairs.judged[judge] > 0).any(axis=0))
        folds.append((pairs.subset(train, without_images=theirs), pairs.subset(judge)))
    return folds
