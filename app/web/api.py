"""The web API, for gradio_client and any HTTP client: stable names, every argument checked, no path shown.

`gr.api` reads type hints for its documentation but checks nothing, so each argument goes through a strict
pydantic model first. (No `from __future__ import annotations`: Gradio needs the hints themselves.)
"""

import re
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from uuid import uuid4

import gradio as gr
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.app_errors import RequestError, shown
from app.search.views import MOST_RESULTS, CandidateView, SearchRequest, SearchResult, VersionView
from app.services import EXPORT_FORMATS, Services
from app.web.uploads import picture_from
from core.query import NEGATIVE_WEIGHT
from store import Filters, JobRow
from store.deletion_log import forgetting_since, was_forgotten_since

M = TypeVar("M", bound="_Arguments")
ImageId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
QueryId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_SEARCHES_AT_ONCE = 16
"""Their texts are encoded together, so more of them take hardly longer."""
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
Values = list[Annotated[str, Field(max_length=200)]]


class _Arguments(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Filters(_Arguments):
    camera: Values = Field([], max_length=100)
    source: Values = Field([], max_length=100)
    pid: Values = Field([], max_length=100)
    captured_from: datetime | None = Field(None, strict=False)
    captured_to: datetime | None = Field(None, strict=False)
    metadata: dict[Annotated[str, Field(max_length=200)], Values] = Field({}, max_length=100)

    @field_validator("captured_to", mode="before")
    @classmethod
    def _whole_day(cls, value: Any) -> Any:
        """A day alone ends a span at its own end; like every time without a zone it is one of UTC."""
        return f"{value}T23:59:59.999999Z" if isinstance(value, str) and _DAY.fullmatch(value) else value

    def filters(self) -> Filters:
        return Filters(
            camera=tuple(self.camera),
            source=tuple(self.source),
            pid=tuple(self.pid),
            captured_from=self.captured_from,
            captured_to=self.captured_to,
            metadata=tuple((key, value) for key, values in self.metadata.items() for value in values),
        )


class _Search(_Arguments):
    text: str
    negative: str
    k: int = Field(ge=1, le=MOST_RESULTS)
    filters: _Filters
    image_weight: float = Field(ge=0, le=1)
    negative_weight: float = Field(ge=0, le=1)


class _Similar(_Arguments):
    image_id: ImageId
    k: int = Field(ge=1, le=MOST_RESULTS)
    filters: _Filters


class _More(_Arguments):
    query_id: QueryId
    k: int = Field(ge=1, le=MOST_RESULTS)


class _Rerank(_More):
    aligned: bool


class _Suggest(_Arguments):
    k: int = Field(ge=1, le=MOST_RESULTS)


class _Mark(_Arguments):
    query_id: QueryId
    image_id: ImageId
    verdict: Literal["hit", "miss", "wrong_person"] | None


class _Image(_Arguments):
    image_id: ImageId


class _Version(_Arguments):
    version: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")


class _Export(_Arguments):
    format: Literal["parquet", "cuhk-pedes", "imagefolder", "jsonl"]


assert EXPORT_FORMATS == ("parquet", "cuhk-pedes", "imagefolder", "jsonl")


def register(services: Services) -> None:
    """Add every endpoint to the `gr.Blocks` whose context this is called in."""
    tmp_dir = services.settings.tmp_dir

    def user_of(request: gr.Request | None) -> str:
        return services.identity.user_of(request)

    def search(
        text: str,
        image: gr.FileData | None = None,
        negative: str = "",
        k: int = 24,
        filters: dict[str, Any] | None = None,
        image_weight: float = 0.5,
        negative_weight: float = NEGATIVE_WEIGHT,
        request: gr.Request = None,
    ) -> dict[str, Any]:
        """Rank the gallery for a description, a picture or both; `negative` says what should not be there.

        `filters` may hold lists `camera`, `source`, `pid`, ISO times `captured_from`, `captured_to` (UTC where they
        name no zone; a day alone counts whole), and `metadata`: lists of values by key, of which a picture has one for
        each key.
        `image_weight` from 0 (words only) to 1 (picture only) counts where both are given, `negative_weight` from 0
        to 1 with `negative`: the share of what it adds to the query that is taken away.
        """
        given = _checked(
            _Search,
            text=text,
            negative=negative,
            k=k,
            filters={} if filters is None else filters,
            image_weight=image_weight,
            negative_weight=negative_weight,
        )
        wanted = SearchRequest(
            text=given.text,
            image=picture_from(image, tmp_dir),
            negative=given.negative,
            k=given.k,
            filters=given.filters.filters(),
            image_weight=given.image_weight,
            negative_weight=given.negative_weight,
        )
        return _result(services.search(wanted, user_of(request)))

    def similar(
        image_id: str,
        k: int = 24,
        filters: dict[str, Any] | None = None,
        request: gr.Request = None,
    ) -> dict[str, Any]:
        """Rank the gallery by likeness to one of its own pictures, which comes first; `filters` as for a search."""
        given = _checked(_Similar, image_id=image_id, k=k, filters={} if filters is None else filters)
        wanted = SearchRequest(like=given.image_id, k=given.k, filters=given.filters.filters())
        return _result(services.search(wanted, user_of(request)))

    def more(query_id: str, k: int = 24, request: gr.Request = None) -> dict[str, Any]:
        """The next `k` candidates of a search, ranked by the version that began it."""
        given = _checked(_More, query_id=query_id, k=k)
        found = services.more(given.query_id, user_of(request), given.k)
        return {"query_id": given.query_id, "candidates": [_candidate(candidate) for candidate in found]}

    def rerank(query_id: str, k: int = 24, aligned: bool = True, request: gr.Request = None) -> dict[str, Any]:
        """A search's first candidates, the unmarked ones re-ordered by what you marked in it; the model stays as it is.

        Marked candidates keep their places, `rank` and `score` stay those of the search. `aligned` false: its own
        order again.
        """
        given = _checked(_Rerank, query_id=query_id, k=k, aligned=aligned)
        found = services.rerank(given.query_id, user_of(request), given.k, aligned=given.aligned)
        return {"query_id": given.query_id, "candidates": [_candidate(candidate) for candidate in found]}

    def mark(
        query_id: str,
        image_id: str,
        verdict: str | None,
        request: gr.Request = None,
    ) -> dict[str, Any]:
        """Judge a candidate: `hit`, `miss` or `wrong_person` (fits the words, wrong person); null takes it back."""
        given = _checked(_Mark, query_id=query_id, image_id=image_id, verdict=verdict)
        services.mark(user_of(request), given.query_id, given.image_id, given.verdict)
        return {"query_id": given.query_id, "image_id": given.image_id, "verdict": given.verdict}

    def suggest(k: int = 12, request: gr.Request = None) -> dict[str, Any]:
        """What to mark next: pictures whose marks would teach most, each with its reason and the query to mark it in.

        `contested` lists what people judged both ways. Administrators see everybody's captions, others their own.
        """
        return asdict(services.review(user_of(request), _checked(_Suggest, k=k).k))

    def undo(request: gr.Request = None) -> dict[str, Any]:
        """Take back your last action; `undone` is empty when there is nothing left to take back."""
        undone = services.undo(user_of(request))
        return {"undone": [{"image_id": m.image_id, "query_id": m.query_id, "verdict": m.verdict} for m in undone]}

    def image(image_id: str) -> gr.FileData:
        """A picture of the gallery as a file."""
        file, mime = picture_file(services, _checked(_Image, image_id=image_id).image_id)
        return gr.FileData(path=str(file), orig_name=file.name, mime_type=mime)

    def marks_stats(request: gr.Request = None) -> dict[str, Any]:
        """Counts of everybody's current marks, of yours, and how many are new since the last fine-tuning."""
        policy = services.runner.policy()
        mine = services.stats(user_of(request))
        return services.stats() | {"mine": mine, "new": policy.new_marks, "policy": policy.text}

    def train(request: gr.Request = None) -> dict[str, Any]:
        """Start fine-tuning on the marks now; returns the job."""
        return _job(services.train(user_of(request)))

    def adapt(request: gr.Request = None) -> dict[str, Any]:
        """Learn the style of the gallery without any mark; returns the job."""
        return _job(services.adapt(user_of(request)))

    def cancel(request: gr.Request = None) -> dict[str, Any]:
        """Cancel the fine-tuning under way; returns the job."""
        return _job(services.cancel(user_of(request)))

    def jobs() -> list[dict[str, Any]]:
        """The latest fine-tuning runs, newest first."""
        return [_job(job) for job in services.jobs()]

    def versions() -> list[dict[str, Any]]:
        """The model versions of this backbone, newest first, with metrics (fractions) and the gate's reason."""
        return [_version(version) for version in services.versions()]

    def promote(version: str, request: gr.Request = None) -> dict[str, Any]:
        """Make a version active by hand."""
        return _version(services.promote(_checked(_Version, version=version).version, user_of(request)))

    def rollback(request: gr.Request = None) -> dict[str, Any]:
        """Make the version that was active before active again."""
        return _version(services.rollback(user_of(request)))

    def export(format: str = "parquet", request: gr.Request = None) -> gr.FileData:
        """All current marks as a data set: `parquet`, `cuhk-pedes` or `imagefolder` in a zip; or `jsonl`."""
        file = services.export(_checked(_Export, format=format).format, user_of(request))
        return gr.FileData(path=str(file), orig_name=file.name)

    def forget(image_id: str, request: gr.Request = None) -> dict[str, Any]:
        """Erase a picture, the marks on it and the exports that hold it; `versions` were perhaps trained on it."""
        return asdict(services.forget([_checked(_Image, image_id=image_id).image_id], user_of(request)))

    for endpoint in (more, rerank, mark, undo, image, marks_stats, train, adapt, cancel, jobs, versions, rollback):
        gr.api(_at_the_edge(endpoint), api_name=endpoint.__name__, concurrency_limit=8)
    gr.api(_at_the_edge(search), api_name="search", concurrency_limit=_SEARCHES_AT_ONCE)
    gr.api(_at_the_edge(suggest), api_name="suggest", concurrency_limit=1)
    gr.api(_at_the_edge(similar), api_name="similar", concurrency_limit=4)
    gr.api(_at_the_edge(promote), api_name="promote", concurrency_limit=1)
    gr.api(_at_the_edge(export), api_name="export", concurrency_limit=1)
    gr.api(_at_the_edge(forget), api_name="forget", concurrency_limit=1)


def filters_from(given: Any) -> Filters:
    """Filters as `/search` takes them. Raises RequestError or GalleryError on wrong values."""
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise RequestError(f"filters are an object such as {{'camera': ['gate']}}, not {type(given).__name__}")
    return _checked(_Filters, **given).filters()


def picture_file(services: Services, image_id: str) -> tuple[Path, str]:
    """A gallery picture as a file that may be served, and its MIME type. Nothing is left of one forgotten meanwhile."""
    before = forgetting_since(services.state.db)
    data, mime = services.picture(image_id)
    ending = mime.removeprefix("image/").replace("jpeg", "jpg")
    file = services.settings.tmp_dir / "pictures" / f"{image_id}.{ending}"
    if not file.exists():
        _write_whole(file, data)
    if was_forgotten_since(services.state.db, before):
        file.unlink(missing_ok=True)
        raise RequestError("pictures were being removed from the gallery at this moment: ask for this one again")
    return file, mime


def _at_the_edge(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with known errors turned into `gr.Error`; the hints stay readable for Gradio."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with shown():
            return function(*args, **kwargs)

    return guarded


def _checked(model: type[M], /, **arguments: Any) -> M:
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {_said(fault)}" for fault in error.errors(include_url=False)]
        raise RequestError("; ".join(faults[:5])) from error


def _said(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return f"is not known; the known ones are {', '.join(_Filters.model_fields)}"
    came = repr(fault["input"])
    return f"{fault['msg'][:1].lower()}{fault['msg'][1:]}, but {came[:80]}{'…' if len(came) > 80 else ''} came"


def _result(result: SearchResult) -> dict[str, Any]:
    return {
        "query_id": result.query_id,
        "version": result.version,
        "total": result.total,
        "unknown_words": list(result.unknown_words),
        "warning": result.warning,
        "candidates": [_candidate(candidate) for candidate in result.candidates],
    }


def _candidate(candidate: CandidateView) -> dict[str, Any]:
    return {
        "image_id": candidate.image_id,
        "rank": candidate.rank,
        "score": candidate.score,
        "pid": candidate.pid,
        "camera": candidate.camera,
        "captured_at": _iso(candidate.captured_at),
        "verdict": candidate.verdict,
    }


def _job(job: JobRow) -> dict[str, Any]:
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "stage": job.stage,
        "fraction": job.fraction,
        "message": job.message,
        "result": dict(job.result),
        "created_at": _iso(job.created_at),
        "started_at": _iso(job.started_at),
        "finished_at": _iso(job.finished_at),
    }


def _version(version: VersionView) -> dict[str, Any]:
    return {
        "id": version.id,
        "backbone": version.backbone,
        "parent": version.parent,
        "status": version.status,
        "serving": version.serving,
        "created_at": _iso(version.created_at),
        "metrics": version.metrics,
        "decision": version.decision,
        "reason": version.reason,
        "marks": version.marks,
        "forgotten": version.forgotten,
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _write_whole(file: Path, data: bytes) -> None:
    """Write so that a reader at the same time never sees a part of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{uuid4().hex}.part")
    part.write_bytes(data)
    part.replace(file)
