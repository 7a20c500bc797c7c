"""Mistakes on the command line are answered before anything heavy is imported, so in well under a second."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, app_environment

HEAVY = ("torch", "open_clip", "lancedb", "sqlalchemy", "gradio")
MISTAKES = {
    "app.cli": (
        "index", "index nowhere", "index nowhere.csv", "index README.md", "index tests --root .", "search",
        "search woman --data-dir nowhere", "search woman --k 0", "export --format csv", "export --data-dir nowhere",
        "import-marks", "import-marks nowhere.csv", "forget", "forget x", f"forget {'0' * 64} --data-dir nowhere",
        "check --data-dir nowhere", "check --remove-broken", "add-user", "nonsense", "--nonsense",
    ),
    "train.__main__": (
        "finetune --data-dir nowhere", "finetune --weights nowhere.safetensors", "finetune --mode half",
        "adapt --data-dir nowhere", "versions --data-dir nowhere", "promote", "promote mini-v1 --data-dir nowhere",
        "rollback --data-dir nowhere", "push mini-v1", "add", "fit", "fit --dataset market", "fit --dataset cuhk-pedes",
        "fit --dataset cuhk-pedes --root nowhere", "evaluate --dataset rstpreid --root tests",
        "evaluate --dataset street --released nowhere.pth", "evaluate --dataset street --version-folder nowhere",
        "pretrain", "pretrain --out x --start nowhere", "simulate --marks nine", "simulate --domain moon",
        "params --preset market", "params --backbone nobody", "finetune --backbone nonsense",
        "simulate --policies bees", "simulate --marks 100,200", "simulate --plot x.png",
        "ablate --rows bees", "ablate --rows LoRA,LoRA",
        "nonsense",
    ),
}  # fmt: skip
RUN = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
module, heavy, mistakes = json.loads(sys.argv[1])
cli, found = import_module(module).cli, {}
for mistake in mistakes:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            cli(mistake.split())
            code = 0
        except SystemExit as ended:
            code = ended.code
        except Exception as error:
            code = str(error)
    found[mistake] = [code, [name for name in heavy if name in sys.modules]]
print(json.dumps(found))
"""


def test_mistakes_are_answered_before_heavy_imports(tmp_path: Path) -> None:
    for module, mistakes in MISTAKES.items():
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps([module, HEAVY, mistakes])],
            cwd=ROOT, env=app_environment(UPPERSON_DATA_DIR=str(tmp_path / "none")), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert {mistake: heavy for mistake, (_, heavy) in found.items() if heavy} == {}
        assert [mistake for mistake, (code, _) in found.items() if code == 0] == [], "every one is refused"
        assert tuple(found) == mistakes
