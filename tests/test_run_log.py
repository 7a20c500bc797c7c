"""The log of a run: losses, settings and lines, from a file of any size and of anybody's text."""

from __future__ import annotations

from pathlib import Path

from app.process import run_log
from app.process.run_log import LINES, POINTS, RunLog, read_log, thinned

SETTINGS = 'settings {"learning": {"optimisation": {"lr": 0.002, "seed": 7}}, "mode": "full", "last_blocks": null}'


def written(path: Path, *lines: str) -> RunLog:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return read_log(path)


def test_losses_settings_and_lines_are_separated(tmp_path: Path) -> None:
    log = written(
        tmp_path / "log", "preparing: 0%", SETTINGS, "step 1 of 2 · loss 1.5000", "step 2 of 2 · loss 0.5000",
        "training fold 2 of 2: 40%", "step 1 of 3 · loss 1.2500", "a sentence on step 1 of 2 · loss 1.0",
    )  # fmt: skip
    assert log.kept
    assert log.losses == ((1.5, 0.5), (1.25,))
    assert (log.steps, log.last_loss) == (3, 1.25)
    assert log.settings == (
        ("learning: optimisation: lr", "0.002"), ("learning: optimisation: seed", "7"), ("mode", "full"),
        ("last blocks", "none"),
    )  # fmt: skip
    assert log.lines == ("preparing: 0%", "training fold 2 of 2: 40%", "a sentence on step 1 of 2 · loss 1.0")


def test_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"line {number} {'x' * 90}\n" for number in range(10_000))
    assert path.stat().st_size > run_log.READ
    log = read_log(path)
    assert len(log.lines) == LINES
    assert log.lines[-1].startswith("line 9999 x")
    assert log.lines[0].startswith("line 9800 x")
    assert written(path, "y" * 5_000).lines == ("y" * run_log.WIDTH,)


def test_many_steps_become_few_points(tmp_path: Path) -> None:
    steps = [f"step {step} of 500 · loss {step}.0000" for step in range(1, 501)]
    log = written(tmp_path / "log", *3 * steps)
    assert (log.steps, len(log.losses)) == (1_500, 3)
    assert sum(map(len, log.losses)) <= POINTS + len(log.losses)
    assert log.losses[0][0] == sum(range(1, 8)) / 7
    assert log.last_loss == 500.0
    assert list(thinned([1.0, 3.0, 5.0], 2)) == [2.0, 5.0]


def test_text_of_a_log_is_plain_and_names_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(
        b"\x1b[31mred\x1b[0m \xff\nerror in /home/ada/data/logs/file.py\nsettings {broken\nsettings [1]\n\n"
    )
    log = read_log(path)
    assert log.lines == ("[31mred[0m �", "error in file.py")
    assert (log.settings, log.losses, log.last_loss) == ((), (), None)


def test_a_run_without_a_log_is_said_to_have_none(tmp_path: Path) -> None:
    assert read_log(tmp_path / "nothing") == RunLog()
    assert not RunLog().kept
