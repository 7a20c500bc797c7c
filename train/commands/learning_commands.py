"""`finetune` on marks, `adapt` and `measure`; and `simulate`: users who mark by ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from train.commands.options import (
    AsJson,
    BackboneName,
    DataDir,
    DeviceName,
    Minutes,
    ShareDevice,
    WeightsFile,
    bar,
    print_result,
)
from train.datasets import layout_of
from train.finetuning.config import Mode, WantedMode, format_duration
from train.pedestrians import AnyDomain
from train.studies.choices import Behaviour, UserConfig, named

if TYPE_CHECKING:
    from train.finetuning.job import Kind

commands = typer.Typer()

_DOING: Mapping[Kind, str] = {"finetune": "fine-tuning", "adapt": "adapting", "measure": "measuring"}

BaseFolder = Annotated[
    Path | None,
    typer.Option(
        envvar="UPPERSON_TRAIN_BASE",
        help="A folder of CUHK-PEDES, ICFG-PEDES or RSTPReid, or one laid out like them, with 20 people or more in "
        "val: what the served version knew before. Its train pairs are replayed, its val pairs show what is forgotten. "
        "Without it mini has drawn people and a version of `fit` its own data set; other backbones have neither, and "
        "only you can promote.",
    ),
]
JobNumber = Annotated[int | None, typer.Option(help="Run this queued job instead of queueing one.")]


@commands.command()
def finetune(
    *,
    data_dir: DataDir = Path("data"),
    backbone: BackboneName = "mini",
    weights: WeightsFile = None,
    mode: Annotated[
        WantedMode,
        typer.Option(
            envvar="UPPERSON_TRAIN_MODE",
            help="full: all PETL weights. text: the text tower's alone, no picture is embedded again. auto: text where "
            "embedding the gallery would take too long.",
        ),
    ] = "auto",
    base: BaseFolder = None,
    minutes: Minutes = 30.0,
    device: DeviceName = "auto",
    share_device: ShareDevice = False,
    job: JobNumber = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune the PETL weights on the marks; the gate decides whether the result serves."""
    settings = {"mode": mode, "minutes": minutes, "device": device, "share_device": share_device}
    _run("finetune", data_dir, job, base, {"backbone": backbone, "weights": weights, **settings}, as_json=as_json)


@commands.command()
def adapt(
    *,
    data_dir: DataDir = Path("data"),
    backbone: BackboneName = "mini",
    weights: WeightsFile = None,
    base: BaseFolder = None,
    device: DeviceName = "auto",
    share_device: ShareDevice = False,
    job: JobNumber = None,
    as_json: AsJson = False,
) -> None:
    """Learn the style of the gallery without any mark; the result serves where it passes its quality check."""
    settings = {"backbone": backbone, "weights": weights, "device": device, "share_device": share_device}
    _run("adapt", data_dir, job, base, settings, as_json=as_json)


@commands.command()
def measure(
    version: Annotated[str, typer.Argument(help="The version to measure, by its id.")],
    *,
    data_dir: DataDir = Path("data"),
    backbone: BackboneName = "mini",
    weights: WeightsFile = None,
    base: BaseFolder = None,
    device: DeviceName = "auto",
    share_device: ShareDevice = False,
    job: JobNumber = None,
    as_json: AsJson = False,
) -> None:
    """Measure a version on the test descriptions of the one in use, so that the two can be compared."""
    settings = {"backbone": backbone, "weights": weights, "device": device, "share_device": share_device}
    _run("measure", data_dir, job, base, {**settings, "version": version}, as_json=as_json)


def _run(
    kind: Kind, data_dir: Path, job: int | None, base: Path | None, settings: Mapping[str, Any], *, as_json: bool
) -> None:
    """Run a job of this kind to its end, print its result; exit code 1 if it was interrupted.

    What is wrong with a queued job is recorded with it; else it is said at once, before anything heavy is imported.
    """
    if base is not None and job is None:
        layout_of(base)
    from store.workspace import Workspace
    from train.finetuning.job import JobConfig, run_job
    from train.finetuning.replay import read_known

    if base is not None and job is None:
        read_known(base)
    with Workspace.existing(data_dir) as stores, bar(_DOING[kind]) as echo:
        if job is None and "version" in settings:
            stores.versions.get(settings["version"])
        config = JobConfig(base=base, **settings)
        result = run_job(stores, job, config, kind=kind, echo=echo, say=echo.say, log=echo.log)
    print_result(result, _said(result), as_json=as_json)
    if result.get("interrupted"):
        raise typer.Exit(1)


