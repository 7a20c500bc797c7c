"""The web API, for gradio_client and any HTTP client: stable names, every argument checked, no path shown.

`gr.api` reads type hints for its documentation but checks nothing, so each argument goes through a strict
pydantic model first. (No `from __future__ import annotations`: Gradio needs the hints themselves.)
"""

import re
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import gradio as gr
from pydantic import Field, field_validator

from app.app_errors import RequestError
from app.search import serialise
from app.search.views import MOST_RESULTS, SearchRequest
from app.services import Services
from app.web.arguments import Arguments, at_the_edge, checked
from app.web.uploads import picture_from
from core.query import NEGATIVE_WEIGHT
from store import Filters
from store.deletion_log import guard_deletion
from store.records import IMAGE_ID, QUERY_ID, ExportFormat, Verdict
from store.values import VERSION_NAME

ImageId = Annotated[str, Field(pattern=f"^{IMAGE_ID.pattern}$")]
VersionName = Annotated[str, Field(pattern=f"^{VERSION_NAME.pattern}$")]
QueryId = Annotated[str, Field(pattern=f"^{QUERY_ID.pattern}$")]
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
Values = list[Annotated[str, Field(max_length=200)]]


class _Filters(Arguments):
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


class _Search(Arguments):
    text: str
    negative: str
    k: int = Field(ge=1, le=MOST_RESULTS)
    filters: _Filters
    image_weight: float = Field(ge=0, le=1)
    negative_weight: float = Field(ge=0, le=1)


class _Similar(Arguments):
    image_id: ImageId
    k: int = Field(ge=1, le=MOST_RESULTS)
    filters: _Filters


class _More(Arguments):
    query_id: QueryId
    k: int = Field(ge=1, le=MOST_RESULTS)


class _Rerank(_More):
    aligned: bool


class _Suggest(Arguments):
    k: int = Field(ge=1, le=MOST_RESULTS)


class _Mark(Arguments):
    query_id: QueryId
    image_id: ImageId
    verdict: Verdict | None


class _Image(Arguments):
    image_id: ImageId


class _Version(Arguments):
    version: VersionName


class _Compare(Arguments):
    version_a: VersionName
    version_b: VersionName
    text: str
    k: int = Field(ge=1, le=MOST_RESULTS)


class _Export(Arguments):
    format: ExportFormat


