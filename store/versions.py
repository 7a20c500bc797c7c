"""Model versions, and which one of each backbone is active."""

from __future__ import annotations

import builtins
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from store.database import Database
from store.schema import promotions, settings, versions
from store.store_errors import OvertakenError, VersionError
from store.values import JsonObject, check_version, dump_json, utc_now

Status = Literal["base", "candidate", "rejected", "active", "retired"]
_STATUSES: tuple[str, ...] = get_args(Status)
_DELETED = "deleted version "  # of a setting's key; the name follows, so that no other version ever gets it
_FORGOTTEN = "forgotten pictures learnt by "  # of a setting's key; the version's name follows


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """A backbone with PETL weights and what is known of them.

    `folder` holds the PETL file, None for a plain backbone; `gate` holds decision, reason and numbers;
    marks up to event `last_event` were learnt, `mark_counts` of them by verdict. Exactly one version of a
    backbone is active; "base" is a plain backbone that never was. `vectors` names the version under which the gallery
    keeps its image vectors: itself (or ""), unless its pictures are encoded just as another version's.
    """

    id: str
    backbone: str
    parent: str | None = None
    status: Status = "candidate"
    created_at: datetime = field(default_factory=utc_now)
    folder: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    last_event: int = 0
    mark_counts: dict[str, Any] = field(default_factory=dict)
    vectors: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", self.vectors or self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One change of the active version: of what kind, by whom, why."""

    kind: Literal["base", "promote", "rollback"]
    backbone: str
    version: str
    former: str | None
    by: str
    reason: str
    at: datetime


