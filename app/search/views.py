"""What goes in and out of the services: frozen values that the pages and the web API share."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from app.app_errors import RequestError, without_paths
from core.query import NEGATIVE_WEIGHT
from store.records import Mark, Verdict, check_image_id

if TYPE_CHECKING:
    from PIL import Image

    from app.readiness import Ready
    from store import Filters, JobRow, VersionRow

MOST_CHARACTERS = 1_000
MOST_RESULTS = 200
Size = Literal["thumb", "full"]


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One query: a caption, a picture, or both; `negative` says what should not be there. Raises RequestError.

    The picture is `image`, encoded or not, or the one of the gallery whose id is `like`; beside a caption it has
    `image_weight`.
    `negative_weight` is the share of what `negative` adds that is taken away.
    """

    text: str = ""
    image: Image.Image | bytes | None = None
    negative: str = ""
    k: int = 24
    offset: int = 0
    filters: Filters | None = None
    like: str = ""
    image_weight: float = 0.5
    negative_weight: float = NEGATIVE_WEIGHT

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", clean_text(self.text, "description"))
        object.__setattr__(self, "negative", clean_text(self.negative, "text of what should not be there"))
        if self.like:
            check_image_id(self.like)
        if self.like and self.image is not None:
            raise RequestError(
                "expected one picture to search by, got an uploaded one and one of the gallery: drop one"
            )
        if not self.text and not self.by_picture:
            raise RequestError(
                "the description is empty: describe a person in a sentence or two, "
                "for example “a woman in a red coat with a black backpack”, or add a picture"
            )
        check_k(self.k)
        if isinstance(self.offset, bool) or not isinstance(self.offset, int) or self.offset < 0:
            raise RequestError(f"offset must be a whole number of 0 or more, not {self.offset!r}")
        for name, least, most in (
            ("image_weight", "words only", "picture only"),
            ("negative_weight", "nothing", "all that it adds to the query"),
        ):
            weight = getattr(self, name)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
                raise RequestError(f"{name} must be a number from 0 ({least}) to 1 ({most}), not {weight!r}")

    @property
    def by_picture(self) -> bool:
        """Whether a picture is part of the query."""
        return self.image is not None or bool(self.like)


@dataclass(frozen=True, slots=True)
class CandidateView:
    """A ranked picture (rank from 1, score a cosine) and what this user has said about it for this caption."""

    image_id: str
    rank: int
    score: float
    pid: str | None
    camera: str | None
    captured_at: datetime | None
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """An answer, given wholly by one version. `total` counts the pictures that could have been shown; `understood` is
    false when the model knows no word of the description and no picture came with it: then the ranking says nothing."""

    query_id: str
    version: str
    caption: str
    candidates: tuple[CandidateView, ...]
    total: int
    unknown_words: tuple[str, ...] = ()
    understood: bool = True
    warning: str = ""


@dataclass(frozen=True, slots=True)
class MarkView:
    """One of a user's current marks."""

    image_id: str
    query_id: str
    caption: str
    verdict: Verdict
    rank: int
    score: float
    version: str
    marked_at: datetime
    by_picture: bool = False

    @classmethod
    def of(cls, mark: Mark) -> MarkView:
        """Return a mark as its user sees it."""
        return cls(
            image_id=mark.image_id,
            query_id=mark.query_id,
            caption=mark.caption,
            verdict=mark.verdict,
            rank=mark.rank,
            score=mark.score,
            version=mark.version,
            marked_at=mark.marked_at,
            by_picture=mark.image_query,
        )


@dataclass(frozen=True, slots=True)
class SuggestionView:
    """A picture worth judging for a caption, why, and the search that shows it at its rank and score."""

    query_id: str
    caption: str
    image_id: str
    rank: int
    score: float
    version: str
    reason: str
    why: str


@dataclass(frozen=True, slots=True)
class ContestedView:
    """A picture that users judged both ways for a caption; `query_id` and `verdict` are this user's own, or None."""

    caption: str
    image_id: str
    hits: int
    misses: int
    query_id: str | None
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class ReviewView:
    """What the Review page shows."""

    version: str
    suggestions: tuple[SuggestionView, ...]
    contested: tuple[ContestedView, ...]


@dataclass(frozen=True, slots=True)
class VersionView:
    """A model version with its metrics (fractions) and what the gate said about it."""

    id: str
    backbone: str
    parent: str | None
    status: str
    created_at: datetime
    metrics: dict[str, Any]
    decision: str
    reason: str
    marks: dict[str, Any]
    serving: bool
    forgotten: int = 0
    """Pictures it may have learnt from that were forgotten since."""
    learnt_from: str = ""
    """"marks" or "adaptation" (the gallery's style, without any mark); empty if unknown."""

    @classmethod
    def of(cls, row: VersionRow, *, serving: bool, forgotten: int) -> VersionView:
        """Return a version as people see it."""
        return cls(
            id=row.id,
            backbone=row.backbone,
            parent=row.parent,
            status=row.status,
            created_at=row.created_at,
            metrics=dict(row.metrics),
            decision=str(row.gate.get("decision", "")),
            reason=without_paths(str(row.gate.get("reason", ""))),
            marks=dict(row.mark_counts),
            serving=serving,
            forgotten=forgotten,
            learnt_from=str(row.gate.get("learnt_from", "")),
        )


def presentable(job: JobRow) -> JobRow:
    """Return a job as people see it, without the server's paths and without who started it."""
    result = {key: without_paths(value) if isinstance(value, str) else value for key, value in job.result.items()}
    return replace(job, message=without_paths(job.message), params={}, result=result)


@dataclass(frozen=True, slots=True)
class LearningView:
    """What the Learning page shows."""

    backbone: str
    serving: str
    problem: str
    """Why the active version does not serve; empty when it does."""
    new_marks: int
    """Marks since the last run."""
    hits: int
    total_marks: int
    marks_needed: int
    """New marks until fine-tuning starts by itself."""
    policy: str
    ready: Ready
    """How far the marks are from what the gate needs."""
    job: JobRow | None
    """The job that is queued or running."""
    last_job: JobRow | None
    versions: tuple[VersionView, ...] = field(default=())
    may_train: bool = True


def clean_text(text: str, what: str) -> str:
    """`text` with single spaces and composed characters. Raises RequestError when it is no text or too long."""
    if not isinstance(text, str):
        raise RequestError(f"the {what} must be text, not {type(text).__name__}")
    if len(text) > MOST_CHARACTERS:
        raise RequestError(
            f"the {what} has {len(text):,} characters; at most {MOST_CHARACTERS:,} are taken: "
            "say what can be seen in a few sentences"
        )
    if any(unicodedata.category(character) == "Cs" for character in text):
        raise RequestError(f"the {what} holds broken characters (half of a pair): type or paste it again")
    words = unicodedata.normalize("NFC", text).replace("\0", " ")
    return " ".join(words.split())


def check_k(k: int) -> None:
    """Raise RequestError unless 1 <= k <= MOST_RESULTS."""
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MOST_RESULTS:
        raise RequestError(f"k must be a whole number from 1 to {MOST_RESULTS}, not {k!r}")
