"""Searches and marks as values, and when two captions ask the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from store.store_errors import MarkError

Verdict = Literal["hit", "miss", "wrong_person"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
ExportFormat = Literal["parquet", "cuhk-pedes", "imagefolder", "jsonl"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
IMAGE_ID, QUERY_ID = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{32}")
"""The id of a picture, the SHA-256 of its file, and that of a search."""


def check_verdict(verdict: object) -> Verdict:
    """Return the verdict. Raises MarkError unless it is one."""
    for known in VERDICTS:
        if verdict == known:
            return known
    raise MarkError(f"A verdict is one of {', '.join(VERDICTS)}; {str(verdict)[:60]!r} came.")


def check_ids(query_id: object, image_ids: Sequence[object]) -> None:
    """Raise MarkError unless these are ids as a search returns them."""
    if not isinstance(query_id, str) or not QUERY_ID.fullmatch(query_id):
        raise MarkError(f"A query_id is the 32 hexadecimal digits that a search returned; {str(query_id)[:80]!r} came.")
    for image_id in image_ids:
        check_image_id(image_id)


def check_image_id(image_id: object) -> None:
    """Raise MarkError unless this is the id of a picture as a search returns it."""
    if not isinstance(image_id, str) or not IMAGE_ID.fullmatch(image_id):
        raise MarkError(
            f"An image_id is the 64 hexadecimal digits that a search returned; {str(image_id)[:80]!r} came."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a user asked, and of which model version. `image_query`: an example picture was part of it."""

    user: str
    caption: str
    version: str
    backbone: str
    negative: str = ""
    image_query: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRow(Search):
    """A search as recorded."""

    query_id: str
    caption_key: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Shown:
    """One result a user saw: its rank from 1 and its score, the cosine."""

    image_id: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenMark:
    """A user's verdict on one result of one search, with the rank, score and version that search had."""

    user: str
    caption: str
    image_id: str
    verdict: Verdict
    query_id: str
    rank: int
    score: float
    version: str
    backbone: str
    marked_at: datetime
    negative: str = ""
    image_query: bool = False

    @property
    def caption_key(self) -> str:
        """As `record_search` makes it."""
        key = caption_key(self.caption)
        return f"{self.query_id} {key}" if self.image_query else key


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark(GivenMark):
    """A mark as kept here, by the number of its event."""

    event_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a user's verdict on a picture for a caption has become by the event `event_id`; None: taken back."""

    event_id: int
    user: str
    caption_key: str
    image_id: str
    at: datetime
    mark: GivenMark | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkStats:
    """Counts of current marks; `last_event` is the id of the newest event of any kind, 0 if none."""

    total: int
    hits: int
    misses: int
    wrong_person: int
    captions: int
    images: int
    users: int
    last_event: int


@dataclass(frozen=True, slots=True)
class ForgottenMarks:
    """How many marks were erased with pictures, and the versions that may have been trained on them."""

    marks: int
    versions: tuple[str, ...]


_ANNOTATOR = "annotator:"


def annotator_user(pseudonym: str) -> str:
    """Return the user name of an annotator of imported marks; no signed-in name has a colon."""
    return _ANNOTATOR + pseudonym


def is_pseudonym(user: str) -> bool:
    """Return whether a user is an annotator of imported marks, known by a pseudonym only."""
    return user.startswith(_ANNOTATOR)


def caption_key(caption: str) -> str:
    """Return what captions that ask the same share: folded case, no punctuation, single spaces."""
    text = unicodedata.normalize("NFKC", caption).casefold()
    spaced = "".join(" " if unicodedata.category(letter).startswith("P") else letter for letter in text)
    return " ".join(spaced.split())
