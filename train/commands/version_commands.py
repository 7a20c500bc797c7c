"""`versions`, `promote`, `rollback`, `push` and `add`: what there is and which one serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from train.commands.options import AsJson, BackboneName, DataDir, DeviceName, WeightsFile, bar, refuse, tell

commands = typer.Typer()


@commands.command()
def versions(*, data_dir: DataDir = Path("data"), backbone: BackboneName = "mini", as_json: AsJson = False) -> None:
    """List the versions of a backbone, the active one marked."""
    from train.jobs.stores import open_stores

    with open_stores(data_dir) as stores:
        rows, forgotten = stores.versions.list(backbone), stores.versions.learnt_forgotten()
    found, text = [], []
    for row in rows:
        gone = forgotten.get(row.id, 0)
        facts = {"id": row.id, "status": row.status, "parent": row.parent, "metrics": row.metrics, "gate": row.gate}
        found.append(facts | {"forgotten": gone})
        flag = f"  (may have learnt from pictures forgotten since: {gone})" if gone else ""
        text.append(
            f"{'*' if row.status == 'active' else ' '} {row.id}  {row.status}{flag}  {row.gate.get('reason', '')}"
        )
    tell(found, "\n".join(text) or "no versions yet", as_json=as_json)


@commands.command()
def promote(
    version: str,
    *,
    data_dir: DataDir = Path("data"),
    weights: WeightsFile = None,
    device: DeviceName = "auto",
    by: str = "command line",
    as_json: AsJson = False,
) -> None:
    """Make a version serve, whatever the gate said."""
    from core.backbones import load_backbone
    from core.checkpoints import load_version
    from core.device import choose_device
    from core.model import UPPerson
    from train.jobs.promotion import promote_filled
    from train.jobs.stores import folder_of, open_stores

    with open_stores(data_dir) as stores, bar("promoting") as echo:
        row = stores.versions.get(version)
        backbone = load_backbone(row.backbone, weights=weights).to(choose_device(device))
        model = load_version(backbone, folder_of(stores, row)) if row.folder else UPPerson(backbone)
        promote_filled(stores, row, model, by=by, reason="promoted by hand", progress=echo)
    tell({"active": version}, f"{version} serves now", as_json=as_json)


@commands.command()
def rollback(*, data_dir: DataDir = Path("data"), backbone: BackboneName = "mini", as_json: AsJson = False) -> None:
    """Make the version that served before serve again."""
    from train.jobs.stores import open_stores

    with open_stores(data_dir) as stores:
        row = stores.versions.rollback(backbone, by="command line")
    tell({"active": row.id}, f"{row.id} serves again", as_json=as_json)


@commands.command()
def push(
    version: str,
    repository: Annotated[str, typer.Argument(help="A new model repository of the Hub: user/name.")],
    *,
    public: Annotated[bool, typer.Option("--public", help="Everybody may see it; else it is private.")] = False,
    data_dir: DataDir = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Upload a version's weights and its card to the Hugging Face Hub, private unless --public."""
    from train.jobs.stores import open_stores
    from train.sharing import push_version

    with open_stores(data_dir) as stores:
        url = push_version(stores, version, repository, public=public)
    tell({"version": version, "url": url}, f"{version} is at {url}", as_json=as_json)


@commands.command()
def add(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="A version's folder, a released UP-Person checkpoint, or a Hub repository user/name.")
    ],
    *,
    backbone: Annotated[str | None, typer.Option(help="What a released checkpoint was made on.")] = None,
    weights: WeightsFile = None,
    data_dir: DataDir = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Take in a version that was trained elsewhere, as a candidate; `promote` makes it serve."""
    from train.jobs.stores import open_stores
    from train.sharing import add_version

    if not Path(source).is_file():
        refuse(context, "a version's folder or repository names its backbone", "backbone")
    with open_stores(data_dir) as stores:
        row = add_version(stores, source, backbone=backbone, weights=weights)
    tell(
        {"version": row.id, "backbone": row.backbone},
        f"{source} is {row.id} now; promote it to use it",
        as_json=as_json,
    )
