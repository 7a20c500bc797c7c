"""The services: everything the pages, the web API and the command line can do, composed in one place.

Methods raise errors of `app`, `core` and `store` whose messages are sentences for people.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

from app import sample_gallery
from app.app_errors import NotAllowedError, RequestError, without_paths
from app.backup import Backup, clear_fetched
from app.indexing import IndexReport, index_upload
from app.maintenance import Maintenance
from app.periodic import Periodic
from app.process.run_log import RunLog, read_log
from app.progress import Report, silent, staged
from app.readiness import Readiness
from app.runner import Runner
from app.search.comparing import Comparing
from app.search.cutoff import Cutoffs
from app.search.explaining import Explaining
from app.search.retriever import Retriever
from app.search.reviewing import Reviewer
from app.search.searching import Searching, encode_query
from app.search.views import (
    LearningView,
    MarkView,
    ReviewView,
    SearchRequest,
    SearchResult,
    Size,
    VersionView,
    check_k,
    presentable,
)
from app.settings import Settings
from app.state import State, locked
from app.web.decoding import PictureDecoder
from app.web.export_files import export_file
from app.web.identity import Identity, is_signed_in
from app.web.thumbnails import Thumbnails, as_served
from core import load_backbone
from core.device import choose_device
from store import Forgotten, ImageRow, JobRow, StoreError, Verdict
from store.records import check_ids, check_image_id

__all__ = ["SearchRequest", "SearchResult", "Services", "encode_query"]

log = logging.getLogger(__name__)


class Services:
    """The running app without its pages."""

    def __init__(
        self, state: State, retriever: Retriever, runner: Runner, identity: Identity, closing: ExitStack
    ) -> None:
        self.state, self.retriever, self.runner, self.identity = state, retriever, runner, identity
        self.settings = state.settings
        self._closing = closing
        decoder = PictureDecoder(retriever.backbone.image_size)
        closing.callback(decoder.close)
        self.searching = searching = Searching(state, retriever, decoder)
        # Everybody may do these; `Searching` counts who does them too often.
        self.search, self.more, self.rerank = searching.search, searching.more, searching.rerank
        self.duplicates, self.browse, self.facets = searching.duplicates, searching.browse, state.gallery.facets
        self.comparing = Comparing(state, retriever, searching.count)
        self.explaining = Explaining(state, searching)
        self.readiness = Readiness(state, retriever.backbone.name)
        self.cutoffs = Cutoffs(state, retriever)
        closing.callback(Periodic(60.0, self.cutoffs.refresh, name="estimating the score cut-off").close)
        self._thumbnails = Thumbnails()
        self._reviewer = Reviewer(state, retriever)
        self._forgotten = 0

    @classmethod
    def open(cls, settings: Settings, *, progress: Report = silent) -> Services:
        """Lock and open the data folder, load the backbone and the active version, draw the sample if it is due.

        Raises StartError, BackboneError or a StoreError when that cannot be; nothing stays open then.
        """
        with ExitStack() as closing:
            closing.enter_context(locked(settings))
            clear_fetched(settings)
            state = State(settings)
            closing.callback(state.close)
            try:
                state.deletion.finish(wait=False)
            except StoreError as error:  # searches may go on; maintenance tries again
                log.error("an interrupted deletion could not be completed: %s", error)
            identity = Identity.open(settings.data_dir / "secret")
            device = choose_device(settings.device)
            backbone = load_backbone(settings.backbone, weights=settings.weights).to(device)
            if sample_gallery.wanted(state):
                sample_gallery.draw_sample(state, report=progress)
            retriever = Retriever(state, backbone, progress=staged(progress, "Embedding pictures"))
            follow = partial(retriever.refresh, patient=True)
            following = Periodic(0.5, follow, name="following the active version", patience=10)
            closing.callback(following.close)
            maintenance = Maintenance(state, retriever)
            closing.callback(Periodic(60.0, maintenance.prune_searches, name="deleting old searches").close)
            maintaining = maintenance.complete_deletion, maintenance.update_index
            closing.callback(Periodic(10.0, *maintaining, name="maintenance").close)
            closing.callback(maintenance.cancel)
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

    def aspects(self, image_ids: Sequence[str]) -> dict[str, float]:
        """Width over height of these pictures, by id; ids without a picture are left out."""
        return {row.id: row.width / row.height for row in self.state.gallery.rows(image_ids)}

    def about(self, image_id: str) -> ImageRow:
        """Return what is known of a picture. Raises GalleryError if there is none of this id."""
        check_image_id(image_id)
        return self.state.gallery.get(image_id)

    def picture(self, image_id: str, *, size: Size = "full") -> tuple[bytes, str]:
        """Return a picture's bytes and their MIME type; `thumb` fits into 256x384.

        Raises GalleryError if there is none.
        """
        check_image_id(image_id)
        if size == "thumb":
            forgotten = self.state.deletion.count()
            if forgotten != self._forgotten:  # perhaps by another process
                self._thumbnails.clear()
                self._forgotten = forgotten
            small = self._thumbnails.of(image_id, forgotten, lambda: self.state.gallery.data(image_id))
            return small, "image/jpeg"
        if size != "full":
            raise RequestError(f"the size of a picture is thumb or full, not {size!r}")
        return as_served(self.state.gallery.data(image_id))

    # Adding

    def add_pictures(self, path: Path, user: str, progress: Report = silent) -> IndexReport:
        """Add an uploaded picture, or those in an uploaded zip, as the source `uploads`; they are found at once.

        Own pictures make the sample gallery step aside. Raises IndexingError, see `index_upload`; then nothing changes.
        """
        self._check_admin(user)
        return index_upload(path, self.state.gallery, self.retriever, report=progress)

    # Marking

    def mark(self, user: str, query_id: str, image_id: str, verdict: Verdict | None) -> None:
        """Judge a picture that a search showed; None takes the judgement back."""
        self._check_marker(user)
        check_ids(query_id, [image_id])
        self.searching.record(query_id)
        if verdict is None:
            self.state.marks.clear(user, query_id, image_id)
        else:
            self.state.marks.mark(user, query_id, image_id, verdict)

    def mark_rest(self, user: str, query_id: str, image_ids: Sequence[str], verdict: Verdict = "miss") -> int:
        """Judge many pictures at once; one undo takes all of it back. Returns how many were marked."""
        self._check_marker(user)
        check_ids(query_id, image_ids)
        self.searching.record(query_id)
        return len(self.state.marks.mark_many(user, query_id, list(image_ids), verdict)) if image_ids else 0

    def take_back(self, user: str, query_id: str, image_ids: Sequence[str]) -> int:
        """Take back what this user said of pictures, as one action. Returns how many marks that were."""
        self._check_marker(user)
        check_ids(query_id, image_ids)
        return len(self.state.marks.clear_many(user, query_id, list(image_ids)))

    def undo(self, user: str) -> tuple[MarkView, ...]:
        """Take back this user's last action; returns the marks it had made, none if there was nothing left."""
        return self.undo_action(user)[0]

    def undo_action(self, user: str) -> tuple[tuple[MarkView, ...], bool]:
        """As `undo`; also returns whether the action had taken those marks back instead of making them."""
        marks, cleared = self.state.marks.undo_action(user)
        return tuple(MarkView.of(mark) for mark in marks), cleared

    def verdicts(self, query_id: str, user: str) -> dict[str, Verdict]:
        """Return what this user has said about the pictures of a search, by image id."""
        check_ids(query_id, [])
        if self.state.marks.search(query_id).user != user:
            raise NotAllowedError("this search belongs to another user: search yourself")
        return self.state.marks.verdicts(query_id)

    def my_marks(self, user: str, limit: int = 200) -> tuple[MarkView, ...]:
        """Return this user's current marks, newest first."""
        return tuple(MarkView.of(mark) for mark in self.state.marks.current(user=user)[: -limit - 1 : -1])

    def review(self, user: str, k: int = 12) -> ReviewView:
        """Return the `k` pictures whose marks would teach most, each in a search of this user's that can be marked,
        and what users contradict each other about. Administrators review everybody's captions, others their own.
        """
        check_k(k)
        self.searching.count(user)
        return self._reviewer.review(user, k, everybody=self.is_admin(user))

    def stats(self, user: str | None = None) -> dict[str, int]:
        """Count current marks, this user's or everybody's."""
        counts = asdict(self.state.marks.stats(user=user))
        del counts["last_event"]
        return counts

    # Learning

    def train(self, user: str) -> JobRow:
        """Start fine-tuning now. Raises TrainingError without hits, JobError when it runs already."""
        self._check_admin(user)
        return presentable(self.runner.start(by=user))

    def adapt(self, user: str) -> JobRow:
        """Learn the style of the gallery now, without any mark. Raises JobError when a job is under way."""
        self._check_admin(user)
        return presentable(self.runner.adapt(by=user))

    def measure(self, version: str, user: str) -> JobRow:
        """Measure a version on the test descriptions of the one in use. Raises VersionError or JobError."""
        self._check_admin(user)
        return presentable(self.runner.measure(version, by=user))

    def cancel(self, user: str) -> JobRow:
        """Cancel the run under way."""
        self._check_admin(user)
        return presentable(self.runner.cancel())

    def job(self) -> JobRow | None:
        """Return the run that is queued or under way."""
        return (job := self.runner.job()) and presentable(job)

    def jobs(self, limit: int = 20) -> list[JobRow]:
        """Return the latest runs, newest first."""
        return [presentable(job) for job in self.state.jobs.list(limit)]

    def run_log(self, user: str) -> RunLog:
        """Return what the run under way, or else the last one, has written into its log."""
        self._check_admin(user)
        job = self.job() or self._last_job()
        return RunLog() if job is None else read_log(self.runner.log_file(job.id))

    def _last_job(self) -> JobRow | None:
        """Return the last run that ended and was not cancelled; of measuring only what failed."""
        ended = (job for job in self.jobs() if job.finished_at is not None and job.state != "cancelled")
        return next((job for job in ended if job.result.get("decision") != "measured"), None)

    def versions(self) -> tuple[VersionView, ...]:
        """Return the versions of this backbone, newest first."""
        rows = self.state.versions.list(self.retriever.backbone.name)
        serving, forgotten = self.retriever.serving.version, self.state.versions.learnt_forgotten()
        views = [VersionView.of(row, serving=row.id == serving, forgotten=forgotten.get(row.id, 0)) for row in rows]
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
        self.state.promote(row, self.retriever.encoder_of(version), by=user, reason="promoted by hand")
        self.retriever.refresh()
        return self._version(version)

    def rollback(self, user: str) -> VersionView:
        """Make the version that was active before active again."""
        self._check_admin(user)
        row = self.state.versions.rollback(self.retriever.backbone.name, by=user)
        self.retriever.refresh()
        return self._version(row.id)

    def learning_view(self, user: str) -> LearningView:
        """Return all that the Learning page shows."""
        policy, stats = self.runner.policy(), self.state.marks.stats()
        return LearningView(
            backbone=self.retriever.backbone.name,
            serving=self.retriever.serving.version,
            problem=without_paths(self.retriever.problem or ""),
            new_marks=policy.new_marks,
            hits=stats.hits,
            total_marks=stats.total,
            marks_needed=policy.missing,
            policy=policy.text,
            ready=self.readiness.now(),
            job=self.job(),
            last_job=self._last_job(),
            versions=self.versions(),
            may_train=self.is_admin(user),
        )

    def rollback_target(self) -> str | None:
        """Return the version that `rollback` would bring back, if any."""
        return self.state.versions.former(self.retriever.backbone.name)

    def export(self, format: str, user: str) -> Path:
        """Write the current marks as a data set; returns a file that may be served. Raises ExportError."""
        self._check_admin(user)
        return export_file(self.state, format)

    def forget(self, image_ids: Sequence[str], user: str) -> Forgotten:
        """Erase pictures, whatever was said of them and the exports that hold them; ids that the gallery does not know
        are looked for in everything else all the same. Raises ForgetError while training."""
        self._check_admin(user)
        for image_id in image_ids:
            check_image_id(image_id)
        return self.state.deletion.forget(image_ids)

    def is_admin(self, user: str) -> bool:
        """Return whether `user` may train, promote, roll back and export."""
        return user in self.settings.admins or not (self.settings.admins or self.settings.sign_in)

    def may_mark(self, user: str) -> bool:
        """Return whether `user` may mark: everybody, or who has signed in."""
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
