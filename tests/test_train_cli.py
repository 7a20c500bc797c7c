"""`python -m train`: help, exit codes, JSON, and versions that really change hands."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.backbones import Backbone, load_backbone
from core.checkpoints import save_petl
from core.model import UPPerson
from core.petl import PetlConfig
from store import Database, Gallery, Marks, NewImage, Search, Shown, VersionRow
from store.workspace import Workspace
from tests.small_clip import stir
from tests.test_export import export_marks
from train import pedestrians
from train.__main__ import run
from train.finetuning import replay
from train.finetuning.replay import SAMPLE_FILE, read_sample
from train.jobs.lines import lineage

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (
    "finetune",
    "adapt",
    "pretrain",
    "fit",
    "evaluate",
    "simulate",
    "versions",
    "promote",
    "rollback",
    "push",
    "add",
)


@dataclass(frozen=True, slots=True)
class Said:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Said]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a command line in this process."""
    threads = torch.get_num_threads()
    for name in ("UPPERSON_DATA_DIR", "UPPERSON_BACKBONE"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run()
        out, err = capsys.readouterr()
        return Said(int(ended.value.code or 0), out, err)

    yield call
    torch.set_num_threads(threads)


@pytest.fixture
def data(tmp_path: Path, mini: Backbone) -> Path:
    """A data folder with four pictures, version 0 serving, and two candidates."""
    folder = tmp_path / "data"
    folder.mkdir()
    Database(folder / "app.db").close()
    with Workspace.existing(folder) as stores:
        for take in pedestrians.takes("street", "users", 2, 2):
            path = tmp_path / "picture.png"
            take.picture().resize((48, 144)).save(path)
            stores.gallery.add(
                [NewImage(data=path.read_bytes(), uri=f"{take.pid}", width=48, height=144, source="test")]
            )
        stores.versions.ensure_base("mini")
        for number in (1, 2):
            model = UPPerson(mini, PetlConfig(prefix_length=2, lora_rank=2, adapter_reduction=16))
            save_petl(stir(model, seed=number), folder / "models" / f"mini-v{number}")
            row = VersionRow(id=f"mini-v{number}", backbone="mini", folder=f"models/mini-v{number}")
            stores.versions.add(row)
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command: Command, name: str) -> None:
    said = command(name, "--help")
    assert said.code == 0
    assert f"train {name}" in said.out
    assert "--json" in said.out


