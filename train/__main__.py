"""`python -m train`: fine-tune on marks, train and judge by data sets, simulate users, look after versions."""

from __future__ import annotations

import os

import typer

from core.core_errors import CoreError
from store.store_errors import StoreError
from train.commands import benchmark_commands, learning_commands, version_commands
from train.commands.options import Commands
from train.memory import keep_little

cli = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
for module in (learning_commands, version_commands, benchmark_commands):
    cli.add_typer(module.commands)


@cli.callback()
def main() -> None:
    keep_little()
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))  # torch takes the physical cores alone


def run() -> None:
    """Entry point: known faults become one sentence and exit code 1."""
    try:
        cli()
    except (CoreError, StoreError, ValueError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    run()