class Versions:
    """Model versions in the database; a change of the active one is one transaction, kept in a history."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def ensure_base(self, backbone: str, metrics: JsonObject | None = None) -> VersionRow:
        """Return version 0 of a backbone, the plain one.

        Created at first use, and then active unless another version is.
        """
        name = check_version(f"{backbone}-v0", VersionError)
        with self.database.write() as connection:
            if _find(connection, name) is None:
                active = _active(connection, backbone)
                status: Status = "base" if active else "active"
                _insert(connection, VersionRow(id=name, backbone=backbone, status=status, metrics=dict(metrics or {})))
                if active is None:
                    _log(connection, "base", backbone, name, None, "setup", "the plain backbone")
            return _get(connection, name)

    def next_id(self, backbone: str) -> str:
        """Return the name for the next version of a backbone, such as "mini-v3"."""
        numbers = [0]
        with self.database.read() as connection:
            keys = connection.scalars(sa.select(settings.c.key).where(settings.c.key.startswith(_DELETED)))
            deleted = [key.removeprefix(_DELETED) for key in keys]
        for name in (*(row.id for row in self.list(backbone)), *deleted):
            found = re.fullmatch(re.escape(backbone) + r"-v(\d+)", name)
            numbers += [int(found.group(1))] if found else []
        return check_version(f"{backbone}-v{max(numbers) + 1}", VersionError)

    def add(self, row: VersionRow) -> VersionRow:
        """Add a new version that is not active.

        Raises VersionError if the id is taken, the status is "active" (`promote` does that), the parent is not
        known, the vectors are those of no version or of another backbone's, or metrics and the like are not JSON.
        """
        check_version(row.id, VersionError)
        if row.status == "active" or row.status not in _STATUSES:
            raise VersionError(
                f"A version is added as base, candidate, rejected or retired; {row.status!r} came. "
                "Promote it afterwards."
            )
        with self.database.write() as connection:
            if _find(connection, row.id) is not None:
                raise VersionError(f"There is a version {row.id!r} already. Take the name `next_id` gives.")
            if row.parent is not None:
                _get(connection, row.parent)
            if row.vectors != row.id and _get(connection, row.vectors).backbone != row.backbone:
                raise VersionError(
                    f"{row.id} shares the vectors of {row.vectors}, which has another backbone than {row.backbone!r}: "
                    "embeddings of two backbones cannot be compared. Give it vectors of its own."
                )
            _insert(connection, row)
            return _get(connection, row.id)

    def update_gate(
        self,
        version: str,
        gate: JsonObject,
        *,
        status: Status | None = None,
        metrics: JsonObject | None = None,
    ) -> VersionRow:
        """Keep the gate's decision, reason and numbers, and, if given, the metrics and "candidate" or "rejected".

        An active version keeps its status. Raises VersionError if there is no such version.
        """
        if status not in (None, "candidate", "rejected"):
            raise VersionError(f"A gate makes a version a candidate or rejects it; {status!r} came. Use `promote`.")
        dump_json(gate, "A gate's result", VersionError)
        values: dict[str, Any] = {"gate": dict(gate)}
        if metrics is not None:
            dump_json(metrics, "Metrics", VersionError)
            values["metrics"] = dict(metrics)
        with self.database.write() as connection:
            row = _get(connection, version)
            if status is not None:
                if row.status == "active":
                    raise VersionError(f"Version {version!r} is active. Promote another version or roll back first.")
                values["status"] = status
            connection.execute(versions.update().where(versions.c.id == version).values(values))
            return _get(connection, version)

    def delete(self, version: str) -> VersionRow:
        """Delete the row of a version and return what it held; its name is never given again.

        Raises VersionError if there is none, or it is needed: a plain backbone, one that is or was active, which the
        history names, one that others started from or whose vectors they share.
        """
        with self.database.write() as connection:
            row = _get(connection, version)
            others = sa.select(versions.c.id).where(versions.c.id != version).order_by(versions.c.created_at)
            children = list(connection.scalars(others.where(versions.c.parent == version)))
            sharing = list(connection.scalars(others.where(versions.c.vectors == version)))
            served = {change.version for change in _history(connection, row.backbone)}
            why = (
                "is a plain backbone, which every version needs" if row.folder is None
                else "is in use" if row.status == "active"
                else "was in use before, and the history names it" if version in served
                else f"is what {', '.join(children)} started from" if children
                else f"keeps the vectors of {', '.join(sharing)}" if sharing
                else ""
            )  # fmt: skip
            if why:
                raise VersionError(f"Version {version!r} {why}, so it is not deleted. Choose one that nothing needs.")
            connection.execute(versions.delete().where(versions.c.id == version))
            connection.execute(settings.delete().where(settings.c.key == _FORGOTTEN + version))
            connection.execute(settings.insert().values(key=_DELETED + version, value=utc_now().isoformat()))
            return row

    def get(self, version: str) -> VersionRow:
        """Return the version of this id. Raises VersionError if there is none."""
        with self.database.read() as connection:
            return _get(connection, version)

    def list(self, backbone: str | None = None) -> list[VersionRow]:
        """Return all versions, of one backbone if named, in the order they were made."""
        query = sa.select(versions).order_by(versions.c.created_at, versions.c.id)
        if backbone is not None:
            query = query.where(versions.c.backbone == backbone)
        with self.database.read() as connection:
            return [VersionRow(**row._mapping) for row in connection.execute(query)]

    def active(self, backbone: str) -> VersionRow:
        """Return the version that serves. Raises VersionError if this backbone has none yet."""
        with self.database.read() as connection:
            row = _active(connection, backbone)
        if row is None:
            raise VersionError(f"Backbone {backbone!r} has no active version. Make version 0 first (`ensure_base`).")
        return row

    def promote(self, version: str, *, by: str, reason: str, expected: str | None = None) -> VersionRow:
        """Make a version the active one and retire the one before; nothing changes if it is active already.

        Raises OvertakenError, and changes nothing, if another than the `expected` version is active.
        """
        with self.database.write() as connection:
            row = _get(connection, version)
            former = _active(connection, row.backbone)
            if expected is not None and (former is None or former.id != expected):
                raise OvertakenError(f"{former.id if former else 'No version'} serves now, not {expected}.")
            if former is None or former.id != version:
                _switch(connection, row, former)
                _log(connection, "promote", row.backbone, version, former.id if former else None, by, reason)
            return _get(connection, version)

    def rollback(self, backbone: str, *, by: str) -> VersionRow:
        """Make the previous active version active again; each call goes one further back.

        Raises VersionError if there is none before.
        """
        with self.database.write() as connection:
            past = _stack(connection, backbone)
            if len(past) < 2:
                raise VersionError(f"Backbone {backbone!r} has no version to roll back to: none was active before.")
            row = _get(connection, past[-2])
            _switch(connection, row, _active(connection, backbone))
            _log(connection, "rollback", backbone, row.id, past[-1], by, f"rolled back from {past[-1]}")
            return _get(connection, row.id)

    def learnt_forgotten(self) -> dict[str, int]:
        """Return the versions that were trained on pictures forgotten since, each with the number of these pictures.

        Weights cannot unlearn a picture: train without it, promote the result, and delete these versions.
        """
        query = sa.select(settings.c.key, settings.c.value).where(
            settings.c.key.startswith(_FORGOTTEN, autoescape=True)
        )
        with self.database.read() as connection:
            return {row.key.removeprefix(_FORGOTTEN): int(row.value) for row in connection.execute(query)}

    def former(self, backbone: str) -> str | None:
        """Return the version that `rollback` would bring back; None if there is none."""
        with self.database.read() as connection:
            past = _stack(connection, backbone)
        return past[-2] if len(past) > 1 else None

    def line(self, backbone: str) -> builtins.list[str]:
        """Return the versions that rolling back would go through, oldest first; the last one is active."""
        with self.database.read() as connection:
            return _stack(connection, backbone)

    def history(self, backbone: str) -> builtins.list[Promotion]:
        """Return every change of the active version, oldest first."""
        with self.database.read() as connection:
            return _history(connection, backbone)


def measured_on_base(rows: Sequence[VersionRow]) -> tuple[str, dict[str, float]]:
    """The fixed set on which most versions were measured, and R@1 of each on it, in the order they were made.

    A version that was never judged itself was measured when its successor was: the quality check compares both. Or
    somebody asked for it; `measured` in the gate's record has R@1 by set.
    """
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        numbers = row.gate.get("numbers") or {}
        name = str(numbers.get("base_set") or "")
        for version, value in ((row.parent, numbers.get("base_before")), (row.id, numbers.get("base_after"))):
            if version and isinstance(value, float):
                found.setdefault(name, {}).setdefault(version, value)
        for name, value in (row.gate.get("measured") or {}).items():
            found.setdefault(name, {}).setdefault(row.id, value)
    name = max(found, key=lambda one: len(found[one]), default="")
    return name, {row.id: found[name][row.id] for row in rows if name in found and row.id in found[name]}


def note_forgotten(connection: Connection, first_event: int, pictures: int) -> list[str]:
    """Note for each version that learnt marks up to `first_event` or later that pictures of these were forgotten.

    Which marks a version learnt is not kept one by one, so a mark that had been taken back before counts, too.
    """
    query = sa.select(versions.c.id).where(versions.c.last_event >= first_event, versions.c.folder.is_not(None))
    found = list(connection.scalars(query.order_by(versions.c.created_at)))
    for version in found:
        key = _FORGOTTEN + version
        before = connection.scalar(sa.select(settings.c.value).where(settings.c.key == key))
        connection.execute(settings.delete().where(settings.c.key == key))
        connection.execute(settings.insert().values(key=key, value=str(int(before or 0) + pictures)))
    return found


def _find(connection: Connection, version: str) -> VersionRow | None:
    row = connection.execute(sa.select(versions).where(versions.c.id == version)).one_or_none()
    return None if row is None else VersionRow(**row._mapping)


def _get(connection: Connection, version: str) -> VersionRow:
    row = _find(connection, version)
    if row is None:
        known = ", ".join(connection.scalars(sa.select(versions.c.id).order_by(versions.c.created_at))) or "none"
        raise VersionError(f"There is no version {version!r}. These are known: {known}.")
    return row


def _active(connection: Connection, backbone: str) -> VersionRow | None:
    query = sa.select(versions).where(versions.c.backbone == backbone, versions.c.status == "active")
    row = connection.execute(query).one_or_none()
    return None if row is None else VersionRow(**row._mapping)


def _insert(connection: Connection, row: VersionRow) -> None:
    values: dict[str, Any] = {name: getattr(row, name) for name in VersionRow.__dataclass_fields__}
    for name in ("metrics", "gate", "mark_counts"):
        dump_json(values[name], f"{row.id}: {name}", VersionError)
        values[name] = dict(values[name])
    connection.execute(versions.insert(), values)


def _switch(connection: Connection, row: VersionRow, former: VersionRow | None) -> None:
    if former is not None:
        connection.execute(versions.update().where(versions.c.id == former.id).values(status="retired"))
    connection.execute(versions.update().where(versions.c.id == row.id).values(status="active"))


def _log(
    connection: Connection, kind: str, backbone: str, version: str, former: str | None, by: str, reason: str
) -> None:
    if not by:
        raise VersionError("A change of the active version needs who made it; '' came.")
    values = {
        "kind": kind, "backbone": backbone, "version": version, "former": former, "by": by, "reason": reason,
        "at": utc_now(),
    }  # fmt: skip
    connection.execute(promotions.insert(), values)


def _history(connection: Connection, backbone: str) -> list[Promotion]:
    query = sa.select(
        promotions.c.kind, promotions.c.backbone, promotions.c.version, promotions.c.former, promotions.c.by,
        promotions.c.reason, promotions.c.at,
    ).where(promotions.c.backbone == backbone).order_by(promotions.c.promotion_id)  # fmt: skip
    return [Promotion(**row._mapping) for row in connection.execute(query)]


def _stack(connection: Connection, backbone: str) -> list[str]:
    """Return the versions that were active, the present one last; those rolled back from are gone."""
    stack: list[str] = []
    for change in _history(connection, backbone):
        if change.kind == "rollback":
            stack.pop()
        else:
            stack.append(change.version)
    return stack
