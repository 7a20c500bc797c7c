"""The size and the layout of the code stay within their limits; `tests/benchmarks/house.py` prints all figures."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median

from tests.benchmarks.house import (
    MOST_FUNCTION_LINES,
    MOST_LINES,
    MOST_MODULES,
    PEDESTRIANS,
    ROOT,
    folders,
    functions_of,
    lines_of,
    modules,
    same_names,
)

MOST_SCRIPT_LINES = 250
WITHIN_LIMITS = ("app/process", "app/search", "core", "store", "train/commands", "train/supervised")
"""Folders in which no module and no function is too long."""
TEST_NAME = re.compile(r"def (test_\w+)\(")


def test_no_two_modules_have_the_same_name() -> None:
    assert same_names() == {}


def test_no_folder_has_more_modules_than_fit_in_view() -> None:
    large = {folder: count for folder, count in folders().items() if count > MOST_MODULES}
    assert set(large) <= {PEDESTRIANS}


def test_no_module_or_function_of_clean_folders_is_too_long() -> None:
    clean = [path for folder in WITHIN_LIMITS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert clean
    assert {str(path): lines_of(path) for path in clean if lines_of(path) > MOST_LINES} == {}
    long = [function for path in clean for function in functions_of(path) if function.lines > MOST_FUNCTION_LINES]
    assert long == []


def test_no_script_of_the_pages_is_too_long() -> None:
    scripts = sorted((ROOT / "app" / "static").glob("*.js"))
    assert scripts
    assert {path.name: lines_of(path) for path in scripts if lines_of(path) > MOST_SCRIPT_LINES} == {}


def test_the_median_function_is_short() -> None:
    functions = [function.lines for path in modules() for function in functions_of(path)]
    assert median(functions) <= 12


def test_names_of_tests_are_at_most_seventy_characters_long() -> None:
    names = [
        name for path in (ROOT / "tests").rglob("test_*.py") for name in TEST_NAME.findall(path.read_text("utf-8"))
    ]
    assert len(names) > 1_000
    assert [name for name in names if len(name) > 70] == []


def test_figures_are_those_of_a_small_tree(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("")
    (tmp_path / "app" / "state.py").write_text("def outer():\n    async def inner():\n        pass\n    return inner\n")
    (tmp_path / "store" / "state.py").write_text("X = 1\n")
    assert folders(tmp_path) == {"app": 1, "store": 1}
    assert same_names(tmp_path) == {"state": ["app/state.py", "store/state.py"]}
    found = functions_of(tmp_path / "app" / "state.py", tmp_path)
    assert [(function.place, function.lines) for function in found] == [
        ("app/state.py:1 outer", 4),
        ("app/state.py:2 inner", 2),
    ]
