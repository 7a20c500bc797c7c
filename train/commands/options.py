"""What several commands share: options, progress bars, results as text or JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from store.values import check_data_folder


def existing_data_folder(folder: Path) -> Path:
    """Return the folder. Raises StoreError if it is no data folder, before anything heavy is imported."""
    check_data_folder(folder)
    return folder


DataDir = Annotated[
    Path, typer.Option(envvar="UPPERSON_DATA_DIR", callback=existing_data_folder, help="The app's state directory.")
]
BackboneName = Annotated[str, typer.Option(envvar="UPPERSON_BACKBONE", help="Backbone whose PETL weights are meant.")]
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


class bar:
    """A progress bar on a terminal; its function takes (stage, share)."""

    def __init__(self, title: str) -> None:
        self.bar = tqdm(total=100, desc=title, disable=None, bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}")

    def __enter__(self) -> Any:
        def echo(stage: str, share: float) -> None:
            self.bar.set_description(stage, refresh=False)
            self.bar.update(max(0.0, 100 * share - self.bar.n))

        return echo

    def __exit__(self, *_: object) -> None:
        self.bar.close()
