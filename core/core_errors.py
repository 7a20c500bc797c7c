"""What can go wrong in `core`.

CoreError
├── BackboneError     a backbone that is not known or whose weights cannot be had
├── CheckpointError   PETL or released weights that are damaged or belong to another model
├── DeviceError       a processor or GPU that is not there, has no memory left or stopped answering
├── PictureError      a picture that cannot be decoded or is unfit for a person crop
└── QueryError        a query that holds nothing to search for

Every message says what was expected, what came and what to do.
"""

from __future__ import annotations


class CoreError(Exception):
    """Root of everything `core` raises on bad input."""


class BackboneError(CoreError):
    """A backbone is unknown or its weights are out of reach."""


class CheckpointError(CoreError):
    """A weights file is damaged, incomplete or made for another model."""


class DeviceError(CoreError):
    """The device to compute on is unknown, missing, full or gone."""


class PictureError(CoreError):
    """A picture is broken, empty, too small or too large."""


class QueryError(CoreError):
    """A query holds neither words nor a picture."""
