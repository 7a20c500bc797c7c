"""Check that the stores of a data folder agree, and repair what can be repaired."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from app.app_errors import without_paths
from app.progress import Report, silent, staged
from app.state import State
from core import Backbone, Encoder, UPPerson, load_version
from core.core_errors import CheckpointError, PictureError
from core.images import open_picture
from store import GalleryError, StoreError, VersionRow

_AT_ONCE = 64  # pictures in memory, as many as a batch of embedding reads
_LEFT_OVER_S = 3600.0  # what an export or an upload under way is writing is younger than this


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not agree, and what to do about it; or, once repaired, what was done."""

    about: str
    fault: str
    advice: str
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was looked at, and what was found."""

    pictures: int
    marks: int
    versions: int
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is left to do."""
        return all(finding.repaired for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What may be repaired; `remove_broken` also removes pictures that cannot be read, with their marks."""

    remove_broken: bool = False


def check_state(
    state: State, backbone: Backbone, *, repair: Repair | None = None, report: Report = silent
) -> CheckReport:
    """Check everything in the data folder that belongs to `backbone`. Changes nothing without `repair`."""
    first = [*_unreadable(state, repair), *_forgetting(state, repair)]  # else they would be embedded again below
    repeated = [*_repeated(state, repair)]
    ids = state.gallery.ids()
    marks = state.marks.current()
    versions = state.versions.list(backbone.name)
    findings = [
        *first,
        *repeated,
        *_pictures(state, ids, repair, report),
        *_vectors(state, backbone, repair, report),
        *_versions(state, backbone),
        *_left_over(state, repair),
    ]
    lost = {mark.image_id for mark in marks} - set(ids)
    if lost:  # or they came, or were forgotten, in between
        lost &= {mark.image_id for mark in state.marks.current()} - {row.id for row in state.gallery.rows(sorted(lost))}
    if lost:
        findings.append(
            Finding(
                "marks",
                f"{len(lost)} marked pictures are not in the gallery, the first: {min(lost)}",
                "index them again, or erase their marks by `forget`",
            )
        )
    return CheckReport(len(ids), len(marks), len(versions), tuple(findings))


def _unreadable(state: State, repair: Repair | None) -> Iterator[Finding]:
    """Delete, in a repair, the vector tables that cannot be read; without one `_vectors` reports them."""
    for name in state.gallery.versions() if repair is not None else ():
        error = state.gallery.drop_unreadable(name)
        if error is not None:
            yield Finding(
                f"vectors of {name}", without_paths(str(error)), "deleted, to be embedded again", repaired=True
            )


def _forgetting(state: State, repair: Repair | None) -> Iterator[Finding]:
    """Report a deletion that was interrupted, or that runs right now."""
    pictures = state.deletion.pending()
    fault = f"begun and not completed for pictures: {len(pictures)}"
    if not pictures:
        return
    try:
        if repair is not None:
            state.deletion.finish()
    except StoreError as error:
        yield Finding("forgetting", fault, f"it cannot be completed: {without_paths(str(error))}")
        return
    yield _finding("forgetting", fault, "completed", "completes it", repair)


def _repeated(state: State, repair: Repair | None) -> Iterator[Finding]:
    ids = state.gallery.ids()
    more = len(ids) - len(set(ids))
    if more:
        if repair is not None:
            state.gallery.drop_repeated()
        yield _finding("pictures", f"{more} rows repeat another one's id", "deleted", "deletes them", repair)


def _pictures(state: State, ids: list[str], repair: Repair | None, report: Report) -> Iterator[Finding]:
    broken = []
    for start in range(0, len(ids), _AT_ONCE):
        for image_id, data in _files(state, ids[start : start + _AT_ONCE]):
            if isinstance(data, GalleryError):
                yield Finding(f"picture {image_id}", str(data), "put its file back, or forget it")
            elif sha256(data).hexdigest() != image_id:
                broken.append((image_id, "its bytes are not those that were added"))
            else:
                try:
                    open_picture(data).close()
                except PictureError as error:
                    broken.append((image_id, str(error)))
        report("Checking pictures", min(start + _AT_ONCE, len(ids)), len(ids))
    remove = repair is not None and repair.remove_broken
    if remove and broken:
        state.deletion.forget([image_id for image_id, _ in broken])
    for image_id, fault in broken:
        if remove:
            yield Finding(f"picture {image_id}", fault, "removed with its vectors and marks", repaired=True)
        else:
            yield Finding(f"picture {image_id}", fault, "remove it by `check --repair --remove-broken`")


def _files(state: State, ids: list[str]) -> list[tuple[str, bytes | GalleryError]]:
    """Return each picture's bytes, or what is wrong with one that was indexed by reference."""
    try:
        return list(state.gallery.datas(ids).items())
    except GalleryError:  # it does not say about all of them
        return [(image_id, _file(state, image_id)) for image_id in ids]


def _file(state: State, image_id: str) -> bytes | GalleryError:
    try:
        return state.gallery.data(image_id)
    except GalleryError as error:
        return error


def _vectors(state: State, backbone: Backbone, repair: Repair | None, report: Report) -> Iterator[Finding]:
    gallery, active = state.gallery, state.versions.active(backbone.name)
    tables, training, known = set(gallery.versions()), *_training_and_known(state)
    used = {version.vectors for version in known}
    for name in sorted(tables - used if not training else ()):
        if repair is not None:
            gallery.drop_version(name)
        yield _finding(f"vectors of {name}", "no version uses them", "deleted", "deletes them", repair)
    for name in sorted({active.vectors, *tables} & used):
        about = f"vectors of {name}"
        try:
            faults = gallery.check(name)
            stale = name == active.vectors and gallery.stale(name)  # the others are updated before they serve
        except GalleryError as error:
            advice = "restore a copy, or let `check --repair` delete and embed them again"
            yield Finding(about, without_paths(str(error)), advice)
            continue
        try:
            if repair is not None and faults:
                faults = gallery.repair(name) or faults
            missing = gallery.missing(name) if name == active.vectors else 0
            missing = missing and gallery.missing(name)  # or one was being forgotten
            if repair is not None and (faults or stale):  # erasing drops the index
                gallery.maintain(name)
        except GalleryError as error:
            yield Finding(about, without_paths(str(error)), "they cannot be repaired as long as that is so")
            continue
        for fault, ids in faults.items():
            yield _finding(about, f"{len(ids)} {fault}", "repaired", "repairs them", repair)
        if repair is not None and missing:
            yield _embedded(state, backbone, active, missing, report)
        elif missing:
            yield Finding(about, f"{missing} pictures have none", "the app's start or `check --repair` embeds them")
        if stale:
            yield _finding(about, "the index is out of date", "renewed", "renews it", repair)


def _embedded(state: State, backbone: Backbone, version: VersionRow, missing: int, report: Report) -> Finding:
    about, fault = f"vectors of {version.vectors}", f"{missing} pictures have none"
    try:
        plain = version.folder is None
        encoder = Encoder(UPPerson(backbone, None) if plain else load_version(backbone, state.version_folder(version)))
        done = state.gallery.fill(
            version.vectors, encoder.encode_images, dim=encoder.dim, progress=staged(report, "Embedding pictures")
        )
    except (CheckpointError, PictureError, StoreError) as error:
        return Finding(about, fault, f"they cannot be embedded: {without_paths(str(error))}")
    if done < missing:
        return Finding(about, fault, f"{done} embedded; the others' files cannot be read")
    return Finding(about, fault, f"{done} embedded", repaired=True)


def _versions(state: State, backbone: Backbone) -> Iterator[Finding]:
    for version in state.versions.list(backbone.name):
        if version.folder is None:
            continue
        try:
            load_version(backbone, state.version_folder(version))
        except CheckpointError as error:
            advice = (
                "roll back or promote another" if version.status == "active" else "restore its files or do without it"
            )
            yield Finding(f"version {version.id}", without_paths(str(error)), advice)
    active = state.versions.active(backbone.name).id  # the list of versions shows the others
    pictures = state.versions.learnt_forgotten().get(active)
    if pictures:
        yield Finding(
            f"version {active}",
            f"it serves, and may have learnt from pictures that were forgotten since: {pictures}",
            "fine-tune again, and promote that one",
        )


def _left_over(state: State, repair: Repair | None) -> Iterator[Finding]:
    """Report folders that nothing uses: weights of no version, and unfinished exports."""
    folders, training, versions = list(state.settings.models_dir.iterdir()), *_training_and_known(state)
    known = {state.version_folder(version).resolve() for version in versions}
    models = [folder for folder in folders if folder.resolve() not in known and not training]
    partial = [path for path in state.settings.exports_dir.iterdir() if path.name.endswith(".partial")]
    for path in sorted(models) + sorted(path for path in partial if _old(path)):
        if repair is not None:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        fault = "no version uses it" if path in models else "an export was not finished"
        yield _finding(f"{path.parent.name}/{path.name}", fault, "deleted", "deletes it", repair)


def _training_and_known(state: State) -> tuple[bool, list[VersionRow]]:
    """Return whether something is trained, which writes files before its version is known, and all known versions.

    Call it after listing the files: the version of a training that has ended since is known.
    """
    return state.jobs.current() is not None, state.versions.list()


def _old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _LEFT_OVER_S


def _finding(about: str, fault: str, done: str, would: str, repair: Repair | None) -> Finding:
    if repair is not None:
        return Finding(about, fault, done, repaired=True)
    return Finding(about, fault, f"`check --repair` {would}")
