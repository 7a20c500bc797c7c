"""Pictures that somebody uploaded on the page go into the gallery: in a thread, one upload at a time."""

from __future__ import annotations

import logging
import threading
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from app.app_errors import RequestError, known_errors
from app.indexing import IndexReport, Skipped
from app.indexing.folder import NOT_TAKEN
from app.progress import Report
from core.images import PICTURE_SUFFIXES

log = logging.getLogger(__name__)

Add = Callable[[Path, str, Report], IndexReport]
"""Takes one uploaded file (a picture or a zip), the user and where to report progress."""


@dataclass(slots=True)
class Upload:
    """One upload under way or ended: `fault` says why nothing was added, or not all of it."""

    user: str
    stage: str = "Starting"
    done: int = 0
    total: int = 0
    running: bool = True
    fault: str = ""
    added: int = 0
    known: int = 0
    left_out: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Adding:
    """What was uploaded last, and how far it is."""

    def __init__(self, add: Add, folder: Path) -> None:
        """`folder` takes what has to be packed for `add`; it is removed afterwards.

        The uploaded files stay until Gradio removes them: it names them by what they hold, so a search by the same
        picture may be reading one of them.
        """
        self._add, self._folder = add, folder
        self._upload: Upload | None = None
        self._lock = threading.Lock()

    def start(self, files: Sequence[Path], user: str) -> threading.Thread:
        """Begin to add these files. Raises RequestError when there are none, or while others are added."""
        if not files:
            raise RequestError("expected pictures or a zip of pictures to add, got no file: choose some")
        with self._lock:
            if self._upload is not None and self._upload.running:
                raise RequestError("pictures are being added already: wait until that has ended, then add yours")
            self._upload = upload = Upload(user)
        thread = threading.Thread(target=self._work, args=(list(files), upload), name="adding", daemon=True)
        thread.start()
        return thread

    def of(self, user: str) -> Upload | None:
        """This user's last upload."""
        upload = self._upload
        return upload if upload is not None and upload.user == user else None

    def _work(self, files: list[Path], upload: Upload) -> None:
        def report(stage: str, done: int, total: int) -> None:
            upload.stage, upload.done, upload.total = stage, done, total

        packed = self._folder / f"adding-{uuid4().hex}.zip"
        faults = []
        try:
            loose = [file for file in files if not zipfile.is_zipfile(file)]
            parts = {file: file.name for file in files if file not in loose}
            if self._pack(loose, packed, upload):
                parts[packed] = "the pictures outside of zips"
            for part, name in parts.items():
                try:
                    self._take(self._add(part, upload.user, report), upload)
                except known_errors() as error:
                    faults.append(str(error))
                    upload.skipped.append(Skipped(name, str(error)))
                    upload.left_out += 1
            if faults and not upload.added + upload.known:
                upload.fault = "; ".join(faults)
        except Exception:  # those who wait must learn that it has ended
            log.exception("adding uploaded pictures failed")
            upload.fault = "adding these pictures failed for a reason that the server's log shows; what was added stays"
        finally:
            packed.unlink(missing_ok=True)
            upload.running = False

    @staticmethod
    def _pack(files: list[Path], path: Path, upload: Upload) -> bool:
        """Loose pictures as one zip, so that they are added at once; False when there is no picture among them."""
        pictures = []
        for file in files:
            if file.suffix.lower() in PICTURE_SUFFIXES:
                pictures.append(file)
            else:
                ends = ", ".join(sorted(PICTURE_SUFFIXES))
                said = f"is neither a zip nor a picture: names end in {ends}"
                if file.suffix.lower() in NOT_TAKEN:
                    said = "is a picture of a kind that is not taken: save it as JPEG or PNG"
                upload.skipped.append(Skipped(file.name, said))
                upload.left_out += 1
        if not pictures:
            return False
        taken: set[str] = set()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for number, file in enumerate(pictures):
                name = f"{number}/{file.name}" if file.name in taken else file.name
                taken.add(file.name)
                archive.write(file, name)
        return True

    @staticmethod
    def _take(found: IndexReport, upload: Upload) -> None:
        upload.added += found.added
        upload.known += found.known
        upload.left_out += found.skipped_count
        upload.skipped += found.skipped
        upload.notes += found.notes
