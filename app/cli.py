"""The command line: `python app.py` serves; subcommands index, search, export, forget and check.

Exit codes: 0 done, 1 failed (the reason is a sentence on stderr), 2 bad usage. What is heavy is imported when a
command runs, so that `--help` is quick and the drawing processes, which import this module too, start fast.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.app_errors import AppError, RequestError, StartError, known_errors
from app.progress import Terminal
from app.settings import PREFIX, Settings, load_settings

if TYPE_CHECKING:
    from app.search.retriever import Retriever
    from app.state import State

_TOLD = 50
"""Skipped files that are printed for people."""
_VARIABLES = ", ".join(f"{PREFIX}{name.upper()}" for name in Settings.model_fields)

cli = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Text-based person search that learns.",
    epilog=f"Settings, from the environment or a .env file: {_VARIABLES}.",
)

DataDir = Annotated[Path | None, typer.Option(help="The state directory (default: data).")]
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
    if context.invoked_subcommand is not None:
        return
    with _outcome(as_json=False):
        from app.serve import serve as serve_app

        given = {"data_dir": data_dir, "host": host, "port": port, "backbone": backbone, "weights": weights}
        serve_app(load_settings(**given, share=share))


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
    sample: Annotated[bool, typer.Option("--sample", help="Bring the sample gallery back instead.")] = False,
    source: Annotated[str | None, typer.Option(help="Name of this collection (default: the folder's).")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that the paths in a table start from (default: the table's).")
    ] = None,
    columns: Annotated[
        str, typer.Option(help="Of a Hub data set: image=..., caption=..., pid=..., camera=..., by commas.")
    ] = "",
    reference: Annotated[
        bool, typer.Option("--reference", help="Keep the files' paths, not their bytes: they must stay in place.")
    ] = False,
    report_file: Annotated[
        Path | None, typer.Option("--report", help="Write everything skipped to this .json or .csv file.")
    ] = None,
    data_dir: DataDir = None,
    backbone: BackboneName = None,
    as_json: Json = False,
) -> None:
    """Add pictures to the gallery; the sample gallery steps aside. May run beside the app, and again after a stop."""
    if (place is None) == (not sample):
        raise typer.BadParameter("give a place where pictures are, or --sample", param_hint="PLACE")
    with _outcome(as_json=as_json):
        from app.indexing import SAMPLE, IndexOptions, check_place, index_pictures
        from app.indexing.hub_set import parse_columns
        from app.sample_gallery import show_sample

        named = parse_columns(columns)
        options = IndexOptions(source=source, columns=named, root=root, by_reference=reference, report_file=report_file)
        if place is not None:
            check_place(place, options)
        settings = _settings(context, data_dir, backbone)
        with _opened(settings) as (state, retriever), Terminal() as progress:
            if place is None:
                count = show_sample(state, retriever(), report=progress)
                _print(
                    {"source": "sample", "pictures": count}, f"The sample gallery is shown: {count} pictures.", as_json
                )
                return
            report = index_pictures(place, state.gallery, retriever(), options, report=progress)
        said = [
            f"Pictures added: {report.added:,}, there already: {report.known:,}, skipped: {report.skipped_count:,}."
        ]
        if settings.backbone == "mini":
            said.append("  `mini` knows drawn people only: for photographs, index and serve with --backbone ViT-B-16.")
        if state.gallery.count(SAMPLE) and SAMPLE in state.gallery.hidden_sources:
            said.append("  The sample gallery is hidden; `python app.py index --sample` brings it back.")
        said += [f"  {note}" for note in report.notes]
        said += [f"  skipped {skipped.path}: {skipped.reason}" for skipped in report.skipped[:_TOLD]]
        if report.skipped_count > _TOLD:
            said.append(f"  … and {report.skipped_count - _TOLD} more: --report FILE.csv lists them all")
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
    with _outcome(as_json=as_json):
        from app.search.views import SearchRequest
        from app.services import encode_query

        request = SearchRequest(caption, negative=negative, k=k)
        with _opened(_existing(_settings(context, data_dir, backbone))) as (state, retriever):
            opened = retriever()
            serving = opened.serving
            found = state.gallery.search(serving.vectors, encode_query(serving, request), k)
            if not found:
                raise RequestError("the gallery is empty: add pictures with `python app.py index FOLDER`")
            uris = {row.id: row.uri for row in state.gallery.rows([c.image_id for c in found])}
            unknown = opened.backbone.unknown_words(request.text)
        rows = [
            {"rank": c.rank, "score": c.score, "image_id": c.image_id, "uri": uris[c.image_id], "pid": c.pid}
            for c in found
        ]
        said = [f"{row['rank']:>3}  {row['score']:.4f}  {row['image_id']}  {row['uri']}" for row in rows]
        said += [f"unknown words: {', '.join(unknown)}"] if unknown else []
        result = {"version": serving.version, "unknown_words": list(unknown), "candidates": rows}
        _print(result, "\n".join(said), as_json)


@cli.command()
def export(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Argument(help="A folder that does not exist yet (default: one below exports/).")
    ] = None,
    format: Annotated[str, typer.Option(help="parquet, cuhk-pedes, imagefolder or jsonl.")] = "parquet",
    push: Annotated[str | None, typer.Option(help="Also upload it as a new data set user/name of the Hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Everybody may see it; else it is private.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Write the marks as a data set with its card."""
    with _outcome(as_json=as_json):
        from app.state import State
        from core.images import as_loaders_read
        from store.export import export_marks

        settings = _existing(_settings(context, data_dir, None))
        state = State.open(settings)
        try:
            target = out or settings.exports_dir
            report = export_marks(
                state.marks, state.gallery, target, as_seen=as_loaders_read, format=format, named=out is None
            )
        finally:
            state.close()
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
    file: Annotated[Path, typer.Argument(help="JSON lines, CSV or Parquet with the columns of an export.")],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Take marks in from a file; rows that are known already change nothing. May run beside the app."""
    with _outcome(as_json=as_json):
        from app.state import State
        from store import import_marks

        state = State.open(_settings(context, data_dir, None))
        try:
            report = import_marks(state.marks, file)
            marked = {mark.image_id for mark in state.marks.current()}
            absent = len(marked) - len(state.gallery.rows(list(marked)))
        finally:
            state.close()
        said = [f"{report.taken} marks taken, {report.repeated} repeated, {report.refused} refused."]
        said += [f"  line {refused.line}: {refused.reason}" for refused in report.reasons]
        if absent:
            many = "picture is" if absent == 1 else "pictures are"
            said.append(f"{absent} marked {many} not in the gallery: what was said of them teaches nothing till then.")
        _print(asdict(report) | {"absent_pictures": absent}, "\n".join(said), as_json)
    if report.refused and not report.taken and not report.repeated:
        raise typer.Exit(1)


@cli.command("add-user")
def add_user_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whom to let in.")],
    file: Annotated[
        Path | None,
        typer.Option(help="Where names and scrambled passwords are kept (default: auth in the data folder)."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Let somebody sign in to a local app, or give a new password; start it with UPPERSON_AUTH_FILE=FILE."""
    with _outcome(as_json=False):
        file = file or _settings(context, data_dir, None).data_dir / "auth"
    password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    with _outcome(as_json=False):
        from app.web.passwords import add_user

        new = add_user(file, name, password)
        print(
            f"{name} may sign in" if new else f"{name} may sign in by a new password", f"(UPPERSON_AUTH_FILE={file})."
        )


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
    with _outcome(as_json=as_json):
        from app.state import State
        from store import Filters

        state = State.open(_settings(context, data_dir, None))
        try:
            wanted = list(image_ids or [])
            for image_id in wanted:
                if not re.fullmatch(r"[0-9a-f]{64}", image_id):
                    raise RequestError(f"an image_id is 64 hexadecimal digits, as `search` says; {image_id!r} came")
            if source or pid:
                chosen = state.gallery.matching(Filters(source=(source,) if source else (), pid=(pid,) if pid else ()))
                if not chosen:
                    raise RequestError(f"the gallery has no picture of {' and '.join(filter(None, (source, pid)))!r}")
                wanted += chosen
            done = state.forgetting.forget(wanted)
        finally:
            state.close()
        said = [f"Erased. Pictures: {done.pictures}, marks: {done.marks}, temporary copies: {done.copies}."]
        if not (done.pictures or done.marks or done.copies or done.exports):
            said.append("  nothing was known of them: are these the ids that `search` says?")
        said += [f"  withdrawn: export {name}" for name in done.exports]
        said += [f"  version {version} may have been trained on them: train anew" for version in done.versions]
        if done.backup:
            said.append(
                "  the backup on the Hub: the app rewrites it now, or when it runs with UPPERSON_BACKUP_REPO again"
            )
        _print(asdict(done), "\n".join(said), as_json)


