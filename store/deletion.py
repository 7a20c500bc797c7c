"""Forgetting pictures: out of the gallery, the marks, the exports and the temporary files, from the disk itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from store.backup_files import forget_in_backup
from store.deletion_log import begin, end, forgetting_since, pending, was_forgotten_since
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
class Forgetting:
    """Where pictures may lie: the stores, the folders of exports and of temporary files, that of backed-up marks."""

    gallery: Gallery
    marks: Marks
    exports: Path
    temporary: Path
    backup: Path | None = None

    def forget(self, ids: Sequence[str]) -> Forgotten:
        """Erases these pictures everywhere; ids that the gallery does not know are looked for all the same.

        Killed at any moment, `finish` ends it. Copies that left the data folder, and exports written elsewhere,
        cannot be reached. Raises ForgetError if no id came, and while a training run holds pictures in memory.
        """
        if not ids:
            raise ForgetError("Expected the ids of pictures to forget; none came.")
        with self._turn():
            with self.marks.database.write() as connection:  # no job in between: `Jobs.queue` asks what is pending
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
        """Ends what a stop left half done; None if there is nothing, or if somebody is at it and we do not `wait`."""
        if not self.pending():
            return None
        with self._turn(wait=wait) as ours:
            wanted = self.pending() if ours else []
            return self._erase(wanted) if wanted else None

    @contextmanager
    def _turn(self, *, wait: bool = True) -> Iterator[bool]:
        """Who forgets pictures has this lock, over all processes; a kill frees it. False where we do not `wait`."""
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
                f"Expected to take the turn of forgetting, but: {fault}. Give the right to write {file.name} in the "
                "data folder, or delete it while nothing runs there."
            ) from fault
        try:
            yield True
        finally:
            lock.release()

    def catch_up(self, before: tuple[int, list[str]], query_id: str, ids: Sequence[str]) -> None:
        """Takes those of these pictures that are gone out of a search's record, if any was forgotten since
        `forgetting_since` said `before`: a search that had found them may have been recorded only afterwards."""
        if was_forgotten_since(self.marks.database, before):
            there = {row.id for row in self.gallery.rows(ids)}
            self.marks.take_out(query_id, [image_id for image_id in ids if image_id not in there])

    def count(self) -> int:
        """How often pictures were forgotten so far, by any process."""
        return forgetting_since(self.marks.database)[0]

    def pending(self) -> list[str]:
        """The pictures that are being forgotten, or were when it was broken off."""
        return forgetting_since(self.marks.database)[1]

    def _erase(self, ids: list[str]) -> Forgotten:
        try:
            return self._erased(ids)
        except OSError as fault:  # in the folders of exports and of temporary files
            raise ForgetError(
                f"Expected to delete every copy of these pictures, but: {fault}. Give the right to read and delete it, "
                "then forget once more; the app tries by itself, too."
            ) from fault

    def _erased(self, ids: list[str]) -> Forgotten:
        database = self.marks.database
        pictures = self.gallery.forget(ids)
        taken = self.marks.forget_images(ids)
        backup = self.backup is not None and forget_in_backup(self.backup, database, ids)
        # After the gallery: what is exported from now on holds none of them.
        exports = withdraw(self.exports, set(ids))
        copies = delete_copies(self.temporary, set(ids))
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
