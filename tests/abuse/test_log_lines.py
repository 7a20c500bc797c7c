from __future__ import annotations

import io
import subprocess
import sys

from app.process.log_lines import MOST_CHARACTERS, CutLines
from tests.conftest import ROOT


def test_long_lines_of_the_log_are_cut() -> None:
    out = io.StringIO()
    cut = CutLines(out)
    text = "short\n" + "x" * 1_000_000 + "\nshort again\n"
    assert cut.write(text) == len(text)
    lines = out.getvalue().splitlines()
    assert [lines[0], lines[2]] == ["short", "short again"]
    assert lines[1].startswith("x" * MOST_CHARACTERS + " … (1,000,001 characters)")
    assert cut.isatty() is False


def test_log_and_tracebacks_are_cut() -> None:
    code = (
        "import logging; from app.process.log_lines import cut_log_lines; cut_log_lines(); logging.basicConfig();"
        "logging.error('%s', 'a' * 10**7); print('b' * 10**7); raise ValueError('c' * 10**6)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert len(ran.stdout) < 3_000
    assert len(ran.stderr) < 10_000
