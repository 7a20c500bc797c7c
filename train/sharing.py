"""Versions to and from other places: a folder, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from core.backbones import load_backbone
from core.checkpoints import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    load_version,
    read_petl_config,
    released_onto,
    save_petl,
)
from store import VersionError, VersionRow
from store.hub import fetch, push_folder
from train.finetuning.replay import SAMPLE_FILE
from train.jobs.stores import Stores, folder_of
from train.model_card import CARD_NAME, FACTS_FILE, read_facts, write_card

FILES = (WEIGHTS_FILE, CONFIG_FILE, FACTS_FILE, CARD_NAME, SAMPLE_FILE)


def push_version(
    stores: Stores, version: str, repo_id: str, *, public: bool = False, endpoint: str | None = None
) -> str:
    """Upload a version's weights, facts and card as a new model repository; its address.

    Raises VersionError for a version without weights of its own, HubError as `push_folder`.
    """
    row = stores.versions.get(version)
    if row.folder is None:
        raise VersionError(f"Version {version!r} is the plain backbone: it has no weights to push. Name a trained one.")
    folder = folder_of(stores, row)
    write_card(folder, row, _parent(stores, row))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".push-") as scratch:
        for name in FILES:
            if (folder / name).exists():
                shutil.copyfile(folder / name, Path(scratch, name))
        return push_folder(Path(scratch), repo_id, kind="model", public=public, endpoint=endpoint)


def add_version(
    stores: Stores,
    source: str,
    *,
    backbone: str | None = None,
    weights: Path | None = None,
    endpoint: str | None = None,
) -> VersionRow:
    """Take a folder, a checkpoint of the released UP-Person code, or a repository `user/name` of the Hub, in as a
    candidate; it serves once it is promoted. Only a checkpoint needs to be told its `backbone`.

    The weights are loaded into their backbone first. Raises CheckpointError when they are damaged or belong to another
    backbone, HubError when the repository cannot be fetched.
    """
    models = stores.folder / "models"
    models.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".adding-") as scratch:
        inside = Path(scratch)
        if Path(source).is_dir():
            missing = [name for name in (WEIGHTS_FILE, CONFIG_FILE) if not Path(source, name).is_file()]
            if missing:
                raise VersionError(
                    f"{source} has no {' and no '.join(missing)}: expected the folder of a version, as "
                    "`python -m train fit --out` writes it."
                )
            for name in FILES:
                if Path(source, name).is_file():
                    shutil.copyfile(Path(source, name), inside / name)
        elif Path(source).is_file():
            if backbone is None:
                raise VersionError(f"{source} does not say what it was made on: name it by --backbone, e.g. ViT-B-16.")
            save_petl(released_onto(load_backbone(backbone, weights=weights), Path(source)), inside)
        elif source.count("/") == 1 and not source.startswith((".", "/", "~")):
            fetch(source, inside, FILES, endpoint=endpoint)
        else:
            raise VersionError(f"Expected a version's folder, a checkpoint or a repository user/name; {source!r} came.")
        name, config = read_petl_config(inside)
        load_version(load_backbone(name, weights=weights), inside)
        base = stores.versions.ensure_base(name)
        return _keep(stores, inside, name, vectors=base.id if config.towers == ("text",) else "")


def _keep(stores: Stores, inside: Path, backbone: str, *, vectors: str) -> VersionRow:
    facts = read_facts(inside)
    metrics, gate = _object(facts.get("metrics")), _object(facts.get("gate"))
    name = stores.versions.next_id(backbone)
    folder = Path("models", name)
    target = stores.folder / folder
    target.mkdir()
    try:
        for file in (WEIGHTS_FILE, CONFIG_FILE, FACTS_FILE, SAMPLE_FILE):
            if (inside / file).exists():
                shutil.copyfile(inside / file, target / file)
        kept = stores.versions.add(
            VersionRow(
                id=name,
                backbone=backbone,
                folder=str(folder),
                metrics=metrics,
                gate={**gate, "decision": "added", "reason": "It was trained elsewhere and not judged here."},
                mark_counts={name: metrics[name] for name in ("hits", "misses") if name in metrics},
                vectors=vectors,
            )
        )
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    write_card(target, kept, None)
    return kept


def _parent(stores: Stores, row: VersionRow) -> VersionRow | None:
    return None if row.parent is None else stores.versions.get(row.parent)


def _object(value: object) -> dict[str, object]:
    """A JSON object from a file of somebody else's, or nothing."""
    if not isinstance(value, dict):
        return {}
    return {str(name): held for name, held in value.items()}
