"""The services: everything the pages, the web API and the command line can do, composed in one place.

Methods raise errors of `app.errors`, `core.errors` and `store.errors` whose messages are sentences for people.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from app import sample
from app.backup import Backup
from app.errors import NotAllowedError, RequestError, without_paths
from app.exports import EXPORT_FORMATS, write_export
from app.identity import Identity, is_signed_in
from app.limits import Limit
from app.pictures import Thumbnails, as_served
from app.progress import Report, silent, staged
from app.retriever import Retriever, Serving
from app.runner import Runner
from app.settings import Settings
from app.state import State, locked
from app.views import (
    VERDICTS,
    CandidateView,
    LearningView,
    MarkView,
    SearchRequest,
    SearchResult,
    Size,
    VersionView,
    check_k,
)
from core import load_backbone
from core.query import combine
from store import Candidate, Filters, Forgotten, JobRow, Mark, Search, Shown, Verdict

__all__ = ["EXPORT_FORMATS", "SearchRequest", "SearchResult", "Services"]

_OPEN_SEARCHES = 2_000
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")
_QUERY_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class _OpenSearch:
    """What *show more* needs: the query as the version `serving` encoded it, and how far it was shown."""

    serving: Serving
    vector: NDArray[np.float32]
    filters: Filters | None
    user: str
    shown: int


class Services:
    """The running app without its pages."""

    def __init__(
        self, state: State, retriever: Retriever, runner: Runner, identity: Identity, closing: ExitStack
    ) -> None:
        self.state, self.retriever, self.runner, self.identity = state, retriever, runner, identity
        self.settings = state.settings
        self._closing = closing
        self._searches: OrderedDict[str, _OpenSearch] = OrderedDict()
        self._searches_lock = Lock()
        self._thumbnails = Thumbnails()
        self._forgotten = 0
        self._search_limit = Limit(self.settings.searches_per_minute, "searches")
        self._upload_limit = Limit(self.settings.uploads_per_minute, "searches by a picture")

    @classmethod
    def open(cls, settings: Settings, *, progress: Report = silent) -> Services:
        """Lock and open the data folder, load the backbone and the active version, draw the sample if it is due.

        Raises StartError, BackboneError or a StoreError when that cannot be; nothing stays open then.
        """
        with ExitStack() as closing:
            closing.enter_context(locked(settings))
            state = State.open(settings)
            closing.callback(state.close)
            state.forgetting.finish()
            identity = Identity.open(settings.data_dir / "secret")
            backbone = load_backbone(settings.backbone)
            if sample.wanted(state):
                sample.draw_sample(state, report=progress)
            retriever = Retriever(state, backbone, progress=staged(progress, "Embedding pictures"))
            closing.callback(retriever.close)
            retriever.watch()
            runner = Runner(state, backbone.name)
            closing.callback(runner.close)
            runner.open()
            if settings.backup_repo:
                backup = Backup(state, settings.backup_repo)
                closing.callback(backup.close)
            return cls(state, retriever, runner, identity, closing.pop_all())
        raise AssertionError("an ExitStack without exits swallows nothing")

    def close(self) -> None:
        """End the training process, stop the threads, close the stores and free the folder."""
        self._closing.close()

    # Searching

    def search(self, request: SearchRequest, user: str) -> SearchResult:
        """Rank the gallery for one query and remember what was shown, so that it can be marked.

        Raises RequestError when this visitor has searched too often.
        """
        self._search_limit.count(user)
        if request.image is not None:
            self._upload_limit.count(user)
        serving = self.retriever.serving
        vector = encode_query(serving, request)
        found = self.state.gallery.search(
            serving.vectors, vector, request.k, offset=request.offset, filters=request.filters
        )
        search = Search(
            user=user,
            caption=request.text,
            version=serving.version,
            backbone=self.retriever.backbone.name,
            negative=request.negative,
            image_query=request.image is not None,
        )
        query_id = self.state.marks.record_search(search, _shown(found))
        shown = request.offset + len(found)
        with self._searches_lock:
            self._searches[query_id] = _OpenSearch(serving, vector, request.filters, user, shown)
            while len(self._searches) > _OPEN_SEARCHES:
                self._searches.popitem(last=False)
        unknown = self.retriever.backbone.unknown_words(request.text)
        return SearchResult(
            query_id=query_id,
            version=serving.version,
            caption=request.text,
            candidates=self._views(found, query_id),
            total=self.visible(),
            unknown_words=unknown,
            warning=self._warning(request, unknown, empty=not found),
        )

    def more(self, query_id: str, user: str, k: int = 24) -> tuple[CandidateView, ...]:
        """The next `k` of a search's ranking, under the version that began it; fewer when the gallery ends."""
        check_k(k)
        with self._searches_lock:
            search = self._searches.get(query_id)
        if search is None:
            raise RequestError("this search is no longer open (the app was started again since): search once more")
        if search.user != user:
            raise NotAllowedError("this search belongs to another user: search yourself")
        found = self.state.gallery.search(
            search.serving.vectors, search.vector, k, offset=search.shown, filters=search.filters
        )
        if found:
            self.state.marks.extend_search(query_id, _shown(found))
            search.shown = max(search.shown, found[-1].rank)
        return self._views(found, query_id)

    def visible(self) -> int:
        """How many pictures a search can return."""
        gallery = self.state.gallery
        return gallery.count() - sum(gallery.count(source=source) for source in gallery.hidden_sources)

    def picture(self, image_id: str, *, size: Size = "full") -> tuple[bytes, str]:
        """A picture's bytes and their MIME type; `thumb` fits into 256x384. Raises GalleryError if there is none."""
        _check_image_id(image_id)
        if size == "thumb":
            forgotten = self.state.forgetting.count()
            if forgotten != self._forgotten:  # perhaps by another process
                self._thumbnails.clear()
                self._forgotten = forgotten
            return self._thumbnails.of(image_id, lambda: self.state.gallery.data(image_id)), "image/jpeg"
        if size != "full":
            raise RequestError(f"the size of a picture is thumb or full, not {size!r}")
        return as_served(self.state.gallery.data(image_id))

    # Marking

    def mark(self, user: str, query_id: str, image_id: str, verdict: Verdict | None) -> None:
        """Judge a picture that a search showed; None takes the judgement back."""
        self._check_marker(user)
        _check_ids(query_id, [image_id])
        if verdict is None:
            self.state.marks.clear(user, query_id, image_id)
        elif verdict in VERDICTS:
            self.state.marks.mark(user, query_id, image_id, verdict)
        else:
            raise RequestError(f"a verdict is one of {', '.join(VERDICTS)}, not {verdict!r}")

    def mark_rest(self, user: str, query_id: str, image_ids: Sequence[str], verdict: Verdict = "miss") -> int:
        """Judge many pictures at once; one undo takes all of it back. Returns how many were marked."""
        self._check_marker(user)
        _check_ids(query_id, image_ids)
        if verdict not in VERDICTS:
            raise RequestError(f"a verdict is one of {', '.join(VERDICTS)}, not {verdict!r}")
        return len(self.state.marks.mark_many(user, query_id, list(image_ids), verdict)) if image_ids else 0

    def undo(self, user: str) -> tuple[MarkView, ...]:
        """Take back this user's last action; returns the marks it had made, none if there was nothing left."""
        return tuple(_mark_view(mark) for mark in self.state.marks.undo(user))

    def verdicts(self, query_id: str, user: str) -> dict[str, Verdict]:
        """What this user has said about the pictures of a search, by image id."""
        _check_ids(query_id, [])
        if self.state.marks.search(query_id).user != user:
            raise NotAllowedError("this search belongs to another user: search yourself")
        return self.state.marks.verdicts(query_id)

    def my_marks(self, user: str, limit: int = 200) -> tuple[MarkView, ...]:
        """This user's current marks, newest first."""
        return tuple(_mark_view(mark) for mark in self.state.marks.current(user=user)[: -limit - 1 : -1])

    def stats(self, user: str | None = None) -> dict[str, int]:
        """Counts of current marks, this user's or everybody's."""
        counts = asdict(self.state.marks.stats(user=user))
        del counts["last_event"]
        return counts

    # Learning

    def train(self, user: str) -> JobRow:
        """Start fine-tuning now. Raises TrainingError without hits, JobError when it runs already."""
        self._check_admin(user)
        return _presentable(self.runner.start(by=user))

    def cancel(self, user: str) -> JobRow:
        """Cancel the run under way."""
        self._check_admin(user)
        return _presentable(self.runner.cancel())

    def job(self) -> JobRow | None:
        """The run that is queued or under way."""
        job = self.runner.job()
        return None if job is None else _presentable(job)

    def jobs(self, limit: int = 20) -> list[JobRow]:
        """The latest runs, newest first."""
        return [_presentable(job) for job in self.state.jobs.list(limit)]

    def versions(self) -> tuple[VersionView, ...]:
        """The versions of this backbone, newest first."""
        rows = self.state.versions.list(self.retriever.backbone.name)
        serving = self.retriever.serving.version
        views = [
            VersionView(
                id=row.id,
                backbone=row.backbone,
                parent=row.parent,
                status=row.status,
                created_at=row.created_at,
                metrics=dict(row.metrics),
                decision=str(row.gate.get("decision", "")),
                reason=without_paths(str(row.gate.get("reason", ""))),
                marks=dict(row.mark_counts),
                serving=row.id == serving,
            )
            for row in rows
        ]
        return tuple(sorted(views, key=lambda view: view.created_at, reverse=True))

    def promote(self, version: str, user: str) -> VersionView:
        """Make a version active by hand, whatever the gate said; its vectors are completed first.

        Raises CheckpointError when its weights are damaged; then nothing changes.
        """
        self._check_admin(user)
        row = self.state.versions.get(version)
        if row.backbone != self.retriever.backbone.name:
            raise RequestError(
                f"version {version} belongs to backbone {row.backbone}, but {self.retriever.backbone.name} is "
                f"loaded: start the app with --backbone {row.backbone}, or choose another version"
            )
        self.retriever.prepare(version)
        self.state.versions.promote(version, by=user, reason="promoted by hand")
        self.retriever.refresh()
        return self._version(version)

    def rollback(self, user: str) -> VersionView:
        """Make the version that was active before active again."""
        self._check_admin(user)
        row = self.state.versions.rollback(self.retriever.backbone.name, by=user)
        self.retriever.refresh()
        return self._version(row.id)

    def learning_view(self, user: str) -> LearningView:
        """All that the Learning page shows."""
        policy = self.runner.policy()
        finished = [job for job in self.jobs() if job.finished_at is not None]
        return LearningView(
            backbone=self.retriever.backbone.name,
            serving=self.retriever.serving.version,
            problem=without_paths(self.retriever.problem or ""),
            new_marks=policy.new_marks,
            hits=policy.hits,
            total_marks=self.state.marks.stats().total,
            marks_needed=max(0, self.settings.train_after_marks - policy.new_marks),
            policy=policy.text,
            job=self.job(),
            last_job=finished[0] if finished else None,
            versions=self.versions(),
            may_train=self.is_admin(user),
        )

    def rollback_target(self) -> str | None:
        """The version that `rollback` would bring back; None if there is none."""
        return self.state.versions.former(self.retriever.backbone.name)

    def export(self, format: str, user: str) -> Path:
        """Write the current marks as a data set; returns a file that may be served. Raises ExportError."""
        self._check_admin(user)
        return write_export(self.state, format)

    def forget(self, image_ids: Sequence[str], user: str) -> Forgotten:
        """Erase pictures, whatever was said of them and the exports that hold them. Raises ForgetError while training.

        Ids that the gallery does not know are looked for in everything else all the same.
        """
        self._check_admin(user)
        for image_id in image_ids:
            _check_image_id(image_id)
        return self.state.forgetting.forget(image_ids)

    def is_admin(self, user: str) -> bool:
        """Whether `user` may train, promote, roll back and export."""
        return user in self.settings.admins or not (self.settings.admins or self.settings.sign_in)

    def may_mark(self, user: str) -> bool:
        """Whether `user` may mark: everybody, or who has signed in."""
        return not self.settings.sign_in or is_signed_in(user)

    # Behind these

    def _check_marker(self, user: str) -> None:
        if not self.may_mark(user):
            raise NotAllowedError(
                "marks are taken from signed-in people only, so that nobody can spoil what others taught: "
                "sign in at the top of the page, then search again and mark"
            )

    def _check_admin(self, user: str) -> None:
        if not self.is_admin(user):
            raise NotAllowedError("only an administrator of this app may do this: sign in as one, or ask one")

    def _version(self, version: str) -> VersionView:
        return next(view for view in self.versions() if view.id == version)

    def _views(self, found: Sequence[Candidate], query_id: str) -> tuple[CandidateView, ...]:
        verdicts = self.state.marks.verdicts(query_id)
        return tuple(
            CandidateView(c.image_id, c.rank, c.score, c.pid, c.camera, c.captured_at, verdicts.get(c.image_id))
            for c in found
        )

    def _warning(self, request: SearchRequest, unknown: Sequence[str], *, empty: bool) -> str:
        name = self.retriever.backbone.name
        if empty:
            return (
                "No picture passes these filters: remove one."
                if request.filters and self.visible()
                else "The gallery is empty: add pictures with `python app.py index FOLDER`."
            )
        if not request.text or self._knows_some_word(request.text):
            told = [f"`{name}` does not know: {', '.join(unknown)}. The other words decide."] if unknown else []
            read = self.retriever.backbone.words_read(request.text)
            if read is not None:
                told.append(f"Only the first {read} words count: the description is longer than `{name}` reads.")
            return " ".join(told)
        return (
            f"`{name}` knows no word of this description, so these results say nothing: "
            "describe clothes, colours, hair, bags or what the person carries in plain English."
        )

    def _knows_some_word(self, caption: str) -> bool:
        words = [word for word in caption.split() if any(character.isalpha() for character in word)]
        return any(not self.retriever.backbone.unknown_words(word) for word in words)


