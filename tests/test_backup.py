"""Marks on a small Hub of this machine: sent as they come, back on an empty disk, refusals in words."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from app.backup import IN_REPO, Backup
from app.settings import Settings
from app.state import State
from store import Search, Shown
from store.backup_files import to_forget
from store.records import Mark
from store.store_errors import HubError
from tests.small_hub import SmallHub, small_hub

REPO = "ada/marks"
IMAGES = tuple(letter * 64 for letter in "abc")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    monkeypatch.setenv("HF_TOKEN", "hf_small")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with small_hub() as running:
        yield running


def state(folder: Path) -> State:
    return State(Settings(data_dir=folder))


def mark(where: State, verdicts: str, *, user: str = "ada", caption: str = "a man in red") -> str:
    """ "+-" marks the first picture as a hit and the second as a miss; the search's id."""
    search = Search(user=user, caption=caption, version="mini-v0", backbone="mini")
    query = where.marks.record_search(search, [Shown(image, rank, 0.5) for rank, image in enumerate(IMAGES, 1)])
    for image, verdict in zip(IMAGES, verdicts, strict=False):
        where.marks.mark(user, query, image, {"+": "hit", "-": "miss"}[verdict])
    return query


def facts(marks: list[Mark]) -> list[tuple[object, ...]]:
    """All that a mark says, but the number of its event."""
    names = [field.name for field in fields(Mark) if field.name != "event_id"]
    return sorted(tuple(str(getattr(mark, name)) for name in names) for mark in marks)


def test_marks_come_back_to_an_empty_disk(hub: SmallHub, tmp_path: Path) -> None:
    here = state(tmp_path / "one")
    backup = Backup(here, REPO, endpoint=hub.url)
    query = mark(here, "+-+")
    assert backup.write() == 3
    assert backup.write() == 0
    here.marks.clear("ada", query, IMAGES[2])
    here.marks.mark("ada", query, IMAGES[1], "hit")
    mark(here, "-", user="bob", caption="somebody tall")
    here.marks.undo("bob")
    mark(here, "-", user="bob", caption="A man in RED!")
    backup.close()
    kept = facts(here.marks.current())
    assert len(kept) == 3
    here.close()
    assert hub.private[REPO]
    (name,) = [name for name in hub.repos[REPO] if name.endswith(".jsonl")]
    assert name.startswith(f"{IN_REPO}/")

    again = state(tmp_path / "two")
    restored = Backup(again, REPO, endpoint=hub.url)
    assert facts(again.marks.current()) == kept
    assert restored.write() == 0  # what came from there is not sent there again
    again.marks.clear("ada", query, IMAGES[0])
    restored.close()
    again.close()
    assert len([name for name in hub.repos[REPO] if name.endswith(".jsonl")]) == 2  # each process has its own

    third = state(tmp_path / "three")
    Backup(third, REPO, endpoint=hub.url).close()
    assert len(third.marks.current()) == 2
    third.close()


def test_a_disk_that_was_kept_is_not_restored_and_goes_on_where_it_stopped(hub: SmallHub, tmp_path: Path) -> None:
    here = state(tmp_path / "data")
    backup = Backup(here, REPO, endpoint=hub.url)
    mark(here, "+")
    backup.close()
    mark(here, "-", user="bob")  # while no backup runs
    backup = Backup(here, REPO, endpoint=hub.url)
    assert backup.write() == 1
    backup.close()
    lines = [line for data in hub.repos[REPO].values() for line in data.decode().splitlines() if line.startswith("{")]
    assert sorted(json.loads(line)["user"] for line in lines) == ["ada", "bob"]
    here.close()


def changed(line: str, **facts: object) -> str:
    """A line of the backup whose mark says something else."""
    row = json.loads(line)
    return json.dumps(row | {"mark": row["mark"] | facts})


