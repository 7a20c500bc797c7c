"""The command line: `python app.py` serves; subcommands index, search, export, forget and check.

Exit codes: 0 done, 1 failed (the reason is a sentence on stderr), 2 bad usage. Heavy modules are imported once a
command has checked its arguments, so that mistakes and `--help` are answered at once.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.app_errors import RequestError, reported
from app.progress import Terminal
from app.settings import PREFIX, Settings, load_settings
from store.records import ExportFormat
from store.values import check_data_folder
from train.commands.options import Commands

if TYPE_CHECKING:
    from app.search.retriever import Retriever
    from app.state import State

_MOST_PRINTED = 50
"""Skipped files that are printed."""
_VARIABLES = ", ".join(f"{PREFIX}{name.upper()}" for name in Settings.model_fields)

cli = typer.Typer(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Text-based person search that learns.",
    epilog=f"Settings, from the environment or a .env file: {_VARIABLES}.",
)

DataDir = Annotated[Path | None, typer.Option(help="The data folder (default: data).")]
BackboneName = Annotated[str | None, typer.Option(help="The frozen model: mini, ViT-B-16, ... (default: mini).")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]


def main() -> None:
    """Run the command line."""
    cli(prog_name="app.py")


@cli.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (default: 7860).")] = None,
    backbone: BackboneName = None,
    weights: Annotated[
        Path | None, typer.Option(help="A file with the backbone's frozen weights; before a subcommand's name.")
    ] = None,
    share: Annotated[bool | None, typer.Option("--share", help="Also open Gradio's public tunnel.")] = None,
) -> None:
    """Without a subcommand: serve the pages and the web API. Every option is also an UPPERSON_ variable."""
    context.obj = {"data_dir": data_dir, "backbone": backbone, "weights": weights}
    if context.invoked_subcommand is None:
        with reported(as_json=False):
            from app.serve import serve as serve_app

            serve_app(load_settings(**context.obj, host=host, port=port, share=share))


@cli.command()
def index(
    context: typer.Context,
    place: Annotated[
        Path | None,
        typer.Argument(
            help="A folder (with those below it), a .zip, a .csv, .parquet or .jsonl with a column path, or an "
            "annotation file: reid_raw.json, ICFG_PEDES.json, data_captions.json. Or a data set of the Hugging Face "
            "Hub: hub:user/name, hub:user/name:split."
        ),
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Show the sample gallery again instead.")] = False,
    source: Annotated[str | None, typer.Option(help="Name of this collection (default: the folder's).")] = None,
    root: Annotated[Path | None, typer.Option(help="Where a table's paths start (default: its folder).")] = None,
    columns: Annotated[
        str, typer.Option(help="Of a Hub data set: image=..., caption=..., pid=..., camera=..., by commas.")
    ] = "",
    reference: Annotated[bool, typer.Option("--reference", help="Keep paths, not bytes: files must stay.")] = False,
    report_file: Annotated[Path | None, typer.Option("--report", help="List what is skipped: .json or .csv.")] = None,
    data_dir: DataDir = None,
    backbone: BackboneName = None,
    as_json: Json = False,
) -> None:
    """Add pictures to the gallery, which hides the sample gallery. May run beside the app, and again after a stop."""
    if (place is None) == (not sample):
        raise typer.BadParameter("give a place where pictures are, or --sample", param_hint="PLACE")
    with reported(as_json=as_json):
        from app.indexing import SAMPLE, IndexOptions, check_place, index_pictures
        from app.indexing.hub_set import parse_columns

        named = parse_columns(columns)
        options = IndexOptions(source=source, columns=named, root=root, by_reference=reference, report_file=report_file)
        if place is not None:
            check_place(place, options)
        from app.sample_gallery import show_sample
        from app.state import State

        settings = _settings(context, data_dir, backbone)
        with State(settings) as state, Terminal() as progress:
            if place is None:
                count = show_sample(state, _retriever(state), report=progress)
                shown = f"The sample gallery is shown: {count} pictures."
                _print({"source": "sample", "pictures": count}, shown, as_json)
                return
            report = index_pictures(place, state.gallery, _retriever(state), options, report=progress)
        added = f"Pictures added: {report.added:,}, there already: {report.known:,}"
        said = [f"{added}, skipped: {report.skipped_count:,}."]
        if settings.backbone == "mini":
            said.append("  `mini` knows drawn people only: for photographs, index and serve with --backbone ViT-B-16.")
        if state.gallery.count(SAMPLE) and SAMPLE in state.gallery.hidden_sources:
            said.append("  The sample gallery is hidden; `python app.py index --sample` brings it back.")
        said += [f"  {note}" for note in report.notes]
        said += [f"  skipped {skipped.path}: {skipped.reason}" for skipped in report.skipped[:_MOST_PRINTED]]
        if report.skipped_count > _MOST_PRINTED:
            said.append(f"  … and {report.skipped_count - _MOST_PRINTED} more: --report FILE.csv lists them all")
        _print(asdict(report), "\n".join(said), as_json)


@cli.command()
def search(
    context: typer.Context,
    caption: Annotated[str, typer.Argument(help="Who to look for, in words.")],
    k: Annotated[int, typer.Option(help="How many results.")] = 10,
    negative: Annotated[str, typer.Option(help="What should not be there.")] = "",
    data_dir: DataDir = None,
    backbone: BackboneName = None,
    as_json: Json = False,
) -> None:
    """Rank the gallery for a description. Nothing is recorded, so these results cannot be marked."""
    with reported(as_json=as_json):
        from app.search.views import SearchRequest

        request = SearchRequest(caption, negative=negative, k=k)
        settings = _settings(context, data_dir, backbone, existing=True)
        from app.search.searching import encode_query
        from app.state import State

        with State(settings) as state:
            opened = _retriever(state)
            serving = opened.serving
            found = state.gallery.search(serving.vectors, encode_query(serving, request), k)
            if not found:
                raise RequestError("the gallery is empty: add pictures with `python app.py index FOLDER`")
            of = {row.id: row for row in state.gallery.rows([c.image_id for c in found])}
            unknown = opened.backbone.unknown_words(request.text)
        rows = [{"rank": c.rank, "score": c.score, "image_id": c.image_id, "uri": of[c.image_id].uri,
                 "source": of[c.image_id].source, "pid": c.pid} for c in found]  # fmt: skip
        names = [f"{row['source']}  {row['uri']}" for row in rows]
        wide = max(map(len, names))
        said = [f"{row['rank']:>3}  {row['score']:>7.4f}  {name:<{wide}}  {row['image_id']}"
                for row, name in zip(rows, names, strict=True)]  # fmt: skip
        said += [f"unknown words: {', '.join(unknown)}"] if unknown else []
        result = {"version": serving.version, "unknown_words": list(unknown), "candidates": rows}
        _print(result, "\n".join(said), as_json)


@cli.command()
def export(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Argument(help="A folder that does not exist yet (default: one below exports/).")
    ] = None,
    format: Annotated[ExportFormat, typer.Option(help="What the folder holds.")] = "parquet",
    push: Annotated[str | None, typer.Option(help="Also upload it as a new data set user/name of the Hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Everybody may see it; else it is private.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Write the marks as a data set with its card."""
    with reported(as_json=as_json):
        settings = _settings(context, data_dir, existing=True)
        from app.state import State
        from core.images import as_loaders_read
        from store.export import export_marks

        with State(settings) as state:
            target = out or settings.exports_dir
            report = export_marks(
                state.marks, state.gallery, target, as_seen=as_loaders_read, format=format, named=out is None
            )
        facts = {"path": str(report.path), "format": format, "sha256": report.sha256, **asdict(report.counts)}
        said = f"{report.rows} marks written to {report.path}"
        if push is not None:
            from store.hub import push_folder

            facts["url"] = push_folder(report.path, push, kind="dataset", public=public)
            said += f"\nand uploaded to {facts['url']}"
        _print(facts, said, as_json)


