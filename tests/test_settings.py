from __future__ import annotations

from pathlib import Path

import pytest

from app.app_errors import SettingsError
from app.settings import load_settings


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_defaults_serve_this_machine_alone(tmp_path: Path) -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.backbone, settings.share) == ("127.0.0.1", 7860, "mini", False)
    assert (settings.train_after_marks, settings.train_min_hits, settings.train_every_hours) == (200, 10, None)
    assert settings.data_dir == tmp_path / "data"
    assert settings.admins == ()


def test_the_gallery_is_adapted_to_unless_that_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().adapt == "auto"
    monkeypatch.setenv("UPPERSON_ADAPT", "off")
    assert load_settings().adapt == "off"
    assert load_settings(adapt="auto").adapt == "auto"
    monkeypatch.setenv("UPPERSON_ADAPT", "never")
    with pytest.raises(SettingsError, match=r"UPPERSON_ADAPT\) cannot be 'never'.*'auto' or 'off'"):
        load_settings()


def test_folders_are_absolute_for_the_training_process_runs_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPPERSON_TRAIN_BASE", "knew")
    monkeypatch.setenv("UPPERSON_DATA_DIR", "~/state")
    settings = load_settings()
    assert settings.train_base == tmp_path / "knew"
    assert settings.data_dir == Path.home() / "state"


def test_an_option_wins_over_the_environment_and_that_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("UPPERSON_PORT=1001\nUPPERSON_BACKBONE=ViT-B-16\nUPPERSON_SAMPLE_SIZE=7\nHF_TOKEN=x\n")
    monkeypatch.setenv("UPPERSON_PORT", "1002")
    monkeypatch.setenv("UPPERSON_BACKBONE", "ViT-L-14")
    settings = load_settings(port=1003, backbone=None)
    assert (settings.port, settings.backbone, settings.sample_size) == (1003, "ViT-L-14", 7)


def test_a_container_says_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7000")
    assert (load_settings().host, load_settings().port) == ("0.0.0.0", 7000)


def test_admins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPPERSON_ADMINS", "ada, grace,")
    monkeypatch.setenv("UPPERSON_SIGN_IN", "true")
    assert load_settings().admins == ("ada", "grace")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("UPPERSON_PORT", "70000", "--port"),
        ("UPPERSON_PORT", "many", "UPPERSON_PORT"),
        ("UPPERSON_TRAIN_EVERY_HOURS", "-1", "greater than 0"),
        ("UPPERSON_TRAIN_MIN_HITS", "0", "--train-min-hits"),
        ("GRADIO_SERVER_PORT", "x", "--port"),
    ],
)
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=expected):
        load_settings()


@pytest.mark.parametrize("place", ["environment", "file"])
def test_a_variable_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    if place == "environment":
        monkeypatch.setenv("UPPERSON_PROT", "7861")
    else:
        Path(".env").write_text("UPPERSON_PROT=7861\n")
    with pytest.raises(SettingsError, match=r"UPPERSON_PROT.*UPPERSON_PORT"):
        load_settings()
