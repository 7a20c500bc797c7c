"""`versions`, `promote`, `rollback`, `push` and `add`: what there is and which one serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from train.commands.options import AsJson, BackboneName, DataDir, DeviceName, WeightsFile, bar, print_result, refuse

if TYPE_CHECKING:
    from store import VersionRow

commands = typer.Typer()


@commands.command()
def versions(*, data_dir: DataDir = Path("data"), backbone: BackboneName = "mini", as_json: AsJson = False) -> None:
    """List the versions of a backbone with their figures, the active one marked."""
    from store.workspace import Workspace

    with Workspace.existing(data_dir) as stores:
        rows, forgotten = stores.versions.list(backbone), stores.versions.learnt_forgotten()
    found = [
        {"id": row.id, "status": row.status, "parent": row.parent, "created_at": row.created_at.isoformat()}
        | {"metrics": row.metrics, "gate": row.gate, "forgotten": forgotten.get(row.id, 0)}
        for row in rows
    ]
    print_result(found, "\n".join(_table(rows, forgotten)) if rows else "no versions yet", as_json=as_json)


def _table(rows: Sequence[VersionRow], forgotten: Mapping[str, int]) -> list[str]:
    """Lines in columns: each version with its figures, below it the reason of its decision and what it may forget."""
    from store.versions import measured_on_base

    _, base = measured_on_base(rows)
    heading = ("  version", "made", "from", "status", "decision", "base R@1")
    cells = [
        (
            f"{'*' if row.status == 'active' else ' '} {row.id}",
            f"{row.created_at:%Y-%m-%d}",
            row.parent or "-",
            row.status,
            str(row.gate.get("decision") or "-"),
            f"{100 * base[row.id]:.1f} %" if row.id in base else "-",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(heading, *cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (heading, *cells)
    ]
    text = [lines[0].rstrip()]
    for row, line in zip(rows, lines[1:], strict=True):
        text.append(line.rstrip())
        if reason := row.gate.get("reason"):
            text.append(f"    {reason}")
        if gone := forgotten.get(row.id, 0):
            text.append(f"    It may have learnt from pictures that were forgotten since: {gone}.")
    return text


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
    from core.encoder import Encoder
    from core.model import UPPerson
    from store.workspace import Workspace

    with Workspace.existing(data_dir) as stores, bar("promoting") as echo:
        row = stores.versions.get(version)
        backbone = load_backbone(row.backbone, weights=weights).to(choose_device(device))
        model = load_version(backbone, stores.version_folder(row)) if row.folder else UPPerson(backbone)
        stores.promote(row, Encoder(model), by=by, reason="promoted by hand", progress=echo)
    print_result({"active": version}, f"{version} serves now", as_json=as_json)


@commands.command()
def rollback(*, data_dir: DataDir = Path("data"), backbone: BackboneName = "mini", as_json: AsJson = False) -> None:
    """Make the version that served before serve again."""
    from store.workspace import Workspace

    with Workspace.existing(data_dir) as stores:
        row = stores.versions.rollback(backbone, by="command line")
    print_result({"active": row.id}, f"{row.id} serves again", as_json=as_json)


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
    from store.workspace import Workspace
    from train.sharing import push_version

    with Workspace.existing(data_dir) as stores:
        url = push_version(stores, version, repository, public=public)
    print_result({"version": version, "url": url}, f"{version} is at {url}", as_json=as_json)


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
    from store.workspace import Workspace
    from train.sharing import add_version

    if not Path(source).is_file():
        refuse(context, "a version's folder or repository names its backbone", "backbone")
    with Workspace.existing(data_dir) as stores:
        row = add_version(stores, source, backbone=backbone, weights=weights)
    print_result(
        {"version": row.id, "backbone": row.backbone},
        f"{source} is {row.id} now; promote it to use it",
        as_json=as_json,
    )