def test_the_whole_has_help_that_names_every_command(command: Command) -> None:
    said = command("--help")
    assert said.code == 0
    assert all(name in said.out for name in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("versions", "--nonsense"),
        ("promote",),
        ("pretrain",),
        ("pretrain", "--out", "x", "--steps", "0"),
        ("pretrain", "--out", "x", "--domain", "moon"),
        ("finetune", "--job", "one"),
        ("simulate", "--behaviour", "kind"),
        ("simulate", "--flip", "1.5"),
        ("simulate", "--marks", "9"),
        ("simulate", "--workers", "0"),
        ("simulate", "--domain", "moon"),
        ("adapt", "--job", "one"),
        ("adapt", "--mode", "text"),
        ("fit", "--dataset", "street", "--keep-sample", "-1"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_code_2_and_says_why(command: Command, arguments: tuple[str, ...]) -> None:
    said = command(*arguments)
    assert said.code == 2
    assert "Usage" in said.out + said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "arguments", [("finetune",), ("adapt",), ("versions",), ("promote", "mini-v1"), ("rollback",)], ids=lambda a: a[0]
)
def test_without_a_data_folder_it_is_code_1_and_says_what_to_do(
    command: Command, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    said = command(*arguments, "--data-dir", tmp_path / "none")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("Error: there is no data folder at")
    assert "start `python app.py` once, or name it by --data-dir" in said.err
    assert not (tmp_path / "none").exists()


def test_what_an_option_is_by_default_is_not_lost_as_markup(command: Command) -> None:
    shown = " ".join(command("fit", "--help").out.replace("│", " ").split())
    assert shown.count("[default: the paper's") == 4
    assert "[default: fits/DATASET-BACKBONE]" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("promote", "mini-v9"), "There is no version 'mini-v9'. These are known: mini-v0, mini-v1, mini-v2."),
        (("rollback",), "Backbone 'mini' has no version to roll back to"),
        (("finetune", "--job", "7"), "There is no job 7"),
        (("adapt", "--job", "7"), "There is no job 7"),
        (("adapt", "--base", "nowhere"), "no folder nowhere: expected that of a data set"),
        (("finetune", "--base", "nowhere"), "no folder nowhere: expected that of a data set"),
        (("finetune", "--backbone", "ViT-Z"), "unknown backbone 'ViT-Z': expected mini or a plain CLIP ViT"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_code_1_and_one_sentence(
    command: Command, data: Path, arguments: tuple[str, ...], words: str
) -> None:
    said = command(*arguments, "--data-dir", data)
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[-1].startswith(f"Error: {words}")  # after the stages, where one began
    with Workspace.existing(data) as stores:
        assert stores.versions.active("mini").id == "mini-v0"


def test_versions_are_listed_with_the_active_one_marked(command: Command, data: Path) -> None:
    with Workspace.existing(data) as stores:
        numbers = {"base_before": 0.713, "base_after": 0.7}
        gate = {"decision": "rejected", "reason": "it forgets.", "numbers": numbers}
        stores.versions.add(VersionRow(id="mini-v3", backbone="mini", parent="mini-v0", status="rejected", gate=gate))
        made = f"{stores.versions.get('mini-v3').created_at:%Y-%m-%d}"
    assert command("versions", "--data-dir", data).out.splitlines() == [
        "  version  made        from     status     decision  base R@1",
        f"* mini-v0  {made}  -        active     -         71.3 %",
        f"  mini-v1  {made}  -        candidate  -         -",
        f"  mini-v2  {made}  -        candidate  -         -",
        f"  mini-v3  {made}  mini-v0  rejected   rejected  70.0 %",
        "    it forgets.",
    ]
    found = command("versions", "--data-dir", data, "--json").json
    assert [(row["id"], row["status"], row["parent"]) for row in found] == [
        ("mini-v0", "active", None),
        ("mini-v1", "candidate", None),
        ("mini-v2", "candidate", None),
        ("mini-v3", "rejected", "mini-v0"),
    ]
    assert command("versions", "--data-dir", data, "--backbone", "ViT-B-16").out == "no versions yet\n"
    assert command("versions", "--data-dir", data, "--backbone", "ViT-B-16", "--json").json == []


def test_the_data_folder_may_come_from_the_environment(
    command: Command, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPPERSON_DATA_DIR", str(data))
    assert len(command("versions", "--json").json) == 3


def test_promoting_and_rolling_back(command: Command, data: Path) -> None:
    said = command("promote", "mini-v1", "--data-dir", data, "--json")
    assert (said.code, said.json) == (0, {"active": "mini-v1"})
    assert command("promote", "mini-v2", "--data-dir", data, "--by", "anna").out == "mini-v2 serves now\n"
    with Workspace.existing(data) as stores:
        assert stores.versions.active("mini").id == "mini-v2"
        assert stores.gallery.complete("mini-v1")
        assert stores.gallery.complete("mini-v2")
        history = stores.versions.history("mini")
        assert [(change.version, change.by) for change in history[1:]] == [
            ("mini-v1", "command line"),
            ("mini-v2", "anna"),
        ]
        ids = sorted(stores.gallery.ids())
        one, two = (stores.gallery.vectors(version, ids)[1] for version in ("mini-v1", "mini-v2"))
        assert np.abs(one - two).max() > 1e-3
    assert command("rollback", "--data-dir", data).out == "mini-v1 serves again\n"
    assert command("rollback", "--data-dir", data, "--json").json == {"active": "mini-v0"}
    assert command("rollback", "--data-dir", data).code == 1


def test_version_0_can_be_promoted_again(command: Command, data: Path) -> None:
    command("promote", "mini-v1", "--data-dir", data)
    assert command("promote", "mini-v0", "--data-dir", data).code == 0
    with Workspace.existing(data) as stores:
        assert stores.versions.active("mini").id == "mini-v0"
        assert stores.gallery.complete("mini-v0")


def test_damaged_weights_are_not_promoted(command: Command, data: Path) -> None:
    (data / "models" / "mini-v1" / "petl.safetensors").write_bytes(b"damaged")
    said = command("promote", "mini-v1", "--data-dir", data)
    assert said.code == 1
    assert "are damaged or missing" in said.err
    with Workspace.existing(data) as stores:
        assert stores.versions.active("mini").id == "mini-v0"


def test_fine_tuning_without_marks_ends_well_and_says_so(command: Command, data: Path) -> None:
    said = command("finetune", "--data-dir", data, "--json")
    assert said.code == 0
    assert said.json["decision"] == "undecided"
    assert said.json["reason"].startswith("no hits")
    with Workspace.existing(data) as stores:
        queued = stores.jobs.queue("finetune")
    said = command("finetune", "--data-dir", data, "--job", queued.id)
    assert said.out.startswith("undecided: no hits")
    with Workspace.existing(data) as stores:
        assert [row.state for row in stores.jobs.list()] == ["done", "done"]


def test_a_small_gallery_is_not_adapted_to_and_says_so(
    command: Command, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "REPLAY_PEOPLE", 140)
    monkeypatch.setattr(replay, "BASE_PEOPLE", 10)
    said = command("adapt", "--data-dir", data, "--json")
    assert (said.code, said.json["decision"]) == (0, "undecided")
    assert said.json["reason"] == "the gallery has 4 pictures, 50 are needed to learn their style."
    with Workspace.existing(data) as stores:
        queued = stores.jobs.queue("adapt")
    assert command("adapt", "--data-dir", data, "--job", queued.id).out.startswith("undecided: the gallery has 4")
    with Workspace.existing(data) as stores:
        assert [(row.kind, row.state) for row in stores.jobs.list()] == [("adapt", "done")] * 2


def test_as_a_process(tmp_path: Path) -> None:
    """Nothing but one sentence reaches the user of a command that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "train", "versions", "--data-dir", str(tmp_path / "none")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: there is no data folder at")
    assert done.stderr.count("\n") == 1


def marked_pictures(folder: Path, people: int) -> Path:
    """An export of marks: two drawn pictures of each person, both hits for a description of theirs."""
    database, gallery = Database(folder / "app.db"), Gallery(folder / "gallery")
    marks = Marks(database)
    for pid in range(people):
        images = []
        for take in pedestrians.takes("street", "users", 1, 2, first=pid):
            file = io.BytesIO()
            take.picture().resize((48, 144)).save(file, "PNG")
            images.append(NewImage(data=file.getvalue(), uri=f"{pid}", width=48, height=144, source="own"))
        gallery.add(images)
        search = Search(user="ada", caption=f"person {pid}, {take.caption()}", version="mini-v0", backbone="mini")
        query = marks.record_search(search, [Shown(image.id, rank, 0.5) for rank, image in enumerate(images, 1)])
        marks.mark_many("ada", query, [image.id for image in images], "hit")
    report = export_marks(marks, gallery, folder / "export", format="cuhk-pedes")
    database.close()
    return report.path


def test_marks_are_exported_trained_on_judged_and_taken_in_again(command: Command, data: Path, tmp_path: Path) -> None:
    root, run = marked_pictures(tmp_path / "marked", 5), tmp_path / "run"
    of = ("--dataset", "cuhk-pedes", "--root", root)
    sizes = ("--prefix", 2, "--lora", 4, "--adapter", 16)
    kept = ("--keep-sample", 2)
    said = command("fit", *of, "--epochs", 1, "--batch", 4, *sizes, *kept, "--out", run, "--json")
    assert said.code == 0, said.err
    assert "Note: this is not the published CUHK-PEDES: train has " in said.err
    assert said.json["best"]["epoch"] == 1
    config = json.loads((run / "config.json").read_text())["config"]
    assert (config["lr"], config["epochs"], config["warmup"], config["batch"]["size"]) == (1e-3, 1, 1 / 12, 4)
    assert (config["petl"]["prefix_length"], config["petl"]["lora_rank"]) == (2, 4)

    judged = command("evaluate", *of, "--split", "val", "--version-folder", run, "--json")
    assert judged.json["text_to_image"]["r1"] == said.json["best"]["val_r1"]
    lines = command("evaluate", *of, "--version-folder", run).out.splitlines()
    assert lines[0] == "cuhk-pedes test, mini"
    assert lines[2].startswith("text to image")

    added = command("add", run, "--data-dir", data, "--json")
    assert (added.code, added.json) == (0, {"version": "mini-v3", "backbone": "mini"})
    with Workspace.existing(data) as stores:
        row = stores.versions.get("mini-v3")
        assert row.metrics == said.json["best"]
        begin, source = lineage(stores, row)
        assert (begin, source.kind, source.path) == (row, "data set", root.resolve())
        file = stores.version_folder(row) / SAMPLE_FILE
        assert file.read_bytes() == (run / SAMPLE_FILE).read_bytes(), "the sample travels with the version"
        pairs, base = read_sample(file, load_backbone("mini").image_size)
        assert 0 < len(set(pairs.pids.tolist())) == len(pairs.pids) <= 2
        assert len(base.pids) > 0
        root.rename(tmp_path / "moved")
        assert lineage(stores, row)[1].path == file


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--dataset", "icfg-pedes"), 2, "icfg-pedes needs its folder: --root DIR"),
        (("--dataset", "market"), 2, "Invalid value for '--dataset': 'market' is not one of"),
        (
            ("--dataset", "rstpreid", "--root", "."),
            1,
            "is not laid out as RSTPReid: expected imgs and data_captions.json",
        ),
    ],
)
def test_a_data_set_that_is_not_there_is_said(
    command: Command, options: tuple[str, ...], code: int, words: str
) -> None:
    for name in ("fit", "evaluate"):
        said = command(name, *options)
        assert said.code == code
        assert words in re.sub(r"[\s│]+", " ", said.err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "--dataset", "street", "--released", "best.pth", "--backbone", "mini"), "--backbone"),
        (("evaluate", "--dataset", "street", "--released", "best.pth", "--weights", "README.md"), "--weights"),
        (("evaluate", "--dataset", "street", "--version-folder", "run", "--backbone", "mini"), "--backbone"),
        (("evaluate", "--dataset", "street", "--expect-published"), "--expect-published"),
        (("fit", "--dataset", "studio", "--expect-published"), "--expect-published"),
        (("fit", "--dataset", "foreign", "--expect-published"), "--expect-published"),
        (("evaluate", "--dataset", "rstpreid", "--root", ".", "--people", 20), "--people"),
        (("fit", "--dataset", "rstpreid", "--root", ".", "--people", 2000), "--people"),
        (("add", ".", "--backbone", "mini"), "--backbone"),
        (("add", "user/name", "--backbone", "mini"), "--backbone"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], words: str
) -> None:
    Database(tmp_path / "app.db").close()
    monkeypatch.setenv("UPPERSON_DATA_DIR", str(tmp_path))
    said = command(*arguments)
    assert said.code == 2
    assert f"{words} means nothing here: " in re.sub(r"[\s│]+", " ", said.err)


def test_a_backbone_of_the_environment_is_no_option(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPPERSON_BACKBONE", "mini")
    said = command("evaluate", "--dataset", "street", "--version-folder", tmp_path)
    assert said.code == 1
    assert "petl.json could not be read" in said.err


def test_drawn_people_are_a_data_set_too(command: Command, tmp_path: Path) -> None:
    said = command("evaluate", "--dataset", "street", "--people", 10, "--root", tmp_path, "--split", "val", "--json")
    assert said.json["counts"] == {"people": 1, "pictures": 2, "captions": 2}
    assert said.json["text_to_image"]["r1"] == 1.0
    assert len(list(tmp_path.glob("synthetic-*.npy"))) == 1  # nothing but what is judged is drawn
