"""Pictures and embeddings in LanceDB; marks, versions and jobs in SQLite; marks as a data set.

The names below are imported at first use: reading records and errors needs no database.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store.database import Database
    from store.deletion import Deletion, Forgotten
    from store.export import ExportReport, export_marks
    from store.export.marks_import import ImportReport, import_marks
    from store.gallery import Candidate, Facets, Filters, Gallery, ImageRow, NewImage
    from store.jobs import JobRow, Jobs, JobState
    from store.marks import Marks
    from store.records import ForgottenMarks, Mark, MarkStats, Search, SearchRow, Shown, Verdict
    from store.store_errors import (
        DatabaseError,
        ExportError,
        ForgetError,
        GalleryError,
        HubError,
        JobError,
        MarkError,
        OvertakenError,
        StoreError,
        VersionError,
    )
    from store.versions import Promotion, VersionRow, Versions

_HOMES = {
    "store.database": ("Database",),
    "store.deletion": ("Deletion", "Forgotten"),
    "store.export": ("ExportReport", "export_marks"),
    "store.export.marks_import": ("ImportReport", "import_marks"),
    "store.gallery": ("Candidate", "Facets", "Filters", "Gallery", "ImageRow", "NewImage"),
    "store.jobs": ("JobRow", "Jobs", "JobState"),
    "store.marks": ("Marks",),
    "store.records": ("ForgottenMarks", "Mark", "MarkStats", "Search", "SearchRow", "Shown", "Verdict"),
    "store.store_errors": ("DatabaseError", "ExportError", "ForgetError", "GalleryError", "HubError", "JobError",
        "MarkError", "OvertakenError", "StoreError", "VersionError"),
    "store.versions": ("Promotion", "VersionRow", "Versions"),
}  # fmt: skip

__all__ = [
    "Candidate", "Database", "DatabaseError", "Deletion", "ExportError", "ExportReport", "Facets", "Filters",
    "ForgetError", "Forgotten", "ForgottenMarks", "Gallery", "GalleryError", "HubError", "ImageRow", "ImportReport",
    "JobError", "JobRow", "JobState", "Jobs", "Mark", "MarkError", "MarkStats", "Marks", "NewImage",
    "OvertakenError", "Promotion", "Search", "SearchRow", "Shown", "StoreError", "Verdict", "VersionError",
    "VersionRow", "Versions", "export_marks", "import_marks",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'store' has no attribute {name!r}")
    return getattr(import_module(home), name)