@commands.command()
def simulate(
    *,
    marks: Annotated[str, typer.Option(help="How many in all; several, by commas, to compare policies.")] = "1000",
    seeds: Annotated[int, typer.Option(min=1, help="Simulated users.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Users side by side, each with its share of the cores.")] = 1,
    top: Annotated[int, typer.Option(min=1, help="Results that are marked of each caption.")] = 10,
    behaviour: Annotated[Behaviour, typer.Option(help="How the user judges.")] = "truthful",
    flip: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of verdicts turned around.")] = 0.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of so many marks each, one after the other.")] = 1,
    mode: Annotated[Mode, typer.Option(help="What a round trains.")] = "full",
    policies: Annotated[str, typer.Option(help="Compare these, by commas, or `all`, without a gate.")] = "",
    plot: Annotated[Path | None, typer.Option(help="Draw what --policies compares into this picture.")] = None,
    validation: Annotated[bool, typer.Option(help="On the identities that settings are chosen on.")] = False,
    domain: Annotated[AnyDomain, typer.Option(help="Whose pictures and words the gallery has.")] = "street",
    adaptation: Annotated[bool, typer.Option(help="Adapt to the gallery's style before the first mark.")] = True,
    version: Annotated[
        Path | None,
        typer.Option("--version-folder", exists=True, help="Start from this version of `fit`, without adaptation."),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps drawn pictures for the next run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let simulated users mark the sample gallery, and measure one round on people nobody trained on; with
    --policies, ways of learning side by side."""
    sizes = [_captions(text, top) for text in marks.split(",")]
    chosen = named(policies)
    if not chosen and (len(sizes) > 1 or plot is not None):
        raise typer.BadParameter("several numbers of --marks, and --plot, go with --policies")
    users = [UserConfig(behaviour, captions, top, flip, seed) for captions in sizes for seed in range(seeds)]
    from core.backbones import load_backbone
    from train.studies import compare
    from train.studies.simulate import play, side_by_side, start, start_from, summary, world

    backbone = load_backbone("mini")
    here = world(backbone.image_size, validation=validation, domain=domain, cache=cache)
    if version is None:
        begin = start(backbone, here, adapting=adaptation)
    else:
        begin, here = start_from(version, backbone, here, cache=cache)
    if begin.verdict is not None and not as_json:
        typer.echo(f"adaptation, {begin.verdict.decision}: {begin.verdict.reason}", err=True)
    if chosen:
        with tqdm(disable=None, desc="policies") as bar:
            found = compare.compare(begin, here, users, chosen, workers=workers, progress=bar.update)
        if plot is not None:
            compare.plot(found, plot)
        print_result(found, compare.table(found), as_json=as_json)
        return
    playing = side_by_side(partial(play, begin, here, rounds=rounds, mode=mode), users, workers=workers)
    played = tqdm(playing, total=len(users), disable=None, desc="users")
    reports = [report for user in played for report in user]
    print_result(reports, "\n".join(summary(report) for report in reports), as_json=as_json)


def _said(result: Mapping[str, Any]) -> str:
    """The decision, its reason, and where the time went."""
    stages = {stage: seconds for stage, seconds in result.get("seconds", {}).items() if seconds >= 1}
    spent = [f"{stage} {format_duration(seconds)}" for stage, seconds in stages.items()]
    return f"{result['decision']}: {result['reason']}" + (f"\nTime: {', '.join(spent)}." if spent else "")


def _captions(marks: str, top: int) -> int:
    """Captions that so many marks take, of which each gets `top`."""
    if not marks.strip().isdecimal() or int(marks) < top:
        raise typer.BadParameter(f"--marks is a whole number of at least {top} (--top), not {marks!r}")
    return int(marks) // top
