"""Signs of life of a job: progress, a heartbeat from a thread of its own, and stopping by a person or a signal."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from store import Jobs
from store.store_errors import StoreError
from train.finetuning.config import format_duration
from train.finetuning.loop import Cancelled, Step

EVERY = 5.0
"""Seconds between two reports of progress within a stage."""
HEARTBEAT = 20.0
"""Seconds after which the thread says that the process lives, whatever it computes."""

Echo = Callable[[str, float], None]


class Interrupted(Cancelled):
    """Raised where the process was asked to end by SIGINT or SIGTERM."""


class Heartbeat:
    """What a running job says of itself; use it as a context.

    `progress` raises Cancelled once the job was cancelled or given up as dead. A stage that begins is reported at once,
    progress within it at most every `EVERY` seconds. Between reports a thread beats every `HEARTBEAT` seconds, so that
    the longest forward pass is no silence.
    """

    def __init__(
        self,
        jobs: Jobs,
        job_id: int,
        echo: Echo,
        say: Callable[[str], None],
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`echo` gets each stage with the share done, `say` sentences for people, `log` steps and settings."""
        self._jobs, self._job, self._echo, self._say, self.log = jobs, job_id, echo, say, log
        self._stage, self._share, self._message, self.plan = "starting", 0.0, "", ""
        self._began: tuple[float, float] | None = None
        self._reported = time.monotonic()
        self._turn, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)
        self.stopped = False
        self._seconds: dict[str, float] = {}
        self._entered = time.monotonic()

    def seconds(self) -> dict[str, float]:
        """Where the time went so far: seconds by stage, in the order in which the stages began."""
        return {stage: round(seconds, 1) for stage, seconds in self._spent().items()}

    def _spent(self) -> dict[str, float]:
        now = self._seconds.get(self._stage, 0.0) + time.monotonic() - self._entered
        return self._seconds | {self._stage: now}

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def progress(self, stage: str, share: float) -> None:
        """Report the stage and the share of the job done. Raises Cancelled."""
        self._echo(stage, share)
        begins = stage != self._stage
        if begins:
            self._seconds, self._entered = self._spent(), time.monotonic()
            self._seconds.setdefault(stage, 0.0)
        self._stage, self._share = stage, min(1.0, share)
        if begins:
            self._message = self.plan
        if begins or time.monotonic() - self._reported >= EVERY:
            self._report()
        elif self._jobs.get(self._job).state != "running":
            self.stopped = True
        if self.stopped:
            raise Cancelled

    def say(self, text: str) -> None:
        """Show a sentence beside the progress: how long it will take, and why."""
        self.plan = self._message = text
        self._say(text)
        self._report()

    def chosen(self, mode: str) -> None:
        """Record in which mode the job trains, so that others can compare it with jobs of that mode."""
        self._jobs.record(self._job, {"mode": mode})

    def settings(self, **settings: object) -> None:
        """Log the settings of the run as one line of JSON."""
        self.log(f"settings {json.dumps(settings)}")

    def note(self, step: Step) -> None:
        """Log a step of the loop, and take it into the next report: its number, its loss, and the time that is left."""
        self.log(f"step {step.number} of {step.steps} · loss {step.loss:.4f}")
        now = time.monotonic()
        if self._began is None:
            self._began = now, self._share
        began, share = self._began
        left = (now - began) * (END - self._share) / (self._share - share) if self._share > share else None
        parts = [f"step {step.number} of {step.steps}", f"loss {step.loss:.3f}"]
        parts += [] if left is None else [f"about {format_duration(left)} left"]
        self._message = " · ".join(parts)

    def _report(self) -> None:
        with self._turn:
            self._reported = time.monotonic()
            alive = self._jobs.beat(self._job, stage=self._stage, fraction=self._share, message=self._message)
            self.stopped = self.stopped or not alive

    def _live(self) -> None:
        while not self._ended.wait(min(HEARTBEAT, EVERY)):
            if time.monotonic() - self._reported >= HEARTBEAT:
                try:
                    self._report()
                except StoreError:  # a full disk, say: `progress` meets it too and fails the job
                    continue


END = 0.87
"""Share of a job at which training and judging are done."""


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise Interrupted in the main thread at the first SIGINT or SIGTERM; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.getsignal(name) for name in names}

    def stop(_number: int, _frame: FrameType | None) -> None:
        for name in names:
            signal.signal(name, signal.SIG_DFL)
        raise Interrupted

    for name in names:
        signal.signal(name, stop)
    try:
        yield
    finally:
        for name in names:
            signal.signal(name, before[name])
