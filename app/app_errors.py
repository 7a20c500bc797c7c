"""What can go wrong in `app`, and how it reaches people.

AppError
├── SettingsError     an option or an UPPERSON_ variable that is unknown or out of range
├── StartError        the app cannot start: port taken, data folder locked or not writable
├── RequestError      a query, a mark or an API argument that cannot be taken
├── NotAllowedError   an action that is kept for administrators
├── IndexingError     a folder that holds no usable picture
└── TrainingError     fine-tuning cannot start, or its process ended badly

Every message says what was expected, what came and what to do. `known_errors` are shown to people as they
are; anything else is a fault of ours: it goes to the log, and people see no detail of it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class AppError(Exception):
    """Root of everything `app` raises on bad input."""


class SettingsError(AppError):
    """An option is unknown or has a value that cannot be used."""


class StartError(AppError):
    """The app cannot start here."""


class RequestError(AppError):
    """A user or API client asked for something that cannot be done as asked."""


class NotAllowedError(AppError):
    """Only an administrator may do this."""


class IndexingError(AppError):
    """Pictures could not be indexed."""


class TrainingError(AppError):
    """Fine-tuning cannot start or ended badly."""


def known_errors() -> tuple[type[Exception], ...]:
    """Return the roots of all errors whose message is a sentence for people."""
    from core.core_errors import CoreError
    from store.store_errors import StoreError

    return (AppError, CoreError, StoreError)


_PATH = re.compile(r"(?<![\w:/.])(?:[A-Za-z]:)?[/\\\\](?:[^\s/\\\\'\"“”]+[/\\\\])+([^\s/\\\\'\"“”]*)")


def without_paths(text: str) -> str:
    """`text` with every absolute path cut down to its last part: people need not know where the server keeps things."""
    return _PATH.sub(r"\1", text)


@contextmanager
def shown() -> Iterator[None]:
    """Turn known errors into `gr.Error`, which Gradio shows to the person or API client who caused them."""
    import gradio as gr

    try:
        yield
    except known_errors() as error:
        raise gr.Error(without_paths(str(error)), print_exception=False) from error


@contextmanager
def reported(*, as_json: bool) -> Iterator[None]:
    """Turn known errors of a command into a sentence on stderr and exit code 1; others are not caught."""
    import typer

    try:
        yield
    except known_errors() as error:
        if as_json:
            print(json.dumps({"error": str(error)}, ensure_ascii=False))
        print(f"Error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("Interrupted; what was finished is kept", file=sys.stderr)
        raise typer.Exit(1) from None
