"""Jobs on a real SQLite file, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from store import Database, JobError, JobRow, Jobs

HOUR = timedelta(hours=1)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    database = Database(tmp_path / "app.db")
    yield Jobs(database)
    database.close()


def test_a_job_from_queue_to_end(jobs: Jobs) -> None:
    queued = jobs.queue("finetune", {"backbone": "mini"})
    assert queued == JobRow(
        id=1, kind="finetune", state="queued", stage="queued", fraction=0.0, message="", params={"backbone": "mini"},
        result={}, created_at=queued.created_at, started_at=None, finished_at=None, heartbeat_at=None, pid=None,
    )  # fmt: skip
    assert abs(datetime.now(UTC) - queued.created_at) < timedelta(minutes=1)
    assert jobs.current() == queued

    started = jobs.start(1, 1234)
    assert (started.state, started.pid, started.heartbeat_at) == ("running", 1234, started.started_at)
    assert jobs.beat(1, stage="training", fraction=0.5, message="step 3")
    running = jobs.get(1)
    assert (running.state, running.stage, running.fraction, running.message) == ("running", "training", 0.5, "step 3")
    assert running.heartbeat_at is not None
    assert started.heartbeat_at is not None
    assert running.heartbeat_at > started.heartbeat_at

    jobs.record(1, {"mode": "text"})
    assert (jobs.get(1).result, jobs.get(1).stage) == ({"mode": "text"}, "training")
    done = jobs.finish(1, "done", message="promoted", result={"version": "mini-v1"})
    assert (done.state, done.fraction, done.message, done.result) == ("done", 1.0, "promoted", {"version": "mini-v1"})
    assert done.finished_at is not None
    assert not done.live
    assert jobs.current() is None
    assert jobs.list() == [done]


def test_one_job_at_a_time(jobs: Jobs) -> None:
    job = jobs.queue("finetune")
    for state in ("queued", "running", "cancelling"):
        with pytest.raises(
            JobError, match=f"One job runs at a time, and job 1 is {state}. Wait for its end, or cancel it"
        ):
            jobs.queue("pretrain")
        if state == "queued":
            jobs.start(job.id, os.getpid())
        elif state == "running":
            jobs.request_cancel(job.id)
    jobs.finish(job.id, "cancelled", message="")
    assert jobs.queue("finetune").id == 2
    assert [row.id for row in jobs.list(1)] == [2]


def test_jobs_are_listed_by_kind_newest_first(jobs: Jobs) -> None:
    for kind in ("adapt", "finetune", "finetune", "adapt"):
        jobs.request_cancel(jobs.queue(kind).id)
    assert [row.id for row in jobs.list()] == [4, 3, 2, 1]
    assert [row.id for row in jobs.list(kind="adapt")] == [4, 1]
    assert [row.id for row in jobs.list(1, kind="finetune")] == [3], "a limit counts jobs of the kind"
    assert jobs.list(kind="pretrain") == []


def test_threads_that_queue_at_once_get_one_job(jobs: Jobs) -> None:
    def queue(_: int) -> bool:
        try:
            jobs.queue("finetune")
        except JobError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(queue, range(16))) == 1
    assert len(jobs.list()) == 1


def test_cancelling_is_heard_at_the_next_beat(jobs: Jobs) -> None:
    job = jobs.queue("finetune")
    jobs.start(job.id, os.getpid())
    assert jobs.request_cancel(job.id).state == "cancelling"
    assert jobs.request_cancel(job.id).state == "cancelling"
    assert not jobs.beat(job.id, stage="training", fraction=0.2, message="")
    assert jobs.get(job.id).fraction == 0.2
    ended = jobs.finish(job.id, "cancelled", message="cancelled by ada")
    assert (ended.state, ended.fraction) == ("cancelled", 0.2)
    assert jobs.request_cancel(job.id) == ended
    assert not jobs.beat(job.id, stage="training", fraction=0.3), "a process that is given up should stop"
    assert jobs.get(job.id) == ended


def test_a_queued_job_is_cancelled_at_once(jobs: Jobs) -> None:
    job = jobs.queue("finetune")
    cancelled = jobs.request_cancel(job.id)
    assert cancelled.state == "cancelled"
    assert cancelled.finished_at is not None
    with pytest.raises(JobError, match="can only start while it is queued; it is cancelled"):
        jobs.start(job.id, 1)
    jobs.queue("finetune")


def test_what_is_no_job_is_refused(jobs: Jobs) -> None:
    for call in (lambda: jobs.get(7), lambda: jobs.start(7, 1), lambda: jobs.request_cancel(7)):
        with pytest.raises(JobError, match="There is no job 7"):
            call()
    with pytest.raises(JobError, match="params must be JSON"):
        jobs.queue("finetune", {"path": Path()})
    job = jobs.queue("finetune")
    with pytest.raises(JobError, match=r"Only a running job has something to record; job 1 is queued"):
        jobs.record(job.id, {"mode": "text"})
    jobs.start(job.id, os.getpid())
    with pytest.raises(JobError, match=r"it is running\. Queue a new one"):
        jobs.start(job.id, os.getpid())
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(JobError, match=r"lies in 0\.\.1"):
            jobs.beat(job.id, stage="x", fraction=fraction)
    with pytest.raises(JobError, match="ends as done, failed, cancelled; 'running' came"):
        jobs.finish(job.id, "running", message="")
    with pytest.raises(JobError, match="result must be JSON"):
        jobs.finish(job.id, "done", message="", result={"loss": float("nan")})
    jobs.finish(job.id, "failed", message="out of memory")
    with pytest.raises(JobError, match="has ended already, as failed"):
        jobs.finish(job.id, "done", message="")
    with pytest.raises(JobError, match="at least 1; 0 came"):
        jobs.list(0)


def test_a_job_whose_process_died_is_recovered(jobs: Jobs) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    job = jobs.queue("finetune")
    jobs.start(job.id, process.pid)
    assert jobs.recover(stale_after=HOUR) == [], "it lives"
    process.communicate(b"\n", timeout=30)
    recovered = jobs.recover(stale_after=HOUR)
    assert [(row.id, row.state) for row in recovered] == [(job.id, "failed")]
    assert recovered[0].message == "interrupted: its process ended without a report. Start it again."
    assert recovered[0].finished_at is not None
    assert jobs.recover(stale_after=HOUR) == []
    jobs.queue("finetune")


def test_a_process_that_ended_and_was_not_waited_for_counts_as_dead(jobs: Jobs) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    job = jobs.queue("finetune")
    jobs.start(job.id, process.pid)
    assert [row.state for row in jobs.recover(stale_after=HOUR)] == ["failed"]
    process.communicate()


def test_a_silent_job_is_recovered(jobs: Jobs) -> None:
    job = jobs.queue("finetune")
    assert jobs.recover(stale_after=HOUR) == [], "it may yet start"
    jobs.start(job.id, os.getpid())
    jobs.request_cancel(job.id)
    recovered = jobs.recover(stale_after=timedelta(0))
    assert [row.state for row in recovered] == ["failed"]
    assert recovered[0].message.startswith("interrupted: it has been silent since 20")
    waiting = jobs.queue("finetune")
    assert [row.id for row in jobs.recover(stale_after=timedelta(0))] == [waiting.id]
