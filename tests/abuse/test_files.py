"""Files made to do harm: a sentence comes out, and memory stays bounded."""

from __future__ import annotations

import csv
import os
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from app.app_errors import IndexingError, StartError
from app.cli import cli
from app.indexing.report import SkipList
from app.indexing.tables import TableSource
from app.settings import Settings
from app.state import State
from app.web.identity import Identity
from core import CheckpointError, PetlConfig
from core.checkpoints import CONFIG_FILE, read_petl_config
from store import Gallery, MarkError, NewImage
from store.export.marks_import import import_marks
from tests.conftest import ROOT

MARK = {
    "image_id": "a" * 64, "caption": "a man", "verdict": "hit", "query_id": "b" * 32, "rank": 1, "score": 0.5,
    "model_version": "mini-v0", "backbone": "mini", "annotator": "ada", "marked_at": "2026-01-01T00:00:00+00:00",
}  # fmt: skip
ROWS = 500
_LIMITED = """
import resource, sys
from pathlib import Path
from store import Database, Marks
from store.export.marks_import import import_marks
limit = 3 * 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
report = import_marks(Marks(Database(Path(sys.argv[1]) / "app.db")), Path(sys.argv[2]))
print(report.refused, report.reasons[0].reason)
"""


def test_a_caption_that_expands_to_gigabytes_is_refused(tmp_path: Path) -> None:
    columns = {name: [value] * ROWS for name, value in MARK.items()}
    columns["caption"] = ["x" * 20_000_000] * ROWS
    columns["rank"] = list(range(1, ROWS + 1))
    file = tmp_path / "marks.parquet"
    caption = pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), pa.array(["x" * 20_000_000]))
    pq.write_table(pa.table(columns | {"caption": caption}), file, compression="zstd")
    assert file.stat().st_size < 100_000
    ran = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path), str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (
        0, f"{ROWS} caption has 10,001 characters; at most 10,000 are taken\n"
    ), ran.stderr[-2000:]  # fmt: skip


def test_columns_that_unpack_to_too_much_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "marks.parquet"
    columns = {name: [value] * 300 for name, value in MARK.items()}
    columns["caption"] = [f"{number:03d}" + "x" * 1_000_000 for number in range(300)]
    pq.write_table(pa.table(columns), file, compression="zstd", use_dictionary=False)
    assert file.stat().st_size < 1_000_000
    state = State(Settings(data_dir=tmp_path / "data", sample_size=0))
    try:
        with pytest.raises(MarkError, match="at most 256,000,000 are taken at once"):
            import_marks(state.marks, file)
    finally:
        state.close()


def test_a_csv_of_100000_columns_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "marks.csv"
    file.write_text(",".join(["path", *(f"c{n}" for n in range(100_000))]) + "\n")
    with pytest.raises(IndexingError, match="100,001 columns; at most 1,000"):
        TableSource(file)
    state = State(Settings(data_dir=tmp_path / "data", sample_size=0))
    try:
        with pytest.raises(MarkError, match="100,001 columns"):
            import_marks(state.marks, file)
    finally:
        state.close()


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 10_000, "[" + "1," * 100_000 + "1]", "\x00"])
def test_a_config_that_is_made_to_break_the_reader_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(CheckpointError, match="could not be read"):
        read_petl_config(tmp_path)


@pytest.mark.parametrize("name", ["lora_rank", "prefix_length", "adapter_reduction"])
def test_sizes_of_a_config_are_bounded(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} is at most 4,096, not 1,000,000,000"):
        PetlConfig(**{name: 10**9})  # type: ignore[arg-type]


def test_adding_a_folder_without_weights_names_it(tmp_path: Path) -> None:
    source = tmp_path / "run"
    source.mkdir()
    data = tmp_path / "data"
    State(Settings(data_dir=data, sample_size=0)).close()
    ran = subprocess.run(
        [sys.executable, "-m", "train", "add", str(source), "--data-dir", str(data)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 1, ran.stderr
    assert f"{source} has no petl.safetensors and no petl.json" in ran.stderr
    assert ".adding-" not in ran.stderr


@pytest.mark.parametrize(
    "content", [b"\xff\xfe garbage", b"no secret of ours, but long enough to be taken for one", b"\0" * 64]
)
def test_garbage_in_the_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(StartError, match="restore it from a copy, or delete it"):
        Identity.open(tmp_path / "secret")


@pytest.mark.parametrize("content", [b"", b"0123abc", b"0" * 31 + b"\n"])
def test_a_secret_that_was_cut_short_is_made_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    cookie = Identity.open(tmp_path / "secret").new_cookie()
    assert Identity.open(tmp_path / "secret").read(cookie)


def test_an_emptied_database_beside_a_gallery_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(data_dir=tmp_path / "data", sample_size=0)
    State(settings).close()
    Gallery(settings.gallery_dir).add([NewImage(data=b"x", uri="x.jpg", width=9, height=9, source="own")])
    State(settings).close()
    settings.database.write_bytes(b"")
    with pytest.raises(StartError, match="is empty: restore it from a copy, or delete it"):
        State(settings)
    assert settings.database.read_bytes() == b""
    settings.database.unlink()
    State(settings).close()
    assert "Restore it from a copy" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="rights of files as POSIX has them")
def test_the_database_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", sample_size=0)
    for _ in range(2):
        state = State(settings)
        files = [file for file in settings.data_dir.iterdir() if file.name.startswith("app.db")]
        rights = {file.name: stat.S_IMODE(file.stat().st_mode) for file in files}
        state.close()
        assert set(rights.values()) == {0o600}, rights
        settings.database.chmod(0o644)  # as former programs left it


def test_names_and_passwords_lie_in_the_data_folder_that_was_named(tmp_path: Path) -> None:
    for arguments in (
        ["--data-dir", str(tmp_path / "x"), "add-user", "ada"],
        ["add-user", "ada", "--data-dir", str(tmp_path / "y")],
    ):
        said = CliRunner().invoke(cli, arguments, input="long enough\nlong enough\n")
        assert said.exit_code == 0, said.output
    assert (tmp_path / "x" / "auth").is_file()
    assert (tmp_path / "y" / "auth").is_file()


def test_a_report_holds_no_formula(tmp_path: Path) -> None:
    names = ["=cmd|'/c calc'!A0.jpg", "+1.jpg", "-2.jpg", "@x.jpg", "plain.jpg"]
    with SkipList(tmp_path / "report.csv") as skips:
        for name in names:
            skips.skip(name, f"={name} is no picture")
    with (tmp_path / "report.csv").open(newline="") as lines:
        rows = list(csv.reader(lines))[1:]
    assert [row[0] for row in rows] == [f"'{name}" for name in names[:-1]] + names[-1:]
    assert all(row[1].startswith("'=") for row in rows)
