"""Two versions side by side: how each ranks a description, and how the hits of marked descriptions moved.

Both versions rank the same pictures: the whole gallery where it is small, else the first results of the versions that
have vectors. A version that was never promoted has none: they are computed as they are needed, for a limited time, and
kept in memory only.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.app_errors import RequestError
from app.search.retriever import Retriever
from app.search.side import Side, open_side
from app.search.turns import in_turn
from app.search.views import check_k, clean_text
from app.state import State
from store import Verdict
from store.records import caption_key
from train.finetuning.pairs import usable

WHOLE = 5_000
"""Pictures up to which the whole gallery is compared."""
DEPTH = 200
"""Results of each version that are compared where the gallery is larger."""
SECONDS = 15.0
"""How long one comparison may compute vectors; the next one goes on from there."""
CAPTIONS = 200
"""Marked descriptions that are compared, the newest."""
BIGGEST = 10
_SIDES_KEPT = 4

Change = Literal["up", "down", "same", "new", "gone"]


@dataclass(frozen=True, slots=True)
class Place:
    """A picture in one version's ranking, and what became of it from the first version to the second.

    `other_rank` is its rank under the other version, None where that is below what was compared.
    """

    image_id: str
    rank: int
    score: float
    other_rank: int | None
    change: Change
    pid: str | None
    camera: str | None
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One description under two versions, over `compared` of `total` pictures; `note` says why not over all."""

    version_a: str
    version_b: str
    caption: str
    compared: int
    total: int
    note: str
    a: tuple[Place, ...]
    b: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class HitMove:
    """A hit of a marked description with its rank under both versions."""

    caption: str
    image_id: str
    rank_a: int
    rank_b: int


@dataclass(frozen=True, slots=True)
class HitMoves:
    """How hits moved over `captions` marked descriptions. `first_a`, `first_b`: descriptions whose first result is a
    hit. `up` and `down` hold the biggest moves, at most `BIGGEST` each."""

    version_a: str
    version_b: str
    captions: int
    hits: int
    rose: int
    fell: int
    first_a: int
    first_b: int
    compared: int
    total: int
    note: str
    up: tuple[HitMove, ...]
    down: tuple[HitMove, ...]


@dataclass(frozen=True, slots=True)
class _Pool:
    """What both versions rank: ids, sorted, with their rows (N, E) under each."""

    ids: list[str]
    a: NDArray[np.float32]
    b: NDArray[np.float32]
    total: int
    note: str
    depth: int | None
    """Ranks beyond it are not known; None: all are."""


