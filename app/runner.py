"""Fine-tuning in the background: starts the training process, watches it, and decides when the next is due."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from app.app_errors import TrainingError, without_paths
from app.periodic import Periodic
from app.process.priority import lower_priority
from app.process.run_log import bound_log
from app.state import State
from store import JobRow
from store.jobs import JobState
from store.store_errors import JobError
from store.values import JsonObject

log = logging.getLogger(__name__)

KIND, ADAPT, MEASURE = "finetune", "adapt", "measure"
ROOT = Path(__file__).resolve().parent.parent
GRACE = 20.0
"""Seconds a training process gets to end by itself after it was asked to."""
BY_POLICY = "policy"
STALE_AFTER = timedelta(minutes=10)
LOGS_KEPT = 20
LEAST_PICTURES = 50
"""Adaptation starts by itself where so many pictures are searched."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How far the marks are from the next run. `hits` are counted as far as they matter: up to those it takes.

    `new_marks` are those since the last run; `missing` those until the next: a run that was cancelled taught nothing,
    but the next does not start by itself on the same marks.
    """

    new_marks: int
    missing: int
    hits: int
    due: bool
    text: str


class _Child:
    """A training process: one that this app started, or one that outlived an app that was killed."""

    def __init__(
        self, job: int, process: psutil.Process, popen: subprocess.Popen[bytes] | None, log_file: Path
    ) -> None:
        self.job, self.log_file = job, log_file
        self._process, self._popen = process, popen
        self.cancelled_at: float | None = None

    @property
    def running(self) -> bool:
        if self._popen is not None:
            return self._popen.poll() is None
        return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE

    @property
    def exit_code(self) -> int | None:
        return None if self._popen is None else self._popen.poll()

    def end(self, *, grace: float = 5.0) -> None:
        """Ask the process and its children to end, then make them."""
        try:
            family = [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for send in (psutil.Process.terminate, psutil.Process.kill):
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    send(process)
            if self._popen is not None:
                with suppress(subprocess.TimeoutExpired):
                    self._popen.wait(grace)
            _, family = psutil.wait_procs(family, timeout=grace)
            if not family:
                return


class Runner:
    """Runs `python -m train finetune` as one process at a time, at a lower priority than the app."""

    def __init__(self, state: State, backbone: str) -> None:
        self._state, self._backbone = state, backbone
        self._child: _Child | None = None
        self._turn = threading.RLock()
        self._loops: list[Periodic] = []
        self._started_at = datetime.now(UTC)

    # What people can do

    def start(self, *, by: str) -> JobRow:
        """Queue a run and start it. Raises TrainingError without any hit, JobError when one is under way."""
        with self._turn:
            stats = self._state.marks.stats()
            if stats.hits == 0:
                raise TrainingError(
                    f"there is nothing to learn from yet: {stats.total} marks and no hit among them. "
                    "Search for people, mark those that fit as hits, then start again"
                )
            return self._begin(KIND, by, {"last_event": stats.last_event})

    def adapt(self, *, by: str) -> JobRow:
        """Queue an adaptation to the gallery's style and start it. Raises JobError when a job is under way."""
        with self._turn:
            return self._begin(ADAPT, by, {"pictures": self._pictures()})

    def measure(self, version: str, *, by: str) -> JobRow:
        """Queue the measuring of a version and start it.

        Raises VersionError where there is no such version, JobError when a job is under way.
        """
        with self._turn:
            self._state.versions.get(version)
            return self._begin(MEASURE, by, {"version": version}, version)

    def _begin(self, kind: str, by: str, params: JsonObject, *more: str) -> JobRow:
        job = self._state.jobs.queue(kind, {"backbone": self._backbone, "by": by, **params})
        self._child = self._spawn(job.id, kind, *more)
        return job

    def adaptation_due(self) -> bool:
        """Return whether enough pictures are searched, and half as many again as when adaptation was last tried.

        A job that was interrupted is tried again.
        """
        if self._state.settings.adapt == "off":
            return False
        tried = [
            int(job.params.get("pictures", 0))
            for job in self._state.jobs.list(100, kind=ADAPT)
            if job.params.get("backbone") == self._backbone and not job.result.get("interrupted")
        ]
        pictures = self._pictures()
        return pictures >= LEAST_PICTURES and (not tried or pictures >= 1.5 * max(tried))

    def _pictures(self) -> int:
        """Number of pictures that are searched."""
        gallery = self._state.gallery
        hidden = set(gallery.hidden_sources)
        return sum(count for source, count in gallery.sources().items() if source not in hidden)

    def cancel(self) -> JobRow:
        """Ask the run under way to stop; it is ended if it does not. Raises TrainingError when there is none."""
        with self._turn:
            job = self.job()
            if job is None:
                raise TrainingError("no fine-tuning is under way: there is nothing to cancel")
            self._state.jobs.request_cancel(job.id)
            if self._child is not None and self._child.cancelled_at is None:
                self._child.cancelled_at = time.monotonic()
            return self._state.jobs.get(job.id)

    def job(self) -> JobRow | None:
        """Return the run that is queued or under way."""
        return self._state.jobs.current()

    def policy(self) -> Policy:
        """Return the marks since the last run, and when the next starts by itself."""
        settings, marks = self._state.settings, self._state.marks
        last = self._last_run()
        since = int(last.params.get("last_event", 0)) if last else 0
        new = marks.stats(since=since)
        cancelled = self._last_cancelled()
        until = int(cancelled.params.get("last_event", 0)) if cancelled else 0
        since_cancelled = marks.stats(since=until).total if until > since else new.total
        hits = marks.count_hits(at_most=settings.train_min_hits)
        missing = max(0, settings.train_after_marks - since_cancelled)
        short = max(0, settings.train_min_hits - hits)
        late = self._overdue(last, cancelled) and since_cancelled > 0
        parts = [f"{missing} more {_plural('mark', missing)}"] if missing and not late else []
        parts += [f"{short} more {_plural('hit', short)}"] if short else []
        text = f"Fine-tuning starts by itself after {' and '.join(parts)}" if parts else "Fine-tuning is due"
        if settings.train_every_hours and missing:
            text += f", or {settings.train_every_hours:g} hours after the last run if there are new marks"
        return Policy(new.total, missing, hits, not parts, text + ".")

    def _last_run(self) -> JobRow | None:
        """Return the last run that the policy counts.

        Runs that closing the app cut off do not count: they are repeated. Nor do runs that were cancelled, or that
        people started too early and that learnt nothing: the marks are as new as before.
        """
        for job in self._own_runs():
            idle = job.result.get("decision") in ("undecided", "suspicious") and "version" not in job.result
            by_hand = job.params.get("by") != BY_POLICY
            if job.state != "cancelled" and not job.result.get("interrupted") and not (idle and by_hand):
                return job
        return None

    def _last_cancelled(self) -> JobRow | None:
        """Return the last run that somebody cancelled."""
        runs = (job for job in self._own_runs() if job.state == "cancelled" and not job.result.get("interrupted"))
        return next(runs, None)

    def _own_runs(self) -> list[JobRow]:
        """The last runs on marks of this backbone, newest first."""
        return [job for job in self._state.jobs.list(100, kind=KIND) if job.params.get("backbone") == self._backbone]

    def _overdue(self, *runs: JobRow | None) -> bool:
        """Return whether the last of these runs, the first mark where there is none, was too long ago."""
        hours = self._state.settings.train_every_hours
        if hours is None:
            return False
        begun = [job.created_at for job in runs if job is not None]
        if begun:
            since = max(begun)
        else:
            marks = self._state.marks.current()
            since = marks[0].marked_at if marks else self._started_at
        return datetime.now(UTC) - since >= timedelta(hours=hours)

    # Behind it

    def open(self, *, every: float = 0.5) -> None:
        """Settle what an earlier app left behind, then watch and apply the policy in the background until `close`."""
        for dead in self._state.jobs.recover(stale_after=STALE_AFTER):
            log.warning("job %s was interrupted and is marked as failed", dead.id)
        job = self.job()
        if job is not None:
            process = _training_process(job)
            if process is not None:
                log.warning("job %s still runs in process %s: watching it", job.id, job.pid)
                self._child = _Child(job.id, process, None, self.log_file(job.id))
            else:  # queued by an app that was killed before its process began, or the process id is another's now
                self._finish(job.id, "failed", "The app ended during this run. Start it again.", interrupted=True)
        self._loops = [
            Periodic(every, self._look_after_child, name="watching the training process", patience=10),
            Periodic(10 * every, self.start_if_due, name="starting training by itself", patience=10),
        ]

    def close(self) -> None:
        """End the training process, if any, and stop watching."""
        for loop in self._loops:
            loop.close()
        with self._turn:
            child, self._child = self._child, None
            if child is None or not child.running:
                return
            child.end()
            message = "The app was closed during this run; it starts again by itself when it is due."
            self._finish(child.job, "cancelled", message, interrupted=True)

    def start_if_due(self) -> None:
        """Start an adaptation or a fine-tuning if the policy says so and nothing runs."""
        with self._turn:
            if self._child is not None or self.job() is not None:
                return
            if self.adaptation_due():
                log.info("adaptation starts by itself: job %s", self.adapt(by=BY_POLICY).id)
            elif self.policy().due:
                log.info("fine-tuning starts by itself: job %s", self.start(by=BY_POLICY).id)

    def _look_after_child(self) -> None:
        with self._turn:
            child = self._child
            if child is None:
                return
            bound_log(child.log_file)
            if child.running:
                if child.cancelled_at is None and self._state.jobs.get(child.job).state == "cancelling":
                    child.cancelled_at = time.monotonic()
                if child.cancelled_at is not None and time.monotonic() - child.cancelled_at > GRACE:
                    child.end()
                else:
                    return
            self._child = None
            if not self._state.jobs.get(child.job).live:
                return
            if child.cancelled_at is not None:
                self._finish(child.job, "cancelled", "Cancelled; nothing that is served has changed.")
            else:
                self._finish(child.job, "failed", self._post_mortem(child))

    def _finish(self, job: int, state: JobState, message: str, *, interrupted: bool = False) -> None:
        with suppress(JobError):  # the process has just said so itself
            self._state.jobs.finish(job, state, message=message, result={"interrupted": True} if interrupted else {})
            log.warning("job %s: %s", job, message)

    def _post_mortem(self, child: _Child) -> str:
        """Return what the log says about a process that ended without a word to the database."""
        code = child.exit_code
        how = (
            "ended" if code is None else f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        )
        text = child.log_file.read_text(encoding="utf-8", errors="replace") if child.log_file.exists() else ""
        last = " / ".join(line.strip() for line in text.splitlines()[-3:] if line.strip())
        said = f" Its last words: {without_paths(last)[-600:]}" if last else ""
        return (
            f"The training process {how} before it had finished; nothing that is served has changed.{said} "
            f"The whole log is logs/{child.log_file.name} in the data folder. Remove the cause, then start it again."
        )

    def log_file(self, job: int) -> Path:
        """Return the file that a run's process writes into."""
        return self._state.settings.logs_dir / f"{KIND}-{job}.log"

    def _spawn(self, job: int, kind: str, *more: str) -> _Child:
        if self._child is not None and self._child.cancelled_at is not None:
            self._child.end()  # cancelled, and still on its way out
        settings = self._state.settings
        log_file = self.log_file(job)
        for old in sorted(settings.logs_dir.glob(f"{KIND}-*.log"), key=lambda file: file.stat().st_mtime)[:-LOGS_KEPT]:
            old.unlink(missing_ok=True)
        command = [sys.executable, "-m", "train", kind, *more, "--data-dir", str(settings.data_dir)]
        command += ["--backbone", self._backbone, "--job", str(job)]
        command += ["--weights", str(settings.weights)] if settings.weights else []
        command += ["--device", settings.train_device or settings.device]
        command += [] if settings.train_device else ["--share-device"]
        command += ["--mode", settings.train_mode, "--minutes", str(settings.train_minutes)] if kind == KIND else []
        command += ["--base", str(settings.train_base)] if settings.train_base else []
        threads = {"OMP_NUM_THREADS": str(settings.train_threads), "PYTHONUNBUFFERED": "1"}
        with log_file.open("ab") as out:
            # A group of its own: Ctrl-C in the terminal is for the app, which then ends it in order. Not a session of
            # its own: Linux shares the processors out among sessions first, a priority counts only within one.
            popen = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | threads, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, process_group=0,
            )  # fmt: skip
        lower_priority(popen.pid)
        return _Child(job, psutil.Process(popen.pid), popen, log_file)


def _training_process(job: JobRow) -> psutil.Process | None:
    """Return the process that a job says it runs in, if it still is that process and not a later one with its id."""
    try:
        process = psutil.Process(job.pid) if job.pid is not None else None
        return process if process is not None and job.kind in process.cmdline() else None
    except psutil.Error:
        return None


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
