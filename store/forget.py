"""Forgetting pictures: out of the gallery, the marks, the exports and the temporary files, from the disk itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from store.backups import forget_in_backup
from store.database import Database
from store.errors import ForgetError
from store.gallery import Gallery
from store.jobs import Jobs
from store.marks import Marks
from store.withdraw import delete_copies, withdraw

_COUNT = "times forgotten"  # the setting that counts, so that what other processes keep in memory can be dropped
_PENDING = "forgetting"  # the setting that names what is being forgotten, so that a stop in between is made up for


def forgetting_since(database: Database) -> tuple[str, str]:
    """How often pictures were forgotten so far, and which are being forgotten now.

    Who copies pictures or marks asks before, keeps nothing if `was_forgotten_since`, and so leaves nothing that a
    search for copies could not see because it was not whole yet.
    """
    kept = database.kept(_COUNT, _PENDING)
    return kept.get(_COUNT, "0"), kept.get(_PENDING, "[]")


def was_forgotten_since(database: Database, before: tuple[str, str]) -> bool:
    """Whether pictures were being forgotten at any moment since `forgetting_since` said `before`."""
    now = forgetting_since(database)
    return now != before or now[1] != "[]"


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
        database = self.marks.database
        job = Jobs(database).current()
        if job is not None:
            raise ForgetError(
                f"Job {job.id} is {job.state} and has read pictures already. Cancel it or wait for its end, then "
                "forget, so that no version learns what is to be forgotten."
            )
        wanted = list(dict.fromkeys([*self._pending(), *ids]))
        database.keep_setting(_PENDING, json.dumps(wanted))
        return self._erase(wanted)

    def finish(self) -> Forgotten | None:
        """Ends what a stop left half done; None if there is nothing."""
        wanted = self._pending()
        return self._erase(wanted) if wanted else None

    def count(self) -> int:
        """How often pictures were forgotten so far, by any process."""
        return int(forgetting_since(self.marks.database)[0])

    def _pending(self) -> list[str]:
        return list(json.loads(forgetting_since(self.marks.database)[1]))

    def _erase(self, ids: list[str]) -> Forgotten:
        database = self.marks.database
        pictures = self.gallery.forget(ids)
        taken = self.marks.forget_images(ids)
        backup = self.backup is not None and forget_in_backup(self.backup, database, ids)
        # After the gallery: what is exported from now on holds none of them.
        exports = withdraw(self.exports, set(ids))
        copies = delete_copies(self.temporary, set(ids))
        database.keep_setting(_COUNT, str(self.count() + 1))
        database.forget_setting(_PENDING)
        database.truncate_log()
        return Forgotten(
            pictures=pictures,
            marks=taken.marks,
            copies=copies,
            exports=tuple(exports),
            versions=taken.versions,
            backup=backup,
        )
