"""Shared fixtures: real stores in a temporary folder, the bundled model, and the app as a running process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from app.services import Services
from app.settings import Settings
from app.state import State
from core import Backbone, PetlConfig, UPPerson, load_backbone, save_petl
from store import VersionRow

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = 40
"""Pictures of the sample gallery in tests: 10 people, 4 pictures each."""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder that does not exist yet."""
    return tmp_path / "data"


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    """Settings of a small app of its own."""
    return Settings(data_dir=data_dir, sample_size=SAMPLE, adapt="off")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder after its first start; copy it, do not use it."""
    folder = tmp_path_factory.mktemp("drawn") / "data"
    Services.open(Settings(data_dir=folder, sample_size=SAMPLE, adapt="off")).close()
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where synthetic sets that several tests need are drawn once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def services(settings: Settings, drawn: Path) -> Iterator[Services]:
    """Everything but the pages, on a drawn gallery of `SAMPLE` pictures."""
    shutil.copytree(drawn, settings.data_dir)
    opened = Services.open(settings)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def mini() -> Backbone:
    """The bundled backbone; read-only."""
    return load_backbone("mini")


@dataclass(slots=True)
class RunningApp:
    """`python app.py` in a process of its own."""

    url: str
    data_dir: Path
    process: subprocess.Popen[str]
    log_file: Path
    seconds_to_start: float = field(default=0.0)

    def log(self) -> str:
        """What it has printed so far."""
        return self.log_file.read_text(encoding="utf-8")

    def stop(self) -> int:
        """End it as Ctrl-C would; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def app_environment(**more: str) -> dict[str, str]:
    """The environment of a process of ours: nothing of the caller's UPPERSON_ settings, no adaptation by
    itself, plus `more`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UPPERSON_")}
    return clean | {"UPPERSON_SAMPLE_SIZE": str(SAMPLE), "UPPERSON_ADAPT": "off"} | more


def start_app(data_dir: Path, *arguments: str, **environment: str) -> RunningApp:
    """Start the app on a free port and wait until it serves; fails with its log when it does not."""
    port = free_port()
    data_dir.mkdir(parents=True, exist_ok=True)
    log_file = data_dir.parent / f"{data_dir.name}-{port}.log"
    command = [sys.executable, "app.py", "--data-dir", str(data_dir), "--port", str(port), *arguments]
    began = time.monotonic()
    with log_file.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=app_environment(**environment), stdout=out, stderr=subprocess.STDOUT, text=True
        )
    app = RunningApp(f"http://127.0.0.1:{port}/", data_dir, process, log_file)
    while " is running on " not in app.log():
        if process.poll() is not None or time.monotonic() - began > 180:
            process.kill()
            process.wait()
            pytest.fail(f"the app did not start:\n{app.log()}")
        time.sleep(0.05)
    app.seconds_to_start = time.monotonic() - began
    return app


@pytest.fixture(scope="module")
def running_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The app with a small sample gallery, shared by a module's tests."""
    app = start_app(tmp_path_factory.mktemp("app") / "data")
    yield app
    app.stop()


def add_version(services: Services) -> str:
    """A candidate whose PETL weights differ from their start, as training would leave it; its name."""
    return candidate(services.state, services.retriever.backbone)


def candidate(state: State, backbone: Backbone, *, parent: str | None = None, **facts: Any) -> str:
    """The same in an open data folder, with `facts` of its row."""
    name = state.versions.next_id(backbone.name)
    model = UPPerson(backbone, PetlConfig(prefix_length=2, lora_rank=2, adapter_reduction=16))
    generator = torch.Generator().manual_seed(int(name.rpartition("v")[2]))
    with torch.no_grad():
        for parameter in model.petl_parameters().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    save_petl(model, state.settings.models_dir / name)
    row = VersionRow(id=name, backbone=backbone.name, parent=parent, folder=f"models/{name}", **facts)
    return state.versions.add(row).id