def test_lines_that_cannot_be_read_are_reported_and_left_out(
    hub: SmallHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = state(tmp_path / "one")
    backup = Backup(here, REPO, endpoint=hub.url)
    mark(here, "+-+")
    backup.close()
    here.close()
    (name,) = [name for name in hub.repos[REPO] if name.endswith(".jsonl")]
    good, other, last = hub.repos[REPO][name].decode().splitlines()
    bad = [
        json.dumps(json.loads(other) | {"user": "mallory"}), "{", "[]", '{"user": "x"}', other[:40],
        changed(other, rank=0), changed(other, rank="1"), changed(other, score=float("nan")),
        changed(other, verdict="good"), changed(other, marked_at="2026-01-01T00:00:00"),
        changed(other, version="../mini"), changed(other, query_id="1; DROP TABLE marks"),
        json.dumps(json.loads(other) | {"at": "0001-01-01T00:00:00+10:00"}),
        changed(other, negative="\ud800"), changed(last, caption="another question").replace("a man in red", "x"),
    ]  # fmt: skip
    hub.repos[REPO][name] = "\n".join([good, *bad, last]).encode() + b"\n\xff\xfe\n"

    again = state(tmp_path / "two")
    with caplog.at_level("INFO", logger="app.backup"):
        Backup(again, REPO, endpoint=hub.url).close()
    assert [kept.image_id for kept in again.marks.current()] == [IMAGES[0], IMAGES[2]]
    assert f"2 marks came back from ada/marks; {len(bad) + 1} lines could not be read" in caplog.text
    for number in (*range(2, len(bad) + 2), len(bad) + 3):
        assert f"left out: line {number} of {Path(name).name} of ada/marks: " in caplog.text
    assert "mallory" not in caplog.text, "the log names nobody"
    again.close()


def test_a_forgotten_picture_leaves_the_backup_and_does_not_come_back(hub: SmallHub, tmp_path: Path) -> None:
    here = state(tmp_path / "one")
    backup = Backup(here, REPO, endpoint=hub.url)
    mark(here, "+-+")
    mark(here, "--", user="bob", caption="somebody tall")
    backup.write()
    backup.push()
    assert here.deletion.forget([IMAGES[0]]).backup
    mark(here, "++", user="cy")  # the same picture, brought again
    backup.write()
    assert backup.forget() == 1
    backup.close()
    assert not any(IMAGES[0].encode() in data for data in hub.history), "no commit holds it either"
    kept = facts(here.marks.current())
    here.close()
    (file,) = (tmp_path / "one" / "backup").iterdir()
    assert file.read_bytes() == hub.repos[REPO][f"{IN_REPO}/{file.name}"]

    again = state(tmp_path / "two")
    Backup(again, REPO, endpoint=hub.url).close()
    assert facts(again.marks.current()) == kept
    assert {(m.user, m.image_id) for m in again.marks.current()} == {
        ("ada", IMAGES[1]), ("ada", IMAGES[2]), ("bob", IMAGES[1]), ("cy", IMAGES[0]), ("cy", IMAGES[1]),
    }  # fmt: skip
    again.close()


def test_what_was_forgotten_offline_leaves_the_hub_before_a_restore(
    hub: SmallHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The only marks there are: without them the database is as empty as a new one, and would be restored."""
    here = state(tmp_path / "data")
    backup = Backup(here, REPO, endpoint=hub.url)
    mark(here, "+-")
    backup.push()
    backup.close()
    assert here.deletion.forget([IMAGES[0], IMAGES[1]]).backup
    assert IMAGES[0].encode() in b"".join(hub.repos[REPO].values()), "the Hub does not know yet"
    assert not any(IMAGES[0].encode() in file.read_bytes() for file in (tmp_path / "data" / "backup").iterdir())
    hub.broken = True
    with pytest.raises(HubError, match="the app does not start"):
        Backup(here, REPO, endpoint=hub.url)
    hub.broken = False
    Backup(here, REPO, endpoint=hub.url).close()
    assert here.marks.current() == []
    assert [name for name in hub.repos[REPO] if name.endswith(".jsonl")] == []
    assert hub.history == []
    assert "came back" not in caplog.text
    here.close()


def test_the_running_app_updates_the_hub_by_itself(
    hub: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.backup.LOOK_S", 0.02)
    here = state(tmp_path / "data")
    backup = Backup(here, REPO, endpoint=hub.url)
    mark(here, "+-")
    backup.push()
    other = state(tmp_path / "data")  # as the command line would
    other.deletion.forget([IMAGES[0]])
    other.close()
    end = time.monotonic() + 30
    while to_forget(here.database) and time.monotonic() < end:
        time.sleep(0.02)
    backup.push()
    held = b"".join([*hub.repos[REPO].values(), *hub.history])
    assert IMAGES[0].encode() not in held
    assert IMAGES[1].encode() in held
    backup.close()
    here.close()


def test_a_public_data_set_is_refused(hub: SmallHub, tmp_path: Path) -> None:
    hub.repos[REPO], hub.private[REPO] = {}, False
    here = state(tmp_path / "data")
    (tmp_path / "data" / "backup").mkdir()
    (tmp_path / "data" / "backup" / "earlier.jsonl").write_text('{"user": "ada"}\n')
    with pytest.raises(HubError, match="ada/marks is public, and a backup names the people who marked"):
        Backup(here, REPO, endpoint=hub.url)
    assert hub.repos[REPO] == {}, "nothing was sent there"
    here.close()


@pytest.mark.parametrize(
    ("status", "says"), [(401, "sign in with `hf auth login`"), (403, "You may not write"), (500, "refused")]
)
def test_a_hub_that_refuses_stops_the_start_in_words(hub: SmallHub, tmp_path: Path, status: int, says: str) -> None:
    hub.status = status
    here = state(tmp_path / "data")
    with pytest.raises(HubError, match=says) as fault:
        Backup(here, REPO, endpoint=hub.url)
    assert "unset UPPERSON_BACKUP_REPO" in str(fault.value)
    here.close()


def test_a_hub_out_of_reach_stops_the_start_and_at_the_end_loses_nothing(
    hub: SmallHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = state(tmp_path / "data")
    with pytest.raises(HubError, match="cannot be reached"):
        Backup(here, REPO, endpoint="http://127.0.0.1:9")
    backup = Backup(here, REPO, endpoint=hub.url)
    mark(here, "+")
    hub.broken = True
    backup.close()
    assert "the last marks were not sent" in caplog.text
    (file,) = (tmp_path / "data" / "backup").glob("*.jsonl")
    assert len(file.read_text().splitlines()) == 1
    here.close()


def test_what_a_killed_process_had_fetched_does_not_come_back(hub: SmallHub, tmp_path: Path) -> None:
    here = state(tmp_path / "one")
    backup = Backup(here, REPO, endpoint=hub.url)
    mark(here, "+")
    backup.write()
    (lines,) = (tmp_path / "one" / "backup").glob("*.jsonl")
    again = state(tmp_path / "two")
    left = again.settings.fetched_dir / IN_REPO / "left.jsonl"
    left.parent.mkdir(parents=True)
    left.write_bytes(lines.read_bytes())
    hub.repos[REPO] = {}
    Backup(again, REPO, endpoint=hub.url).close()
    assert again.marks.current() == []
    assert not again.settings.fetched_dir.exists()
    again.close()
    backup.close()
    here.close()


def test_a_full_disk_at_the_end_is_logged_and_stops_the_sending(
    hub: SmallHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = state(tmp_path / "data")
    backup = Backup(here, REPO, endpoint=hub.url)
    stopped = []
    stop = backup.scheduler.stop
    backup.scheduler.stop = lambda: stopped.append(stop())  # type: ignore[method-assign, func-returns-value]
    mark(here, "+")
    backup.file = tmp_path  # no file that can be written
    backup.close()
    assert "the last marks were not sent" in caplog.text
    assert len(stopped) == 1
    here.close()
