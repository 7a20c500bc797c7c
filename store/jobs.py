"""Jobs that run in their own process, one at a time: state, progress, cancelling, recovery."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import psutil
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from store.database import Database
from store.deletion_log import pending
from store.schema import jobs
from store.store_errors import JobError
from store.values import JsonObject, dump_json, utc_now

JobState = Literal["queued", "running", "cancelling", "done", "failed", "cancelled"]
LIVE: tuple[JobState, ...] = ("queued", "running", "cancelling")
ENDED: tuple[JobState, ...] = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job: `fraction` of it done in 0..1, `result` what it left, `pid` its process, times in UTC."""

    id: int
    kind: str
    state: JobState
    stage: str
    fraction: float
    message: str
    params: dict[str, Any]
    result: dict[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    heartbeat_at: datetime | None
    pid: int | None

    @property
    def live(self) -> bool:
        """Whether it is still to run or running."""
        return self.state in LIVE


class Jobs:
    """Jobs in the database, which itself allows one that is queued or running."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def queue(self, kind: str, params: JsonObject | None = None) -> JobRow:
        """Queue a new job for its process and return it.

        Raises JobError while another is queued or running, or pictures are being forgotten, which it might still read.
        """
        dump_json(params or {}, "A job's params", JobError)
        values: dict[str, Any] = {
            "kind": kind, "state": "queued", "stage": "queued", "fraction": 0.0, "message": "",
            "params": dict(params or {}), "result": {}, "created_at": utc_now(),
        }  # fmt: skip
        try:
            with self.database.write() as connection:
                if pending(connection):
                    raise JobError(
                        "Pictures are being forgotten, so nothing can be learnt now. Try again in a moment; if it "
                        "was interrupted, start the app again, which completes it."
                    )
                done = connection.execute(jobs.insert(), values)
                assert done.inserted_primary_key is not None
                return _get(connection, int(done.inserted_primary_key[0]))
        except sa.exc.IntegrityError as fault:
            current = self.current()
            which = f"job {current.id} is {current.state}" if current else "another one was until just now"
            raise JobError(f"One job runs at a time, and {which}. Wait for its end, or cancel it.") from fault

    def start(self, job_id: int, pid: int) -> JobRow:
        """Mark a queued job as running in this process. Raises JobError in any other state."""
        now = utc_now()
        with self.database.write() as connection:
            row = _get(connection, job_id)
            if row.state != "queued":
                raise JobError(f"Job {job_id} can only start while it is queued; it is {row.state}. Queue a new one.")
            return _set(connection, job_id, state="running", pid=pid, started_at=now, heartbeat_at=now)

    def beat(self, job_id: int, *, stage: str, fraction: float, message: str = "") -> bool:
        """Record progress and the time. Returns False if the process should stop: cancelled, or given up as dead."""
        if not 0.0 <= fraction <= 1.0:
            raise JobError(f"A job's fraction lies in 0..1; {fraction} came.")
        with self.database.write() as connection:
            row = _get(connection, job_id)
            if row.state not in ("running", "cancelling"):
                return False
            _set(connection, job_id, stage=stage, fraction=float(fraction), message=message, heartbeat_at=utc_now())
            return row.state == "running"

    def record(self, job_id: int, result: JsonObject) -> None:
        """Record what a running job knows of its result before its end, when `finish` replaces it."""
        dump_json(result, "A job's result", JobError)
        with self.database.write() as connection:
            row = _get(connection, job_id)
            if row.state not in ("running", "cancelling"):
                raise JobError(f"Only a running job has something to record; job {job_id} is {row.state}.")
            _set(connection, job_id, result=dict(result))

    def request_cancel(self, job_id: int) -> JobRow:
        """Request a running job to stop at its next beat, or end a queued one; one that ended stays as it is."""
        with self.database.write() as connection:
            row = _get(connection, job_id)
            if row.state == "queued":
                return _set(
                    connection, job_id, state="cancelled", message="cancelled before it began", finished_at=utc_now()
                )
            if row.state == "running":
                return _set(connection, job_id, state="cancelling")
            return row

    def finish(self, job_id: int, state: JobState, *, message: str, result: JsonObject | None = None) -> JobRow:
        """End a job as done, failed or cancelled. Raises JobError if it has ended already."""
        if state not in ENDED:
            raise JobError(f"A job ends as {', '.join(ENDED)}; {state!r} came.")
        dump_json(result or {}, "A job's result", JobError)
        with self.database.write() as connection:
            row = _get(connection, job_id)
            if not row.live:
                raise JobError(f"Job {job_id} has ended already, as {row.state}. Its end cannot be changed.")
            values: dict[str, Any] = {"state": state, "message": message, "result": dict(result or {})}
            if state == "done":
                values["fraction"] = 1.0
            return _set(connection, job_id, finished_at=utc_now(), **values)

    def get(self, job_id: int) -> JobRow:
        """Return the job of this id. Raises JobError if there is none."""
        with self.database.read() as connection:
            return _get(connection, job_id)

    def current(self) -> JobRow | None:
        """Return the job that is queued or running, if any."""
        with self.database.read() as connection:
            return live_job(connection)

    def list(self, limit: int = 20, *, kind: str | None = None) -> list[JobRow]:
        """Return the newest jobs, of one kind if named, newest first."""
        if limit < 1:
            raise JobError(f"A limit is at least 1; {limit} came.")
        query = sa.select(jobs).order_by(jobs.c.id.desc()).limit(limit)
        if kind is not None:
            query = query.where(jobs.c.kind == kind)
        with self.database.read() as connection:
            return [JobRow(**row._mapping) for row in connection.execute(query)]

    def recover(self, *, stale_after: timedelta) -> builtins.list[JobRow]:
        """Fail jobs whose process is gone or has been silent for `stale_after`, and return them.

        A job still queued has no process yet: it fails once it has waited that long.
        """
        now = utc_now()
        failed: builtins.list[JobRow] = []
        with self.database.write() as connection:
            for found in connection.execute(sa.select(jobs).where(jobs.c.state.in_(LIVE))).all():
                row = JobRow(**found._mapping)
                heard = row.heartbeat_at or row.created_at
                gone = row.pid is not None and not _alive(row.pid)
                if gone or now - heard > stale_after:
                    silent = f"it has been silent since {heard:%Y-%m-%d %H:%M:%S} UTC"
                    why = "its process ended without a report" if gone else silent
                    message = f"interrupted: {why}. Start it again."
                    failed.append(_set(connection, row.id, state="failed", message=message, finished_at=now))
        return failed


def _alive(pid: int) -> bool:
    """Return whether the process runs; one that ended but was not yet waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def live_job(connection: Connection) -> JobRow | None:
    """Return the job that is queued or running, if any."""
    row = connection.execute(sa.select(jobs).where(jobs.c.state.in_(LIVE))).one_or_none()
    return None if row is None else JobRow(**row._mapping)


def _get(connection: Connection, job_id: int) -> JobRow:
    row = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise JobError(f"There is no job {job_id!r}. `list` shows those there are.")
    return JobRow(**row._mapping)


def _set(connection: Connection, job_id: int, **values: Any) -> JobRow:
    connection.execute(jobs.update().where(jobs.c.id == job_id).values(values))
    return _get(connection, job_id)
