"""`python -m train`: fine-tune on marks, train and judge by data sets, simulate users, look after versions."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from tqdm import tqdm

from core.core_errors import CoreError
from store import StoreError
from train.datasets import DataSet, SplitName, read_data_set
from train.finetuning.modes import Mode, WantedMode
from train.pedestrians import Domain
from train.pedestrians.drawn_splits import DOMAINS, synthetic_data_set
from train.studies.simulate import Behaviour

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

DataDir = Annotated[Path, typer.Option(envvar="UPPERSON_DATA_DIR", help="The app's state directory.")]
BackboneName = Annotated[str, typer.Option(envvar="UPPERSON_BACKBONE", help="Backbone whose PETL weights are meant.")]
WeightsFile = Annotated[
    Path | None, typer.Option("--weights", envvar="UPPERSON_WEIGHTS", help="A file with the backbone's frozen weights.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

DataSetName = Annotated[Literal["cuhk-pedes", "icfg-pedes", "rstpreid", "studio", "street"], typer.Option()]
DataSetRoot = Annotated[
    Path | None,
    typer.Option(help="The data set's folder (an export as cuhk-pedes is one); of studio and street, a cache."),
]
SyntheticPeople = Annotated[
    int, typer.Option(min=1, help="Train people of studio and street; a tenth in val, in test.")
]
Published = Annotated[bool, typer.Option("--expect-published", help="Refuse counts other than those published.")]


@cli.callback()
def main() -> None:
    # By default oneDNN keeps the kernels of 1,024 shapes; with captions of every length that is 0.4 GB, and no quicker.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    threads = os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(int(threads) if threads else os.cpu_count() or 1)


@cli.command()
def finetune(
    *,
    data_dir: DataDir = Path("data"),
    backbone: BackboneName = "mini",
    weights: WeightsFile = None,
    mode: Annotated[
        WantedMode,
        typer.Option(
            envvar="UPPERSON_TRAIN_MODE",
            help="full: all PETL weights. text: the text tower's alone, no picture is embedded anew. auto: text where "
            "embedding the gallery would take too long.",
        ),
    ] = "auto",
    base: Annotated[
        Path | None,
        typer.Option(
            envvar="UPPERSON_TRAIN_BASE",
            help="A folder of CUHK-PEDES, ICFG-PEDES or RSTPReid, or one laid out like them, with 20 people or more in "
            "val: what the backbone knew before. Its train pairs are replayed, its val pairs tell what is forgotten. "
            "Without it mini has drawn people for both; another backbone has neither, and only you can promote.",
        ),
    ] = None,
    job: Annotated[int | None, typer.Option(help="Run this queued job instead of queueing one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune the PETL weights on the marks; the gate decides whether the result serves."""
    from train.finetuning.job import JobConfig, open_stores, run_job
    from train.finetuning.replay import read_known

    if base is not None and job is None:  # of a queued job, what is wrong is recorded with it
        read_known(base)
    with open_stores(data_dir) as stores, _bar("fine-tuning") as echo:
        config = JobConfig(backbone=backbone, weights=weights, mode=mode, base=base)
        result = run_job(stores, job, config, echo=echo)
    _tell(result, f"{result['decision']}: {result['reason']}", as_json=as_json)


