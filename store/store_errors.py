"""What can go wrong in `store`.

StoreError
├── DatabaseError   app.db cannot be opened, read or written, or is newer than this program
├── GalleryError    a picture, an embedding or a search that does not fit; a damaged gallery
├── MarkError       a mark, or a search it belongs to, that is not known or not allowed
├── VersionError    a model version that is not known, or cannot be added, promoted or rolled back
│   └── OvertakenError  another version serves by now than the one that was to be replaced
├── JobError        a job that is not known, or may not start or end now
├── ForgetError     pictures that cannot be forgotten now
├── ExportError     marks that cannot be written out
└── HubError        the Hugging Face Hub refuses, or cannot be reached

Every message says what was expected, what came and what to do.
"""

from __future__ import annotations


class StoreError(Exception):
    """Root of everything `store` raises on bad input or bad files."""


class DatabaseError(StoreError):
    """The database cannot be used as it is."""


class GalleryError(StoreError):
    """The gallery refuses what came, or cannot be read."""


class MarkError(StoreError):
    """A search or mark does not exist, or does not belong together."""


class VersionError(StoreError):
    """A model version does not exist, or cannot take the state asked for."""


class OvertakenError(VersionError):
    """Another version serves than the one a candidate was compared with."""


class JobError(StoreError):
    """A job does not exist, or cannot take the state asked for."""


class ForgetError(StoreError):
    """Pictures cannot be forgotten now, or nothing says which."""


class ExportError(StoreError):
    """An export cannot be made."""


class HubError(StoreError):
    """The Hugging Face Hub cannot do what was asked."""
