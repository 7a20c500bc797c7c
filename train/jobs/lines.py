"""The version that a job starts from, and what its line of versions knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.backbones import Backbone
from core.checkpoints import load_version
from core.model import UPPerson
from store import VersionRow
from store.workspace import Workspace
from train.finetuning.replay import Known, Source, known_before, source_of
from train.model_card import read_facts


@dataclass(frozen=True, slots=True)
class Line:
    """The version that serves, the one that its line of versions begins with, and where the pairs are that it knows."""

    backbone: Backbone
    active: VersionRow
    served: UPPerson
    origin: UPPerson
    source: Source


def line_of(stores: Workspace, backbone: Backbone, known: Path | None = None) -> Line:
    """The line of the version of `backbone` that serves; `known`: a data set's folder that it knew before."""
    stores.versions.ensure_base(backbone.name)
    active = stores.versions.active(backbone.name)
    begin, source = lineage(stores, active)
    if known is not None:
        source = Source("data set", path=known)
    served = load_row(stores, backbone, active)
    origin = served if begin.id == active.id else load_row(stores, backbone, begin)
    return Line(backbone, active, served, origin, source)


def load_row(stores: Workspace, backbone: Backbone, row: VersionRow) -> UPPerson:
    """The model of a version; one without a folder is the plain backbone."""
    return UPPerson(backbone) if row.folder is None else load_version(backbone, stores.version_folder(row))


def lineage(stores: Workspace, row: VersionRow) -> tuple[VersionRow, Source]:
    """The version at which the line of `row` begins, and where the pairs are that it was trained on: the nearest
    version that says so, else the plain backbone, of which only `mini` is known."""
    while True:
        if row.folder is not None:
            folder = stores.version_folder(row)
            source = source_of(read_facts(folder), folder)
            if source is not None:
                return row, source
        if row.parent is None:
            break
        row = stores.versions.get(row.parent)
    if row.folder is not None:  # added without a word of what it was trained on
        return row, Source("nothing")
    return row, Source("drawn", "studio") if row.backbone == "mini" else Source("nothing")


def known_pairs(stores: Workspace, line: Line, progress: Callable[[str, float], None]) -> Known:
    """The pairs that a line knows, at its backbone's size. Raises what `known_before` does.

    The stage that `progress` gets says what takes the time: drawing or reading the pairs, then reading the gallery's
    pictures, which every job does next.
    """
    stage = "drawing known people" if line.source.kind == "drawn" else "reading known people"
    if line.source.kind != "nothing":
        progress(stage, 0.0)
    known = known_before(
        line.backbone,
        line.source,
        cache=stores.folder / "cache",
        gallery=stores.gallery.ids(),
        progress=lambda share: progress(stage, 0.04 * share),
    )
    progress("reading the gallery", 0.04)
    return known
