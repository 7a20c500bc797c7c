"""Paths of lists: whatever system wrote them, the file is found, and never another one."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from train.picture_paths import PicturePaths, places

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.fixture
def imgs(tmp_path: Path) -> Path:
    for name in ("cam1/0.jpg", "cam1/1.JPG", "cam1/2.jpg", "cam1/2.JPG", f"{NFD}/é.jpg", "back\\slash.jpg"):
        file = tmp_path / "set" / "imgs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return tmp_path / "set" / "imgs"


@pytest.mark.parametrize("walked", [False, True])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cam1/0.jpg", "cam1/0.jpg"),
        ("cam1\\0.jpg", "cam1/0.jpg"),
        (".\\cam1\\\\0.jpg", "cam1/0.jpg"),
        (" cam1/0.jpg ", "cam1/0.jpg"),
        ("imgs/cam1/0.jpg", "cam1/0.jpg"),
        ("imgs\\cam1\\0.jpg", "cam1/0.jpg"),
        ("D:\\data\\set\\imgs\\cam1\\0.jpg", "cam1/0.jpg"),
        ("/home/ada/set/imgs/cam1/0.jpg", "cam1/0.jpg"),
        (f"{NFC}/{unicodedata.normalize('NFC', 'é')}.jpg", f"{NFD}/é.jpg"),
        (f"{NFC}/{unicodedata.normalize('NFD', 'é')}.jpg", f"{NFD}/é.jpg"),
        ("CAM1/1.jpg", "cam1/1.JPG"),
        ("cam1/2.jpg", "cam1/2.jpg"),
        ("back\\slash.jpg", "back\\slash.jpg"),
        ("cam1/2.Jpg", None),
        ("cam1/9.jpg", None),
        ("cam1", None),
        ("", None),
        ("D:\\elsewhere\\0.jpg", None),
        ("..\\imgs\\cam1\\0.jpg", None),
        ("nowhere/0.jpg", None),
    ],
)
def test_a_file_is_found_however_it_is_spelled(imgs: Path, text: str, found: str | None, walked: bool) -> None:
    files = {str(Path(where, name)) for where, _, names in os.walk(imgs) for name in names} if walked else None
    assert PicturePaths(imgs, files).find(text) == (None if found is None else imgs / found)


def test_what_is_there_as_named_comes_before_what_is_alike(imgs: Path) -> None:
    twin = imgs / "imgs" / "cam1" / "0.jpg"
    twin.parent.mkdir(parents=True)
    twin.write_bytes(b"")
    assert PicturePaths(imgs).find("imgs/cam1/0.jpg") == twin


@pytest.mark.parametrize("text", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "C:\\x.jpg", "\\\\host\\x.jpg", "", "."])
def test_a_path_that_leads_out_means_no_place(text: str) -> None:
    assert places(text, "imgs") == []


def test_only_so_many_folders_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.picture_paths.MOST_LISTINGS", 2)
    for number in range(5):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "A.jpg").write_bytes(b"")
    paths = PicturePaths(tmp_path)
    assert all(paths.find(f"{number}/a.jpg") == tmp_path / str(number) / "A.jpg" for number in (0, 1, 2, 3, 4, 0, 4))
    assert len(paths._listings) == 2
