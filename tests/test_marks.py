"""Searches and marks on a real SQLite file."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from store import Database, ForgottenMarks, Mark, MarkError, Marks, MarkStats, Search, Shown
from store.records import caption_key
from store.schema import events


@pytest.fixture
def marks(tmp_path: Path) -> Iterator[Marks]:
    database = Database(tmp_path / "app.db")
    yield Marks(database)
    database.close()


def ask(marks: Marks, caption: str = "a man in red", *, user: str = "ada", n: int = 5, **more: Any) -> str:
    search = Search(user=user, caption=caption, version="mini-v0", backbone="mini", **more)
    return marks.record_search(search, [Shown(f"i{rank}", rank, 1 - rank / 10) for rank in range(1, n + 1)])


def held(marks: Marks, **of: Any) -> dict[tuple[str, str, str], str]:
    return {(mark.user, caption_key(mark.caption), mark.image_id): mark.verdict for mark in marks.current(**of)}


def test_gaps_are_those_of_marks_that_hold_on_rankings_by_words(marks: Marks) -> None:
    query = ask(marks, n=3)
    marks.mark("ada", query, "i1", "hit")
    marks.mark("ada", query, "i3", "hit")
    marks.mark("ada", query, "i3", "miss")
    marks.mark("ada", query, "i2", "miss")
    marks.undo("ada")
    for more in ({"negative": "a hat"}, {"image_query": True}):
        marks.mark("ada", ask(marks, "a woman", **more), "i2", "hit")
    later = marks.record_search(
        Search(user="ada", caption="a child", version="v1", backbone="mini"), [Shown("i4", 1, 0.5)]
    )
    marks.mark("ada", later, "i4", "hit")
    deep = marks.record_search(
        Search(user="ada", caption="a bag", version="v1", backbone="mini"), [Shown("i5", 9, 0.2)]
    )
    marks.mark("ada", deep, "i5", "hit")  # as imported marks are: the best result is not known
    marks.mark("ada", query, "i2", "hit")
    assert marks.gaps("mini-v0", newest=9) == [("hit", pytest.approx(0.1)), ("miss", pytest.approx(0.2))]
    assert marks.gaps("mini-v0", newest=1) == [("hit", pytest.approx(0.1))]
    assert marks.gaps("v1", newest=9) == [], "the first results are left out"


# Searches


def test_a_search_is_kept_as_typed(marks: Marks) -> None:
    query = ask(marks, "  A man,\nin RED ", negative="a hat")
    row = marks.search(query)
    assert (row.query_id, row.user, row.caption, row.negative) == (query, "ada", "  A man,\nin RED ", "a hat")
    assert (row.version, row.backbone, row.image_query, row.caption_key) == ("mini-v0", "mini", False, "a man in red")
    assert abs(datetime.now(UTC) - row.created_at) < timedelta(minutes=1)
    assert marks.shown(query)[:2] == [Shown("i1", 1, 0.9), Shown("i2", 2, 0.8)]


def test_show_more_adds_and_keeps_first_ranks(marks: Marks) -> None:
    query = ask(marks, n=2)
    marks.extend_search(query, [Shown("i3", 3, 0.5), Shown("i1", 4, 0.1)])
    marks.extend_search(query, [])
    assert marks.shown(query) == [Shown("i1", 1, 0.9), Shown("i2", 2, 0.8), Shown("i3", 3, 0.5)]
    assert marks.mark("ada", query, "i3", "hit").rank == 3


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("A man, in red.", "a man in red", True),
        ("Straße  «rot»", "STRASSE rot!", True),
        ("t-shirt", "t shirt", True),
        ("ﬁne", "fine", True),
        ("a man in red", "a man in blue", False),
        ("两个人", "两 个人", False),
    ],
)
def test_captions_that_ask_the_same(first: str, second: str, same: bool) -> None:
    assert (caption_key(first) == caption_key(second)) is same


@pytest.mark.parametrize("caption", ["", "   ", "?!…"])
def test_a_search_needs_words(marks: Marks, caption: str) -> None:
    with pytest.raises(MarkError, match="at least one word"):
        ask(marks, caption)
    assert marks.search(ask(marks, caption, image_query=True)).caption == caption


def test_what_is_no_search_is_refused(marks: Marks) -> None:
    with pytest.raises(MarkError, match="needs the user"):
        ask(marks, user="")
    search = Search(user="ada", caption="a man", version="v", backbone="b")
    for result in (Shown("i", 0, 0.5), Shown("i", 1, float("nan"))):
        with pytest.raises(MarkError, match="a rank from 1 and a finite score"):
            marks.record_search(search, [result])
    for call in (marks.search, marks.shown, marks.verdicts, lambda q: marks.extend_search(q, [Shown("i", 1, 0.5)])):
        with pytest.raises(MarkError, match="There is no search 'none'"):
            call("none")


# Marks


def test_a_mark_carries_what_was_shown(marks: Marks) -> None:
    query = ask(marks, "A man in red!", negative="a hat")
    mark = marks.mark("ada", query, "i2", "hit")
    assert mark == Mark(
        event_id=1, user="ada", caption="A man in red!", image_id="i2", verdict="hit", query_id=query, rank=2,
        score=0.8, version="mini-v0", backbone="mini", marked_at=mark.marked_at, negative="a hat", image_query=False,
    )  # fmt: skip
    assert mark.marked_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - mark.marked_at) < timedelta(minutes=1)
    assert marks.current() == [mark]


@pytest.mark.parametrize(
    ("user", "image", "verdict", "said"),
    [
        ("ada", "i1", "maybe", "one of hit, miss, wrong_person; 'maybe' came"),
        ("ada", "i1", "", "one of hit, miss, wrong_person"),
        ("ada", "i9", "hit", "did not show 'i9'"),
        ("bob", "i1", "hit", "another user's"),
    ],
)
def test_what_is_no_mark_is_refused(marks: Marks, user: str, image: str, verdict: str, said: str) -> None:
    query = ask(marks)
    with pytest.raises(MarkError, match=said):
        marks.mark(user, query, image, verdict)
    with pytest.raises(MarkError, match=said):
        marks.mark_many(user, query, ["i2", image], verdict)
    assert marks.current() == [], "all or none"


def test_an_unknown_search_is_refused(marks: Marks) -> None:
    for call in (lambda: marks.mark("ada", "none", "i1", "hit"), lambda: marks.clear("ada", "none", "i1")):
        with pytest.raises(MarkError, match="There is no search 'none'"):
            call()


def test_the_last_verdict_holds_however_the_caption_was_typed(marks: Marks) -> None:
    first, second = ask(marks, "a man in red"), ask(marks, "A man, in RED")
    marks.mark("ada", first, "i1", "hit")
    marks.mark("ada", second, "i1", "wrong_person")
    marks.mark("ada", second, "i2", "miss")
    assert marks.verdicts(first) == marks.verdicts(second) == {"i1": "wrong_person", "i2": "miss"}
    assert [(mark.caption, mark.image_id) for mark in marks.current()] == [
        ("A man, in RED", "i1"),
        ("A man, in RED", "i2"),
    ]
    assert held(marks, user="bob") == {}


def test_users_do_not_overrule_each_other(marks: Marks) -> None:
    marks.mark("ada", ask(marks), "i1", "hit")
    marks.mark("bob", ask(marks, user="bob"), "i1", "miss")
    assert held(marks) == {("ada", "a man in red", "i1"): "hit", ("bob", "a man in red", "i1"): "miss"}
    assert held(marks, user="bob") == {("bob", "a man in red", "i1"): "miss"}


def test_image_queries_share_no_verdicts(marks: Marks) -> None:
    words, one, two = ask(marks), ask(marks, image_query=True), ask(marks, image_query=True)
    marks.mark("ada", one, "i1", "hit")
    assert (marks.verdicts(one), marks.verdicts(two), marks.verdicts(words)) == ({"i1": "hit"}, {}, {})
    assert [mark.image_query for mark in marks.current()] == [True]


def test_the_same_mark_again_changes_nothing(marks: Marks) -> None:
    query = ask(marks)
    first = marks.mark("ada", query, "i1", "hit")
    assert marks.mark("ada", query, "i1", "hit") == first
    assert [mark.event_id for mark in marks.mark_many("ada", query, ["i1", "i2", "i1"], "hit")] == [1, 2]
    assert marks.mark_many("ada", query, [], "hit") == []
    again = marks.mark("ada", ask(marks), "i1", "hit")
    assert again.event_id == 3, "on another search it is a new mark, with that search's rank and version"


# Taking back


def test_undo_takes_back_the_last_action(marks: Marks) -> None:
    query = ask(marks)
    marks.mark("ada", query, "i1", "hit")
    rest = marks.mark_many("ada", query, ["i2", "i3", "i4"], "miss")
    assert marks.undo("ada") == rest, "one action, one undo"
    assert marks.verdicts(query) == {"i1": "hit"}
    assert [mark.image_id for mark in marks.undo("ada")] == ["i1"]
    assert marks.verdicts(query) == {}
    assert marks.undo("ada") == []


def test_undoing_a_remark_restores_the_verdict_before(marks: Marks) -> None:
    query = ask(marks)
    first = marks.mark("ada", query, "i1", "hit")
    second = marks.mark("ada", query, "i1", "miss")
    assert marks.undo("ada") == [second]
    assert marks.current() == [first]


def test_undo_knows_its_user(marks: Marks) -> None:
    marks.mark("ada", ask(marks), "i1", "hit")
    marks.mark("bob", ask(marks, user="bob"), "i1", "miss")
    assert [mark.user for mark in marks.undo("ada")] == ["ada"]
    assert marks.undo("ada") == []
    assert held(marks) == {("bob", "a man in red", "i1"): "miss"}


def test_clear_takes_back_all_marks_on_an_image_and_undo_restores_them(marks: Marks) -> None:
    query = ask(marks)
    marks.mark("ada", query, "i1", "hit")
    second = marks.mark("ada", query, "i1", "miss")
    marks.mark("ada", query, "i2", "hit")
    assert marks.clear("ada", query, "i1") == second
    assert marks.verdicts(query) == {"i2": "hit"}
    assert marks.clear("ada", query, "i1") is None
    assert second in marks.undo("ada")
    assert marks.verdicts(query) == {"i1": "miss", "i2": "hit"}
    for left in ({"i1": "miss"}, {"i1": "hit"}, {}):
        assert marks.undo("ada")
        assert marks.verdicts(query) == left


def test_clearing_several_images_is_one_action(marks: Marks) -> None:
    query = ask(marks)
    for image_id in ("i1", "i2", "i3"):
        marks.mark("ada", query, image_id, "hit")
    cleared = marks.clear_many("ada", query, ["i3", "i1", "i3"])
    assert [mark.image_id for mark in cleared] == ["i3", "i1"]
    assert marks.verdicts(query) == {"i2": "hit"}
    assert marks.clear_many("ada", query, ["i1", "i3"]) == []
    assert len(marks.undo("ada")) == 2
    assert marks.verdicts(query) == {"i1": "hit", "i2": "hit", "i3": "hit"}


def test_clear_refuses_what_mark_refuses(marks: Marks) -> None:
    query = ask(marks)
    with pytest.raises(MarkError, match="did not show 'i9'"):
        marks.clear("ada", query, "i9")
    with pytest.raises(MarkError, match="another user's"):
        marks.clear("bob", query, "i1")


def test_events_are_only_appended(marks: Marks) -> None:
    query = ask(marks)

    def rows() -> list[Any]:
        with marks.database.read() as connection:
            return list(connection.execute(sa.select(events).order_by(events.c.event_id)))

    before: list[Any] = []
    for act in (
        lambda: marks.mark("ada", query, "i1", "hit"),
        lambda: marks.mark("ada", query, "i1", "miss"),
        lambda: marks.clear("ada", query, "i1"),
        lambda: marks.undo("ada"),
        lambda: marks.mark_many("ada", query, ["i1", "i2"], "wrong_person"),
        lambda: marks.undo("ada"),
    ):
        act()
        after = rows()
        assert after[: len(before)] == before
        assert len(after) > len(before)
        before = after


class Model:
    """The same rules on plain lists: each action knows what held before it."""

    def __init__(self) -> None:
        self.now: dict[str, str] = {}
        self.past: list[dict[str, str]] = []

    def act(self, changed: dict[str, str]) -> None:
        if changed != self.now:
            self.past.append(self.now)
            self.now = changed


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("mark"), st.sampled_from(["i1", "i2", "i3"]), st.sampled_from(["hit", "miss"])),
            st.tuples(st.just("many"), st.just("i1 i2"), st.sampled_from(["hit", "wrong_person"])),
            st.tuples(st.just("clear"), st.sampled_from(["i1", "i2"]), st.just("")),
            st.tuples(st.just("undo"), st.just(""), st.just("")),
        ),
        max_size=12,
    )
)
def test_any_run_of_actions_and_undos_leaves_what_a_person_expects(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, str, str]]
) -> None:
    marks = Marks(Database(tmp_path_factory.mktemp("marks") / "app.db"))
    query, model = ask(marks), Model()
    for action, images, verdict in actions:
        match action:
            case "mark" | "many":
                marks.mark_many("ada", query, images.split(), verdict)
                model.act(model.now | dict.fromkeys(images.split(), verdict))
            case "clear":
                marks.clear("ada", query, images)
                model.act({image: said for image, said in model.now.items() if image != images})
            case "undo":
                assert bool(marks.undo("ada")) is bool(model.past)
                model.now = model.past.pop() if model.past else model.now
        assert marks.verdicts(query) == model.now
        current = marks.current()
        assert {mark.image_id: mark.verdict for mark in current} == model.now
        hits = sum(mark.verdict == "hit" for mark in current)
        assert [marks.count_hits(at_most=n) for n in (0, 1, 9)] == [0, min(1, hits), hits]
        for since in range(marks.newest() + 1):
            assert marks.stats(since=since).total == sum(mark.event_id > since for mark in current)
    assert marks.newest() == marks.stats().last_event
    marks.database.close()


# Counting and forgetting


def test_stats_count_what_holds(marks: Marks) -> None:
    empty = MarkStats(total=0, hits=0, misses=0, wrong_person=0, captions=0, images=0, users=0, last_event=0)
    assert marks.stats() == empty
    red, again, blue = ask(marks), ask(marks, "A man in red!"), ask(marks, "a man in blue", user="bob")
    marks.mark_many("ada", red, ["i1", "i2"], "hit")
    marks.mark("ada", again, "i2", "miss")
    marks.mark_many("bob", blue, ["i1", "i3", "i4"], "wrong_person")
    assert marks.stats() == MarkStats(
        total=5, hits=1, misses=1, wrong_person=3, captions=2, images=4, users=2, last_event=6
    )
    assert marks.stats(user="ada") == MarkStats(
        total=2, hits=1, misses=1, wrong_person=0, captions=1, images=2, users=1, last_event=3
    )
    assert marks.stats(since=2).total == 4
    assert marks.stats(since=6) == MarkStats(**{**vars_of(empty), "last_event": 6})
    marks.undo("bob")
    assert marks.stats() == MarkStats(
        total=2, hits=1, misses=1, wrong_person=0, captions=1, images=2, users=1, last_event=9
    )
    assert marks.stats(user="nobody") == empty


def vars_of(stats: MarkStats) -> dict[str, int]:
    return {name: getattr(stats, name) for name in MarkStats.__dataclass_fields__}


def test_forgetting_an_image_erases_it_everywhere(marks: Marks) -> None:
    secret = "secret-image-0123456789"
    search = Search(user="ada", caption="a man in red", version="v", backbone="b")
    query = marks.record_search(search, [Shown(secret, 1, 0.5), Shown("kept", 2, 0.4)])
    marks.mark_many("ada", query, [secret, "kept"], "hit")
    marks.mark("ada", query, secret, "miss")
    marks.clear("ada", query, secret)
    marks.undo("ada")
    last = marks.stats().last_event
    assert marks.forget_images([secret, "never-shown"]) == ForgottenMarks(2, ())
    assert marks.forget_images([secret]) == ForgottenMarks(0, ())
    assert [mark.image_id for mark in marks.current()] == ["kept"]
    assert marks.shown(query) == [Shown("kept", 2, 0.4)]
    files = sorted(marks.database.path.parent.glob("app.db*"))
    assert files
    assert not any(secret.encode() in file.read_bytes() for file in files)
    assert marks.mark("ada", query, "kept", "miss").event_id > last, "an event id is never given twice"
    assert [mark.image_id for mark in marks.undo("ada")] == ["kept"]


# Several at once


def test_threads_mark_at_once(marks: Marks) -> None:
    query = ask(marks, n=80)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda rank: marks.mark("ada", query, f"i{rank}", "hit"), range(1, 81)))
    assert sorted(mark.event_id for mark in done) == list(range(1, 81))
    assert marks.verdicts(query) == {f"i{rank}": "hit" for rank in range(1, 81)}
    with ThreadPoolExecutor(8) as pool:
        undone = list(pool.map(lambda _: marks.undo("ada"), range(90)))
    assert sorted(mark.image_id for batch in undone for mark in batch) == sorted(f"i{rank}" for rank in range(1, 81))
    assert marks.current() == []


def mark_in_process(path: str, query: str, first: int, ready: Any) -> None:
    database = Database(path)
    marks = Marks(database)
    ready.wait(60)
    with ThreadPoolExecutor(2) as pool:
        # Half of them both processes mark, half only one.
        list(pool.map(lambda rank: marks.mark("ada", query, f"i{rank}", "hit"), range(first, first + 60)))
    database.close()


def test_two_processes_mark_at_once(marks: Marks) -> None:
    query = ask(marks, n=100)
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(2)
    path = str(marks.database.path)
    processes = [spawn.Process(target=mark_in_process, args=(path, query, first, ready)) for first in (1, 31)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    current = marks.current()
    assert {mark.image_id for mark in current} == {f"i{rank}" for rank in range(1, 91)}
    assert [mark.event_id for mark in current] == list(range(1, 91)), "none lost, none twice"


def test_captions_ever_marked_are_known_though_the_marks_are_taken_back(marks: Marks) -> None:
    last = marks.mark("ada", ask(marks, "A red coat."), "i1", "hit").event_id
    marks.undo("ada")
    marks.mark("ada", ask(marks, "blue"), "i1", "miss")
    assert marks.captions(until=0) == set()
    assert marks.captions(until=last) == {"a red coat"}
    assert marks.captions(until=marks.stats().last_event) == {"a red coat", "blue"}