@cli.command("import-marks")
def import_marks_(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(exists=True, help="JSON lines, CSV or Parquet with the columns of an export.")
    ],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Import marks from a file; rows that are known already change nothing. May run beside the app."""
    with reported(as_json=as_json):
        settings = _settings(context, data_dir)
        from app.state import State
        from store import import_marks

        with State(settings) as state:
            report = import_marks(state.marks, file)
            marked = {mark.image_id for mark in state.marks.current()}
            absent = len(marked) - len(state.gallery.rows(list(marked)))
        said = [f"{report.taken} marks taken, {report.repeated} repeated, {report.refused} refused."]
        said += [f"  line {refused.line}: {refused.reason}" for refused in report.reasons]
        if absent:
            many = "picture is" if absent == 1 else "pictures are"
            said.append(f"{absent} marked {many} not in the gallery: these marks teach nothing until you index them.")
        _print(asdict(report) | {"absent_pictures": absent}, "\n".join(said), as_json)
    if report.refused and not report.taken and not report.repeated:
        raise typer.Exit(1)


@cli.command("add-user")
def add_user_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The name to sign in with.")],
    file: Annotated[
        Path | None,
        typer.Option(help="The file of names and hashed passwords (default: auth in the data folder)."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Add a user of a local app or change the password; start the app with UPPERSON_AUTH_FILE=FILE."""
    with reported(as_json=False):
        file = file or _settings(context, data_dir).data_dir / "auth"
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        from app.web.passwords import add_user

        new = add_user(file, name, password)
        print(f"{name} may sign in{'' if new else ' by a new password'} (UPPERSON_AUTH_FILE={file}).")


