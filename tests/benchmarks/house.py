"""Prints how large the code is: `python -m tests.benchmarks.house`.

Lines of the packages, without the drawn pedestrians; modules over 350 lines; functions over 60, and their median
length; modules in each folder.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "core", "store", "train")
PEDESTRIANS = "train/pedestrians"
MOST_LINES, MOST_FUNCTION_LINES, MOST_MODULES = 350, 60, 14
UNNAMED = ("__init__", "__main__")


@dataclass(frozen=True, slots=True)
class Function:
    """A function or method: where it is, and how many lines it has with its signature and docstring."""

    place: str
    lines: int


def modules(root: Path = ROOT) -> list[Path]:
    """Return the files of the packages, sorted."""
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def lines_of(path: Path) -> int:
    """Return how many lines a file has."""
    return len(path.read_text(encoding="utf-8").splitlines())


def functions_of(path: Path, root: Path = ROOT) -> Iterator[Function]:
    """Yield all functions of a file, nested ones too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield Function(f"{path.relative_to(root)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1)


def folders(root: Path = ROOT) -> dict[str, int]:
    """Return how many modules each folder has, `__init__` and `__main__` left out."""
    named = (path for path in modules(root) if path.stem not in UNNAMED)
    return dict(sorted(Counter(str(path.parent.relative_to(root)) for path in named).items()))


def same_names(root: Path = ROOT) -> dict[str, list[str]]:
    """Return the modules that share their name with another, by that name."""
    found = defaultdict(list)
    for path in modules(root):
        if path.stem not in UNNAMED:
            found[path.stem].append(str(path.relative_to(root)))
    return {name: places for name, places in found.items() if len(places) > 1}


def measure(root: Path = ROOT) -> dict[str, object]:
    """Return all figures."""
    outside = [path for path in modules(root) if not str(path.relative_to(root)).startswith(PEDESTRIANS)]
    functions = [function for path in outside for function in functions_of(path, root)]
    return {
        "lines": sum(map(lines_of, outside)),
        "long_modules": {str(p.relative_to(root)): lines_of(p) for p in outside if lines_of(p) > MOST_LINES},
        "long_functions": {f.place: f.lines for f in functions if f.lines > MOST_FUNCTION_LINES},
        "median_function": median(f.lines for f in functions),
        "folders": folders(root),
        "same_names": same_names(root),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    figures = measure()
    if arguments.json:
        print(json.dumps(figures, indent=1))
        return
    print(f"lines of {' '.join(PACKAGES)} outside {PEDESTRIANS}: {figures['lines']:,}")
    print(f"median function: {figures['median_function']:g} lines")
    for title, key in (
        (f"modules over {MOST_LINES} lines", "long_modules"),
        (f"functions over {MOST_FUNCTION_LINES} lines", "long_functions"),
        ("modules of one name", "same_names"),
        (f"modules in a folder, at most {MOST_MODULES}", "folders"),
    ):
        found = figures[key]
        assert isinstance(found, dict)
        print(f"{title}: {'' if found else 'none'}")
        for name, value in found.items():
            print(f"  {name}: {value}")


if __name__ == "__main__":
    main()