@cli.command()
def check(
    context: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="Also mend what can be mended.")] = False,
    remove_broken: Annotated[
        bool, typer.Option("--remove-broken", help="With --repair: take out pictures that cannot be read.")
    ] = False,
    data_dir: DataDir = None,
    backbone: BackboneName = None,
    as_json: Json = False,
) -> None:
    """Compare pictures, vectors, marks, versions and files; exit code 1 if something does not agree."""
    if remove_broken and not repair:
        raise typer.BadParameter("goes with --repair", param_hint="--remove-broken")
    with _outcome(as_json=as_json):
        from app.doctor import Repair, check_state
        from app.state import State
        from core import load_backbone
        from core.device import choose_device

        settings = _existing(_settings(context, data_dir, backbone))
        loaded = load_backbone(settings.backbone, weights=settings.weights).to(choose_device(settings.device))
        state = State.open(settings)
        try:
            state.versions.ensure_base(loaded.name)
            mending = Repair(remove_broken=remove_broken) if repair else None
            with Terminal() as progress:
                report = check_state(state, loaded, repair=mending, report=progress)
        finally:
            state.close()
        said = [f"{f.about}: {f.fault}; {f.advice}" for f in report.findings] or ["Everything agrees."]
        said.append(f"Looked at pictures: {report.pictures}, marks: {report.marks}, versions: {report.versions}.")
        _print(asdict(report), "\n".join(said), as_json)
    if not report.clean:
        raise typer.Exit(1)


