"""Marks kept in a private data set on the Hub, for disks that are emptied: sent as they come, read back at a start."""

from __future__ import annotations

import json
import logging
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from concurrent.futures import TimeoutError as TimedOut
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, CommitScheduler, HfApi
from pydantic import TypeAdapter, ValidationError

from app.periodic import Periodic
from app.settings import Settings
from app.state import State
from store.backup_files import forgotten, to_forget, without_lines, writing
from store.hub import hub_faults
from store.records import IMAGE_ID, QUERY_ID, Change, GivenMark
from store.store_errors import HubError, StoreError
from store.values import VERSION_NAME

IN_REPO = "marks"
EVERY_MINUTES = 5.0
LOOK_S = 5.0
_LAST_PUSH_S = 60.0
_MOST_LOGGED = 20  # lines left out; all are counted
_CHANGE = TypeAdapter(Change)

log = logging.getLogger(__name__)


class Backup:
    """Appends what marks have become to one JSON-lines file of this process, which the Hub's client uploads.

    A line says what one user's verdict on one picture for one caption is now: the mark, or null when it was taken
    back. It names the user as the store does, not by a pseudonym, so the data set is private and has to stay so.
    Lines on pictures that are forgotten leave the data set and its history.
    """

    def __init__(self, state: State, repo_id: str, *, endpoint: str | None = None) -> None:
        """Restore the marks if there are none here, then keep them. Raises HubError if the Hub refuses."""
        self._state, self._folder = state, state.settings.backup_dir
        self._api, self._repo_id = HfApi(endpoint=endpoint), repo_id
        api = self._api
        with hub_faults(repo_id, "the app does not start, because marks would be lost. Or unset UPPERSON_BACKUP_REPO"):
            api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True)
            if not api.dataset_info(repo_id).private:  # checked before anything is sent
                raise HubError(
                    f"{repo_id} is public, and a backup names the people who marked: make it private or choose another."
                )
            self._forget(to_forget(state.database))  # before anything comes back
            if state.marks.newest() == 0:
                _restore(state, api, repo_id)
                self._since = state.marks.newest()
            else:
                self._since = _kept_until(self._folder)
            self.scheduler = CommitScheduler(  # sends what the folder holds at once, and from then on
                repo_id=repo_id,
                repo_type="dataset",
                folder_path=self._folder,
                path_in_repo=IN_REPO,
                every=EVERY_MINUTES,
                private=True,
                hf_api=api,
            )
        self.file = self._folder / f"{uuid.uuid4().hex}.jsonl"
        self._forget_after = 0.0
        self._loop = Periodic(LOOK_S, self._bring_up_to_date, name="the backup")

    def write(self) -> int:
        """Append what changed since the last time, and return how many lines."""
        with writing(self._folder), self.scheduler.lock:
            changes = self._state.marks.changes(since=self._since)
            if changes:
                with self.file.open("a", encoding="utf-8") as out:
                    out.writelines(_line(change) for change in changes)
                self._since = max(change.event_id for change in changes)
        return len(changes)

    def push(self) -> None:
        """Send what was written. Raises HubError."""
        with self._sent():
            self.scheduler.trigger().result(_LAST_PUSH_S)

    def forget(self) -> int:
        """Remove pictures forgotten since the last time from the data set, and return how many. Raises HubError."""
        tombstones = to_forget(self._state.database)
        if tombstones:
            with self._sent():
                # In the queue of the scheduler's own commits: none of them can bring an older state of a file after it.
                self._api.run_as_future(self._forget, tombstones).result(_LAST_PUSH_S)
        return len(tombstones)

    def close(self) -> None:
        """Write and send what is left, then stop; what cannot be sent is logged."""
        self._loop.close()
        try:
            self.write()
            self.push()
            self.forget()
        except (StoreError, OSError) as fault:
            log.error("the last marks were not sent: %s", fault)
        finally:
            self.scheduler.stop()

    def _bring_up_to_date(self) -> None:
        self.write()
        if time.monotonic() >= self._forget_after:
            self._forget_after = time.monotonic() + 60 * EVERY_MINUTES  # if this fails
            self.forget()
            self._forget_after = 0.0

    @contextmanager
    def _sent(self) -> Iterator[None]:
        with hub_faults(self._repo_id, f"the marks lie in {self._folder}"):
            try:
                yield
            except TimedOut as fault:
                raise HubError(f"The Hub did not answer within a minute; the marks lie in {self._folder}.") from fault

    def _forget(self, tombstones: Collection[str]) -> None:
        """Rewrite the data set without lines on these pictures, also those of earlier disks, and drop its history."""
        if not tombstones:
            return
        changes: list[CommitOperationAdd | CommitOperationDelete] = []
        with _fetched(self._state, self._api, self._repo_id) as folder:
            for file in sorted(folder.glob("*.jsonl")):
                data, path = file.read_bytes(), f"{IN_REPO}/{file.name}"
                kept = without_lines(data, tombstones)
                if kept != data:
                    changes.append(CommitOperationAdd(path, kept) if kept else CommitOperationDelete(path))
        if changes:
            self._api.create_commit(self._repo_id, changes, commit_message="Forget pictures", repo_type="dataset")
        self._api.super_squash_history(self._repo_id, repo_type="dataset", commit_message="Marks")
        forgotten(self._folder, self._state.database, tombstones)


