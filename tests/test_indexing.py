from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.app_errors import IndexingError
from app.doctor import check_state
from app.indexing import IndexOptions, UploadLimits, index_pictures, index_upload, pipeline
from app.search.views import SearchRequest
from app.services import Services
from store import GalleryError
from tests.factories import picture_file as picture


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


def test_pictures_that_are_no_person_crops_are_taken_and_counted(services: Services, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 96, 3), dtype=np.uint8)
    person = Image.effect_noise((6, 16), 90).resize((48, 128)).convert("RGB")
    pictures = {
        "frame.jpg": Image.effect_noise((16, 9), 90).resize((1600, 900)).convert("RGB"),
        "wide.png": person.resize((129, 128)),
        "noise.jpg": Image.fromarray(noise),
        "noise.png": Image.fromarray(noise),
        "small.png": person.resize((16, 32)),
        "pole.png": person.resize((16, 128)),
        "person.png": person,
        "square.png": person.resize((128, 128)),
        "plain.png": Image.new("RGB", (48, 128), "red"),
    }
    (tmp_path / "crops").mkdir()
    for name, picture_of in pictures.items():
        picture_of.save(tmp_path / "crops" / name)
    report = index_pictures(tmp_path / "crops", services.state.gallery, services.retriever)
    assert (report.added, report.skipped_count) == (len(pictures), 0)
    assert sorted(report.notes) == [
        "1 picture is less than 40 pixels tall: little of a person can be seen in it",
        "1 picture is more than 6 times as tall as wide: check that it shows a whole person",
        "2 pictures are wider than tall, and person crops are not: cut the people out first",
        "2 pictures look like noise: check where they come from",
    ]
    again = index_pictures(tmp_path / "crops", services.state.gallery, services.retriever)
    assert (again.known, again.notes) == (len(pictures), ())


def test_what_is_not_taken_is_named_where_nothing_is(services: Services, tmp_path: Path) -> None:
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "a.heic").write_bytes(b"x")
    with pytest.raises(IndexingError, match=r"no pictures in phone.*1 file ending in \.heic is not taken"):
        index_pictures(tmp_path / "phone", services.state.gallery, services.retriever)


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
    (folder / "itself.png").symlink_to(folder / "itself.png")
    report = index_pictures(folder, services.state.gallery, services.retriever)
    reasons = {skipped.path: skipped.reason for skipped in report.skipped}
    assert "out of the folder" in reasons["link.png"]
    assert "links to folders" in reasons["linked"]
    assert "no ordinary file" in reasons["dangling.png"]
    assert "itself.png" in reasons, "in words that differ from one Python to the next"
    assert report.added == 3