@cli.command()
def forget(
    context: typer.Context,
    image_ids: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE_ID]...", help="Ids of pictures.")] = None,
    source: Annotated[str | None, typer.Option(help="Every picture of this collection.")] = None,
    pid: Annotated[str | None, typer.Option(help="Every picture of this person.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Erase pictures, their vectors, marks and exports from the disk. May run beside the app."""
    if not (image_ids or source or pid):
        raise typer.BadParameter("give ids of pictures, --source or --pid", param_hint="IMAGE_ID")
    with reported(as_json=as_json):
        from store.records import check_image_id

        wanted = list(image_ids or [])
        for image_id in wanted:
            check_image_id(image_id)
        settings = _settings(context, data_dir, existing=True)
        from app.state import State
        from store import Filters

        with State(settings) as state:
            if source or pid:
                chosen = state.gallery.matching(Filters(source=(source,) if source else (), pid=(pid,) if pid else ()))
                if not chosen:
                    raise RequestError(f"the gallery has no picture of {' and '.join(filter(None, (source, pid)))!r}")
                wanted += chosen
            done = state.deletion.forget(wanted)
        said = [f"Erased. Pictures: {done.pictures}, marks: {done.marks}, temporary copies: {done.copies}."]
        if not (done.pictures or done.marks or done.copies or done.exports):
            said.append("  nothing was found: are these ids that `search` prints?")
        said += [f"  withdrawn: export {name}" for name in done.exports]
        said += [f"  version {version} may have been trained on them: train again" for version in done.versions]
        if done.backup:
            said.append(
                "  the backup on the Hub is rewritten by the app, now or when UPPERSON_BACKUP_REPO is set again"
            )
        _print(asdict(done), "\n".join(said), as_json)


@cli.command()
def check(
    context: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="Also repair what can be repaired.")] = False,
    remove_broken: Annotated[
        bool, typer.Option("--remove-broken", help="With --repair: remove pictures that cannot be read.")
    ] = False,
    data_dir: DataDir = None,
    backbone: BackboneName = None,
    as_json: Json = False,
) -> None:
    """Check that pictures, vectors, marks, versions and files agree; exit code 1 if they do not."""
    if remove_broken and not repair:
        raise typer.BadParameter("goes with --repair", param_hint="--remove-broken")
    with reported(as_json=as_json):
        settings = _settings(context, data_dir, backbone, existing=True)
        from app.doctor import Repair, check_state
        from app.state import State
        from core import load_backbone
        from core.device import choose_device

        loaded = load_backbone(settings.backbone, weights=settings.weights).to(choose_device(settings.device))
        with State(settings) as state, Terminal() as progress:
            state.versions.ensure_base(loaded.name)
            changes = Repair(remove_broken=remove_broken) if repair else None
            report = check_state(state, loaded, repair=changes, report=progress)
        said = [f"{f.about}: {f.fault}; {f.advice}" for f in report.findings] or ["Everything agrees."]
        said.append(f"Looked at pictures: {report.pictures}, marks: {report.marks}, versions: {report.versions}.")
        _print(asdict(report), "\n".join(said), as_json)
    if not report.clean:
        raise typer.Exit(1)


def _settings(
    context: typer.Context, data_dir: Path | None, backbone: str | None = None, *, existing: bool = False
) -> Settings:
    """Return the settings of a subcommand: its own options, else those given before its name.

    Raises StoreError if the data folder must be `existing` and is not.
    """
    own = {"data_dir": data_dir, "backbone": backbone}
    settings = load_settings(**(context.obj | {name: value for name, value in own.items() if value}))
    if existing:
        check_data_folder(settings.data_dir)
    return settings


def _retriever(state: State) -> Retriever:
    """Load the model, and complete the active version's vectors."""
    from app.search.retriever import Retriever
    from core import load_backbone
    from core.device import choose_device

    given = state.settings
    return Retriever(state, load_backbone(given.backbone, weights=given.weights).to(choose_device(given.device)))


def _print(result: dict[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(result, ensure_ascii=False) if as_json else text)