def _restore(state: State, api: HfApi, repo_id: str) -> None:
    """Import the marks of the data set; lines that are no marks are logged and left out."""
    latest: dict[tuple[str, str, str], tuple[str, Change]] = {}
    refused: list[tuple[str, str]] = []
    with _fetched(state, api, repo_id) as folder:
        for place, line in _lines(folder):
            try:
                change = _read(line)
            except ValueError as fault:
                refused.append((place, _why(fault)))
                continue
            key = change.user, change.caption_key, change.image_id
            if key not in latest or change.at >= latest[key][1].at:
                latest[key] = place, change
    given = [(place, change.mark) for place, change in latest.values() if change.mark is not None]
    outcomes = state.marks.import_given([mark for _, mark in given])
    refused += [(place, said) for (place, _), said in zip(given, outcomes, strict=True) if said != "taken"]
    if latest or refused:
        log.info(
            "%d marks came back from %s; %d lines could not be read", outcomes.count("taken"), repo_id, len(refused)
        )
    for place, reason in refused[:_MOST_LOGGED]:
        log.warning("left out: %s of %s: %s", place, repo_id, reason)


@contextmanager
def _fetched(state: State, api: HfApi, repo_id: str) -> Iterator[Path]:
    """A folder with the files of marks as the data set holds them, for one at a time."""
    folder = state.settings.fetched_dir / uuid.uuid4().hex  # the Hub's client remembers what it saw in a folder
    clear_fetched(state.settings)
    try:
        api.snapshot_download(repo_id, repo_type="dataset", local_dir=folder, allow_patterns=[f"{IN_REPO}/*.jsonl"])
        yield folder / IN_REPO
    finally:
        clear_fetched(state.settings)


def clear_fetched(settings: Settings) -> None:
    """Delete what a killed process had fetched: it may name pictures that have been forgotten since."""
    shutil.rmtree(settings.fetched_dir, ignore_errors=True)


def _lines(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every line of the files of a folder, each with a name for its place."""
    for file in sorted(folder.glob("*.jsonl")):
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield f"line {number} of {file.name}", line


def _line(change: Change) -> str:
    mark = None if change.mark is None else asdict(change.mark) | {"marked_at": change.mark.marked_at.isoformat()}
    return json.dumps(asdict(change) | {"at": change.at.isoformat(), "mark": mark}, ensure_ascii=False) + "\n"


def _read(line: bytes) -> Change:
    """Return the change in a line. Raises ValueError if the store could not have written it."""
    change = _CHANGE.validate_json(line.rstrip(b"\n"), strict=True)
    mark = change.mark
    try:
        moments = [moment.astimezone(UTC) for moment in (change.at, mark.marked_at if mark else change.at)]
    except OverflowError:
        moments = []
    if not moments or change.at.tzinfo is None:
        raise ValueError("a time has no zone, or lies outside the calendar")
    if mark is not None:
        if (mark.user, mark.caption_key, mark.image_id) != (change.user, change.caption_key, change.image_id):
            raise ValueError("the mark is of another user, caption or picture than the line says")
        if not _is_valid(mark):
            raise ValueError("the mark has an id, rank, score, version or time that no search gives")
    return change


def _is_valid(mark: GivenMark) -> bool:
    return bool(
        IMAGE_ID.fullmatch(mark.image_id)
        and QUERY_ID.fullmatch(mark.query_id)
        and 1 <= mark.rank < 2**31
        and -1.0001 <= mark.score <= 1.0001
        and VERSION_NAME.fullmatch(mark.version)
        and VERSION_NAME.fullmatch(mark.backbone)
        and mark.marked_at.tzinfo is not None
    )


def _why(fault: ValueError) -> str:
    """Return a reason that repeats nothing of the line: it may name people."""
    if isinstance(fault, ValidationError):
        first = fault.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    return str(fault)


def _kept_until(folder: Path) -> int:
    """Return the last event in the files of earlier processes that this disk still holds; 0 if none."""
    last = 0
    for _, line in _lines(folder):
        try:
            last = max(last, int(json.loads(line)["event_id"]))
        except (KeyError, TypeError, ValueError):
            continue  # cut short by a kill: the events after it are written again
    return last
