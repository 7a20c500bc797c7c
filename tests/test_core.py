"""What importing `core` brings along."""

from __future__ import annotations

import subprocess
import sys

import pytest

import core


def test_opening_pictures_imports_no_torch() -> None:
    code = "import sys, core.images; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_every_name_of_core_is_there() -> None:
    assert all(getattr(core, name) is not None for name in core.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Decoder'"):
        _ = core.Decoder  # type: ignore[attr-defined]
