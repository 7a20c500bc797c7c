"""What a user is asked to mark next, and what users contradict each other about.

Every suggestion belongs to a search recorded for its user, with the rank and score that a version really gave
it, so that a mark made on a suggestion is as honest as one made on a result.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

from app.search.retriever import Retriever, Serving
from app.search.views import ContestedView, ReviewView, SuggestionView
from app.state import State
from core.core_errors import CoreError
from store import Mark, Search, Shown
from store.records import caption_key
from train.finetuning.active_learning import Ranking, Suggestion, suggest
from train.finetuning.pairs import Contested, build, usable

CAPTIONS = 50
"""Captions looked at, those marked last."""
DEPTH = 100
"""Results of each caption looked at."""
MOST_CONTESTED = 100

log = logging.getLogger(__name__)


class Reviewer:
    """Asks by the version that serves, and by the one before where its vectors are still complete."""

    def __init__(self, state: State, retriever: Retriever) -> None:
        self._state, self._retriever = state, retriever
        self._former: Serving | None = None

    def review(self, user: str, k: int, *, everybody: bool) -> ReviewView:
        """At most `k` suggestions for `user`, and the contradictory marks.

        Not `everybody`: only what this user has marked captions of, for captions are other people's words.
        """
        with self._state.deletion.guard_searches() as recorded:
            marks = usable(self._state.marks.current())
            own = {(mark.caption_key, mark.image_id): mark for mark in marks if mark.user == user}
            if not everybody:
                captions = {key for key, _ in own}
                marks = [mark for mark in marks if mark.caption_key in captions]
            there = {row.id for row in self._state.gallery.rows(sorted({mark.image_id for mark in marks}))}
            marks = [mark for mark in marks if mark.image_id in there]
            contested = [one for one in build(marks).contested if everybody or _pair(one) in own][:MOST_CONTESTED]
            serving = self._retriever.serving
            newest: dict[str, str] = {}
            for mark in reversed(marks):
                newest.setdefault(mark.caption_key, mark.caption)
            texts = list(newest.values())[:CAPTIONS]
            former = self._former_serving()
            asked = suggest(
                self._rankings(serving, texts),
                marks,
                k=k,
                former=self._rankings(former, texts) if former else (),
                contested=contested,
                mine=own.keys(),
            )
            shown = {(mark.caption_key, mark.image_id): mark for mark in marks}
            suggestions = self._recorded(user, asked, serving.version, shown)
            for one in suggestions:
                recorded(one.query_id, [one.image_id])
        return ReviewView(
            version=serving.version,
            suggestions=suggestions,
            contested=tuple(_contested(one, own.get(_pair(one))) for one in contested),
        )

    def _rankings(self, serving: Serving, captions: Sequence[str]) -> list[Ranking]:
        if not captions:
            return []
        found = []
        for caption, row in zip(captions, serving.encoder.encode_texts(list(captions)), strict=True):
            best = self._state.gallery.search(serving.vectors, row, DEPTH)
            ids, scores = tuple(c.image_id for c in best), tuple(c.score for c in best)
            if ids:
                found.append(Ranking(caption, ids, scores, serving.version))
        return found

    def _former_serving(self) -> Serving | None:
        """Return the version that served before, if it still covers the gallery and can be read."""
        name = self._state.versions.former(self._retriever.backbone.name)
        if name is None or not self._state.gallery.complete(self._state.versions.get(name).vectors):
            return None
        if self._former is None or self._former.version != name:
            try:
                self._former = self._retriever.prepare(name)
            except CoreError as error:
                log.warning("version %s cannot be read, so no suggestion shows where it disagrees: %s", name, error)
                return None
        return self._former

    def _recorded(
        self, user: str, asked: Sequence[Suggestion], version: str, shown: dict[tuple[str, str], Mark]
    ) -> tuple[SuggestionView, ...]:
        """Return the suggestions, each with a search of the user's that shows it: one for a caption and version."""
        results: dict[tuple[str, str, str], list[Shown]] = defaultdict(list)
        places: list[tuple[str, str, Shown]] = []
        for one in asked:
            if one.rank is not None and one.score is not None:
                place = version, self._retriever.backbone.name, Shown(one.image_id, one.rank, one.score)
            else:  # deeper than looked: as it was shown to who marked it last
                mark = shown[caption_key(one.caption), one.image_id]
                place = mark.version, mark.backbone, Shown(one.image_id, mark.rank, mark.score)
            places.append(place)
            results[one.caption, place[0], place[1]].append(place[2])
        queries = {
            (caption, by): self._state.marks.record_search(
                Search(user=user, caption=caption, version=by, backbone=backbone), found
            )
            for (caption, by, backbone), found in results.items()
        }
        return tuple(
            SuggestionView(
                queries[one.caption, by], one.caption, one.image_id, place.rank, place.score, by, one.reason, one.why
            )
            for one, (by, _, place) in zip(asked, places, strict=True)
        )


def _pair(one: Contested) -> tuple[str, str]:
    return caption_key(one.caption), one.image_id


def _contested(one: Contested, mine: Mark | None) -> ContestedView:
    return ContestedView(
        one.caption,
        one.image_id,
        one.hits,
        one.misses,
        None if mine is None else mine.query_id,
        None if mine is None else mine.verdict,
    )
