from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store import Database, Gallery, MarkError, Marks, import_marks
from tests.test_export import ask, contents, export_marks, lines, mark_people, picture


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Marks, Gallery]]:
    database = Database(tmp_path / "app.db")
    yield Marks(database), Gallery(tmp_path / "gallery")
    database.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Marks]:
    database = Database(tmp_path / "other" / "app.db")
    yield Marks(database)
    database.close()


def facts(marks: Marks) -> set[tuple[Any, ...]]:
    return {
        (m.caption, m.image_id, m.verdict, m.query_id, m.rank, m.score, m.version, m.backbone, m.marked_at, m.negative,
         m.image_query)
        for m in marks.current()
    }  # fmt: skip


def rounded(marks: Marks) -> set[tuple[Any, ...]]:
    """The facts without their time, and scores to the ten digits that pandas writes."""
    return {(*fact[:5], round(fact[5], 9), *fact[6:8], *fact[9:]) for fact in facts(marks)}


def exported(marks: Marks, gallery: Gallery, out: Path) -> Path:
    """Marks of several users, re-marked and taken back, image queries and quotes among them, as JSON lines."""
    images = mark_people(marks, gallery, 3)
    ids = [image.id for image in images]
    marks.mark("ada", ask(marks, images, "Person number 0 in a COAT"), ids[0], "wrong_person")
    marks.mark("cy", ask(marks, images, "", user="cy", image_query=True), ids[1], "hit")
    marks.mark("cy", ask(marks, images, 'a "red", hat\nand é', user="cy", negative="a bag"), ids[2], "miss")
    marks.undo("bob")
    export_marks(marks, gallery, out, format="jsonl")
    return out / "marks.jsonl"


def as_csv(rows: list[dict[str, Any]], file: Path) -> Path:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_marks_come_back_as_they_left(stores: tuple[Marks, Gallery], empty: Marks, tmp_path: Path, kind: str) -> None:
    marks, gallery = stores
    file = exported(marks, gallery, tmp_path / "out")
    count = len(marks.current())
    files = [file]
    if kind == "csv":
        files = [as_csv(lines(file), tmp_path / "marks.csv")]
    elif kind == "parquet":
        files = sorted((export_marks(marks, gallery, tmp_path / "parquet").path / "data").iterdir())
        assert len(files) == 3
    reports = [import_marks(empty, one) for one in files]
    assert (sum(r.taken for r in reports), sum(r.repeated + r.refused for r in reports)) == (count, 0)
    assert facts(empty) == facts(marks)
    assert {len(empty.current(user=user)) for user in empty.users()} == {
        len(marks.current(user=user)) for user in marks.users()
    }
    again = [import_marks(empty, one) for one in files]
    assert (sum(r.taken for r in again), sum(r.repeated for r in again)) == (0, count)
    export_marks(empty, gallery, tmp_path / "again", format="jsonl")
    assert contents(tmp_path / "again") == contents(tmp_path / "out"), "pseudonyms stay, too"


def test_a_store_knows_its_own_marks_again(stores: tuple[Marks, Gallery], tmp_path: Path) -> None:
    marks, gallery = stores
    file = exported(marks, gallery, tmp_path / "out")
    before = marks.current()
    report = import_marks(marks, file)
    assert (report.taken, report.repeated, report.refused) == (0, len(before), 0)
    assert marks.current() == before