def _settings(context: typer.Context, data_dir: Path | None, backbone: str | None) -> Settings:
    """Settings of a subcommand: its own options, else those given before its name."""
    before = context.obj
    return load_settings(
        data_dir=data_dir or before["data_dir"],
        backbone=backbone or before["backbone"],
        weights=before["weights"],
    )


def _existing(settings: Settings) -> Settings:
    """Settings whose state directory is there: a command that only reads makes none. Raises StartError."""
    if not settings.database.exists():
        raise StartError(
            f"there is no state directory at {settings.data_dir}: start `python app.py` once, or name it by --data-dir"
        )
    return settings


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[State, Callable[[], Retriever]]]:
    """The stores, and what loads the model and completes the active version's vectors when it is asked to."""
    from app.search.retriever import Retriever
    from app.state import State
    from core import load_backbone
    from core.device import choose_device

    device = choose_device(settings.device)
    state = State.open(settings)
    try:
        yield state, lambda: Retriever(state, load_backbone(settings.backbone, weights=settings.weights).to(device))
    finally:
        state.close()


@contextmanager
def _outcome(*, as_json: bool) -> Iterator[None]:
    """Turn known errors into a sentence and exit code 1, anything else into a traceback."""
    try:
        yield
    except AppError as error:
        _fail(error, as_json)
    except Exception as error:
        if not isinstance(error, known_errors()):
            raise
        _fail(error, as_json)
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        raise typer.Exit(1) from None


def _fail(error: Exception, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": str(error)}, ensure_ascii=False))
    print(f"Error: {error}", file=sys.stderr)
    raise typer.Exit(1) from None


def _print(result: dict[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(result, ensure_ascii=False) if as_json else text)
