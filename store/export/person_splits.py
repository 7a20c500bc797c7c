"""Who is who in an export: people joined through hits, and the split each of them belongs to. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Literal, get_args

from store.records import Mark, caption_key

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
JOIN_OVERLAP = 0.5
"""Captions mean the same person when they share this part of the smaller one's hits."""


class _Union:
    """Sets that grow together; the root of a set is its smallest member."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def root(self, item: Hashable) -> Hashable:
        path = []
        while (parent := self._parent.setdefault(item, item)) != item:
            path.append(item)
            item = parent
        for passed in path:
            self._parent[passed] = item
        return item

    def join(self, one: Hashable, other: Hashable) -> None:
        low, high = sorted((self.root(one), self.root(other)))  # type: ignore[type-var]
        self._parent[high] = low


def key_of(mark: Mark) -> str:
    """Return what marks on the same query share: the caption's key, and the query's id if a picture is part of it."""
    return f"{mark.query_id} {caption_key(mark.caption)}" if mark.image_query else caption_key(mark.caption)


def split_by_person(marks: Sequence[Mark], pids: Mapping[str, str | None]) -> dict[str, Split]:
    """Return the split of every caption key: about 80 : 10 : 10, the same for the same people, whatever else is marked.

    Captions and pictures tied by any hit, or by a known identity, stay together, so that nobody is a hit in two
    splits. Where hits tie three sets of people or more, no split is without hits.
    """
    union = _Union()
    hits: set[str] = set()
    for mark in marks:
        key = key_of(mark)
        union.root(("caption", key))
        pid = pids.get(mark.image_id)
        if pid is not None:
            union.join(("image", mark.image_id), ("pid", pid))
        if mark.verdict == "hit":
            hits.add(key)
            union.join(("caption", key), ("image", mark.image_id))
    roots = {key: union.root(("caption", key)) for key in {key_of(mark) for mark in marks}}
    places = {root: _place(root) for root in set(roots.values())}
    splits: dict[Hashable, Split] = {root: _split(place) for root, place in places.items()}
    with_hits = sorted({roots[key] for key in hits}, key=lambda root: places[root])
    for wanted in SPLITS:
        held = Counter(splits[root] for root in with_hits)
        if with_hits and not held[wanted] and max(held.values()) > 1:
            giver = max(SPLITS, key=lambda split: held[split])
            splits[next(root for root in with_hits if splits[root] == giver)] = wanted
    return {key: splits[root] for key, root in roots.items()}


def positives(marks: Sequence[Mark]) -> dict[str, dict[str, str]]:
    """Return, for each picture, the captions that more users called a hit than a miss: {image id: {caption key:
    caption}}.

    Only marks whose caption is the whole query count: no example picture and no "without ..." beside it.
    """
    votes: Counter[tuple[str, str]] = Counter()
    texts: dict[str, str] = {}
    for mark in marks:
        if mark.image_query or mark.negative:
            continue
        key = caption_key(mark.caption)
        texts[key] = min(texts.get(key, mark.caption), mark.caption)
        votes[mark.image_id, key] += {"hit": 1, "miss": -1}.get(mark.verdict, 0)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for (image_id, key), vote in sorted(votes.items()):
        if vote > 0:
            found[image_id][key] = texts[key]
    return dict(found)


def persons(found: Mapping[str, Mapping[str, str]], pids: Mapping[str, str | None]) -> dict[str, str]:
    """Return a name for the person in each picture of `positives`: the known identity, else that of the joined
    captions.
    """
    count: Counter[str] = Counter(key for keys in found.values() for key in keys)
    shared: Counter[tuple[str, str]] = Counter()
    for keys in found.values():
        shared.update(combinations(sorted(keys), 2))
    union = _Union()
    for (one, other), number in shared.items():
        if number >= JOIN_OVERLAP * min(count[one], count[other]):
            union.join(one, other)
    known: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for image_id, keys in found.items():
        pid = pids.get(image_id)
        if pid is not None:
            for key in keys:
                known[union.root(key)][pid] += 1
    names = {}
    for image_id, keys in found.items():
        votes = Counter(str(union.root(key)) for key in keys)
        group = min(votes, key=lambda name: (-votes[name], name))
        pid = pids.get(image_id)
        if pid is None and known[group]:
            pid = min(known[group], key=lambda name: (-known[group][name], name))
        names[image_id] = f"caption {group}" if pid is None else f"pid {pid}"
    return names


def _place(root: Hashable) -> float:
    """Return a number in [0, 1) that looks random and depends on nothing else."""
    return int.from_bytes(hashlib.sha256(repr(root).encode()).digest()[:8], "big") / 2**64


def _split(place: float) -> Split:
    return "test" if place < 0.1 else "validation" if place < 0.2 else "train"
