"""Forgetting pictures: out of the gallery, the marks, the exports and the temporary files, from the disk itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from store.errors import ForgetError
from store.gallery import Gallery
from store.jobs import Jobs
from store.marks import Marks
from store.withdraw import delete_copies, withdraw

_COUNT = "times forgotten"  # the setting that counts, so that what other processes keep in memory can be dropped
_PENDING = "forgetting"  # the setting that names what is being forgotten, so that a stop in between is made up for


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What was erased: pictures, marks on them, exports that held them (withdrawn), copies in temporary files.

    `versions` may have been trained on them: their weights stay, and are flagged.
    """

    pictures: int
    marks: int
    copies: int
    exports: tuple[str, ...]
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Where pictures may lie: the stores, the folder of exports, and the folder of temporary files."""

    gallery: Gallery
    marks: Marks
    exports: Path
    temporary: Path

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
        return int(self.marks.database.setting(_COUNT, lambda: "0"))

    def _pending(self) -> list[str]:
        return list(json.loads(self.marks.database.setting(_PENDING, lambda: "[]")))

    def _erase(self, ids: list[str]) -> Forgotten:
        database = self.marks.database
        pictures = self.gallery.forget(ids)
        taken = self.marks.forget_images(ids)
        # After the gallery: what is exported from now on holds none of them.
        exports = withdraw(self.exports, set(ids))
        copies = delete_copies(self.temporary, set(ids))
        database.keep_setting(_COUNT, str(self.count() + 1))
        database.forget_setting(_PENDING)
        database.truncate_log()
        return Forgotten(
            pictures=pictures, marks=taken.marks, copies=copies, exports=tuple(exports), versions=taken.versions
        )
