"""`.ci/subjects`: which commits it looks at, and what it says of a long subject."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

LONG, LIMIT = "é" * 73, "é" * 72


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(("git", *identity, *words), cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def commit(folder: Path, subject: str) -> None:
    git(folder, "commit", "--allow-empty", "-m", subject)


def check(folder: Path) -> tuple[int, str]:
    done = subprocess.run([str(ROOT / ".ci" / "subjects")], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A repository whose main has a long subject that nobody can change any more, and another commit."""
    folder = tmp_path / "published"
    folder.mkdir()
    git(folder, "init")
    commit(folder, LONG)
    commit(folder, "Begin")
    return folder


@pytest.fixture
def clone(published: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "--quiet", str(published), "clone")
    return tmp_path / "clone"


def test_subjects_since_origin_main_are_checked(clone: Path) -> None:
    commit(clone, LIMIT)
    assert check(clone) == (0, "")
    commit(clone, LONG)
    code, said = check(clone)
    assert code == 1
    assert said.count("73 characters") == 1
    assert f" {LIMIT}\n" not in said


def test_without_a_remote_the_reflog_of_main_says_where_work_began(clone: Path) -> None:
    git(clone, "remote", "remove", "origin")
    git(clone, "switch", "--quiet", "-c", "work")
    commit(clone, LIMIT)
    assert check(clone) == (0, "")
    commit(clone, LONG)
    assert check(clone)[0] == 1


def test_nothing_is_checked_where_git_cannot_say_what_is_new(published: Path, tmp_path: Path) -> None:
    git(published, "switch", "--quiet", "-c", "work")
    commit(published, LONG)
    shallow = ("clone", "--quiet", "--depth", "1", "--branch", "work", f"file://{published}", "shallow")
    git(tmp_path, *shallow)
    assert check(tmp_path / "shallow") == (0, "")
    (tmp_path / "archive").mkdir()
    assert check(tmp_path / "archive") == (0, "")
