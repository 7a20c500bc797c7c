"""Why a result fits its description, by the version that ranked it."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np

from app.app_errors import RequestError
from app.search.searching import Searching
from app.search.turns import in_turn
from app.state import State
from core.explain import explain
from store.records import check_image_id


@dataclass(frozen=True, slots=True)
class WordView:
    """A word of the description and what the score loses without it; `known`: the model has learnt it."""

    word: str
    lost: float
    known: bool


@dataclass(frozen=True, slots=True)
class ExplanationView:
    """`heat` holds rows of values from 0 to 1, the hottest part of the picture 1; all are 0 where nothing adds to the
    score, a cosine. `version` is the one that ranked the picture."""

    version: str
    score: float
    heat: list[list[float]]
    words: tuple[WordView, ...]


class Explaining:
    """Explains results of open searches, one at a time."""

    def __init__(self, state: State, searching: Searching) -> None:
        self._state, self._searching = state, searching
        self._turn = Lock()

    def explain(self, query_id: str, image_id: str, user: str) -> ExplanationView:
        """Explain a picture for the description of this user's search.

        Raises RequestError where the search has no description or is no longer open, or where others explain for long,
        NotAllowedError where it is another user's, GalleryError where there is no such picture.
        """
        check_image_id(image_id)
        self._searching.count(user)
        serving, caption = self._searching.asked(query_id, user)
        if not caption:
            raise RequestError("this search has no description, only a picture: there are no words to explain it by")
        data = self._state.gallery.data(image_id)
        with in_turn(self._turn, "having results explained"):
            found = explain(serving.encoder, data, caption)
        warm = np.clip(found.heat, 0, None)
        heat = (warm / warm.max() if warm.any() else warm).round(3).tolist()
        unknown = serving.encoder.backbone.unknown_words
        words = tuple(WordView(word, round(lost, 4), not unknown(word)) for word, lost in found.words)
        return ExplanationView(serving.version, found.score, heat, words)
