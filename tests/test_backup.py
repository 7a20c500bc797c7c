"""Marks on a small Hub of this machine: sent as they come, back on an empty disk, refusals in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from app.backup import IN_REPO, Backup
from app.settings import Settings
from app.state import State
from store import Search, Shown
from store.errors import HubError
from store.marks import Mark
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
    return State.open(Settings(data_dir=folder))


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


def test_lines_that_cannot_be_read_are_counted_and_left_out(
    hub: SmallHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = state(tmp_path / "one")
    backup = Backup(here, REPO, endpoint=hub.url)
    mark(here, "+-")
    backup.close()
    here.close()
    (name,) = [name for name in hub.repos[REPO] if name.endswith(".jsonl")]
    good, other = hub.repos[REPO][name].decode().splitlines()
    forged = json.dumps(json.loads(other) | {"user": "eve"})
    hub.repos[REPO][name] = "\n".join([good, forged, "{", "[]", '{"user": "x"}', other[:40]]).encode()

    again = state(tmp_path / "two")
    with caplog.at_level("INFO", logger="app.backup"):
        Backup(again, REPO, endpoint=hub.url).close()
    assert [kept.image_id for kept in again.marks.current()] == [IMAGES[0]]
    assert "1 marks came back from ada/marks; 5 lines could not be read" in caplog.text
    again.close()


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
