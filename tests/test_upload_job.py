"""Uploaded pictures on their way into the gallery."""

from __future__ import annotations

import io
import threading
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from app.app_errors import IndexingError, RequestError
from app.indexing import IndexReport
from app.indexing.upload_job import Adding, Upload
from app.pages.adding_dialog import adding_actions
from app.progress import Report
from app.search.views import SearchRequest
from app.services import Services
from tests.conftest import SAMPLE
from tests.factories import picture_file as picture


def uploads(services: Services, **files: bytes) -> list[Path]:
    """Files where Gradio puts what is uploaded, each in a folder of its own; `a_png` is named a.png."""
    paths = []
    for number, (name, data) in enumerate(files.items()):
        folder = services.settings.tmp_dir / f"upload{number}"
        folder.mkdir(parents=True)
        paths.append(folder / name.replace("_", "."))
        paths[-1].write_bytes(data)
    return paths


def zipped(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("_", "."), data)
    return file.getvalue()


def ended(adding: Adding, files: list[Path], user: str = "me") -> Upload:
    adding.start(files, user).join(60)
    upload = adding.of(user)
    assert upload is not None
    assert not upload.running
    return upload


def test_pictures_and_zips_are_added_at_once_and_found(services: Services) -> None:
    tmp = services.settings.tmp_dir
    adding = Adding(services.add_pictures, tmp)
    files = uploads(
        services,
        a_png=picture("red"),
        b_png=picture("blue"),
        again_png=picture("red"),
        broken_jpg=b"\xff\xd8 nothing",
        notes_txt=b"no picture",
        more_zip=zipped(c_png=picture("green"), a_png=picture("red")),
    )
    upload = ended(adding, files)
    assert (upload.fault, upload.added, upload.known, upload.left_out) == ("", 3, 2, 2)
    reasons = {skipped.path: skipped.reason for skipped in upload.skipped}
    assert set(reasons) == {"broken.jpg", "notes.txt"}
    assert "neither a zip nor a picture" in reasons["notes.txt"]
    assert services.state.gallery.count() == SAMPLE + 3
    with Image.open(io.BytesIO(picture("blue"))) as image:
        found = services.search(SearchRequest(image=image.convert("RGB"), k=200), "me")
    assert len(found.candidates) == found.total == 3  # the sample has stepped aside
    left = {path for path in tmp.rglob("*") if path.is_file()}
    assert left == set(files), "a search by the same picture may be reading what was uploaded"


def test_a_part_that_cannot_be_added_hides_none_of_the_others(services: Services) -> None:
    files = uploads(
        services, bad_zip=zipped(notes_txt=b"no picture"), good_zip=zipped(a_png=picture("red")), b_png=picture("blue")
    )
    upload = ended(Adding(services.add_pictures, services.settings.tmp_dir), files)
    assert (upload.fault, upload.added, upload.left_out) == ("", 2, 1)
    assert [skipped.path for skipped in upload.skipped] == ["bad.zip"]
    assert "no pictures in" in upload.skipped[0].reason


def test_a_picture_of_the_sample_hides_no_sample(services: Services) -> None:
    gallery = services.state.gallery
    upload = ended(
        Adding(services.add_pictures, services.settings.tmp_dir),
        uploads(services, a_jpg=gallery.data(gallery.ids()[0])),
    )
    assert (upload.fault, upload.added, upload.known) == ("", 0, 1)
    assert services.searching.visible() == SAMPLE


def test_same_names_are_different_pictures(services: Services) -> None:
    first, second = uploads(services, a_png=picture("red"), b_png=picture("blue"))
    twin = second.with_name("a.png")
    second.rename(twin)
    upload = ended(Adding(services.add_pictures, services.settings.tmp_dir), [first, twin])
    assert (upload.added, upload.left_out) == (2, 0)


def test_what_cannot_be_used_is_reported(services: Services) -> None:
    adding = Adding(services.add_pictures, services.settings.tmp_dir)
    with pytest.raises(RequestError, match="choose some"):
        adding.start([], "me")
    assert adding.of("me") is None
    upload = ended(adding, uploads(services, notes_txt=b"no picture"))
    assert (upload.added, upload.left_out, upload.fault) == (0, 1, "")
    assert services.state.gallery.count() == SAMPLE


def test_one_upload_at_a_time_and_a_fault_ends_it(tmp_path: Path) -> None:
    go, began = threading.Event(), threading.Event()

    def add(path: Path, _: str, report: Report) -> IndexReport:
        report("Reading pictures", 1, 2)
        began.set()
        go.wait(30)
        raise IndexingError(f"{path.name} holds nothing")

    adding = Adding(add, tmp_path)
    file = tmp_path / "a.png"
    file.write_bytes(picture("red"))
    thread = adding.start([file], "me")
    assert began.wait(30)
    upload = adding.of("me")
    assert upload is not None
    assert (upload.running, upload.stage, upload.done, upload.total) == (True, "Reading pictures", 1, 2)
    assert adding.of("you") is None
    with pytest.raises(RequestError, match="already"):
        adding.start([file], "you")
    go.set()
    thread.join(30)
    assert (upload.running, "holds nothing" in upload.fault) == (False, True)
    assert list(tmp_path.iterdir()) == [file]


def test_the_page_takes_uploaded_files_only(services: Services) -> None:
    actions = adding_actions(services)
    (file,) = uploads(services, a_png=picture("red"))
    for files, said in (
        ("all", "at most"),
        ([str(file)], "uploaded one"),
        ([{"path": "/etc/passwd"}], "not uploaded here"),
        ([{"path": str(services.settings.database)}], "not uploaded here"),
        ([{"path": "\0"}], "not uploaded here"),
        ([], "choose some"),
    ):
        with pytest.raises(RequestError, match=said):
            actions["add"]({"files": files}, "me")
    assert actions["adding"]({}, "me") == {"state": "none"}
    assert actions["add"]({"files": [{"path": str(file), "name": "a.png"}]}, "me") == {}
    for thread in threading.enumerate():
        if thread.name == "adding":
            thread.join(60)
    done = actions["adding"]({}, "me")
    assert (done["state"], done["report"]) == (
        "done",
        {"added": 1, "known": 0, "left_out": 0, "skipped": [], "notes": []},
    )
    assert done["facets"]["source"] == {"uploads": 1}
    assert actions["adding"]({}, "you") == {"state": "none"}
