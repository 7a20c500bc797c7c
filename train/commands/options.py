"""What several commands share: options, progress bars, results as text or JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm
from typer.core import TyperGroup

from core.core_errors import BackboneError
from store.values import check_data_folder


class Commands(TyperGroup):
    """Commands that refuse a wrong option in plain words, without pydantic's "Value error, " before them."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the options before a command's name. Raises typer.BadParameter."""
        with _plain_refusals():
            return super().make_context(*arguments, **options)

    def invoke(self, context: Any) -> Any:
        """Run the command that is named. Raises typer.BadParameter for a wrong option of it."""
        with _plain_refusals():
            return super().invoke(context)


@contextmanager
def _plain_refusals() -> Iterator[None]:
    try:
        yield
    except typer.BadParameter as fault:
        fault.message = fault.message.removeprefix("Value error, ")
        raise


def existing_data_folder(folder: Path) -> Path:
    """Return the folder. Raises StoreError if it is no data folder, before anything heavy is imported."""
    check_data_folder(folder)
    return folder


def known_backbone(name: str) -> str:
    """Return the name. Raises BackboneError if open_clip has no architecture of it, before anything heavy is imported.

    Whether it is a plain CLIP ViT or a SigLIP, and has the weights that are named, is for `load_backbone` to say.
    """
    found = find_spec("open_clip")
    folder = Path(next(iter((found and found.submodule_search_locations) or ()), "")) / "model_configs"
    known = {file.stem for file in folder.glob("*.json")}
    if name != "mini" and known and name.partition(".")[0] not in known:
        raise BackboneError(
            f"unknown backbone {name!r}: expected mini or a plain CLIP ViT or SigLIP of open_clip, such as ViT-B-16. "
            "`python -c 'import core; print(core.backbone_names())'` lists all"
        )
    return name


DataDir = Annotated[
    Path, typer.Option(envvar="UPPERSON_DATA_DIR", callback=existing_data_folder, help="The app's data folder.")
]
BackboneName = Annotated[
    str,
    typer.Option(envvar="UPPERSON_BACKBONE", callback=known_backbone, help="Backbone whose PETL weights are meant."),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        envvar="UPPERSON_WEIGHTS",
        exists=True,
        dir_okay=False,
        help="A file with the backbone's frozen weights.",
    ),
]
DeviceName = Annotated[
    str,
    typer.Option(
        "--device",
        envvar=["UPPERSON_TRAIN_DEVICE", "UPPERSON_DEVICE"],
        help="auto (a GPU where there is one), cpu, cuda, cuda:N or mps.",
    ),
]
ShareDevice = Annotated[bool, typer.Option("--share-device", help="Leave part of the GPU's memory to the page.")]
_PRINTED_EVERY = 30.0

Minutes = Annotated[
    float,
    typer.Option(envvar="UPPERSON_TRAIN_MINUTES", help="Budget of a round; it decides how many blocks are tuned."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def refuse(context: typer.Context, why: str, *names: str) -> None:
    """Raise typer.BadParameter when one of these parameters is on the command line, where it would mean nothing."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in names and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"{option.opts[0]} means nothing here: {why}. Leave it out")


def use_device(wanted: str) -> None:
    """Let accelerate compute on this device; "auto" leaves the choice to it. Raises DeviceError."""
    from core.device import choose_device

    if wanted != "auto":
        device = choose_device(wanted)
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
        os.environ["ACCELERATE_USE_CPU"] = str(device.type == "cpu").lower()


def print_result(result: Any, text: str, *, as_json: bool) -> None:
    """Print the result as JSON or as text."""
    typer.echo(json.dumps(result, indent=1, default=str) if as_json else text)


class Bar:
    """A progress bar on a terminal; elsewhere a line on standard error where a stage begins and every half minute."""

    def __init__(self, title: str) -> None:
        self.bar = tqdm(total=100, desc=title, disable=None, bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}")
        self._stage, self._printed = "", 0.0

    def __call__(self, stage: str, share: float) -> None:
        """Show the stage and the share of the whole done."""
        self.bar.set_description(stage, refresh=False)
        self.bar.update(max(0.0, 100 * share - self.bar.n))
        now = time.monotonic()
        if self.bar.disable and (stage != self._stage or now - self._printed >= _PRINTED_EVERY):
            self._stage, self._printed = stage, now
            typer.echo(f"{stage}: {share:.0%}", err=True)

    def log(self, text: str) -> None:
        """Print a line where there is no terminal: in a log."""
        if self.bar.disable:
            typer.echo(text, err=True)

    def say(self, text: str) -> None:
        """Print a sentence above the bar."""
        tqdm.write(text, file=sys.stderr)


@contextmanager
def bar(title: str) -> Iterator[Bar]:
    """A `Bar` that is closed at the end."""
    shown = Bar(title)
    try:
        yield shown
    finally:
        shown.bar.close()
