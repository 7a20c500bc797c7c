"""Deletion of pictures from the gallery, the marks, the exports, the temporary files and the backup, on disk too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from store.backup_files import forget_in_backup
from store.deletion_log import begin, end, guard_deletion, pending, times
from store.export.withdrawal import delete_copies, withdraw
from store.gallery.gallery import Gallery
from store.jobs import live_job
from store.marks import Marks
from store.store_errors import ForgetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What was erased: pictures, marks on them, exports that held them (withdrawn), copies in temporary files.

    `versions` may have been trained on them: their weights stay, and are flagged. `backup`: marks are backed up, and
    the app is to rewrite the copy of the backup, at once if it runs, else at its next start.
    """

    pictures: int
    marks: int
    copies: int
    exports: tuple[str, ...]
    versions: tuple[str, ...]
    backup: bool = False


@dataclass(frozen=True, slots=True)
class Deletion:
    """The places that may hold pictures: the stores, and the folders of exports, temporary files and the backup."""

    gallery: Gallery
    marks: Marks
    exports: Path
    temporary: Path
    backup: Path | None = None

    def forget(self, ids: Sequence[str]) -> Forgotten:
        """Erase these pictures everywhere, including ids that the gallery does not know.

        If it is killed, `finish` completes it. Copies that left the data folder, and exports written elsewhere, stay.
        Raises ForgetError if there are no ids, and while a training run holds pictures in memory.
        """
        if not ids:
            raise ForgetError("Expected the ids of pictures to forget; none came.")
        with self._turn():
            with self.marks.database.write() as connection:  # no job in between: `Jobs.queue` checks what is pending
                job = live_job(connection)
                if job is not None:
                    raise ForgetError(
                        f"Job {job.id} is {job.state} and has read pictures already. Cancel it or wait for its end, "
                        "then forget, so that no version learns what is to be forgotten."
                    )
                wanted = list(dict.fromkeys([*pending(connection), *ids]))
                begin(connection, wanted)
            return self._erase(wanted)

    def finish(self, *, wait: bool = True) -> Forgotten | None:
        """Complete an interrupted deletion. Returns None if there is none.

        If another process deletes right now, wait for it, or return None without `wait`.
        """
        if not self.pending():
            return None
        with self._turn(wait=wait) as ours:
            wanted = self.pending() if ours else []
            return self._erase(wanted) if wanted else None

    @contextmanager
    def guard_searches(self) -> Iterator[Callable[[str, Sequence[str]], None]]:
        """Guard a block that records what searches show: call the yielded function with each search and its pictures.

        If pictures were forgotten while the block ran, those that are gone leave the records of these searches.
        """
        with guard_deletion(self.marks.database) as undo:
            yield lambda query_id, ids: undo.append(partial(self._take_out, query_id, ids))

    def count(self) -> int:
        """Return how often pictures were forgotten so far, by any process."""
        with self.marks.database.read() as connection:
            return times(connection)

    def pending(self) -> list[str]:
        """Return the pictures that are being forgotten, or were when it was interrupted."""
        with self.marks.database.read() as connection:
            return pending(connection)

    def _take_out(self, query_id: str, ids: Sequence[str]) -> None:
        there = {row.id for row in self.gallery.rows(ids)}
        self.marks.take_out(query_id, [image_id for image_id in ids if image_id not in there])

    @contextmanager
    def _turn(self, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock of deletion, one over all processes. Yields False if it is taken and we do not `wait`."""
        file = self.exports.parent / "forgetting.lock"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(file)
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
            return
        except OSError as fault:
            raise ForgetError(
                f"{file.name} in the data folder cannot be locked: {fault}. Give the right to write it, or delete it "
                "while nothing runs there."
            ) from fault
        try:
            yield True
        finally:
            lock.release()

    def _erase(self, ids: list[str]) -> Forgotten:
        database = self.marks.database
        pictures = self.gallery.forget(ids)
        taken = self.marks.forget_images(ids)
        try:
            backup = self.backup is not None and forget_in_backup(self.backup, database, ids)
            exports = withdraw(self.exports, set(ids))  # after the gallery: later exports hold none of them
            copies = delete_copies(self.temporary, set(ids))
        except OSError as fault:
            raise ForgetError(
                f"Not every copy of these pictures could be deleted: {fault}. Give the right to read and delete it, "
                "then forget once more; the app tries by itself, too."
            ) from fault
        with database.write() as connection:
            end(connection, ids)
        database.truncate_log()
        return Forgotten(
            pictures=pictures,
            marks=taken.marks,
            copies=copies,
            exports=tuple(exports),
            versions=taken.versions,
            backup=backup,
        )
