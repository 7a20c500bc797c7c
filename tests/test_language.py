"""Words that nobody would search for stay out of the code and the documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("app", "core", "store", "train", "tests")
SUFFIXES = {".py", ".js", ".css", ".md"}
WORDS = (
    "anew", "told", "tells?", "for want of", "be they", "ever more", "thereof", "mend(?:s|ed|ing)?",
    "tend(?:s|ed|er|ing)?", "bent", "stands? for", "whoever", "what could not", "that is to",
    "soundness", "unsound", "hitless", "misses_alone", "put_on", "serving_form", "step_back",
)  # fmt: skip
"""Expressions of words and names; case does not matter, and an underscore ends a word."""
OLD_WORD = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(WORDS)})(?![A-Za-z])".replace(" ", r"\s+"), re.IGNORECASE)


def texts() -> list[Path]:
    """Return the files to read: code, styles and documents, but not this list of words."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    return sorted({*found, *ROOT.glob("*.md"), *ROOT.glob("*.py")} - {Path(__file__)})


def old_words(text: str) -> list[str]:
    """Return the old words of a text with their lines, over line ends too."""
    places = [(text.count("\n", 0, match.start()) + 1, match.group()) for match in OLD_WORD.finditer(text)]
    return [f"line {line}: {word}" for line, word in places]


def not_clean() -> dict[str, list[str]]:
    """Return the old words of each file that has some."""
    found = {path.relative_to(ROOT).as_posix(): old_words(path.read_text(encoding="utf-8")) for path in texts()}
    return {name: words for name, words in found.items() if words}


def test_no_file_has_old_words() -> None:
    assert not_clean() == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The page is built anew.", ["line 1: anew"]),
        ("a_fault_is_told(x)\n\nTells", ["line 1: told", "line 3: Tells"]),
        ("what it stands\n    for", ["line 1: stands\n    for"]),
        ("Tender, not tenderness", ["line 1: Tender"]),
        ("intended, attend, recommend, retold, bentonite, extends", []),
    ],
)
def test_old_words_are_found_as_whole_words(text: str, expected: list[str]) -> None:
    assert old_words(text) == expected