@cli.command()
def pretrain(
    *,
    out: Annotated[Path, typer.Option(help="Where to write the weights; a .json goes beside them.")],
    domain: Annotated[Domain, typer.Option(help="street: see what full supervision would reach.")] = "studio",
    start: Annotated[Path | None, typer.Option(help="Go on from these weights instead of from nothing.")] = None,
    steps: Annotated[int, typer.Option(min=1)] = 4000,
    lr: Annotated[float, typer.Option(min=0.0)] = 1e-3,
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Make `mini`: a small CLIP trained from nothing on drawn studio pedestrians."""
    from train.studies.pretrain import PretrainConfig
    from train.studies.pretrain import pretrain as run

    facts = run(out, PretrainConfig(domain=domain, steps=steps, lr=lr, seed=seed), start=start)
    lines = [f"{domain}: R@1 {m['r1']:.1%}, R@5 {m['r5']:.1%}" for domain, m in facts["metrics"].items()]
    _tell(facts, "\n".join(lines), as_json=as_json)


@cli.command()
def simulate(
    *,
    marks: Annotated[str, typer.Option(help="How many in all; several, by commas, to compare policies.")] = "1000",
    seeds: Annotated[int, typer.Option(min=1, help="Simulated users.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Users side by side, each with its share of the cores.")] = 1,
    top: Annotated[int, typer.Option(min=1, help="Results that are marked of each caption.")] = 10,
    behaviour: Annotated[Behaviour, typer.Option(help="How the user judges.")] = "truthful",
    flip: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of verdicts turned round.")] = 0.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of so many marks each, one after the other.")] = 1,
    mode: Annotated[Mode, typer.Option(help="What a round trains.")] = "full",
    policies: Annotated[str, typer.Option(help="Compare these, by commas, or `all`, without a gate.")] = "",
    plot: Annotated[Path | None, typer.Option(help="Draw what --policies compares into this picture.")] = None,
    validation: Annotated[bool, typer.Option(help="On the identities that settings are chosen on.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let simulated users mark the sample gallery, and measure one round on people nobody trained on; with
    --policies, ways of learning side by side."""
    from core.backbones import load_backbone
    from train.studies import compare
    from train.studies.simulate import UserConfig, play, side_by_side, summary, world

    sizes = [_captions(text, top) for text in marks.split(",")]
    chosen = compare.named(policies)
    if not chosen and (len(sizes) > 1 or plot is not None):
        raise typer.BadParameter("several numbers of --marks, and --plot, go with --policies")
    users = [UserConfig(behaviour, captions, top, flip, seed) for captions in sizes for seed in range(seeds)]
    backbone = load_backbone("mini")
    here = world(backbone.image_size, validation=validation)
    if chosen:
        with tqdm(disable=None, desc="policies") as bar:
            found = compare.compare(backbone, here, users, chosen, workers=workers, progress=bar.update)
        if plot is not None:
            compare.plot(found, plot)
        _tell(found, compare.table(found), as_json=as_json)
        return
    playing = side_by_side(partial(play, backbone, here, rounds=rounds, mode=mode), users, workers=workers)
    played = tqdm(playing, total=len(users), disable=None, desc="users")
    reports = [report for user in played for report in user]
    _tell(reports, "\n".join(summary(report) for report in reports), as_json=as_json)


def _captions(marks: str, top: int) -> int:
    """Captions that so many marks take, of which each gets `top`."""
    if not marks.strip().isdecimal() or int(marks) < top:
        raise typer.BadParameter(f"--marks is a whole number of at least {top} (--top), not {marks!r}")
    return int(marks) // top


@cli.command()
def fit(
    context: typer.Context,
    *,
    dataset: DataSetName,
    root: DataSetRoot = None,
    backbone: BackboneName = "mini",
    weights: WeightsFile = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. \\[default: fits/DATASET-BACKBONE]")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    batch: Annotated[int, typer.Option(min=2, help="Pairs a step, of all processes together.")] = 128,
    lr: Annotated[float | None, typer.Option(help="\\[default: the paper's for the data set]")] = None,
    warmup: Annotated[float | None, typer.Option(min=0, help="Epochs. \\[default: a twelfth of all]")] = None,
    weight_decay: Annotated[float, typer.Option(min=0)] = 4e-5,
    eps: Annotated[float, typer.Option(help="Adam's epsilon.")] = 1e-3,
    masked: Annotated[float, typer.Option(min=0, help="Share of caption tokens hidden, as BERT does.")] = 0.15,
    instances: Annotated[int, typer.Option(min=0, help="Pairs of one person side by side; 0: as they come.")] = 0,
    prefix: Annotated[int | None, typer.Option(min=0, help="Prefix length. \\[default: the paper's]")] = None,
    lora: Annotated[int | None, typer.Option(min=0, help="LoRA rank. \\[default: the paper's]")] = None,
    adapter: Annotated[int | None, typer.Option(min=0, help="Adapter reduction. \\[default: the paper's]")] = None,
    precision: Annotated[
        Literal["auto", "bf16", "fp32"],
        typer.Option(help="Of the forward pass; auto: bf16 where the device has it in hardware."),
    ] = "auto",
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Less memory for more time.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    keep_every: Annotated[int, typer.Option(min=0, help="Also resumable after so many steps; 0: after epochs.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures; 0: none beside this.")] = 0,
    people: SyntheticPeople = 2000,
    published: Published = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Train PETL weights by the paper's recipe; the best epoch by val is a version that `add` takes.

    Several processes or GPUs: `accelerate launch --num_processes N -m train fit ...`.
    """
    from accelerate import PartialState

    from core.backbones import load_backbone
    from train.supervised.batches import BatchConfig
    from train.supervised.fit import FitConfig, Running, recipe
    from train.supervised.fit import fit as run

    _check_data_options(context, dataset)
    frozen = load_backbone(backbone, weights=weights)
    petl, usual = recipe(dataset, frozen)
    sizes: dict[str, Any] = {"prefix_length": prefix, "lora_rank": lora, "adapter_reduction": adapter}
    config = FitConfig(
        replace(petl, **{name: size for name, size in sizes.items() if size is not None}),
        epochs=epochs,
        lr=usual if lr is None else lr,
        warmup=epochs / 12 if warmup is None else warmup,
        weight_decay=weight_decay,
        eps=eps,
        precision=precision,
        batch=BatchConfig(batch, instances, masked, seed),
    )
    data = _data_set(dataset, root, frozen.image_size, ("train", "val"), people=people, published=published)
    running = Running(resume=resume, checkpointing=checkpointing, keep_every=keep_every, workers=workers)
    facts = run(frozen, data, config, out or Path("fits", f"{dataset}-{backbone}"), running)
    if PartialState().is_main_process:
        best = facts["best"]
        text = f"{facts['out']}: epoch {best['epoch']} is best, R@1 {best['val_r1']:.2%} on val"
        if facts["cut_captions"]:
            text += f"\n{facts['cut_captions']:,} train captions are longer than {backbone} reads: their ends were cut"
        _tell(facts, text, as_json=as_json)


@cli.command()
def evaluate(
    context: typer.Context,
    *,
    dataset: DataSetName,
    root: DataSetRoot = None,
    split: Annotated[SplitName, typer.Option(help="Settings are chosen on val, never on test.")] = "test",
    backbone: BackboneName = "mini",
    weights: WeightsFile = None,
    version: Annotated[Path | None, typer.Option("--version-folder", help="A version: what `fit` wrote.")] = None,
    released: Annotated[Path | None, typer.Option(help="A checkpoint of the released UP-Person code.")] = None,
    people: SyntheticPeople = 2000,
    published: Published = False,
    as_json: AsJson = False,
) -> None:
    """R@1, R@5, R@10, mAP and mINP in both directions, of the plain backbone unless told otherwise."""
    from accelerate import PartialState

    from train.supervised.evaluate import evaluate as run
    from train.supervised.evaluate import load_model

    _check_data_options(context, dataset)
    if released is not None:
        _refuse(context, "a released checkpoint holds its own backbone", "backbone", "weights")
    elif version is not None:
        _refuse(context, "a version's folder names its backbone", "backbone")
    model = load_model(backbone, weights=weights, version=version, released=released).to(PartialState().device)
    data = _data_set(dataset, root, model.backbone.image_size, (split,), people=people, published=published)
    report = run(model, data[split])
    if PartialState().is_main_process:
        _tell(report.to_json(), f"{dataset} {split}, {model.backbone.name}\n{report}", as_json=as_json)


@cli.command()
def versions(*, data_dir: DataDir = Path("data"), backbone: BackboneName = "mini", as_json: AsJson = False) -> None:
    """List the versions of a backbone, the active one marked."""
    from train.finetuning.job import open_stores

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
    _tell(found, "\n".join(text) or "no versions yet", as_json=as_json)


@cli.command()
def promote(
    version: str,
    *,
    data_dir: DataDir = Path("data"),
    weights: WeightsFile = None,
    by: str = "command line",
    as_json: AsJson = False,
) -> None:
    """Make a version serve, whatever the gate said."""
    from core.backbones import load_backbone
    from core.checkpoints import load_version
    from core.model import UPPerson
    from train.finetuning.job import folder_of, open_stores, promote_filled

    with open_stores(data_dir) as stores, _bar("promoting") as echo:
        row = stores.versions.get(version)
        backbone = load_backbone(row.backbone, weights=weights)
        model = load_version(backbone, folder_of(stores, row)) if row.folder else UPPerson(backbone)
        promote_filled(stores, row, model, by=by, reason="promoted by hand", progress=echo)
    _tell({"active": version}, f"{version} serves now", as_json=as_json)


@cli.command()
def rollback(*, data_dir: DataDir = Path("data"), backbone: BackboneName = "mini", as_json: AsJson = False) -> None:
    """Make the version that served before serve again."""
    from train.finetuning.job import open_stores

    with open_stores(data_dir) as stores:
        row = stores.versions.rollback(backbone, by="command line")
    _tell({"active": row.id}, f"{row.id} serves again", as_json=as_json)


@cli.command()
def push(
    version: str,
    repository: Annotated[str, typer.Argument(help="A new model repository of the Hub: user/name.")],
    *,
    public: Annotated[bool, typer.Option("--public", help="Everybody may see it; else it is private.")] = False,
    data_dir: DataDir = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Upload a version's weights and its card to the Hugging Face Hub, private unless --public."""
    from train.finetuning.job import open_stores
    from train.sharing import push_version

    with open_stores(data_dir) as stores:
        url = push_version(stores, version, repository, public=public)
    _tell({"version": version, "url": url}, f"{version} is at {url}", as_json=as_json)


@cli.command()
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
    from train.finetuning.job import open_stores
    from train.sharing import add_version

    if not Path(source).is_file():
        _refuse(context, "a version's folder or repository names its backbone", "backbone")
    with open_stores(data_dir) as stores:
        row = add_version(stores, source, backbone=backbone, weights=weights)
    _tell(
        {"version": row.id, "backbone": row.backbone},
        f"{source} is {row.id} now; promote it to use it",
        as_json=as_json,
    )


def _check_data_options(context: typer.Context, name: str) -> None:
    """Drawn data sets have no published counts, the field's no number of people to draw."""
    if name in DOMAINS:
        _refuse(context, f"{name} is drawn here and was never published", "published")
    else:
        _refuse(context, f"{name} has the people that it has", "people")


def _refuse(context: typer.Context, why: str, *names: str) -> None:
    """Raises typer.BadParameter when one of these parameters is on the command line, where it would mean nothing."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in names and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"{option.opts[0]} means nothing here: {why}. Leave it out")


def _data_set(
    name: str,
    root: Path | None,
    size: tuple[int, int],
    only: Collection[SplitName],
    *,
    people: int,
    published: bool,
) -> DataSet:
    """The data set a command names; what there is to say of it goes to standard error."""
    from accelerate import PartialState

    domain = next((domain for domain in DOMAINS if domain == name), None)
    if domain is not None:
        return synthetic_data_set(domain, size, people=people, judged=-(-people // 10), cache=root, only=only)
    if root is None:
        raise typer.BadParameter(f"{name} needs its folder: --root DIR")
    data = read_data_set(name, root, published=published)
    for note in data.notes if PartialState().is_main_process else ():
        typer.echo(f"Note: {note}", err=True)
    return data


@cli.command()
def params(
    *,
    backbone: BackboneName = "ViT-B-16",
    preset: Annotated[str, typer.Option(help="The paper's sizes: cuhk-pedes, icfg-pedes, rstpreid.")] = "cuhk-pedes",
    as_json: AsJson = False,
) -> None:
    """Count the parameters that each PETL component adds to each tower."""
    from core.petl import PRESETS
    from train.studies.params import count, table

    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS)}")
    rows = count(backbone, PRESETS[preset])
    text = "\n".join([f"{backbone}, sizes for {preset}", *table(rows)])
    _tell([asdict(row) for row in rows], text, as_json=as_json)


@cli.command()
def ablate(
    *,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each row.")] = 70,
    rows: Annotated[str, typer.Option(help="Only these rows of the table, by commas.")] = "",
    cache: Annotated[Path, typer.Option(help="Where drawn pictures are kept.")] = Path("data/cache"),
    as_json: AsJson = False,
) -> None:
    """Switch each PETL component on and off on drawn people, beside other forms and full tuning."""
    from core.backbones import load_backbone
    from train.studies.ablate import ROWS, AblateConfig, table
    from train.studies.ablate import ablate as run

    names = tuple(name.strip() for name in rows.split(",") if name.strip())
    config = AblateConfig(seeds=seeds, steps=steps, rows=names or tuple(ROWS))
    with _bar("ablation") as echo:
        report = run(load_backbone("mini"), config, cache=cache, progress=lambda share: echo("ablation", share))
    _tell(report, "\n".join(table(report)), as_json=as_json)


def _tell(result: Any, text: str, *, as_json: bool) -> None:
    typer.echo(json.dumps(result, indent=1, default=str) if as_json else text)


class _bar:
    """A progress bar on a terminal, told (stage, share)."""

    def __init__(self, title: str) -> None:
        self.bar = tqdm(total=100, desc=title, disable=None, bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}")

    def __enter__(self) -> Any:
        def echo(stage: str, share: float) -> None:
            self.bar.set_description(stage, refresh=False)
            self.bar.update(max(0.0, 100 * share - self.bar.n))

        return echo

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def run() -> None:
    """Entry point: known faults become one sentence and exit code 1."""
    try:
        cli()
    except (CoreError, StoreError, ValueError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    run()
