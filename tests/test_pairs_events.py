"""Events -> pairs, through the real store: an undo leaves no trace, and it does not matter who came first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import Database, Marks, Search, Shown
from train.finetuning.pairs import Pairs, build

few = settings(max_examples=10, deadline=None, derandomize=True)
IMAGES = [letter * 64 for letter in "abcd"]
CAPTIONS = ("a man in red", "A man, in RED!", "a woman")
PEOPLE = ("ada", "bob")
Action = tuple[str, str, str, list[str]]
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(PEOPLE),
        st.sampled_from(["hit", "hit", "miss", "wrong_person", "clear", "undo"]),
        st.sampled_from(CAPTIONS),
        st.lists(st.sampled_from(IMAGES), min_size=1, max_size=2, unique=True),
    ),
    max_size=8,
)
numbers = count()


class Team:
    """Users of their own in a store that other examples use, too."""

    def __init__(self, marks: Marks) -> None:
        self.marks, self.number = marks, next(numbers)
        self.queries: dict[tuple[str, str], str] = {}

    def user(self, name: str) -> str:
        return f"{name} {self.number}"

    def do(self, action: Action) -> None:
        name, what, caption, images = action
        user = self.user(name)
        if what == "undo":
            self.marks.undo(user)
            return
        if (name, caption) not in self.queries:
            search = Search(user=user, caption=caption, version="v0", backbone="mini")
            shown = [Shown(image, rank, 1 / rank) for rank, image in enumerate(IMAGES, start=1)]
            self.queries[name, caption] = self.marks.record_search(search, shown)
        query = self.queries[name, caption]
        if what == "clear":
            self.marks.clear(user, query, images[0])
        else:
            self.marks.mark_many(user, query, images, what)

    def pairs(self) -> Pairs:
        return build([mark for name in PEOPLE for mark in self.marks.current(user=self.user(name))])


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Marks]:
    database = Database(tmp_path_factory.mktemp("events") / "app.db")
    yield Marks(database)
    database.close()


def same(one: Pairs, other: Pairs) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == "scores") for name in Pairs.__slots__
    )


@few
@given(ACTIONS, st.sampled_from(PEOPLE), st.sampled_from(["hit", "miss", "wrong_person"]), st.sampled_from(CAPTIONS))
def test_undo_removes_every_effect(marks: Marks, before: list[Action], name: str, verdict: str, caption: str) -> None:
    team = Team(marks)
    for action in before:
        team.do(action)
    expected = team.pairs()
    events = marks.stats(user=team.user(name)).last_event
    team.do((name, verdict, caption, IMAGES))
    if marks.stats(user=team.user(name)).last_event == events:
        return  # the same verdicts stood already: nothing was done, so undo would take back what came before
    team.do((name, "undo", caption, []))
    assert same(team.pairs(), expected)


@few
@given(ACTIONS)
def test_it_does_not_matter_whose_events_came_first(marks: Marks, actions: list[Action]) -> None:
    mixed, sorted_ = Team(marks), Team(marks)
    for action in actions:
        mixed.do(action)
    for action in sorted(actions, key=lambda action: action[0]):
        sorted_.do(action)
    assert same(mixed.pairs(), sorted_.pairs())


@few
@given(ACTIONS)
def test_undoing_everything_leaves_nothing(marks: Marks, actions: list[Action]) -> None:
    team = Team(marks)
    for action in actions:
        team.do(action)
    for name in PEOPLE:
        while marks.undo(team.user(name)):
            pass
    assert team.pairs().captions == team.pairs().contested == ()
