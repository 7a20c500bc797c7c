"""The state directory compared with itself: pictures, vectors, marks, versions, files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from app.errors import without_paths
from app.progress import Report, silent
from app.state import State
from core import Backbone, load_version
from core.errors import CheckpointError, PictureError
from core.pictures import open_picture


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not agree, and what to do about it."""

    about: str
    fault: str
    advice: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was looked at, and what was found."""

    pictures: int
    marks: int
    versions: int
    findings: tuple[Finding, ...]


def check_state(state: State, backbone: Backbone, *, report: Report = silent) -> CheckReport:
    """Compare everything in the data folder that belongs to `backbone`; changes nothing."""
    ids = state.gallery.ids()
    marks = state.marks.current()
    versions = state.versions.list(backbone.name)
    findings = [*_pictures(state, ids, report), *_vectors(state, backbone), *_versions(state, backbone)]
    known = set(ids)
    lost = sorted({mark.image_id for mark in marks} - known)
    if lost:
        findings.append(
            Finding(
                "marks", f"{len(lost)} marked pictures are not in the gallery, the first: {lost[0]}", "index them again"
            )
        )
    return CheckReport(len(ids), len(marks), len(versions), tuple(findings))


def _pictures(state: State, ids: list[str], report: Report) -> Iterator[Finding]:
    for number, image_id in enumerate(ids, 1):
        data = state.gallery.data(image_id)
        if sha256(data).hexdigest() != image_id:
            yield Finding(f"picture {image_id}", "its bytes are not those that were added", "index it again")
        else:
            try:
                open_picture(data).close()
            except PictureError as error:
                yield Finding(f"picture {image_id}", str(error), "remove it from the gallery")
        report("Checking pictures", number, len(ids))


def _vectors(state: State, backbone: Backbone) -> Iterator[Finding]:
    active = state.versions.active(backbone.name).vectors
    missing = state.gallery.missing(active)
    if missing:
        yield Finding(
            f"vectors of {active}", f"{missing} pictures have none", "start the app: it embeds what is missing"
        )
    known = {version.vectors for version in state.versions.list()}
    for name in sorted(set(state.gallery.versions()) - known):
        yield Finding(f"vectors of {name}", "no version uses them", "they are left over and can be deleted")


def _versions(state: State, backbone: Backbone) -> Iterator[Finding]:
    for version in state.versions.list(backbone.name):
        if version.folder is None:
            continue
        try:
            load_version(backbone, state.folder_of(version.id))
        except CheckpointError as error:
            advice = (
                "roll back or promote another" if version.status == "active" else "restore its files or do without it"
            )
            yield Finding(f"version {version.id}", without_paths(str(error)), advice)
    for name, pictures in sorted(state.versions.learnt_forgotten().items()):
        yield Finding(
            f"version {name}",
            f"{pictures} pictures that it was perhaps trained on were forgotten since",
            "fine-tune again, promote that one and do without this",
        )
    known = {state.folder_of(version.id).resolve() for version in state.versions.list()}
    for folder in sorted(state.settings.models_dir.iterdir()):
        if folder.resolve() not in known:
            yield Finding(f"models/{folder.name}", "no version uses it", "it is left over and can be deleted")