class Endpoints:
    """The web API: each public method is the endpoint of its name, and its docstring the description."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def _user(self, request: gr.Request | None) -> str:
        return self._services.identity.user_of(request)

    def search(
        self,
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
        given = checked(
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
            image=picture_from(image, self._services.settings.tmp_dir),
            negative=given.negative,
            k=given.k,
            filters=given.filters.filters(),
            image_weight=given.image_weight,
            negative_weight=given.negative_weight,
        )
        return serialise.result(self._services.search(wanted, self._user(request)))

    def similar(
        self,
        image_id: str,
        k: int = 24,
        filters: dict[str, Any] | None = None,
        request: gr.Request = None,
    ) -> dict[str, Any]:
        """Rank the gallery by likeness to one of its own pictures, which comes first; `filters` as for a search."""
        given = checked(_Similar, image_id=image_id, k=k, filters={} if filters is None else filters)
        wanted = SearchRequest(like=given.image_id, k=given.k, filters=given.filters.filters())
        return serialise.result(self._services.search(wanted, self._user(request)))

    def more(self, query_id: str, k: int = 24, request: gr.Request = None) -> dict[str, Any]:
        """The next `k` candidates of a search, ranked by the version that began it."""
        given = checked(_More, query_id=query_id, k=k)
        found = self._services.more(given.query_id, self._user(request), given.k)
        return {"query_id": given.query_id, "candidates": [serialise.candidate(candidate) for candidate in found]}

    def rerank(self, query_id: str, k: int = 24, aligned: bool = True, request: gr.Request = None) -> dict[str, Any]:
        """A search's first candidates, the unmarked ones re-ordered by what you marked in it; the model stays as it is.

        Marked candidates keep their places, `rank` and `score` stay those of the search. `aligned` false: its own
        order again.
        """
        given = checked(_Rerank, query_id=query_id, k=k, aligned=aligned)
        found = self._services.rerank(given.query_id, self._user(request), given.k, aligned=given.aligned)
        return {"query_id": given.query_id, "candidates": [serialise.candidate(candidate) for candidate in found]}

    def mark(
        self,
        query_id: str,
        image_id: str,
        verdict: str | None,
        request: gr.Request = None,
    ) -> dict[str, Any]:
        """Judge a candidate: `hit`, `miss` or `wrong_person` (fits the words, wrong person); null takes it back."""
        given = checked(_Mark, query_id=query_id, image_id=image_id, verdict=verdict)
        self._services.mark(self._user(request), given.query_id, given.image_id, given.verdict)
        return {"query_id": given.query_id, "image_id": given.image_id, "verdict": given.verdict}

    def suggest(self, k: int = 12, request: gr.Request = None) -> dict[str, Any]:
        """What to mark next: pictures whose marks would teach most, each with its reason and the query to mark it in.

        `contested` lists what people judged both ways. Administrators see everybody's captions, others their own.
        """
        return asdict(self._services.review(self._user(request), checked(_Suggest, k=k).k))

    def undo(self, request: gr.Request = None) -> dict[str, Any]:
        """Take back your last action; `undone` is empty when there is nothing left to take back."""
        undone = self._services.undo(self._user(request))
        return {"undone": [{"image_id": m.image_id, "query_id": m.query_id, "verdict": m.verdict} for m in undone]}

    def image(self, image_id: str) -> gr.FileData:
        """A picture of the gallery as a file."""
        file, mime = picture_file(self._services, checked(_Image, image_id=image_id).image_id)
        return gr.FileData(path=str(file), orig_name=file.name, mime_type=mime)

    def marks_stats(self, request: gr.Request = None) -> dict[str, Any]:
        """Counts of everybody's current marks, of yours, and how many are new since the last fine-tuning."""
        policy = self._services.runner.policy()
        mine = self._services.stats(self._user(request))
        return self._services.stats() | {"mine": mine, "new": policy.new_marks, "policy": policy.text}

    def train(self, request: gr.Request = None) -> dict[str, Any]:
        """Start fine-tuning on the marks now; returns the job."""
        return serialise.job(self._services.train(self._user(request)))

    def adapt(self, request: gr.Request = None) -> dict[str, Any]:
        """Learn the style of the gallery without any mark; returns the job."""
        return serialise.job(self._services.adapt(self._user(request)))

    def cancel(self, request: gr.Request = None) -> dict[str, Any]:
        """Cancel the fine-tuning under way; returns the job."""
        return serialise.job(self._services.cancel(self._user(request)))

    def jobs(self) -> list[dict[str, Any]]:
        """The latest fine-tuning runs, newest first."""
        return [serialise.job(job) for job in self._services.jobs()]

    def versions(self) -> list[dict[str, Any]]:
        """The model versions of this backbone, newest first, with metrics (fractions) and the gate's reason."""
        return [serialise.version(version) for version in self._services.versions()]

    def promote(self, version: str, request: gr.Request = None) -> dict[str, Any]:
        """Make a version active by hand."""
        return serialise.version(
            self._services.promote(checked(_Version, version=version).version, self._user(request))
        )

    def compare(
        self, version_a: str, version_b: str, text: str = "", k: int = 24, request: gr.Request = None
    ) -> dict[str, Any]:
        """Rank one description under two versions, promoted or not: what moved up or down, is new or gone.

        Without a text: how the hits of your marked descriptions moved; administrators see those of everybody's.
        """
        given = checked(_Compare, version_a=version_a, version_b=version_b, text=text, k=k)
        user, comparing = self._user(request), self._services.comparing
        if given.text.strip():
            return asdict(comparing.compare(given.version_a, given.version_b, given.text, user, given.k))
        everybody = self._services.is_admin(user)
        return asdict(comparing.moved_hits(given.version_a, given.version_b, user, everybody=everybody))

    def rollback(self, request: gr.Request = None) -> dict[str, Any]:
        """Make the version that was active before active again."""
        return serialise.version(self._services.rollback(self._user(request)))

    def export(self, format: str = "parquet", request: gr.Request = None) -> gr.FileData:
        """All current marks as a data set: `parquet`, `cuhk-pedes` or `imagefolder` in a zip; or `jsonl`."""
        file = self._services.export(checked(_Export, format=format).format, self._user(request))
        return gr.FileData(path=str(file), orig_name=file.name)

    def forget(self, image_id: str, request: gr.Request = None) -> dict[str, Any]:
        """Erase a picture, the marks on it and the exports that hold it; `versions` were perhaps trained on it."""
        return asdict(self._services.forget([checked(_Image, image_id=image_id).image_id], self._user(request)))


AT_ONCE = {
    "more": 8, "rerank": 8, "mark": 8, "undo": 8, "image": 8, "marks_stats": 8, "train": 8, "adapt": 8, "cancel": 8,
    "jobs": 8, "versions": 8, "rollback": 8, "search": 16, "suggest": 1, "similar": 4, "promote": 1, "export": 1,
    "compare": 1, "forget": 1,
}  # fmt: skip
"""The endpoints, and how many calls of each run at once. Texts of searches are encoded together, so more of them take
hardly longer."""


def register(services: Services) -> None:
    """Add every endpoint to the `gr.Blocks` whose context this is called in."""
    endpoints = Endpoints(services)
    for name, at_once in AT_ONCE.items():
        gr.api(at_the_edge(getattr(endpoints, name)), api_name=name, concurrency_limit=at_once)


def filters_from(given: Any) -> Filters:
    """Filters as `/search` takes them. Raises RequestError or GalleryError on wrong values."""
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise RequestError(f"filters are an object such as {{'camera': ['gate']}}, not {type(given).__name__}")
    return checked(_Filters, **given).filters()


def picture_file(services: Services, image_id: str) -> tuple[Path, str]:
    """A gallery picture as a file that may be served, and its MIME type. Nothing is left of one forgotten meanwhile."""
    removing = RequestError("pictures were being removed from the gallery at this moment: request this one again")
    with guard_deletion(services.state.database, refuse=removing) as undo:
        data, mime = services.picture(image_id)
        ending = mime.removeprefix("image/").replace("jpeg", "jpg")
        file = services.settings.tmp_dir / "pictures" / f"{image_id}.{ending}"
        undo.append(partial(file.unlink, missing_ok=True))
        if not file.exists():
            _write_whole(file, data)
    return file, mime


def _write_whole(file: Path, data: bytes) -> None:
    """Write so that a reader at the same time never sees a part of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{uuid4().hex}.part")
    part.write_bytes(data)
    part.replace(file)