def encode_query(serving: Serving, request: SearchRequest) -> NDArray[np.float32]:
    encoder = serving.encoder
    texts = [text for text in (request.text, request.negative) if text]
    rows = dict(zip(texts, encoder.encode_texts(texts), strict=True)) if texts else {}
    image = encoder.encode_images([request.image])[0] if request.image is not None else None
    return combine(text=rows.get(request.text), image=image, negative=rows.get(request.negative))


def _presentable(job: JobRow) -> JobRow:
    """A job as people may see it: no path of the server, and not who asked for it."""
    result = {key: without_paths(value) if isinstance(value, str) else value for key, value in job.result.items()}
    return replace(job, message=without_paths(job.message), params={}, result=result)


def _shown(found: Sequence[Candidate]) -> list[Shown]:
    return [Shown(candidate.image_id, candidate.rank, candidate.score) for candidate in found]


def _mark_view(mark: Mark) -> MarkView:
    return MarkView(
        mark.image_id, mark.query_id, mark.caption, mark.verdict, mark.rank, mark.score, mark.version, mark.marked_at
    )


def _check_ids(query_id: str, image_ids: Sequence[str]) -> None:
    if not isinstance(query_id, str) or not _QUERY_ID.fullmatch(query_id):
        raise RequestError(f"a query_id is the 32 hexadecimal digits a search returned, not {str(query_id)[:80]!r}")
    for image_id in image_ids:
        _check_image_id(image_id)


def _check_image_id(image_id: str) -> None:
    if not isinstance(image_id, str) or not _IMAGE_ID.fullmatch(image_id):
        raise RequestError(f"an image_id is the 64 hexadecimal digits a search returned, not {str(image_id)[:80]!r}")
