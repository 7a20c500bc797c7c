"""How far the marks are from what the gate needs, known before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

from app.state import State
from train.finetuning.gate import GateConfig, hits_over_misses, judges
from train.finetuning.pairs import build, usable
from train.finetuning.trust import trusted

NEWEST = 5_000
"""Marks that are looked at, the newest: those that the serving version has not learnt from are among them."""


@dataclass(frozen=True, slots=True)
class Ready:
    """`captions` with both a hit and a miss, of `people` different people, that the serving version has not learnt
    from; the gate needs `needed` of both."""

    captions: int
    people: int
    needed: int

    @property
    def missing(self) -> int:
        """How many more are needed, each of another person."""
        return max(0, self.needed - min(self.captions, self.people))


class Readiness:
    """Counts as the gate does, and again only after a new event, a new active version or a deletion."""

    def __init__(self, state: State, backbone: str) -> None:
        self._state, self._backbone = state, backbone
        self._counted: tuple[tuple[int, str, int], Ready] | None = None
        self._turn = Lock()

    def now(self) -> Ready:
        """As the marks are now."""
        marks = self._state.marks
        active = self._state.versions.active(self._backbone)
        at = marks.newest(), active.id, self._state.deletion.count()
        with self._turn:
            if self._counted is None or self._counted[0] != at:
                learnt = marks.captions(until=active.last_event)
                pairs = build(trusted(usable(marks.current()[-NEWEST:]))[0], learnt=learnt)
                order = hits_over_misses(pairs.judged, pairs.scores, pairs.shown_by)
                captions, people = judges(order, pairs.groups, pairs.fresh)
                self._counted = at, Ready(captions, people, GateConfig().captions)
            return self._counted[1]
