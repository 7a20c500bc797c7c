"""`fit` and `evaluate` on data sets; `pretrain`, `params` and `ablate`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from train.commands.options import AsJson, BackboneName, DeviceName, WeightsFile, bar, print_result, refuse, use_device
from train.datasets import DataSet, SplitName, check_layout, read_data_set
from train.pedestrians import Domain
from train.pedestrians.drawn_splits import DOMAINS, synthetic_data_set
from train.studies.choices import ROW_NAMES, check_rows

commands = typer.Typer()


DataSetName = Annotated[Literal["cuhk-pedes", "icfg-pedes", "rstpreid", "studio", "street", "foreign"], typer.Option()]
DataSetRoot = Annotated[
    Path | None,
    typer.Option(help="The data set's folder (an export as cuhk-pedes is one); of a drawn one, a cache."),
]
SyntheticPeople = Annotated[int, typer.Option(min=1, help="Train people of a drawn data set; a tenth in val, in test.")]
Precision = Annotated[
    Literal["auto", "bf16", "fp32"],
    typer.Option(help="Of the forward pass; auto: bf16 where the device has it in hardware."),
]
KeptSample = Annotated[
    int,
    typer.Option(
        min=0,
        help="Keep pairs of so many people beside the weights, so that rounds on marks can replay them where the "
        "data set is not at hand. Only where its licence lets you pass its pictures on.",
    ),
]
Published = Annotated[bool, typer.Option("--expect-published", help="Refuse counts other than those published.")]


@commands.command()
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
    precision: Precision = "auto",
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Less memory for more time.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    keep_every: Annotated[int, typer.Option(min=0, help="Also resumable after so many steps; 0: after epochs.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures; 0: none beside this.")] = 0,
    keep_sample: KeptSample = 0,
    people: SyntheticPeople = 2000,
    published: Published = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: DeviceName = "auto",
    as_json: AsJson = False,
) -> None:
    """Train PETL weights by the paper's recipe; the best epoch by val is a version that `add` takes.

    Several processes or GPUs: `accelerate launch --num_processes N -m train fit ...`.
    """
    _check_data_options(context, dataset, root)
    from accelerate import PartialState

    from core.backbones import load_backbone
    from train.supervised.batches import BatchConfig
    from train.supervised.fit import FitConfig, Running, recipe
    from train.supervised.fit import fit as run

    use_device(device)
    frozen = load_backbone(backbone, weights=weights)
    petl, usual = recipe(dataset, frozen)
    sizes: dict[str, Any] = {"prefix_length": prefix, "lora_rank": lora, "adapter_reduction": adapter}
    config = FitConfig(
        replace(petl, **{name: size for name, size in sizes.items() if size is not None}), epochs=epochs,
        lr=usual if lr is None else lr, warmup=epochs / 12 if warmup is None else warmup, weight_decay=weight_decay,
        eps=eps, precision=precision, batch=BatchConfig(batch, instances, masked, seed),
    )  # fmt: skip
    data = _data_set(dataset, root, frozen.image_size, ("train", "val"), people=people, published=published)
    running = Running(resume=resume, checkpointing=checkpointing, keep_every=keep_every, workers=workers)
    trained_on = {"name": dataset, "root": None if root is None else str(root.expanduser().resolve()), "people": people}
    folder = out or Path("fits", f"{dataset}-{backbone}")
    facts = run(frozen, data, config, folder, running, trained_on=trained_on, keep_sample=keep_sample)
    if PartialState().is_main_process:
        print_result(facts, _summary(facts, backbone), as_json=as_json)


def _summary(facts: dict[str, Any], backbone: str) -> str:
    best = facts["best"]
    text = f"{facts['out']}: epoch {best['epoch']} is best, R@1 {best['val_r1']:.2%} on val"
    if facts["cut_captions"]:
        text += f"\n{facts['cut_captions']:,} train captions are longer than {backbone} reads: their ends were cut"
    return text


@commands.command()
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
    device: DeviceName = "auto",
    as_json: AsJson = False,
) -> None:
    """R@1, R@5, R@10, mAP and mINP in both directions, of the plain backbone unless another model is named."""
    _check_data_options(context, dataset, root)
    if released is not None:
        refuse(context, "a released checkpoint holds its own backbone", "backbone", "weights")
        if not released.is_file():
            raise typer.BadParameter(f"there is no file {released}", param_hint="--released")
    elif version is not None:
        refuse(context, "a version's folder names its backbone", "backbone")
        if not version.is_dir():
            raise typer.BadParameter(f"there is no folder {version}", param_hint="--version-folder")
    from accelerate import PartialState

    from train.supervised.evaluate import evaluate as run
    from train.supervised.evaluate import load_model

    use_device(device)
    model = load_model(backbone, weights=weights, version=version, released=released).to(PartialState().device)
    data = _data_set(dataset, root, model.backbone.image_size, (split,), people=people, published=published)
    report = run(model, data[split])
    if PartialState().is_main_process:
        print_result(report.to_json(), f"{dataset} {split}, {model.backbone.name}\n{report}", as_json=as_json)


@commands.command()
def pretrain(
    *,
    out: Annotated[Path, typer.Option(help="Where to write the weights; a .json goes beside them.")],
    domain: Annotated[Domain, typer.Option(help="street: see what full supervision would reach.")] = "studio",
    start: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Go on from these weights instead of from nothing.")
    ] = None,
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
    print_result(facts, "\n".join(lines), as_json=as_json)


@commands.command()
def params(
    *,
    backbone: BackboneName = "ViT-B-16",
    preset: Annotated[
        Literal["cuhk-pedes", "icfg-pedes", "rstpreid"], typer.Option(help="The paper's sizes for a data set.")
    ] = "cuhk-pedes",
    as_json: AsJson = False,
) -> None:
    """Count the parameters that each PETL component adds to each tower."""
    from core.petl import PRESETS
    from train.studies.params import count, table

    rows = count(backbone, PRESETS[preset])
    text = "\n".join([f"{backbone}, sizes for {preset}", *table(rows)])
    print_result([asdict(row) for row in rows], text, as_json=as_json)


@commands.command()
def ablate(
    *,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each row.")] = 70,
    rows: Annotated[str, typer.Option(help="Only these rows of the table, by commas.")] = "",
    cache: Annotated[Path, typer.Option(help="Where drawn pictures are kept.")] = Path("data/cache"),
    as_json: AsJson = False,
) -> None:
    """Switch each PETL component on and off on drawn people, beside other forms and full tuning."""
    names = check_rows(tuple(name.strip() for name in rows.split(",") if name.strip()) or ROW_NAMES)
    from core.backbones import load_backbone
    from train.studies.ablate import AblateConfig, table
    from train.studies.ablate import ablate as run

    config = AblateConfig(seeds=seeds, steps=steps, rows=names)
    with bar("ablation") as echo:
        report = run(load_backbone("mini"), config, cache=cache, progress=lambda share: echo("ablation", share))
    print_result(report, "\n".join(table(report)), as_json=as_json)


def _check_data_options(context: typer.Context, name: str, root: Path | None) -> None:
    """Check the options that a data set takes before anything heavy is imported.

    Drawn ones have no published counts, those of the field no number of people to draw, but a folder.
    """
    if name in DOMAINS:
        refuse(context, f"{name} is drawn here and was never published", "published")
        return
    refuse(context, f"{name} has the people that it has", "people")
    if root is None:
        raise typer.BadParameter(f"{name} needs its folder: --root DIR")
    check_layout(name, root)


def _data_set(
    name: str,
    root: Path | None,
    size: tuple[int, int],
    only: Collection[SplitName],
    *,
    people: int,
    published: bool,
) -> DataSet:
    """Return the data set a command names; what there is to say of it goes to standard error."""
    from accelerate import PartialState

    domain = next((domain for domain in DOMAINS if domain == name), None)
    if domain is not None:
        return synthetic_data_set(domain, size, people=people, judged=-(-people // 10), cache=root, only=only)
    assert root is not None, "checked before"
    data = read_data_set(name, root, published=published)
    for note in data.notes if PartialState().is_main_process else ():
        typer.echo(f"Note: {note}", err=True)
    return data
