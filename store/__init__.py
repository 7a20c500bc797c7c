"""Pictures and embeddings in LanceDB; marks, versions and jobs in SQLite; marks as a data set."""

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

__all__ = [
    "Candidate",
    "Database",
    "DatabaseError",
    "Deletion",
    "ExportError",
    "ExportReport",
    "Facets",
    "Filters",
    "ForgetError",
    "Forgotten",
    "ForgottenMarks",
    "Gallery",
    "GalleryError",
    "HubError",
    "ImageRow",
    "ImportReport",
    "JobError",
    "JobRow",
    "JobState",
    "Jobs",
    "Mark",
    "MarkError",
    "MarkStats",
    "Marks",
    "NewImage",
    "OvertakenError",
    "Promotion",
    "Search",
    "SearchRow",
    "Shown",
    "StoreError",
    "Verdict",
    "VersionError",
    "VersionRow",
    "Versions",
    "export_marks",
    "import_marks",
]
