"""Pictures and embeddings in LanceDB; marks, versions and jobs in SQLite; marks as a data set."""

from store.database import Database
from store.errors import (
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
from store.export import ExportReport, export_marks
from store.forget import Forgetting, Forgotten
from store.gallery import Gallery
from store.images import Candidate, Facets, Filters, ImageRow, NewImage
from store.importing import ImportReport, import_marks
from store.jobs import JobRow, Jobs, JobState
from store.marks import Marks
from store.records import ForgottenMarks, Mark, MarkStats, Search, SearchRow, Shown, Verdict
from store.versions import Promotion, VersionRow, Versions

__all__ = [
    "Candidate",
    "Database",
    "DatabaseError",
    "ExportError",
    "ExportReport",
    "Facets",
    "Filters",
    "ForgetError",
    "Forgetting",
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
