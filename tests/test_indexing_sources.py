"""Sources: what each gives, and what it leaves out and says, however bad its input is."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.app_errors import IndexingError
from app.indexing.annotations import AnnotationSource, listed
from app.indexing.archive import ZipSource
from app.indexing.entries import Entry, Facts, Source
from app.indexing.folder import FolderSource
from app.indexing.report import SkipList
from app.indexing.tables import TableSource
from core.core_errors import PictureError
from tests.factories import picture_file

MOST = 1_000_000


def drain(source: Source) -> tuple[list[Entry], dict[str, str], tuple[str, ...]]:
    """Its entries, what it skipped and what it noted."""
    skipped = SkipList()
    entries = list(source.entries(skipped))
    return entries, {one.path: one.reason for one in skipped.first}, skipped.notes


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture_file("red"))


# Folders and file names


def test_market_1501_file_names_say_person_and_camera(tmp_path: Path) -> None:
    put(tmp_path, "0001_c1s1_000151_00.jpg", "0000_c3s2_000042_01.jpg", "-1_c2s1_000001_03.jpg", "0001.jpg")
    entries, skipped, notes = drain(FolderSource(tmp_path))
    facts = {entry.name: entry.facts for entry in entries}
    assert facts == {
        "0000_c3s2_000042_01.jpg": Facts(camera="c3", metadata={"sequence": 2, "frame": 42, "distractor": True}),
        "0001.jpg": Facts(),
        "0001_c1s1_000151_00.jpg": Facts(pid="0001", camera="c1", metadata={"sequence": 1, "frame": 151}),
    }
    assert "junk of Market-1501" in skipped["-1_c2s1_000001_03.jpg"]
    assert any("a distractor of Market-1501" in note for note in notes)
    assert any(note.startswith("1 ") and "person and camera" in note for note in notes)


def test_an_annotation_file_in_a_folder_is_pointed_at(tmp_path: Path) -> None:
    put(tmp_path, "imgs/1.png")
    (tmp_path / "reid_raw.json").write_text("[]")
    entries, _, notes = drain(FolderSource(tmp_path))
    assert [entry.name for entry in entries] == ["imgs/1.png"]
    assert "index reid_raw.json itself" in notes[0]


def test_tables_beside_pictures_are_pointed_at(tmp_path: Path) -> None:
    put(tmp_path, "1.png")
    for name in ("list.csv", "more.jsonl"):
        (tmp_path / name).write_text("path,pid\n1.png,7\n")
    entries, skipped, notes = drain(FolderSource(tmp_path))
    assert ([entry.facts.pid for entry in entries], skipped) == ([None], {})
    assert notes == (
        "2 tables beside the pictures were not read: index them themselves, before the folder, to take what they say",
    )


def test_files_that_systems_leave_beside_pictures_are_no_pictures(tmp_path: Path) -> None:
    left = ("__MACOSX/._p.jpg", "x/._p.jpg", "@eaDir/p.jpg/SYNOPHOTO_THUMB_M.jpg", "Thumbs.db", ".DS_Store")
    put(tmp_path / "folder", "x/p.png", *left)
    sources = (FolderSource(tmp_path / "folder"), zipped(tmp_path / "a.zip", dict.fromkeys(("x/p.png", *left), b"")))
    for source in sources:
        entries, skipped, notes = drain(source)
        assert ([entry.name for entry in entries], skipped, notes, source.count()) == (["x/p.png"], {}, (), 1)


def test_every_common_ending_is_taken_and_others_are_counted(tmp_path: Path) -> None:
    put(tmp_path / "folder", "a.jfif", "b.JPE", "c.avif", "d.heic", "e.HEIC", "f.dng", "notes.txt")
    names = [str(file.relative_to(tmp_path / "folder")) for file in sorted((tmp_path / "folder").iterdir())]
    for source in (FolderSource(tmp_path / "folder"), zipped(tmp_path / "a.zip", dict.fromkeys(names, b"x"))):
        entries, skipped, notes = drain(source)
        assert [entry.name for entry in entries] == ["a.jfif", "b.JPE", "c.avif"]
        assert skipped == {}
        assert notes == (
            "2 files ending in .heic are not taken: save them as JPEG or PNG",
            "1 file ending in .dng is not taken: save it as JPEG or PNG",
        )


@pytest.mark.skipif(os.sep != "/", reason="file names of bytes are POSIX")
def test_names_that_are_no_text_are_printable(tmp_path: Path) -> None:
    put(tmp_path, os.fsdecode(b"caf\xe9.png"))
    entries, _, _ = drain(FolderSource(tmp_path))
    assert entries[0].name == "caf\N{REPLACEMENT CHARACTER}.png"
    assert entries[0].read(MOST) == picture_file("red")


def test_a_file_that_grew_is_not_read_beyond_the_limit(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    entries, _, _ = drain(FolderSource(tmp_path))
    (tmp_path / "a.png").write_bytes(b"x" * 2_000)
    with pytest.raises(PictureError, match="2,000 bytes; at most 1,000"):
        entries[0].read(1_000)


# Zips


def zipped(path: Path, files: dict[str, bytes], **options: Any) -> ZipSource:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data, **options)
    return ZipSource(path)


def test_a_zip_gives_its_pictures_and_their_names_facts(tmp_path: Path) -> None:
    source = zipped(
        tmp_path / "a.zip",
        {"x/0002_c4s1_000009_00.jpg": picture_file("red"), "readme.txt": b"", "b.png": picture_file("red")},
    )
    entries, skipped, _ = drain(source)
    assert (source.name, source.count(), skipped) == ("a", 2, {})
    assert [(entry.name, entry.facts.pid) for entry in entries] == [
        ("x/0002_c4s1_000009_00.jpg", "0002"),
        ("b.png", None),
    ]
    assert entries[1].read(MOST) == picture_file("red")


def test_a_zip_of_windows_gives_the_names_facts_too(tmp_path: Path) -> None:
    files = {
        "set\\0002_c4s1_000009_00.jpg": picture_file("red"),
        "set\\reid_raw.json": b"[]",
        "set\\__MACOSX\\._p.jpg": b"x",
    }
    entries, skipped, notes = drain(source := zipped(tmp_path / "a.zip", files))
    assert [(entry.name, entry.facts.pid) for entry in entries] == [("set/0002_c4s1_000009_00.jpg", "0002")]
    assert (skipped, source.count()) == ({}, 1)
    assert notes == ("1 file name is one of Market-1501: person and camera were taken from it",)


def test_lists_inside_a_zip_describe_its_pictures(tmp_path: Path) -> None:
    rows = [
        {"file_path": "cam1\\a.png", "id": 7, "split": "train", "captions": ["a man"]},
        {"file_path": "cam1/gone.png", "id": 8, "split": "train", "captions": []},
    ]
    files = {
        "CUHK-PEDES/imgs/cam1/a.png": picture_file("red"),
        "CUHK-PEDES/imgs/cam1/b.png": picture_file("red"),
        "CUHK-PEDES/reid_raw.json": json.dumps(rows).encode("utf-16"),
        "train/metadata.csv": b"file_name,pid\nc.png,9\n",
        "train/c.png": picture_file("red"),
        "metadata.jsonl": b"[]",
    }
    entries, skipped, notes = drain(zipped(tmp_path / "a.zip", files))
    assert {entry.name.rpartition("/")[2]: entry.facts.pid for entry in entries} == {
        "a.png": "7", "b.png": None, "c.png": "9",
    }  # fmt: skip
    assert entries[0].facts.metadata == {"split": "train", "captions": ["a man"]}
    assert skipped == {"row 2: cam1/gone.png": "there is no such file in the zip"}
    assert any("list of pictures in the zip was not read: line 1 of metadata.jsonl" in note for note in notes)


def test_names_of_a_zip_are_read_as_macos_writes_them(tmp_path: Path) -> None:
    table = "file_name,pid\ncafé.png,7\n".encode()
    zipped(tmp_path / "a.zip", {"K__ln/caf__.png": picture_file("red"), "K__ln/metadata.csv": table})
    data = (tmp_path / "a.zip").read_bytes().replace(b"caf__.png", "café.png".encode())
    (tmp_path / "a.zip").write_bytes(data.replace(b"K__ln", "Köln".encode()))
    entries, skipped, _ = drain(ZipSource(tmp_path / "a.zip"))
    assert [(entry.name, entry.facts.pid) for entry in entries] == [("Köln/café.png", "7")]
    assert (entries[0].read(MOST), skipped) == (picture_file("red"), {})


def test_hostile_names_nested_archives_and_links_are_skipped(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    path = tmp_path / "a.zip"
    zipped(
        path,
        {
            "../up.png": picture_file("red"),
            "/etc/abs.png": picture_file("red"),
            "C:\\x.png": picture_file("red"),
            "in.zip": b"PK",
            "ok.png": picture_file("red"),
        },
    )
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd.png")
    entries, skipped, _ = drain(ZipSource(path))
    assert [entry.name for entry in entries] == ["ok.png"]
    assert set(skipped) == {"../up.png", "/etc/abs.png", "C:\\x.png", "in.zip", "link.png"}
    assert all("leads out of the zip" in skipped[name] for name in ("../up.png", "/etc/abs.png", "C:\\x.png"))
    assert "archives inside a zip" in skipped["in.zip"]
    assert "link" in skipped["link.png"]
    assert not (tmp_path.parent / "up.png").exists()


def test_an_encrypted_zip_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    zipped(path, {"a.png": picture_file("red")})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # in the file's own header, and in the list of files
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    entries, skipped, _ = drain(ZipSource(path))
    assert entries == []
    assert "encrypted" in skipped["a.png"]


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """20 MB of zeros in 20 KB; and one that lies about its size is read up to what it promised."""
    entries, skipped, _ = drain(zipped(tmp_path / "a.zip", {"zeros.png": bytes(20_000_000)}))
    assert entries == []
    assert "zip bomb" in skipped["zeros.png"]
    path = tmp_path / "b.zip"
    zipped(path, {"zeros.png": bytes(5_000_000)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, 100)
    path.write_bytes(data)
    entries, _, _ = drain(ZipSource(path))
    with pytest.raises(PictureError, match="the zip is damaged here"):
        entries[0].read(MOST)


def test_a_picture_beyond_the_limit_and_other_methods_are_not_unpacked(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(3_000)
    entries, _, _ = drain(zipped(tmp_path / "a.zip", {"a.png": noise}))
    with pytest.raises(PictureError, match="3,000 bytes; at most 2,000"):
        entries[0].read(2_000)
    entries, skipped, _ = drain(zipped(tmp_path / "b.zip", {"a.png": bytes(9_000)}, compress_type=zipfile.ZIP_BZIP2))
    assert entries == []
    assert "another way than deflate" in skipped["a.png"]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 nonsense", b"PK\x05\x06" + bytes(3)])
def test_what_is_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(IndexingError, match=r"a\.zip is no zip that can be read"):
        ZipSource(tmp_path / "a.zip")


def test_a_truncated_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    zipped(path, {"a.png": picture_file("red"), "b.png": picture_file("red")})
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(IndexingError, match="make it again"):
        ZipSource(path)


def test_a_long_list_of_files_is_refused_before_it_is_read(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {f"{number}.png": b"" for number in range(100)})
    with pytest.raises(IndexingError, match="too many files"):
        ZipSource(tmp_path / "a.zip", most_directory=1_000)


def test_the_larger_end_record_of_a_zip_is_the_one_that_counts(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {f"{number}.png": b"" for number in range(100)})
    data = (tmp_path / "a.zip").read_bytes()
    size, start = struct.unpack_from("<LL", data, len(data) - 10)
    end = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 100, 100, size, start)
    end += struct.pack("<4sLQL", b"PK\x06\x07", 0, start + size, 1)
    end += struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 100, 100, 1, start, 0)
    (tmp_path / "a.zip").write_bytes(data[:-22] + end)
    assert ZipSource(tmp_path / "a.zip").count() == 100
    with pytest.raises(IndexingError, match=rf"a list of {size:,} bytes"):
        ZipSource(tmp_path / "a.zip", most_directory=1_000)


# Tables


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    put(tmp_path, "crops/a.png", "crops/b.png", "crops/c.png", "private/secret.png")
    return tmp_path / "crops"


def csv_of(crops: Path, text: str | bytes) -> Path:
    file = crops / "list.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_csv_gives_paths_facts_and_metadata(crops: Path) -> None:
    text = "path,camera,captured_at,pid,gate,note\na.png,c1,2026-11-24T13:05:00+01:00,7,North,\n"
    source = TableSource(csv_of(crops, "\N{BYTE ORDER MARK}" + text + ' b.png ,,,007,,"wet, dark"\n'))
    entries, skipped, _ = drain(source)
    assert (source.name, source.count(), skipped) == ("list", 2, {})
    first, second = (entry.facts for entry in entries)
    assert (first.pid, first.camera, first.metadata) == ("7", "c1", {"gate": "North"})
    assert first.captured_at is not None
    assert first.captured_at.astimezone(UTC) == datetime(2026, 11, 24, 12, 5, tzinfo=UTC)
    assert second == Facts(pid="007", metadata={"note": "wet, dark"})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_are_read_as_windows_writes_them(crops: Path, encoding: str) -> None:
    for name, text in (
        ("list.csv", "path;pid\r\na.png;ä\r\n"),
        ("list.jsonl", '{"path": "a.png", "pid": "ä"}\r\n'),
    ):
        (crops / name).write_bytes(text.encode(encoding))
        source = TableSource(crops / name)
        entries, skipped, _ = drain(source)
        assert (source.count(), [entry.facts.pid for entry in entries], skipped) == (1, ["ä"], {})
    rows = '[{"file_path": "a.png", "id": 7, "captions": ["ä"]}]'
    (crops / "reid_raw.json").write_bytes(rows.encode(encoding))
    entries, _, _ = drain(AnnotationSource(crops / "reid_raw.json"))
    assert entries[0].facts == Facts("7", metadata={"captions": ["ä"]})


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_a_hint_for_excel_is_passed_over(crops: Path, sign: str) -> None:
    source = TableSource(csv_of(crops, f"sep={sign}\r\nimage{sign}pid\r\na.png{sign}7\r\n"))
    entries, skipped, _ = drain(source)
    assert ([(entry.name, entry.facts.pid) for entry in entries], skipped) == ([("a.png", "7")], {})


def test_parquet_keeps_the_types_of_its_values(crops: Path) -> None:
    table = pa.table(
        {
            "file_name": ["a.png", "b.png"],
            "pid": [1.0, float("nan")],
            "captured_at": [datetime(2026, 1, 2, 3, tzinfo=UTC), None],
            "speed": [1.5, None],
            "tags": [["x", "y"], None],
            "seen": [{"on": [date(2026, 1, 2)], "at": datetime(2026, 1, 2, 3, tzinfo=UTC)}, None],
        }
    )
    pq.write_table(table, crops / "list.parquet")
    source = TableSource(crops / "list.parquet")
    entries, _, _ = drain(source)
    assert source.count() == 2
    seen = {"on": ["2026-01-02"], "at": "2026-01-02T03:00:00+00:00"}
    metadata = {"speed": 1.5, "tags": ["x", "y"], "seen": seen}
    assert entries[0].facts == Facts("1", None, datetime(2026, 1, 2, 3, tzinfo=UTC), metadata)
    assert entries[1].facts == Facts()


def test_parquet_of_datasets_holds_its_pictures(crops: Path) -> None:
    images = [
        {"bytes": picture_file("red"), "path": "x.png"},
        {"bytes": None, "path": "a.png"},
        {"bytes": picture_file("red"), "path": None},
    ]
    pq.write_table(pa.table({"image": images, "pid": [1, 2, 3]}), crops / "list.parquet")
    entries, skipped, _ = drain(TableSource(crops / "list.parquet"))
    assert [(entry.name, entry.facts.pid) for entry in entries] == [("x.png", "1"), ("a.png", "2"), ("picture 3", "3")]
    assert ([entry.read(MOST) for entry in entries], skipped) == ([picture_file("red")] * 3, {})
    with pytest.raises(PictureError, match="at most 10 are taken"):
        entries[0].read(10)


def test_rows_that_cannot_be_taken_are_listed_by_number(crops: Path) -> None:
    (crops / "out.png").symlink_to(crops.parent / "private" / "secret.png")
    rows = [
        "path,captured_at",
        "gone.png,",
        "../private/secret.png,",
        f"{crops.parent}/private/secret.png,",
        "out.png,",
    ]
    rows += [",", "a.png", "a.png,yesterday", "a.png,,", "a\0b.png,", "a.png,0001-01-01T00:00:00+14:00", "b.png,"]
    entries, skipped, _ = drain(TableSource(csv_of(crops, "\n".join(rows))))
    assert [entry.name for entry in entries] == ["b.png"]
    reasons = {row.partition(":")[0]: reason for row, reason in skipped.items()}
    assert "no such file" in reasons["row 1"]
    assert all("leads out of the folder 'crops'" in reasons[f"row {number}"] for number in (2, 3, 4))
    assert "--root" in reasons["row 2"]
    assert "names no picture" in reasons["row 5"]
    assert all("more or fewer values" in reasons[f"row {number}"] for number in (6, 8))
    assert "expected a time like" in reasons["row 7"]
    assert "row 9" in reasons
    assert "expected a time like" in reasons["row 10"]


def test_paths_may_lead_where_a_root_was_named(crops: Path) -> None:
    file = csv_of(crops, f"path\nprivate/secret.png\n{crops}/a.png\n../outside.png\n")
    entries, skipped, _ = drain(TableSource(file, crops.parent))
    assert [entry.name for entry in entries] == ["private/secret.png", f"{crops}/a.png"]
    assert len(skipped) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pid;camera\n1;2\n", "no column 'path'.*its columns are 'pid;camera'"),
        ("", "no column 'path'.*none"),
        ("path,pid,pid\n", "the column 'pid' more than once"),
        (b"path\na.png\ncaf\xe9.png\n", "neither UTF-8 nor UTF-16.*save it as UTF-8"),
        ('path\n"a.png', "no CSV"),
    ],
)
def test_a_csv_that_is_none_is_refused_before_anything_is_read(crops: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(IndexingError, match=said):
        TableSource(csv_of(crops, text)).count()


def test_a_parquet_file_that_is_none_is_refused(crops: Path) -> None:
    (crops / "list.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(IndexingError, match="no Parquet file"):
        TableSource(crops / "list.parquet")


# Annotation files


@pytest.mark.parametrize(
    ("name", "key"),
    [("reid_raw.json", "file_path"), ("ICFG_PEDES.json", "file_path"), ("data_captions.json", "img_path")],
)
def test_the_fields_annotation_files_say_who_is_where(tmp_path: Path, name: str, key: str) -> None:
    put(tmp_path, "imgs/CUHK01/1.png", "imgs/CUHK01/2.png")
    rows: list[dict[str, Any]] = [
        {
            "split": "train",
            "captions": ["A man."],
            key: f"CUHK01/{number}.png",
            "processed_tokens": [["a"]],
            "id": number,
        }
        for number in (1, 2)
    ]
    (tmp_path / name).write_text(json.dumps([*rows, {"id": 3, key: "../reid_raw.json"}, {"id": 4}, 5]))
    source = AnnotationSource(tmp_path / name)
    entries, skipped, _ = drain(source)
    assert (source.name, source.count()) == (tmp_path.name, 5)
    assert [(entry.name, entry.facts) for entry in entries] == [
        (f"CUHK01/{number}.png", Facts(str(number), metadata={"split": "train", "captions": ["A man."]}))
        for number in (1, 2)
    ]
    assert "leads out" in skipped["row 3: ../reid_raw.json"]
    assert set(skipped) == {"row 3: ../reid_raw.json", "row 4", "row 5"}


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_a_list_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("store.values.CHUNK", chunk)
    values: list[Any] = [{"a": 'ü]}\\"', "b": [1, 2]}, 12, 345, "x", None, [], {}]
    for text in (json.dumps(values), json.dumps(values, indent=3), "\N{BYTE ORDER MARK}" + json.dumps(values)):
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        assert list(listed(tmp_path / "a.json")) == values
    for text in ("[]", "[ ] "):
        (tmp_path / "a.json").write_text(text)
        assert list(listed(tmp_path / "a.json")) == []


@pytest.mark.parametrize("text", ["", "{}", "[1 2]", "[1, 2", "[1,]", '[{"a": 1}, {"b"', "[" * 5_000, "[1],2"])
def test_what_is_no_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(IndexingError, match=r"a\.json"):
        list(listed(tmp_path / "a.json"))


def test_every_type_of_parquet_is_read_or_left_out_once(crops: Path) -> None:
    table = pa.table(
        {
            "path": pa.array(["a.png", "b.png"]),
            "pid": pa.array([Decimal("12.00"), None], pa.decimal128(10, 2)),
            "weight": pa.array([Decimal("1.5"), Decimal("2")], pa.decimal128(10, 2)),
            "label": pa.array([b"North", None], pa.binary()),
            "code": pa.array([b"\xff\x00", b"\xfe"], pa.binary()),
            "stay": pa.array([timedelta(seconds=90), None], pa.duration("us")),
            "seen": pa.array([[("gate", 1)], None], pa.map_(pa.string(), pa.int64())),
            "big": pa.array([2**63, None], pa.uint64()),
        }
    )
    pq.write_table(table, crops / "list.parquet")
    entries, skipped, notes = drain(TableSource(crops / "list.parquet"))
    metadata = {"weight": 1.5, "label": "North", "stay": 90.0, "seen": {"gate": 1}, "big": 2**63}
    assert [entry.facts for entry in entries] == [Facts("12", metadata=metadata), Facts(metadata={"weight": 2})]
    assert skipped == {}
    assert notes == (
        "2 values of the column 'code' are left out: they are bytes, and metadata holds text, numbers, times and lists",
    )


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_a_csv_of_excel_or_pandas_is_read(crops: Path, sign: str) -> None:
    rows = [["", " Path", "PID ", "Gate", ""], ["0", "a.png", "7.0", "Nord", ""], ["1", ".\\b.png", "nan", "", ""]]
    entries, skipped, notes = drain(TableSource(csv_of(crops, "\n".join(sign.join(row) for row in rows))))
    assert [(entry.name, entry.facts) for entry in entries] == [
        ("a.png", Facts("7", metadata={"Gate": "Nord"})),
        (".\\b.png", Facts()),
    ]
    assert skipped == {}
    assert notes == ("1 picture has as the person 'nan', which is nobody's id: indexed without one",)


def test_json_lines_of_an_imagefolder_are_a_table(crops: Path) -> None:
    (crops / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "pid": null, "text": "a man"}\n\n{"file_name": "x"}\n'
    )
    source = TableSource(crops / "metadata.jsonl")
    entries, skipped, _ = drain(source)
    assert source.count() == 2
    assert [(entry.name, entry.facts) for entry in entries] == [("a.png", Facts(metadata={"text": "a man"}))]
    assert skipped == {"row 2: x": "there is no such file"}
    for text, said in (
        ("[1]", "line 1 of metadata.jsonl is '\\[1\\]': expected an object"),
        ("{", "line 1 .* no JSON"),
    ):
        (crops / "metadata.jsonl").write_text(text)
        with pytest.raises(IndexingError, match=said):
            TableSource(crops / "metadata.jsonl")


def test_people_of_an_annotation_file_that_are_nobody_are_none(tmp_path: Path) -> None:
    put(tmp_path, "imgs/cam1/1.png")
    rows = [{"id": person, "file_path": path} for person, path in
            [(-1, "cam1\\1.png"), (None, "imgs/cam1/1.png"), (3.0, "cam1/1.PNG"), ("4", "./cam1/1.png")]]  # fmt: skip
    (tmp_path / "reid_raw.json").write_text("\N{BYTE ORDER MARK}" + json.dumps(rows), encoding="utf-8")
    entries, skipped, _ = drain(AnnotationSource(tmp_path / "reid_raw.json"))
    assert [entry.facts.pid for entry in entries] == [None, None, "3", "4"]
    assert skipped == {}


# What was skipped


def test_the_list_of_skipped_files_goes_to_a_file(tmp_path: Path) -> None:
    for name in ("report.json", "report.csv"):
        with SkipList(tmp_path / name) as skipped:
            skipped.skip("a,b.png", "is\x1b[2J broken")
            skipped.skip("c.png", "ü")
    said = json.loads((tmp_path / "report.json").read_text())
    assert said["skipped"] == [
        {"path": "a,b.png", "reason": "is\N{REPLACEMENT CHARACTER}[2J broken"},
        {"path": "c.png", "reason": "ü"},
    ]
    assert (tmp_path / "report.csv").read_text().splitlines()[1:] == [
        '"a,b.png",is\N{REPLACEMENT CHARACTER}[2J broken',
        "c.png,ü",
    ]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_report_is_written_also_when_it_ends_badly(tmp_path: Path) -> None:
    skipped = SkipList(tmp_path / "r.json")
    with pytest.raises(IndexingError, match="so bad"), skipped:
        raise IndexingError("so bad")
    assert json.loads((tmp_path / "r.json").read_text())["error"] == "so bad"


@pytest.mark.parametrize(("name", "said"), [("a.txt", "json or .csv"), ("no/where.csv", "cannot be written")])
def test_a_report_that_cannot_be_written_is_refused_first(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(IndexingError, match=said), SkipList(tmp_path / name):
        pytest.fail("nothing may begin")
