"""What the database says of forgetting: what is under way, and how often it was done. Others look before they act."""

from __future__ import annotations

import json

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from store.database import Database
from store.schema import settings

_COUNT = "times forgotten"  # counts, so that what other processes keep in memory can be dropped
_PENDING = "forgetting"  # names what is being forgotten, so that a stop in between is made up for


def pending(connection: Connection) -> list[str]:
    """The pictures that are being forgotten, or were when it was broken off."""
    return list(json.loads(_value(connection, _PENDING) or "[]"))


def times(connection: Connection) -> int:
    """How often pictures were forgotten so far."""
    return int(_value(connection, _COUNT) or 0)


def forgetting_since(database: Database) -> tuple[int, list[str]]:
    """How often pictures were forgotten so far, and which are being forgotten now.

    Who copies pictures or marks asks before, keeps nothing if `was_forgotten_since`, and so leaves nothing that a
    search for copies could not see because it was not whole yet.
    """
    with database.read() as connection:
        return times(connection), pending(connection)


def was_forgotten_since(database: Database, before: tuple[int, list[str]]) -> bool:
    """Whether pictures were being forgotten at any moment since `forgetting_since` said `before`."""
    now = forgetting_since(database)
    return now != before or bool(now[1])


def begin(connection: Connection, ids: list[str]) -> None:
    """Names what is being forgotten from now on."""
    _keep(connection, _PENDING, json.dumps(ids))


def end(connection: Connection, ids: list[str]) -> None:
    """These are forgotten, and it was done once more. Others may have been named meanwhile: they stay."""
    gone = set(ids)
    left = [image_id for image_id in pending(connection) if image_id not in gone]
    _keep(connection, _COUNT, str(times(connection) + 1))
    if left:
        _keep(connection, _PENDING, json.dumps(left))
    else:
        connection.execute(settings.delete().where(settings.c.key == _PENDING))


def _value(connection: Connection, key: str) -> str | None:
    return connection.scalar(sa.select(settings.c.value).where(settings.c.key == key))


def _keep(connection: Connection, key: str, value: str) -> None:
    connection.execute(settings.delete().where(settings.c.key == key))
    connection.execute(settings.insert().values(key=key, value=value))
