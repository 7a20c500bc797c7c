"""Searching: a query in, ranked pictures out, and what *show more* and near duplicates need of it afterwards."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from app.app_errors import NotAllowedError, RequestError
from app.search.reranking import DEPTH, reranked
from app.search.retriever import Retriever, Serving
from app.search.views import CandidateView, SearchRequest, SearchResult, check_k
from app.state import State
from app.web.decoding import PictureDecoder
from app.web.limits import Limit, current_address
from core.query import combine, near_duplicates
from store import Candidate, DatabaseError, Filters, ImageRow, Search, Shown, Verdict
from store.records import check_ids

_OPEN_SEARCHES = 2_000
_UNRECORDED = (
    "This search could not be recorded (is the disk full?): its results can be marked as soon as there is room."
)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _OpenSearch:
    """What *show more* needs: the query as the version `serving` encoded it, from where and how far it was shown, and
    the order of its best candidates if it was re-ranked."""

    serving: Serving
    caption: str
    vector: NDArray[np.float32]
    filters: Filters | None
    user: str
    offset: int
    shown: int
    order: list[Candidate] | None = None
    unrecorded: tuple[Search, list[Shown]] | None = None
    """What was not recorded, mostly because the disk was full, when the search was answered."""
    turn: Lock = field(default_factory=Lock)
    """Held by what changes these; it cannot be taken twice."""


class Searching:
    """Answers searches with what the retriever serves, and remembers what each of them showed."""

    def __init__(self, state: State, retriever: Retriever, decoder: PictureDecoder) -> None:
        self._state, self._retriever, self._decoder = state, retriever, decoder
        self._open: OrderedDict[str, _OpenSearch] = OrderedDict()
        self._lock = Lock()
        self.limit = Limit(state.settings.searches_per_minute, "searches")
        self._uploads = Limit(state.settings.uploads_per_minute, "searches by a picture")

    def search(self, request: SearchRequest, user: str) -> SearchResult:
        """Rank the gallery for one query and remember what was shown, so that it can be marked.

        Raises RequestError when this visitor has searched too often, PictureError when an encoded picture is not
        taken, GalleryError when there is no picture `like`.
        """
        self.count(user)
        if request.image is not None:
            self._uploads.count(user, current_address.get())
        if isinstance(request.image, bytes):
            request = replace(request, image=self._decoder.open(request.image))
        serving = self._retriever.serving
        search = Search(
            user=user,
            caption=request.text,
            version=serving.version,
            backbone=self._retriever.backbone.name,
            negative=request.negative,
            image_query=request.by_picture,
        )
        query_id, fault = uuid4().hex, ""
        with self._state.deletion.guard_searches() as recorded:
            vector = encode_query(serving, request, like=self._row_of(request.like, serving))
            found = self._state.gallery.search(
                serving.vectors, vector, request.k, offset=request.offset, filters=request.filters
            )
            opened = _OpenSearch(
                serving, request.text, vector, request.filters, user, request.offset, request.offset + len(found)
            )
            try:
                self._state.marks.record_search(search, _shown(found), query_id=query_id)
                recorded(query_id, _ids(found))
            except DatabaseError as error:  # mostly a full disk: the answer need not wait for room
                log.error("a search is answered but not recorded: %s", error)
                opened.unrecorded, fault = (search, _shown(found)), _UNRECORDED
        with self._lock:
            self._open[query_id] = opened
            while len(self._open) > _OPEN_SEARCHES:
                self._open.popitem(last=False)
        unknown = self._retriever.backbone.unknown_words(request.text)
        return SearchResult(
            query_id=query_id,
            version=serving.version,
            caption=request.text,
            candidates=self._views(found, query_id),
            total=self._state.gallery.passing(serving.vectors, request.filters),
            unknown_words=unknown,
            understood=self._understands(request),
            warning=" ".join(filter(None, (fault, self._warning(request, unknown, empty=not found)))),
        )

    def record(self, query_id: str) -> None:
        """Record a search that could not be recorded when it was answered; nothing happens if it is.

        Raises DatabaseError if it still cannot be.
        """
        with self._lock:
            search = self._open.get(query_id)
        if search is None:
            return
        with search.turn:
            if search.unrecorded is None:
                return
            with self._state.deletion.guard_searches() as recorded:
                asked, shown = search.unrecorded
                there = {row.id for row in self._state.gallery.rows([one.image_id for one in shown])}
                kept = [one for one in shown if one.image_id in there]
                self._state.marks.record_search(asked, kept, query_id=query_id)
                recorded(query_id, [one.image_id for one in kept])
            search.unrecorded = None

    def more(self, query_id: str, user: str, k: int = 24) -> tuple[CandidateView, ...]:
        """Return the `k` best that a search has not shown, in its order, under the version that began it.

        Fewer when the gallery ends. Counts as a search.
        """
        check_k(k)
        self.count(user)
        search = self._own(query_id, user)
        self.record(query_id)
        with search.turn, self._state.deletion.guard_searches() as recorded:
            found = self._next(query_id, search, k)
            if found:
                self._state.marks.extend_search(query_id, _shown(found))
                recorded(query_id, _ids(found))
        return self._views(found, query_id)

    def _next(self, query_id: str, search: _OpenSearch, k: int) -> list[Candidate]:
        """Return at most `k` candidates that the search has not shown, and note in it how far it was shown."""
        gallery, order = self._state.gallery, search.order or []
        waiting = order[search.shown :]
        known = {row.id for row in gallery.rows([candidate.image_id for candidate in waiting])}
        found = [candidate for candidate in waiting if candidate.image_id in known][:k]
        if len(found) < k:
            # Not by offset: where pictures came or went, or the index was renewed, some would repeat or be left out.
            passed = {shown.image_id for shown in self._state.marks.shown(query_id)}
            passed |= {candidate.image_id for candidate in order}
            ranking = gallery.search(
                search.serving.vectors, search.vector, len(passed) + k, offset=search.offset, filters=search.filters
            )
            deeper = [candidate for candidate in ranking if candidate.image_id not in passed][: k - len(found)]
            start = max([search.shown, *(candidate.rank for candidate in order)]) + 1
            found += [replace(candidate, rank=rank) for rank, candidate in enumerate(deeper, start)]
            search.shown = max(search.shown, len(order)) + len(deeper)
        else:
            search.shown = order.index(found[-1]) + 1
        return found

    def rerank(self, query_id: str, user: str, k: int = 24, *, aligned: bool = True) -> tuple[CandidateView, ...]:
        """Return the first `k` of a search, and all that it has shown, its unmarked results re-ordered by its marks.

        No weights change, and marked results keep their places; ranks and scores stay those that the version gave.
        Not `aligned`, or where no mark is a hit or a miss: the order of the search itself again. `more` goes on in the
        order given last.
        """
        check_k(k)
        self.count(user)
        search = self._own(query_id, user)
        self.record(query_id)
        gallery, table = self._state.gallery, search.serving.vectors

        def plain(number: int) -> list[Candidate]:
            return gallery.search(table, search.vector, number, filters=search.filters)

        verdicts = self._state.marks.verdicts(query_id) if aligned else {}
        with search.turn, self._state.deletion.guard_searches() as recorded:
            count = max(k, search.shown)
            if not {"hit", "miss"}.isdisjoint(verdicts.values()):
                order = search.order or []
                if len(order) < max(DEPTH, count):  # what was shown below stays below
                    taken = {candidate.image_id for candidate in order}
                    order += [one for one in plain(max(DEPTH, count)) if one.image_id not in taken]
                search.order = reranked(gallery, table, search.vector, order, verdicts)
                found = search.order[:count]
            else:
                search.order, found = None, plain(count)
            self._state.marks.extend_search(query_id, _shown(found))
            recorded(query_id, _ids(found))
            search.shown = len(found)
        return self._views(found, query_id)

    def count(self, user: str) -> None:
        """Count what asks as much of the machine as a search. Raises RequestError when this visitor asks too often."""
        self.limit.count(user, current_address.get())

    def asked(self, query_id: str, user: str) -> tuple[Serving, str]:
        """The version that answers an open search of this user's, and its description, also where it could not be
        recorded. Raises RequestError and NotAllowedError."""
        check_ids(query_id, ())
        search = self._own(query_id, user)
        return search.serving, search.caption

    def duplicates(self, query_id: str, user: str) -> dict[str, str]:
        """Return the near duplicates among all that a search has shown, each with the better-ranked picture that
        represents it (`core.query.near_duplicates`)."""
        search = self._own(query_id, user)
        shown = search.unrecorded[1] if search.unrecorded else self._state.marks.shown(query_id)
        ids, rows = self._state.gallery.vectors(search.serving.vectors, [one.image_id for one in shown])
        return {ids[row]: ids[leader] for row, leader in enumerate(near_duplicates(rows)) if leader != row}

    def browse(self, filters: Filters | None, *, offset: int = 0, k: int = 24) -> tuple[int, list[ImageRow]]:
        """Return how many pictures pass the filters, and `k` of them after the first `offset`, without any query.

        The order is the same every time but mixes the gallery: pictures added together often look alike.
        """
        check_k(k)
        if isinstance(offset, bool) or not isinstance(offset, int) or offset < 0:
            raise RequestError(f"offset must be a whole number of 0 or more, not {offset!r}")
        ids = sorted(self._state.gallery.visible(filters))  # ids are hashes of the files
        return len(ids), self._state.gallery.rows(ids[offset : offset + k])

    def visible(self, filters: Filters | None = None) -> int:
        """Return how many pictures a search with these filters can return."""
        return self._state.gallery.passing(self._retriever.serving.vectors, filters)

    # Behind these

    def _own(self, query_id: str, user: str) -> _OpenSearch:
        with self._lock:
            search = self._open.get(query_id)
        if search is None:
            raise RequestError("this search is no longer open (the app was started again since): search once more")
        if search.user != user:
            raise NotAllowedError("this search belongs to another user: search yourself")
        if search.serving.vectors not in self._state.gallery.versions():
            raise RequestError(
                f"these results are from {search.serving.version}, whose vectors are no longer kept: search once more"
            )
        return search

    def _row_of(self, image_id: str, serving: Serving) -> NDArray[np.float32] | None:
        """Return the unit row (E,) of a gallery picture; one that is not embedded yet is embedded now."""
        if not image_id:
            return None
        gallery = self._state.gallery
        _, rows = gallery.vectors(serving.vectors, [image_id])
        row: NDArray[np.float32] = rows[0] if len(rows) else serving.encoder.encode_images([gallery.data(image_id)])[0]
        return row

    def _views(self, found: Sequence[Candidate], query_id: str) -> tuple[CandidateView, ...]:
        with self._lock:
            search = self._open.get(query_id)
        unrecorded = search is not None and search.unrecorded is not None
        verdicts: dict[str, Verdict] = {} if unrecorded else self._state.marks.verdicts(query_id)
        return tuple(
            CandidateView(c.image_id, c.rank, c.score, c.pid, c.camera, c.captured_at, verdicts.get(c.image_id))
            for c in found
        )

    def _warning(self, request: SearchRequest, unknown: Sequence[str], *, empty: bool) -> str:
        backbone = self._retriever.backbone
        if empty:
            return (
                "No picture passes these filters: remove one."
                if request.filters and self.visible()
                else "The gallery is empty: add pictures with `python app.py index FOLDER`."
            )
        if not self._understands(request):
            return (
                f"`{backbone.name}` knows no word of this description, so these results say nothing: "
                "describe clothes, colours, hair, bags or what the person carries in plain English."
            )
        warnings = []
        if unknown:
            rest = "The other words decide." if self._knows_some_word(request.text) else "The picture decides."
            warnings.append(f"`{backbone.name}` does not know: {', '.join(unknown)}. {rest}")
        if request.negative and not self._knows_some_word(request.negative):
            warnings.append(
                f"`{backbone.name}` knows no word of what should not be there, so that changes nothing of use."
            )
        read = backbone.words_read(request.text) if request.text else None
        if read is not None:
            warnings.append(
                f"Only the first {read} words count: the description is longer than `{backbone.name}` reads."
            )
        return " ".join(warnings)

    def _understands(self, request: SearchRequest) -> bool:
        """Return whether anything of the query means something to the model: a picture, or a word that it knows."""
        return request.by_picture or self._knows_some_word(request.text)

    def _knows_some_word(self, caption: str) -> bool:
        words = [word for word in caption.split() if any(character.isalpha() for character in word)]
        return any(not self._retriever.backbone.unknown_words(word) for word in words)


def encode_query(
    serving: Serving, request: SearchRequest, *, like: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return the query's unit row (E,); `like` is the row of the gallery picture that the request names, if it does."""
    encoder = serving.encoder
    texts = [text for text in (request.text, request.negative) if text]
    rows = dict(zip(texts, encoder.encode_texts(texts), strict=True)) if texts else {}
    image = encoder.encode_images([request.image])[0] if request.image is not None else like
    return combine(
        text=rows.get(request.text),
        image=image,
        negative=rows.get(request.negative),
        image_weight=request.image_weight,
        negative_weight=request.negative_weight,
    )


def _ids(found: Sequence[Candidate]) -> list[str]:
    return [candidate.image_id for candidate in found]


def _shown(found: Sequence[Candidate]) -> list[Shown]:
    return [Shown(candidate.image_id, candidate.rank, candidate.score) for candidate in found]