def test_a_folder_without_pictures_is_refused(services: Services, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no picture")
    with pytest.raises(IndexingError, match=r"no pictures in .*\.jpg"):
        index_pictures(tmp_path, services.state.gallery, services.retriever)
    assert services.state.gallery.hidden_sources == ()


def test_pictures_that_are_all_broken_are_refused(services: Services, tmp_path: Path) -> None:
    for name, data in (("a.png", b""), ("b.png", b""), ("c.png", b"no picture")):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(IndexingError, match=r"none of the 3 pictures.*a\.png: [^;]*0 bytes[^;]*; c\.png: "):
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


def facts_of(services: Services) -> dict[str, tuple[str | None, str | None, dict[str, object]]]:
    gallery = services.state.gallery
    rows = [row for row in gallery.rows(gallery.ids()) if row.source != "sample"]
    return {row.uri: (row.pid, row.camera, dict(row.metadata)) for row in rows}


def test_a_csv_brings_facts_and_what_came_first_stays(services: Services, folder: Path) -> None:
    rows = ["path,pid,camera,gate", "red.png,1,c1,North", "deep/Blue.JPG,2,,", "deep/red again.png,3,,"]
    (folder / "list.csv").write_text("\n".join([*rows, "red.png,1,c1,North"]) + "\n")
    report = index_pictures(folder / "list.csv", services.state.gallery, services.retriever)
    assert (report.found, report.added, report.known, report.embedded) == (4, 2, 1, 2)
    assert report.skipped[0].path == "deep/red again.png"
    assert "there with pid '1', and this says '3'. What came first stays" in report.skipped[0].reason
    assert facts_of(services) == {"red.png": ("1", "c1", {"gate": "North"}), "deep/Blue.JPG": ("2", None, {})}
    again = index_pictures(folder / "list.csv", services.state.gallery, services.retriever)
    assert (again.added, again.known, again.skipped) == (0, 3, report.skipped)


def test_a_picture_that_is_there_is_not_decoded_again(
    services: Services, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_pictures(folder, services.state.gallery, services.retriever)
    decoded: list[bytes] = []
    real = pipeline.open_picture
    monkeypatch.setattr(pipeline, "open_picture", lambda data: decoded.append(data) or real(data))
    report = index_pictures(folder, services.state.gallery, services.retriever)
    assert report.known == 4
    unusable = [(folder / skipped.path).read_bytes() for skipped in report.skipped]
    assert sorted(decoded) == sorted(unusable)


def test_vectors_are_those_of_the_encoder(services: Services, folder: Path) -> None:
    index_pictures(folder, services.state.gallery, services.retriever)
    gallery, serving = services.state.gallery, services.retriever.serving
    ids = [row.id for row in gallery.rows(gallery.ids()) if row.source == "crops"]
    kept, rows = gallery.vectors(serving.version, ids)
    assert kept == ids
    wanted = serving.encoder.encode_images([gallery.data(image_id) for image_id in ids])
    assert np.abs(rows - wanted).max() < 1e-6


def test_by_reference_the_files_stay_where_they_are(services: Services, folder: Path) -> None:
    gallery, data_dir = services.state.gallery, services.settings.data_dir
    (folder / "odd ü%20.png").write_bytes(noise := noisy())
    report = index_pictures(folder, gallery, services.retriever, IndexOptions(by_reference=True))
    assert report.added == 4
    image_id = hashlib.sha256(noise).hexdigest()
    assert gallery.data(image_id) == noise
    assert noise not in b"".join(path.read_bytes() for path in data_dir.rglob("*") if path.is_file())
    assert check_state(services.state, services.retriever.backbone).findings == ()
    (folder / "odd ü%20.png").write_bytes(picture("pink"))
    (folder / "red.png").unlink()
    (folder / "deep" / "red again.png").unlink()
    with pytest.raises(GalleryError, match=r"by reference, but its file .*odd ü%20.png has changed since.*forget"):
        services.picture(image_id)
    faults = [finding.fault for finding in check_state(services.state, services.retriever.backbone).findings]
    assert len(faults) == 2
    assert any("cannot be read" in fault and ".png" in fault for fault in faults)
    services.forget([image_id], "me")
    assert (folder / "odd ü%20.png").exists()


def noisy() -> bytes:
    """A picture whose bytes cannot be squeezed, so that they can be looked for."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_a_zip_cannot_be_kept_by_reference(services: Services, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", picture("red"))
    with pytest.raises(IndexingError, match="unpack it, or omit --reference"):
        index_pictures(tmp_path / "a.zip", services.state.gallery, services.retriever, IndexOptions(by_reference=True))


def test_an_uploaded_zip_is_known_by_its_bytes_and_limited(services: Services, tmp_path: Path) -> None:
    gallery, retriever = services.state.gallery, services.retriever
    with zipfile.ZipFile(tmp_path / "upload", "w") as archive:
        archive.writestr("a.png", picture("red"))
        archive.writestr("../b.png", picture("blue"))
    before = gallery.count()
    for limits in (UploadLimits(pictures=1), UploadLimits(all_bytes=10)):
        with pytest.raises(IndexingError, match=r"holds 2 pictures.*split it"):
            index_upload(tmp_path / "upload", gallery, retriever, limits=limits)
    with pytest.raises(IndexingError, match="none of the 2 pictures"):
        index_upload(tmp_path / "upload", gallery, retriever, limits=UploadLimits(picture_bytes=10))
    assert gallery.count() == before
    assert gallery.hidden_sources == ()
    report = index_upload(tmp_path / "upload", gallery, retriever)
    assert (report.source, report.added, report.skipped_count) == ("uploads", 1, 1)
    (tmp_path / "no picture").write_text("x")
    with pytest.raises(IndexingError, match="could not be recognised"):
        index_upload(tmp_path / "no picture", gallery, retriever)


def test_what_runs_ahead_stays_in_order_and_ends_with_its_reader() -> None:
    made: list[int] = []

    def numbers(fault: int) -> Generator[int, None, None]:
        for number in range(1, 100):
            if number == fault:
                raise ValueError("a fault on the way")
            made.append(number)
            yield number

    assert list(pipeline.ahead(numbers(0), 3)) == list(range(1, 100))
    with pytest.raises(ValueError, match="on the way"):
        list(pipeline.ahead(numbers(5), 3))
    made.clear()
    reader = pipeline.ahead(numbers(0), 3)
    assert next(reader) == 1
    reader.close()
    assert len(made) <= 5
