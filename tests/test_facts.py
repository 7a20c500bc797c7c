"""What lists say about pictures is read as it was meant, and strangers never become one person."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from app.indexing.entries import Facts
from app.indexing.facts import FactsReader, moment_of, path_column
from app.indexing.report import SkipList
from core.core_errors import PictureError

NOON = datetime(2024, 5, 6, 12, tzinfo=UTC)


def read(row: dict[str, Any]) -> tuple[Facts, tuple[str, ...]]:
    listing = SkipList()
    reader = FactsReader(listing)
    return reader.facts(reader.row(row)), listing.notes


@pytest.mark.parametrize(
    ("pid", "read_as"),
    [
        ("12", "12"),
        ("12.0", "12"),
        (12.0, "12"),
        ("007", "007"),
        ("12.5", "12.5"),
        ("p,2", "p,2"),
        (0, "0"),
        (b"7", "7"),
    ],
)
def test_a_person_is_read_as_it_was_meant(pid: object, read_as: str) -> None:
    assert read({"pid": pid}) == (Facts(pid=read_as), ())


@pytest.mark.parametrize("pid", ["-1", -1, -1.0, "-1.0", "nan", "NaN", "NULL", "None", "N/A", "<NA>"])
def test_what_says_nobody_is_no_person(pid: object) -> None:
    facts, (note,) = read({"pid": pid, "camera": "null"})
    assert facts == Facts()
    assert note.startswith("1 picture has as the person '")
    assert note.endswith("', which is nobody's id: indexed without one")


@pytest.mark.parametrize("pid", ["", "  ", None, float("nan")])
def test_an_empty_person_is_nothing_to_speak_of(pid: object) -> None:
    assert read({"pid": pid}) == (Facts(), ())


def test_headings_count_whatever_their_case_and_spaces() -> None:
    facts, notes = read({" PID": "7", "Camera ": "c1", "Captured_At": "2024-05-06", " Gate ": "North"})
    assert facts == Facts("7", "c1", datetime(2024, 5, 6, tzinfo=UTC), {"Gate": "North"})
    assert notes == ()
    assert path_column(["PID", " File_Name "]) == "file_name"


def test_the_numbering_of_rows_that_pandas_writes_is_no_fact() -> None:
    assert read({"": "0", "Unnamed: 0": "0", "__index_level_0__": 0, "pid": "7"}) == (Facts(pid="7"), ())


@pytest.mark.parametrize(
    "moment",
    [
        "2024-05-06T12:00:00",
        "2024-05-06T14:00:00+02:00",
        "2024-05-06 14:00:00 +0200",
        "2024-05-06 12:00:00 UTC",
        "2024-05-06 12:00:00 gmt",
        "2024-05-06T12:00:00.000Z",
        "2024:05:06 12:00:00",
        "2024:05:06 14:00:00+02:00",
        "2024/5/6 12:00",
        "20240506T120000",
        "20240506120000",
        "1714996800",
        "1714996800000",
        "1714996800.0",
        1714996800,
        1714996800000,
        1714996800000000,
        1714996800000000000,
        datetime(2024, 5, 6, 12),
        NOON,
    ],
)
def test_a_time_is_read_however_it_is_written(moment: object) -> None:
    assert moment_of(moment) == NOON


@pytest.mark.parametrize("moment", [None, "nan", "NULL", "0000:00:00 00:00:00"])
def test_no_time_is_none(moment: object) -> None:
    assert moment_of(moment) is None


@pytest.mark.parametrize("moment", ["yesterday", "06.05.2024", "2024:13:01 12:00:00", "12:00", True, [1], "1" * 30, 5])
def test_what_is_no_time_is_refused_with_an_example(moment: object) -> None:
    with pytest.raises(PictureError, match="expected a time like 2026-11-24T13:05"):
        moment_of(moment)


def test_a_day_is_its_first_moment() -> None:
    assert moment_of("20240506") == moment_of(date(2024, 5, 6)) == datetime(2024, 5, 6, tzinfo=UTC)
