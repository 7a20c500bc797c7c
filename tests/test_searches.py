from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from store import Database, Marks
from store.schema import searches, shown
from tests.factories import record

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def ask(marks: Marks, number: int) -> str:
    return record(marks, [f"{n:064x}" for n in range(3)], f"caption {number}")


def age(database: Database, query_id: str, hours: float) -> None:
    made = datetime.now(UTC) - timedelta(hours=hours)
    with database.write() as connection:
        connection.execute(searches.update().where(searches.c.query_id == query_id).values(created_at=made))


def left(database: Database) -> tuple[set[str], set[str]]:
    with database.read() as connection:
        return tuple(set(connection.scalars(sa.select(table.c.query_id))) for table in (searches, shown))  # type: ignore[return-value]


def test_old_searches_without_marks_are_deleted(tmp_path: Path) -> None:
    database = Database(tmp_path / "app.db")
    marks = Marks(database)
    marked, undone, old, new = (ask(marks, number) for number in range(4))
    for query_id in (marked, undone):
        marks.mark("ada", query_id, f"{0:064x}", "hit")
    marks.undo("ada")
    for query_id in (marked, undone, old):
        age(database, query_id, 25)
    assert marks.prune_searches(before=datetime.now(UTC) - timedelta(hours=24), keep=100) == 1
    assert left(database) == ({marked, undone, new}, {marked, undone, new})
    assert len(marks.current()) == 1
    assert marks.shown(new)[0].rank == 1


@pytest.mark.parametrize("keep", [0, 7])
def test_only_the_newest_searches_are_kept(tmp_path: Path, keep: int) -> None:
    database = Database(tmp_path / "app.db")
    marks = Marks(database)
    asked = [ask(marks, number) for number in range(450)]
    for number, query_id in enumerate(asked[-10:]):
        age(database, query_id, (10 - number) / 100)
    age(database, asked[0], -1)
    marks.mark("ada", asked[5], f"{0:064x}", "miss")
    assert marks.prune_searches(before=LONG_AGO, keep=keep) == 449 - keep
    kept, _ = left(database)
    assert len(kept) == keep + 1
    assert asked[5] in kept
    assert (asked[0] in kept) is (keep > 0)
    assert marks.prune_searches(before=LONG_AGO, keep=keep) == 0


def test_searches_of_a_clock_that_was_wrong_go(tmp_path: Path) -> None:
    database = Database(tmp_path / "app.db")
    marks = Marks(database)
    wrong = [ask(marks, number) for number in range(3)]
    for query_id in wrong:
        age(database, query_id, -48)
    right = ask(marks, 3)
    assert marks.prune_searches(before=LONG_AGO, keep=2) == 3
    assert left(database)[0] == {right}


def test_a_clock_that_is_behind_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path / "app.db")
    marks = Marks(database)
    marked, open_one = ask(marks, 0), ask(marks, 1)
    marks.mark("ada", marked, f"{0:064x}", "hit")
    behind = datetime.now(UTC) - timedelta(days=2)
    monkeypatch.setattr("store.searches.utc_now", lambda: behind)
    assert marks.prune_searches(before=behind - timedelta(hours=24), keep=100) == 0
    assert left(database)[0] == {marked, open_one}
    assert marks.prune_searches(before=behind - timedelta(hours=24), keep=0) == 1, "the newest are kept all the same"


def test_the_last_verdict_counts_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path / "app.db")
    marks = Marks(database)
    query_id, picture = ask(marks, 0), f"{0:064x}"
    for days, verdict in ((0, "hit"), (-400, "miss"), (400, "wrong_person")):
        monkeypatch.setattr("store.marks.utc_now", lambda days=days: datetime.now(UTC) + timedelta(days=days))
        marks.mark("ada", query_id, picture, verdict)  # type: ignore[arg-type]
        assert marks.verdicts(query_id) == {picture: verdict}
    for verdict in ("miss", "hit"):
        marks.undo("ada")
        assert marks.verdicts(query_id) == {picture: verdict}
