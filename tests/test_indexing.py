from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from app.errors import IndexingError
from app.indexing import IndexOptions, index_pictures
from app.services import Services
from app.views import SearchRequest


def picture(colour: str, *, size: tuple[int, int] = (48, 128), form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, form)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good pictures, one of them twice, among everything that goes wrong."""
    here = tmp_path / "crops"
    (here / "deep" / "deeper").mkdir(parents=True)
    (here / "red.png").write_bytes(picture("red"))
    (here / "deep" / "Blue.JPG").write_bytes(picture("blue", form="JPEG"))
    (here / "deep" / "deeper" / "grün.webp").write_bytes(picture("green", form="WEBP"))
    (here / "deep" / "red again.png").write_bytes(picture("red"))
    (here / "notes.txt").write_text("no picture")
    (here / "empty.jpg").touch()
    (here / "broken.png").write_bytes(picture("red")[:60])
    (here / "tiny.png").write_bytes(picture("red", size=(1, 1)))
    (here / "huge.png").write_bytes(huge_png())
    return here


def huge_png() -> bytes:
    """The header of a PNG of 20,000 x 20,000 pixels: what matters is that nobody unpacks it."""
    data = bytearray(picture("red", size=(8, 8)))
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def test_a_folder_is_indexed_whatever_lies_in_it(services: Services, folder: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    report = index_pictures(folder, services.state.gallery, services.retriever, report=lambda *at: seen.append(at))
    assert (report.source, report.found, report.added, report.known, report.embedded) == ("crops", 8, 3, 1, 3)
    reasons = {skipped.path: skipped.reason for skipped in report.skipped}
    assert set(reasons) == {"empty.jpg", "broken.png", "tiny.png", "huge.png"}
    assert "0 bytes" in reasons["empty.jpg"]
    assert "1x1" in reasons["tiny.png"]
    assert "100 megapixels" in reasons["huge.png"]
    assert str(folder) not in str(report)
    rows = services.state.gallery.rows(services.state.gallery.ids())
    assert {row.uri for row in rows if row.source == "crops"} >= {"deep/Blue.JPG", "deep/deeper/grün.webp"}
    assert seen[-1] == ("Indexing pictures", 8, 8)


def test_own_pictures_make_the_sample_step_aside(services: Services, folder: Path) -> None:
    index_pictures(folder, services.state.gallery, services.retriever)
    assert services.state.gallery.hidden_sources == ("sample",)
    result = services.search(SearchRequest("a man in red"), "me")
    assert result.total == len(result.candidates) == 3


def test_a_second_run_adds_nothing(services: Services, folder: Path) -> None:
    index_pictures(folder, services.state.gallery, services.retriever)
    report = index_pictures(folder, services.state.gallery, services.retriever)
    assert (report.added, report.known, report.embedded) == (0, 4, 0)


def test_links_out_of_the_folder_are_not_followed(services: Services, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "private"
    outside.mkdir()
    (outside / "secret.png").write_bytes(picture("pink"))
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "linked").symlink_to(outside)
    (folder / "inside.png").symlink_to(folder / "red.png")
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    report = index_pictures(folder, services.state.gallery, services.retriever)
    reasons = {skipped.path: skipped.reason for skipped in report.skipped}
    assert "out of the folder" in reasons["link.png"]
    assert "links to folders" in reasons["linked"]
    assert "no ordinary file" in reasons["dangling.png"]
    assert report.added == 3


def test_a_folder_without_pictures_is_refused(services: Services, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no picture")
    with pytest.raises(IndexingError, match=r"no pictures in .*\.jpg"):
        index_pictures(tmp_path, services.state.gallery, services.retriever)
    assert services.state.gallery.hidden_sources == ()


def test_pictures_that_are_all_broken_are_refused(services: Services, tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(IndexingError, match=r"none of the 1 pictures.*a\.png.*0 bytes"):
        index_pictures(tmp_path, services.state.gallery, services.retriever)
    assert services.state.gallery.hidden_sources == ()


@pytest.mark.parametrize(("name", "said"), [("nowhere", "does not exist"), ("file", "is no source of pictures")])
def test_what_is_no_folder_is_refused(services: Services, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IndexingError, match=said):
        index_pictures(tmp_path / name, services.state.gallery, services.retriever)


def test_the_sample_keeps_its_name(services: Services, folder: Path) -> None:
    with pytest.raises(IndexingError, match="--source"):
        index_pictures(folder, services.state.gallery, services.retriever, IndexOptions(source="sample"))