def test_a_newer_verdict_is_not_turned_round(stores: tuple[Marks, Gallery], tmp_path: Path) -> None:
    marks, gallery = stores
    gallery.add([picture(1)])
    marks.mark("ada", ask(marks, [picture(1)]), picture(1).id, "hit")
    export_marks(marks, gallery, tmp_path / "out", format="jsonl")
    marks.mark("ada", ask(marks, [picture(1)]), picture(1).id, "miss")
    assert import_marks(marks, tmp_path / "out" / "marks.jsonl").repeated == 1
    assert [mark.verdict for mark in marks.current()] == ["miss"]
    marks.undo("ada")
    marks.undo("ada")
    import_marks(marks, tmp_path / "out" / "marks.jsonl")
    assert marks.current() == [], "what was taken back stays so"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "good"}, "verdict must be text like hit|miss|wrong_person, not 'good'"),
        ({"image_id": "../app.db"}, "image_id must be"),
        ({"query_id": None}, "lacks query_id"),
        ({"rank": 0}, "rank must be a whole number from 1, not '0'"),
        ({"rank": True}, "rank must be"),
        ({"score": float("nan")}, "score must be a cosine"),
        ({"score": 7}, "score must be a cosine"),
        ({"marked_at": "2026-01-01T00:00:00"}, "with its zone"),
        ({"marked_at": 5}, "marked_at must be an ISO time"),
        ({"caption": " ! "}, "caption must have a word"),
        ({"caption": "x" * 10_001}, "caption has 10,001 characters; at most 10,000 are taken"),
        ({"caption": "a red coat and " * 1250}, "caption has 18,750 characters; at most 10,000 are taken"),
        ({"caption": ["a"]}, "caption must be text"),
        ({"caption": "\ud800"}, "caption must be text"),
        ({"image_query": "perhaps"}, "image_query must be true or false"),
        ({"annotator": "a:b"}, "annotator must be"),
        ({"model_version": "a/b"}, "model_version must be"),
        ({"user": "ada"}, "unknown columns user"),
        ({"caption": "another question"}, "its caption differs"),
    ],
)
def test_a_bad_row_is_refused_by_its_line(
    stores: tuple[Marks, Gallery], empty: Marks, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    marks, gallery = stores
    rows = lines(exported(marks, gallery, tmp_path / "out"))
    file = tmp_path / "bad.jsonl"
    latest = max(rows, key=lambda row: row["marked_at"])
    bad = {**latest, "marked_at": "2126-01-01T00:00:00+00:00", **change}
    file.write_text("\n".join(map(json.dumps, [*rows, bad])) + "\n\n")
    report = import_marks(empty, file)
    assert (report.taken, report.refused) == (len(rows), 1)
    assert report.reasons[0].line == len(rows) + 1
    assert said in report.reasons[0].reason


def test_lines_that_are_no_marks_are_refused(empty: Marks, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"a": \n[]\n"text"\n{}\n' + "[" * 100_000)
    report = import_marks(empty, tmp_path / "bad.jsonl")
    assert (report.taken, [refused.line for refused in report.reasons]) == (0, [1, 2, 3, 4, 5])
    assert "no JSON" in report.reasons[0].reason
    assert "expected an object" in report.reasons[1].reason


def test_files_that_are_not_what_they_say_are_reported(empty: Marks, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("caption,verdict\na man,hit\n")
    (tmp_path / "a.parquet").write_text("no parquet")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "bin.csv").write_bytes(b"\xff\xfe\0")
    pq.write_table(pa.table({"caption": ["a man"]}), tmp_path / "b.parquet")
    for name, said in (
        ("a.csv", "lacks the columns image_id"),
        ("b.parquet", "lacks the columns image_id"),
        ("a.parquet", "could not be read"),
        ("bin.csv", "could not be read"),
        ("a.txt", r"ends in \.jsonl, \.json, \.csv, \.parquet; 'a\.txt' came\. Rename it if"),
        ("nowhere.jsonl", r"there is no .*nowhere\.jsonl"),
        ("nowhere", "there is no"),
    ):
        with pytest.raises(MarkError, match=said):
            import_marks(empty, tmp_path / name)
    assert empty.current() == []


@pytest.mark.filterwarnings("ignore:The default formatting of datetime", "ignore:'epoch' date format is deprecated")
def test_what_datasets_and_pandas_write_is_taken(
    stores: tuple[Marks, Gallery], tmp_path: Path, subtests: pytest.Subtests
) -> None:
    datasets = pytest.importorskip("datasets", reason="pip install -r requirements-dev.txt")
    marks, gallery = stores
    exported(marks, gallery, tmp_path / "out")
    shards = sorted((export_marks(marks, gallery, tmp_path / "parquet").path / "data").iterdir())
    rows = datasets.Dataset(
        pa.concat_tables(map(pq.read_table, shards)).drop_columns("image").replace_schema_metadata()
    )
    table = rows.to_pandas()
    out = tmp_path / "written"
    out.mkdir()
    rows.to_json(out / "datasets.jsonl")
    rows.to_json(out / "datasets.json", lines=False)
    rows.to_csv(out / "datasets.csv")
    rows.to_parquet(out / "datasets.parquet")
    for unit in ("s", "ms", "us", "ns"):
        table.to_json(out / f"{unit}.json", orient="records", date_format="epoch", date_unit=unit)
    table.to_json(out / "iso.jsonl", orient="records", lines=True, date_format="iso")
    table.reset_index().to_json(out / "index.json", orient="records", date_format="iso", indent=2)
    table.to_csv(out / "index.csv")
    table.assign(rank=table["rank"].astype(float)).to_csv(out / "floats.csv", index=False)
    table.sort_values("score").to_parquet(out / "sorted.parquet")
    (out / "bom.jsonl").write_text("\N{BYTE ORDER MARK}" + (out / "datasets.jsonl").read_text(), encoding="utf-8")
    for file in sorted(out.iterdir()):
        with subtests.test(file.name):
            database = Database(tmp_path / "stores" / file.stem / file.suffix / "app.db")
            report = import_marks(other := Marks(database), file)
            assert (report.taken, report.repeated, report.refused) == (len(table), 0, 0), report.reasons[:1]
            for taken, mark in zip(other.current(), marks.current(), strict=True):
                assert abs(taken.marked_at - mark.marked_at) < timedelta(seconds=1)
            assert rounded(other) == rounded(marks)
            database.close()
    table.to_json(tmp_path / "columns.json", date_format="iso")
    (refused,) = import_marks(marks, tmp_path / "columns.json").reasons
    assert "orient='records'" in refused.reason


@pytest.mark.parametrize("text", ["[", "[{}, ", "[{} {}]", '[{"a":', "[[[[", "[]]"])
def test_a_list_that_breaks_off_says_so(empty: Marks, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(MarkError, match=r"bad\.json .*Check the file"):
        import_marks(empty, tmp_path / "bad.json")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_good_lines_around_a_malformed_one_are_imported_once(
    stores: tuple[Marks, Gallery], empty: Marks, tmp_path: Path, kind: str
) -> None:
    marks, gallery = stores
    rows = lines(exported(marks, gallery, tmp_path / "out"))
    if kind == "jsonl":
        text = [json.dumps(row) for row in rows]
        file, at = tmp_path / "some.jsonl", 3
        file.write_text("\n".join([*text[:2], '{"caption": "cut of', *text[2:]]))
    else:
        file, at = as_csv([*rows[:2], {**rows[2], "score": "high"}, *rows[2:]], tmp_path / "some.csv"), 4
    first, again = import_marks(empty, file), import_marks(empty, file)
    assert (first.taken, first.repeated, first.refused) == (len(rows), 0, 1)
    assert (again.taken, again.repeated, again.refused) == (0, len(rows), 1)
    assert [refused.line for refused in first.reasons] == [refused.line for refused in again.reasons] == [at]
    assert facts(empty) == facts(marks)


def test_marks_on_deleted_pictures_are_kept_for_when_they_come_back(
    stores: tuple[Marks, Gallery], empty: Marks, tmp_path: Path
) -> None:
    marks, gallery = stores
    file = exported(marks, gallery, tmp_path / "out")
    gone = marks.current()[0].image_id
    gallery.forget([gone])
    report = import_marks(empty, file)
    assert (report.taken, report.refused) == (len(marks.current()), 0)
    assert gone in {mark.image_id for mark in empty.current()}


@pytest.mark.parametrize("name", ["marks.jsonl", "marks.json", "marks.csv"])
def test_marks_in_utf_16_are_taken(stores: tuple[Marks, Gallery], empty: Marks, tmp_path: Path, name: str) -> None:
    rows = lines(exported(*stores, tmp_path / "out"))
    if name == "marks.csv":
        text = as_csv(rows, tmp_path / "utf8.csv").read_bytes().decode()
    else:
        text = json.dumps(rows) if name == "marks.json" else "\n".join(map(json.dumps, rows))
    (tmp_path / name).write_bytes(text.encode("utf-16"))
    report = import_marks(empty, tmp_path / name)
    assert (report.taken, report.refused) == (len(rows), 0)
