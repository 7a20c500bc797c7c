"""What the READMEs name exists: commands with their options, settings, folders, files that are linked to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic_core import PydanticUndefined

from app.cli import cli as app_cli
from app.settings import PREFIX, Settings
from tests.conftest import ROOT
from train.__main__ import cli as train_cli

TOP = ("app", "core", "store", "train", "tests")
READMES = [*ROOT.glob("*.md"), *(path for name in TOP for path in (ROOT / name).rglob("README.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in READMES]
PROGRAMS: dict[str, Any] = {"app.py": typer.main.get_command(app_cli), "train": typer.main.get_command(train_cli)}
SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}
LINES = 150


def code(text: str) -> list[str]:
    """Lines of fenced blocks without their comments, and code in running text."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.M | re.S)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    lines = [line for block in fenced for line in block.splitlines()]
    return [re.sub(r"\s+#.*", "", one).replace("\n", " ") for one in (*lines, *inline)]


def command_lines(text: str) -> Iterator[tuple[str, list[str]]]:
    """Programs with their arguments: `app.py`, and what follows `-m`."""
    for line in code(text):
        for part in re.split(r"&&|;", line):
            found = re.search(r"(?:python (app\.py)|-m (train|pytest|tests\.\S+))(?:\s+(.*))?$", part)
            if found:
                yield found[1] or found[2], (found[3] or "").split()


def faults(program: str, words: list[str]) -> list[str]:
    """Commands, options, modules and test files of a command line that there are not."""
    if program == "pytest":
        return [word for word in words if word.startswith("tests/") and not (ROOT / word).exists()]
    if program.startswith("tests."):
        module = ROOT / f"{program.replace('.', '/')}.py"
        source = module.read_text() if module.is_file() else None
        return [program] if source is None else [w for w in words if w.startswith("--") and f'"{w}"' not in source]
    return list(_unknown(PROGRAMS[program], words))


def _unknown(command: Any, words: list[str]) -> Iterator[str]:
    left = iter(words)
    for word in left:
        if word.startswith("--"):
            options = [one for one in command.params if word in (*one.opts, *one.secondary_opts)]
            if not options and word != "--help":
                yield word
            elif options and not getattr(options[0], "is_flag", False):
                next(left, None)
        elif hasattr(command, "commands"):  # a group, of typer's own click or another
            if word not in command.commands:
                yield word
                return
            command = command.commands[word]


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_their_options_exist(name: str) -> None:
    lines = list(command_lines((ROOT / name).read_text(encoding="utf-8")))
    assert [(program, words, bad) for program, words in lines if (bad := faults(program, words))] == []


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("python app.py indx CROPS", ["indx"]),
        ("python app.py --backbone ViT-B-16 index --no-such CROPS", ["--no-such"]),
        ("A=b python app.py index --source index --root DIR", []),
        ("python -m train rollback now", []),
        ("accelerate launch --num_processes 2 -m train fits", ["fits"]),
        ("python -m tests.benchmarks.nothing", ["tests.benchmarks.nothing"]),
        ("python -m tests.benchmarks.gate --trials 9 --no-such", ["--no-such"]),
        ("python -m pytest -m long tests/test_nothing.py", ["tests/test_nothing.py"]),
    ],
)
def test_unknown_commands_and_options_are_found(line: str, unknown: list[str]) -> None:
    for text in (f"Run `{line}` now.", f"```\n{line}   # comment\n```\n"):
        ((program, words),) = command_lines(text)
        assert faults(program, words) == unknown


def test_every_command_is_in_the_table_of_commands() -> None:
    lines = command_lines((ROOT / "README.md").read_text(encoding="utf-8"))
    named = {(program, words[0]) for program, words in lines if words}
    assert {(p, name) for p, group in PROGRAMS.items() for name in group.commands} <= named


@pytest.mark.parametrize("name", NAMES)
def test_settings_exist(name: str) -> None:
    named = set(re.findall(rf"{PREFIX}[A-Z_]+", (ROOT / name).read_text(encoding="utf-8")))
    assert named <= SETTINGS


def test_every_setting_has_a_row_with_its_default() -> None:
    text = (ROOT / "app" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `({PREFIX}[A-Z_]+)` \| (.*?) \|", text, re.M)
    assert sorted(name for name, _ in rows) == sorted(SETTINGS)
    for name, shown in rows:
        default = Settings.model_fields[name.removeprefix(PREFIX).lower()].default
        if default is not PydanticUndefined and default not in (None, "", (), 0, False):
            assert shown == f"`{default}`", name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LINES


def test_the_folders_listed_are_the_folders_there_are() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.partition("## Folders\n")[2].split("```")[1].strip()
    listed = set()
    for line in block.splitlines():
        top, *inside = re.findall(r"^\S+|[a-z]+/", line)
        listed |= {top.strip("/"), *(top + name.strip("/") for name in inside)}
    assert [name for name in listed if not (ROOT / name).exists()] == []
    packages = {path.parent.relative_to(ROOT).as_posix() for top in TOP[:4] for path in (ROOT / top).rglob("*.py")}
    assert packages <= listed


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files_and_headings(name: str) -> None:
    file = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8")):
        if re.match(r"https?://", link):
            continue
        path, _, heading = link.partition("#")
        target = (file.parent / path) if path else file
        assert target.exists(), link
        if heading:
            assert heading in anchors(target), link


def anchors(file: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
