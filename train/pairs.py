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

from store.marks import caption_key

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
class Pairs:
    """Captions (C) and pictures (N) with what is known of each pair.

    `relation` int8 (C, N): POSITIVE (a hit, or another picture that was hit for the same person), NEGATIVE (an
    explicit miss), SAFE (nobody judged it, but the picture was hit for another person only) or UNKNOWN.
    `judged` int8 (C, N): +1 hit, -1 miss, 0 neither, before identities are joined. `withheld` bool (C, N): somebody
    judged it, yet it is neither hit nor miss (a conflict, or the wrong person who fits the words): always UNKNOWN.
    `scores` float32 (C, N) at marking time, NaN where nobody said hit or miss, and `shown_by` int16 (C, N) the number
    of the version they are of, -1 there. `groups` (C,): captions with the same number mean the same person. `fresh`
    bool (C,): the served version has learnt from no caption of that person. `conflicts` lists (caption, image_id)
    that users judged both ways equally often: unknown until reviewed.
    """

    captions: tuple[str, ...]
    image_ids: tuple[str, ...]
    relation: NDArray[np.int8]
    judged: NDArray[np.int8]
    withheld: NDArray[np.bool_]
    scores: NDArray[np.float32]
    shown_by: NDArray[np.int16]
    groups: NDArray[np.int64]
    fresh: NDArray[np.bool_]
    conflicts: tuple[tuple[str, str], ...]

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
            self.scores[captions][:, keep],
            self.shown_by[captions][:, keep],
            groups,
            self.fresh[captions],
            self.conflicts,
        )


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
    votes: dict[tuple[str, str], int] = defaultdict(int)
    fitting: set[tuple[str, str]] = set()
    scores: dict[tuple[str, str], tuple[float, str]] = {}
    texts: dict[str, str] = {}
    for mark in sorted(marks, key=lambda m: (m.caption, m.image_id, m.verdict, m.version, m.score)):
        key = caption_key(mark.caption)
        texts.setdefault(key, mark.caption)
        pair = (key, mark.image_id)
        if mark.verdict == "wrong_person":
            fitting.add(pair)
            continue
        votes[pair] += 1 if mark.verdict == "hit" else -1
        scores[pair] = mark.score, mark.version
    keys = sorted({key for key, _ in votes})
    versions = sorted({version for _, version in scores.values()})
    row = {key: number for number, key in enumerate(keys)}
    image_ids = sorted({image for key, image in {*votes, *fitting} if key in row})
    column = {image: number for number, image in enumerate(image_ids)}
    judged = np.zeros((len(keys), len(image_ids)), np.int8)
    at_marking = np.full(judged.shape, np.nan, np.float32)
    shown_by = np.full(judged.shape, -1, np.int16)
    withheld = np.zeros(judged.shape, bool)
    for (key, image), vote in votes.items():
        judged[row[key], column[image]] = np.sign(vote) if (key, image) not in fitting else max(0, np.sign(vote))
        at_marking[row[key], column[image]], version = scores[key, image]
        shown_by[row[key], column[image]] = versions.index(version)
    for key, image in {*votes, *fitting}:
        if key in row:
            withheld[row[key], column[image]] = judged[row[key], column[image]] == 0
    groups = join(judged)
    conflicts = tuple((texts[key], image) for (key, image), vote in sorted(votes.items()) if vote == 0)
    captions = tuple(texts[key] for key in keys)
    relation = relate(judged, groups, withheld)
    fresh = ~np.isin(groups, groups[[key in learnt for key in keys]])
    return Pairs(captions, tuple(image_ids), relation, judged, withheld, at_marking, shown_by, groups, fresh, conflicts)


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


def relate(judged: NDArray[np.int8], groups: NDArray[np.int64], withheld: NDArray[np.bool_]) -> NDArray[np.int8]:
    """The relation matrix (C, N) of `Pairs` from verdicts (C, N), groups (C,) and pairs withheld (C, N)."""
    number = int(groups.max()) + 1 if len(groups) else 0
    member = np.zeros((number, len(groups)), np.int32)
    member[groups, np.arange(len(groups))] = 1
    hit_of_group = np.asarray(member @ (judged > 0).astype(np.int32) > 0)  # (groups, N)
    own = hit_of_group[groups] if number else np.zeros(judged.shape, bool)
    elsewhere = np.any(hit_of_group, axis=0, keepdims=True) & ~own
    relation = np.zeros(judged.shape, np.int8)
    relation[own & (judged >= 0)] = POSITIVE
    relation[elsewhere & (judged == 0)] = SAFE
    relation[(judged < 0) & ~own] = NEGATIVE  # missed here, hit by the same person's other caption: unknown
    relation[withheld] = UNKNOWN
    return relation


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
