"""What the database records of deletion: the pictures being forgotten now, and how often pictures were forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from store.database import Database
from store.schema import settings

_COUNT = "times forgotten"  # other processes drop what they keep in memory when it changes
_PENDING = "forgetting"  # the pictures being forgotten, so that an interrupted run can be completed

Undo = Callable[[], object]


def pending(connection: Connection) -> list[str]:
    """Return the pictures that are being forgotten, or were when it was interrupted."""
    return list(json.loads(_value(connection, _PENDING) or "[]"))


def times(connection: Connection) -> int:
    """Return how often pictures were forgotten so far."""
    return int(_value(connection, _COUNT) or 0)


@contextmanager
def guard_deletion(database: Database, *, refuse: Exception | None = None) -> Iterator[list[Undo]]:
    """Undo what the block kept of pictures or marks if pictures were forgotten at any moment while it ran.

    A copy that was not complete while pictures were forgotten may hold one of them, and no search for copies could
    find it. The block appends a function that undoes it to the yielded list for everything that it keeps. Raises
    `refuse`, if given, after undoing, also in place of an error that the block raised.
    """
    before = _state(database)
    undo: list[Undo] = []

    def forgotten() -> bool:
        now = _state(database)
        if now == before and not now[1]:
            return False
        for action in undo:
            action()
        return True

    try:
        yield undo
    except Exception as error:
        if forgotten() and refuse is not None:
            raise refuse from error
        raise
    if forgotten() and refuse is not None:
        raise refuse


def begin(connection: Connection, ids: list[str]) -> None:
    """Record the pictures that are being forgotten from now on."""
    _keep(connection, _PENDING, json.dumps(ids))


def end(connection: Connection, ids: list[str]) -> None:
    """Record that these pictures are forgotten. Others that are being forgotten stay recorded."""
    gone = set(ids)
    left = [image_id for image_id in pending(connection) if image_id not in gone]
    _keep(connection, _COUNT, str(times(connection) + 1))
    if left:
        _keep(connection, _PENDING, json.dumps(left))
    else:
        connection.execute(settings.delete().where(settings.c.key == _PENDING))


def _state(database: Database) -> tuple[int, list[str]]:
    with database.read() as connection:
        return times(connection), pending(connection)


def _value(connection: Connection, key: str) -> str | None:
    return connection.scalar(sa.select(settings.c.value).where(settings.c.key == key))


def _keep(connection: Connection, key: str, value: str) -> None:
    connection.execute(settings.delete().where(settings.c.key == key))
    connection.execute(settings.insert().values(key=key, value=value))