class Comparing:
    """Compares versions of one backbone. `count` counts what a visitor asks, and refuses what is too much."""

    def __init__(self, state: State, retriever: Retriever, count: Callable[[str], None]) -> None:
        self._state, self._retriever, self._count = state, retriever, count
        self._sides: dict[str, Side] = {}
        self._forgotten = 0
        self._turn = Lock()

    def compare(self, version_a: str, version_b: str, text: str, user: str, k: int = 24) -> Comparison:
        """Rank one description under both versions; `k` results of each, and what changed from `a` to `b`.

        Raises RequestError on an empty description, twice the same version or where others compare for long,
        VersionError on an unknown one and CheckpointError where its weights are damaged.
        """
        check_k(k)
        caption = clean_text(text, "description")
        if not caption:
            raise RequestError("the description is empty: describe a person, to see how both versions rank it")
        self._count(user)
        with in_turn(self._turn, "comparing"):
            sides = self._pair(version_a, version_b)
            rows = [side.encoder.encode_texts([caption])[0] for side in sides]
            pool = self._pool(sides, [(rows[0], rows[1])], marked=())
        orders = [_order(pool.a, rows[0]), _order(pool.b, rows[1])]
        ranks = [_ranks(order) for order in orders]
        verdicts = self._state.marks.for_query(user, caption)
        firsts = [order[:k] for order in orders]
        facts = {
            row.id: row for row in self._state.gallery.rows([pool.ids[i] for i in np.union1d(firsts[0], firsts[1])])
        }

        def places(side: int) -> tuple[Place, ...]:
            matrix, found = (pool.a, pool.b)[side], []
            for place in firsts[side]:
                image_id = pool.ids[place]
                if image_id not in facts:  # forgotten in between
                    continue
                rank, other = int(ranks[side][place]), int(ranks[1 - side][place])
                row = facts[image_id]
                found.append(
                    Place(
                        image_id=image_id,
                        rank=rank,
                        score=float(matrix[place] @ rows[side]),
                        other_rank=None if pool.depth and other > pool.depth else other,
                        change=_change(rank, other, k, first=side == 0),
                        pid=row.pid,
                        camera=row.camera,
                        verdict=verdicts.get(image_id),
                    )
                )
            return tuple(found)

        return Comparison(
            version_a, version_b, caption, len(pool.ids), pool.total, pool.note, places(0), places(1)
        )  # fmt: skip

    def moved_hits(self, version_a: str, version_b: str, user: str, *, everybody: bool) -> HitMoves:
        """How the hits of marked descriptions moved: everybody's, or only this user's. Raises as `compare` does."""
        self._count(user)
        hits = self._hits(None if everybody else user)
        with in_turn(self._turn, "comparing"):
            sides = self._pair(version_a, version_b)
            captions = [caption for caption, _ in hits]
            encoded = [side.encoder.encode_texts(captions) for side in sides]
            queries = list(zip(*encoded, strict=True))
            pool = self._pool(sides, queries, marked={image for _, images in hits for image in images})
        index = {image_id: place for place, image_id in enumerate(pool.ids)}
        moves, firsts, judged = list[HitMove](), [0, 0], 0
        for (caption, images), (row_a, row_b) in zip(hits, queries, strict=True):
            orders = _order(pool.a, row_a), _order(pool.b, row_b)
            ranks = [_ranks(order) for order in orders]
            there = [image for image in images if image in index]
            judged += bool(there)
            for side, order in enumerate(orders):
                firsts[side] += bool(len(order)) and pool.ids[order[0]] in images
            for image in there:
                a, b = (_capped(int(some[index[image]]), pool.depth) for some in ranks)
                moves.append(HitMove(caption, image, a, b))
        up = sorted((move for move in moves if move.rank_b < move.rank_a), key=lambda move: move.rank_b - move.rank_a)
        down = sorted((move for move in moves if move.rank_b > move.rank_a), key=lambda move: move.rank_a - move.rank_b)
        return HitMoves(
            version_a, version_b, judged, len(moves), len(up), len(down), firsts[0], firsts[1], len(pool.ids),
            pool.total, pool.note, tuple(up[:BIGGEST]), tuple(down[:BIGGEST]),
        )  # fmt: skip

    def _hits(self, user: str | None) -> list[tuple[str, set[str]]]:
        """Marked descriptions with their hits, the newest first, at most `CAPTIONS`."""
        captions, found = dict[str, str](), defaultdict[str, set[str]](set)
        for mark in reversed(usable(self._state.marks.current(user=user))):
            key = caption_key(mark.caption)
            captions.setdefault(key, mark.caption)
            if mark.verdict == "hit":
                found[key].add(mark.image_id)
        return [(captions[key], found[key]) for key in captions if found[key]][:CAPTIONS]

    def _pair(self, version_a: str, version_b: str) -> tuple[Side, Side]:
        if version_a == version_b:
            raise RequestError(f"both versions are {version_a}: choose two different ones to compare")
        forgotten = self._state.deletion.count()
        if forgotten != self._forgotten:  # no embedding of a forgotten picture is kept
            self._sides.clear()
            self._forgotten = forgotten
        return self._side(version_a), self._side(version_b)

    def _side(self, version: str) -> Side:
        self._state.versions.get(version)  # it may have been deleted since
        side = self._sides.pop(version, None) or open_side(self._state, self._retriever, version)
        self._sides[version] = side  # the last one used is the last one to go
        while len(self._sides) > _SIDES_KEPT:
            self._sides.pop(next(iter(self._sides)))
        return side

    def _pool(
        self,
        sides: tuple[Side, Side],
        queries: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
        marked: Iterable[str],
    ) -> _Pool:
        visible = set(self._state.gallery.visible(None))
        depth, notes, wanted = None, list[str](), sorted(visible)
        if len(visible) > WHOLE:
            depth = DEPTH
            tables = [side.searching(row) for pair in queries for side, row in zip(sides, pair, strict=True)]
            if queries and not any(
                tables
            ):  # neither has vectors to search: what the version in use finds is ranked by both
                raise RequestError(
                    f"the gallery has {len(visible):,} pictures and neither version has vectors of them, so there is "
                    "nothing to compare quickly: compare one of them with the version in use"
                )
            wanted = sorted({image for found in tables for image in found} | (set(marked) & visible))
            by = " and ".join(side.version for side in sides if side.searchable())
            notes.append(f"Of {len(visible):,} pictures, the first {DEPTH} by {by} are compared.")
        until = time.monotonic() + SECONDS
        for side in sides:
            side.embed(wanted, until)
        ids = [image for image in wanted if all(image in side.rows for side in sides)]
        if len(ids) < len(wanted):
            late = " and ".join(side.version for side in sides if any(image not in side.rows for image in wanted))
            notes.append(
                f"{late} has no vectors yet, and they are computed for at most {SECONDS:g} seconds at a time: "
                f"{len(ids):,} of {len(wanted):,} pictures are compared so far. Compare again to go on."
            )
        a, b = (side.matrix(ids) for side in sides)
        return _Pool(ids, a, b, len(visible), " ".join(notes), depth)


def _order(rows: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.intp]:
    """The places of the pool by score, ties in the order of the pool."""
    return np.argsort(-(rows @ query), kind="stable")


def _ranks(order: NDArray[np.intp]) -> NDArray[np.intp]:
    """The rank, from 1, of every place of the pool."""
    ranks = np.empty_like(order)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks


def _capped(rank: int, depth: int | None) -> int:
    """The rank, or one beyond `depth` where it is not known exactly."""
    return rank if depth is None else min(rank, depth + 1)


def _change(rank: int, other: int, k: int, *, first: bool) -> Change:
    """What became of a picture from the first version to the second; `first`: `rank` is that of the first."""
    if other > k:
        return "gone" if first else "new"
    before, after = (rank, other) if first else (other, rank)
    return "same" if before == after else "up" if after < before else "down"
