"""Marks kept in a private data set on the Hub, for disks that are emptied: sent as they come, read back at a start."""

from __future__ import annotations

import json
import logging
import tempfile
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import TimeoutError as TimedOut
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from huggingface_hub import CommitScheduler, HfApi

from app.state import State
from store.errors import HubError, StoreError
from store.hub import hub_faults
from store.marks import Change, GivenMark

IN_REPO = "marks"
EVERY_MINUTES = 5.0
_LOOK_S = 5.0
_LAST_PUSH_S = 60.0

log = logging.getLogger(__name__)


class Backup:
    """Appends what marks have become to one JSON-lines file of this process, which the Hub's client uploads.

    A line says what one user's verdict on one picture for one caption is now: the mark, or null when it was taken
    back. It names the user as the store does, not by a pseudonym, so the data set is private and has to stay so.
    """

    def __init__(self, state: State, repo_id: str, *, endpoint: str | None = None) -> None:
        """Restores the marks if there are none here, then keeps them. Raises HubError if the Hub refuses."""
        self._state, self._folder = state, state.settings.data_dir / "backup"
        api = HfApi(endpoint=endpoint)
        with hub_faults(repo_id, "the app does not start, because marks would be lost. Or unset UPPERSON_BACKUP_REPO"):
            api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True)
            if not api.dataset_info(repo_id).private:  # asked before anything is sent
                raise HubError(
                    f"{repo_id} is public, and a backup names the people who marked: make it private or choose another."
                )
            if state.marks.stats().last_event == 0:
                restored, refused = _restore(state, api, repo_id)
                if restored or refused:
                    log.info("%d marks came back from %s; %d lines could not be read", restored, repo_id, refused)
                self._since = state.marks.stats().last_event
            else:
                self._since = _kept_until(self._folder)
            self._scheduler = CommitScheduler(  # sends what the folder holds at once, and from then on
                repo_id=repo_id,
                repo_type="dataset",
                folder_path=self._folder,
                path_in_repo=IN_REPO,
                every=EVERY_MINUTES,
                private=True,
                hf_api=api,
            )
        self._file = self._folder / f"{uuid.uuid4().hex}.jsonl"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="backup", daemon=True)
        self._thread.start()

    def write(self) -> int:
        """Appends what changed since the last time; how many lines."""
        changes = self._state.marks.changes(since=self._since)
        if changes:
            with self._scheduler.lock, self._file.open("a", encoding="utf-8") as out:
                out.writelines(_line(change) for change in changes)
            self._since = max(change.event_id for change in changes)
        return len(changes)

    def push(self) -> None:
        """Sends what was written. Raises HubError."""
        with hub_faults(self._scheduler.repo_id, f"the marks lie in {self._folder}"):
            try:
                self._scheduler.trigger().result(_LAST_PUSH_S)
            except TimedOut as fault:
                raise HubError(f"The Hub did not answer within a minute; the marks lie in {self._folder}.") from fault

    def close(self) -> None:
        """Writes and sends what is left, and stops; what cannot be sent is told in the log."""
        self._stopped.set()
        self._thread.join()
        try:
            self.write()
            self.push()
        except StoreError as fault:
            log.error("the last marks were not sent: %s", fault)
        self._scheduler.stop()

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOK_S):
            try:
                self.write()
            except (StoreError, OSError) as fault:  # tried again at the next look
                log.error("marks could not be written to the backup: %s", fault)


def _restore(state: State, api: HfApi, repo_id: str) -> tuple[int, int]:
    """Marks taken in, lines that could not be read."""
    latest: dict[tuple[str, str, str], tuple[datetime, GivenMark | None]] = {}
    refused = 0
    with tempfile.TemporaryDirectory(dir=state.settings.data_dir) as folder:
        api.snapshot_download(repo_id, repo_type="dataset", local_dir=folder, allow_patterns=[f"{IN_REPO}/*.jsonl"])
        for line in _lines(Path(folder, IN_REPO)):
            try:
                key, at, mark = _read(line)
            except (KeyError, TypeError, ValueError):
                refused += 1
                continue
            if key not in latest or at >= latest[key][0]:
                latest[key] = at, mark
    marks = [mark for _, mark in latest.values() if mark is not None]
    taken = sum(outcome == "taken" for outcome in state.marks.take_in(marks))
    return taken, refused + len(marks) - taken


def _lines(folder: Path) -> Iterator[str]:
    for file in sorted(folder.glob("*.jsonl")):
        with file.open(encoding="utf-8", errors="replace") as lines:
            yield from lines


def _line(change: Change) -> str:
    mark = None if change.mark is None else asdict(change.mark) | {"marked_at": change.mark.marked_at.isoformat()}
    return json.dumps(asdict(change) | {"at": change.at.isoformat(), "mark": mark}, ensure_ascii=False) + "\n"


def _read(line: str) -> tuple[tuple[str, str, str], datetime, GivenMark | None]:
    row: dict[str, Any] = json.loads(line)
    key = str(row["user"]), str(row["caption_key"]), str(row["image_id"])
    mark = row["mark"]
    if mark is not None:
        mark = GivenMark(**mark | {"marked_at": datetime.fromisoformat(mark["marked_at"])})
        if (mark.user, mark.caption_key, mark.image_id) != key:
            raise ValueError("the mark is of another user, caption or picture than the line says")
    return key, datetime.fromisoformat(row["at"]), mark


def _kept_until(folder: Path) -> int:
    """The last event in the files of earlier processes that this disk still holds; 0 if none."""
    last = 0
    for line in _lines(folder):
        try:
            last = max(last, int(json.loads(line)["event_id"]))
        except (KeyError, TypeError, ValueError):
            continue  # cut short by a kill: the events after it are written again
    return last
