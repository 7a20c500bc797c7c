from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from app.cli import cli
from app.search.views import SearchRequest
from app.services import Services
from app.settings import Settings
from app.state import State
from store import GalleryError
from tests.conftest import ROOT, RunningApp, app_environment, free_port, start_app
from tests.small_hub import small_hub
from tests.test_retriever import CAPTION


@pytest.fixture(autouse=True)
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPPERSON_SAMPLE_SIZE", "8")


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    folder = tmp_path / "crops"
    folder.mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (48, 128), colour).save(folder / f"{number}.png")
    (folder / "broken.jpg").touch()
    return folder


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def serve(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python app.py` that is expected to refuse to start."""
    command = [sys.executable, "app.py", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=app_environment(**environment), capture_output=True, text=True, timeout=120, check=False
    )


def test_index_and_search_for_machines(data_dir: Path, crops: Path) -> None:
    code, out, _ = run("index", crops, "--data-dir", data_dir, "--json")
    report = json.loads(out)
    assert (code, report["added"], report["embedded"], report["version"]) == (0, 3, 3, "mini-v0")
    assert report["skipped"][0]["path"] == "broken.jpg"
    code, out, _ = run("--data-dir", data_dir, "search", CAPTION, "--k", 2, "--json")
    found = json.loads(out)
    assert (code, found["version"], len(found["candidates"])) == (0, "mini-v0", 2)
    assert found["candidates"][0]["uri"].endswith(".png")


def test_a_table_is_indexed_by_reference_with_a_report_of_the_skipped(data_dir: Path, crops: Path) -> None:
    (crops / "list.csv").write_text("path,pid\n0.png,7\ngone.png,8\n../1.png,9\n")
    written = crops / "report.json"
    code, out, err = run(
        "index", crops / "list.csv", "--reference", "--report", written, "--source", "gate", "--data-dir", data_dir
    )
    assert (code, out.splitlines()[0]) == (0, "Pictures added: 1, there already: 0, skipped: 2."), err
    report = json.loads(written.read_text())
    assert [one["path"] for one in report["skipped"]] == ["row 2: gone.png", "row 3: ../1.png"]
    assert (report["source"], report["added"], report["skipped_count"]) == ("gate", 1, 2)
    _, out, _ = run("search", CAPTION, "--data-dir", data_dir, "--json")
    assert [(c["uri"], c["pid"]) for c in json.loads(out)["candidates"]] == [((crops / "0.png").as_uri(), "7")]


def test_index_for_people(data_dir: Path, crops: Path) -> None:
    code, out, err = run("index", crops, "--data-dir", data_dir)
    assert code == 0
    assert "Pictures added: 3, there already: 0, skipped: 1." in out
    assert "broken.jpg" in out
    assert "for photographs, index and serve with --backbone ViT-B-16" in out
    assert "Indexing pictures" in err
    code, out, _ = run("search", CAPTION, "--data-dir", data_dir)
    assert len(out.splitlines()) == 3
    rank, score, source, uri, image_id = out.splitlines()[0].split()
    assert (rank, source, uri.endswith(".png"), len(image_id)) == ("1", crops.name, True, 64)
    assert -1 < float(score) < 1
    assert len({line.index(line.split()[-1]) for line in out.splitlines()}) == 1, "ids are in one column"
    code, out, _ = run("forget", image_id, "--data-dir", data_dir)
    assert (code, out.startswith("Erased. Pictures: 1, marks: 0,")) == (0, True)
    code, out, _ = run("forget", image_id, "--data-dir", data_dir)
    assert (code, "nothing was found: are these ids" in out) == (0, True)


def test_the_sample_comes_back(data_dir: Path, crops: Path) -> None:
    run("index", crops, "--data-dir", data_dir)
    code, out, _ = run("index", "--sample", "--data-dir", data_dir, "--json")
    assert (code, json.loads(out)) == (0, {"source": "sample", "pictures": 8})
    _, out, _ = run("search", CAPTION, "--k", 50, "--data-dir", data_dir, "--json")
    assert len(json.loads(out)["candidates"]) == 11


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("index", "nowhere"), "expected a folder"),
        (("index", "README.md"), "expected a folder, a .zip, a .csv"),
        (("index", "tests", "--root", "."), "--root is for"),
        (("index", "nowhere.csv"), "nowhere.csv does not exist"),
        (("search", "a man"), "gallery is empty"),
        (("search", " "), "description is empty"),
        (("search", "a man", "--backbone", "ViT-Z"), "mini, ViT-B-16"),
        (("export", "out"), "mark"),
        (("forget", "x"), "64 hexadecimal digits"),
        (("forget", "--source", "nobody's"), "no picture of"),
    ],
)
def test_failures_are_sentences_and_exit_code_1(data_dir: Path, arguments: tuple[str, ...], said: str) -> None:
    State(Settings(data_dir=data_dir)).close()
    code, _, err = run(*arguments, "--data-dir", data_dir)
    assert code == 1
    assert said in err
    assert "Traceback" not in err


def test_a_failure_for_machines_is_json_too(data_dir: Path) -> None:
    code, out, _ = run("index", "nowhere", "--data-dir", data_dir, "--json")
    assert code == 1
    assert "expected a folder" in json.loads(out)["error"]


def test_a_folder_without_pictures_fails(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run("index", tmp_path / "empty", "--data-dir", data_dir)
    assert code == 1
    assert "no pictures in" in err


@pytest.mark.parametrize(
    "arguments",
    [("index",), ("forget",), ("index", ".", "--sample"), ("nonsense",), ("--port", "x"), ("search",), ("--what",)],
)
def test_bad_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2


@pytest.mark.parametrize("arguments", [(), ("index",), ("search",), ("export",), ("forget",), ("check",)])
def test_every_command_explains_itself(arguments: tuple[str, ...]) -> None:
    code, out, _ = run(*arguments, "--help")
    assert code == 0
    assert "--data-dir" in out


@pytest.mark.parametrize("command", [["check"], ["export"], ["search", CAPTION]])
def test_a_command_that_reads_makes_no_data_folder(command: list[str], tmp_path: Path) -> None:
    code, _, err = run(*command, "--data-dir", tmp_path / "nowhere")
    assert code == 1
    assert f"there is no data folder at {tmp_path / 'nowhere'}" in err
    assert not (tmp_path / "nowhere").exists()


def test_a_wrong_choice_is_refused_in_plain_words() -> None:
    code, _, err = run("export", "--format", "csv")
    assert code == 2
    assert "Invalid value for '--format': 'csv' is not one of 'parquet', 'cuhk-pedes'" in words(err)
    assert "Value error" not in err


def test_help_names_the_settings_and_their_defaults() -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "UPPERSON_TRAIN_AFTER_MARKS" in out
    assert "default: 7860" in " ".join(out.replace("│", " ").split())


def words(shown: str) -> str:
    """The words of a message that was broken into lines and framed."""
    return " ".join(shown.replace("│", " ").split())


def test_export_and_check(services: Services, tmp_path: Path) -> None:
    data_dir = services.settings.data_dir
    result = services.search(SearchRequest(CAPTION), "me")
    image_id = result.candidates[0].image_id
    services.mark("me", result.query_id, image_id, "hit")
    code, out, _ = run("export", tmp_path / "set", "--data-dir", data_dir, "--json")
    assert (code, json.loads(out)["rows"]) == (0, 1)
    assert (Path(json.loads(out)["path"]) / "README.md").exists()
    code, out, _ = run("export", "--data-dir", data_dir, "--json")
    assert code == 0
    assert Path(json.loads(out)["path"]).parent == services.settings.exports_dir
    code, _, err = run("export", "--format", "csv", tmp_path / "other", "--data-dir", data_dir)
    assert code == 2
    assert all(name in words(err) for name in ("'csv' is not", "parquet", "cuhk-pedes", "imagefolder", "jsonl"))
    code, out, _ = run("check", "--data-dir", data_dir)
    assert code == 0, out
    assert "Everything agrees." in out
    services.state.gallery.forget([image_id])
    (services.settings.models_dir / "stray").mkdir()
    code, out, _ = run("check", "--data-dir", data_dir, "--json")
    assert code == 1
    assert {finding["about"] for finding in json.loads(out)["findings"]} == {"marks", "models/stray"}
    code, out, _ = run("check", "--repair", "--data-dir", data_dir)
    assert code == 1
    assert "models/stray: no version uses it; deleted" in out
    assert not (services.settings.models_dir / "stray").exists()


def test_an_export_goes_to_the_hub(services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = services.search(SearchRequest(CAPTION), "me")
    services.mark("me", result.query_id, result.candidates[0].image_id, "hit")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    common = ("--format", "jsonl", "--data-dir", services.settings.data_dir, "--json")
    with small_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        code, out, _ = run("export", tmp_path / "one", "--push", "ada/marks", *common)
        assert (code, json.loads(out)["url"]) == (0, f"{hub.url}/ada/marks")
        files = {name: (tmp_path / "one" / name).read_bytes() for name in ("README.md", "export.json", "marks.jsonl")}
        assert {name: data for name, data in hub.repos["ada/marks"].items() if name in files} == files
        assert run("export", tmp_path / "two", "--push", "ada/open", "--public", *common)[0] == 0
        assert hub.private == {"ada/marks": True, "ada/open": False}
        code, _, err = run("export", tmp_path / "three", "--push", "ada/marks", *common)
        assert (code, "There is a repository ada/marks already" in err) == (1, True)
        hub.status = 403
        code, _, err = run("export", tmp_path / "four", "--push", "eve/marks", *common)
        assert (code, "You may not write to eve/marks (403)" in err) == (1, True)
    for name in ("one", "two", "three", "four"):
        assert (tmp_path / name / "marks.jsonl").read_text().count("\n") == 1, "the export on this disk is kept"


def test_forgetting_by_id_and_by_person(services: Services) -> None:
    data_dir = services.settings.data_dir
    result = services.search(SearchRequest(CAPTION), "me")
    first = result.candidates[0]
    services.mark("me", result.query_id, first.image_id, "hit")
    services.export("parquet", "me")
    services.picture(first.image_id, size="thumb")
    code, out, _ = run("forget", first.image_id, "--data-dir", data_dir, "--json")
    done = json.loads(out)
    assert (code, done["pictures"], done["marks"], len(done["exports"])) == (0, 1, 1, 1)
    assert list(services.settings.exports_dir.iterdir()) == []
    with pytest.raises(GalleryError, match="no picture"):
        services.picture(first.image_id, size="thumb")  # kept in memory until now
    code, out, _ = run("forget", "--pid", first.pid, "--data-dir", data_dir)
    assert code == 0
    assert out.startswith("Erased. Pictures: 3, marks: 0,")
    code, out, _ = run("check", "--data-dir", data_dir)
    assert code == 0, out


def test_a_taken_port_is_named(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = serve("--data-dir", data_dir, "--port", port)
    assert result.returncode == 1
    assert f"port {port}" in result.stderr
    assert "--port" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_base_set_that_is_none_is_refused_at_the_start(data_dir: Path, tmp_path: Path) -> None:
    result = serve("--data-dir", data_dir, "--port", free_port(), UPPERSON_TRAIN_BASE=str(tmp_path))
    assert result.returncode == 1
    assert "UPPERSON_TRAIN_BASE cannot be used" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_backbone_out_of_reach_says_the_way_out(data_dir: Path, tmp_path: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty cache")}
    result = serve("--data-dir", data_dir, "--port", free_port(), "--backbone", "ViT-B-16", **offline)
    assert result.returncode == 1
    assert "--backbone mini" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_setting_is_named(data_dir: Path) -> None:
    result = serve("--data-dir", data_dir, UPPERSON_PROT="1")
    assert result.returncode == 1
    assert "UPPERSON_PROT" in result.stderr


def test_a_data_folder_in_use_is_named(running_app: RunningApp) -> None:
    result = serve("--data-dir", running_app.data_dir, "--port", free_port())
    assert result.returncode == 1
    assert f"process {running_app.process.pid}" in result.stderr
    assert "--data-dir" in result.stderr


def test_indexing_beside_a_running_app(running_app: RunningApp, crops: Path) -> None:
    code, out, _ = run("index", crops, "--data-dir", running_app.data_dir, "--json")
    assert (code, json.loads(out)["added"]) == (0, 3)


def test_ctrl_c_ends_the_app_in_order(data_dir: Path) -> None:
    app = start_app(data_dir)
    assert app.stop() == 0
    assert "Traceback" not in app.log()
    assert not (data_dir / "app.pid").exists()


def test_marks_come_in_from_a_file(services: Services, tmp_path: Path) -> None:
    result = services.search(SearchRequest(CAPTION), "me")
    services.mark("me", result.query_id, result.candidates[0].image_id, "hit")
    run("export", "--format", "jsonl", tmp_path / "set", "--data-dir", services.settings.data_dir)
    file = tmp_path / "set" / "marks.jsonl"
    code, out, _ = run("import-marks", file, "--data-dir", tmp_path / "other", "--json")
    report = json.loads(out)
    assert (code, report["taken"], report["repeated"], report["refused"]) == (0, 1, 0, 0)
    assert report["absent_pictures"] == 1, "the other folder has no gallery yet"
    file.write_text(file.read_text() + "nonsense\n")
    code, out, _ = run("import-marks", file, "--data-dir", tmp_path / "other")
    assert code == 0
    assert "0 marks taken, 1 repeated, 1 refused.\n  line 2: no JSON" in out
    assert "1 marked picture is not in the gallery" in out
    code, _, err = run("import-marks", tmp_path / "set", "--data-dir", tmp_path / "other")
    assert (code, f"it holds {file}" in err) == (1, True)
    code, _, err = run("import-marks", tmp_path / "nowhere.csv", "--data-dir", tmp_path / "other")
    assert code == 2
    assert "does not exist" in words(err)
