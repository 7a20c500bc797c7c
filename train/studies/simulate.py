"""Simulated users: what learning from marks is worth, on people nobody trained on.

A gallery is adapted to once (`train.finetuning.adaptation`). Then a user takes captions of gallery pictures, looks at
the first `top` results of each under the version that serves, and marks them by ground truth; some users turn marks
around, some mark at random. The round that follows is the real one (`train.finetuning.round`).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from core.backbones import Backbone
from core.checkpoints import load_version
from core.model import UPPerson
from core.rerank import rerank
from store.records import caption_key
from train.captioned_images import CaptionedPictures
from train.embed import embed_captions, embed_pixels
from train.finetuning.active_learning import rankings, suggest
from train.finetuning.adaptation import Adaptation, adapt
from train.finetuning.config import LEARNING, LearnConfig, Mode
from train.finetuning.gate import GateConfig, Verdict
from train.finetuning.replay import BASE_PEOPLE, REPLAY_PEOPLE, known_before, source_of
from train.finetuning.round import Round, fine_tune
from train.finetuning.start import held_back
from train.memory import keep_little
from train.metrics import rank_metrics
from train.model_card import read_facts
from train.pedestrians import FOREIGN_VERSION, VERSION, AnyDomain, SyntheticSet, Use, load, takes
from train.studies.choices import UserConfig

Task = TypeVar("Task")
Result = TypeVar("Result")
AT_ONCE = 12
"""Suggestions are computed from the marks so far after so many of them."""
GALLERY_PEOPLE, GALLERY_SHOTS, TEST_PEOPLE = 150, 4, 500
HARM = 5
"""A query is harmed when its first match falls by more ranks than this."""

_work: Callable[[Any], Any]
"""In a process of `side_by_side`: what it does with each task."""


@dataclass(frozen=True, slots=True)
class SimulatedMark:
    """What `train.finetuning.pairs` needs of a mark."""

    caption: str
    image_id: str
    verdict: str
    rank: int
    score: float
    version: str


@dataclass(frozen=True, slots=True)
class World:
    """A gallery of pictures of one `domain`, the replay and base sets, and the two test sets: that domain's, studio's.

    `again` are captions of the gallery's pictures by an annotator who is no user.
    """

    gallery: SyntheticSet
    replay: CaptionedPictures
    base: CaptionedPictures
    tests: dict[str, SyntheticSet]
    ids: tuple[str, ...]
    again: tuple[str, ...]
    domain: AnyDomain = "street"


def world(
    size: tuple[int, int], *, validation: bool = False, domain: AnyDomain = "street", cache: Path | None = None
) -> World:
    """Draw everything at `size` (H, W), about a minute on two cores; `validation`: to choose settings by."""
    users: Use = "trial" if validation else "users"
    test: Use = "validation" if validation else "test"
    gallery = load(takes(domain, users, GALLERY_PEOPLE, GALLERY_SHOTS), size, cache=cache)
    return World(
        gallery,
        load(takes("studio", "replay", REPLAY_PEOPLE, 1), size, cache=cache),
        load(takes("studio", "base", BASE_PEOPLE, 2), size, cache=cache),
        {d: load(takes(d, test, TEST_PEOPLE, 2), size, cache=cache) for d in dict.fromkeys([domain, "studio"])},
        tuple(f"{index:06d}" for index in range(len(gallery.pids))),
        tuple(take.caption(annotator=0) for take in gallery.takes),
        domain,
    )


def mark(user: UserConfig, here: World, served: UPPerson, *, number: int = 0) -> list[SimulatedMark]:
    """What this user marks with the version `served` in round `number`; no caption is asked in two rounds."""
    asked, captions, rng = _asked(user, here, number)
    scores = embed_captions(served, captions) @ embed_pixels(served, here.gallery.pixels).T
    marks = []
    for query, index in enumerate(asked):
        for rank, image in enumerate(np.argsort(-scores[query], kind="stable")[: user.top], start=1):
            verdict = _verdict(bool(here.gallery.pids[image] == here.gallery.pids[index]), user, rng)
            score = float(scores[query, image])
            marks.append(SimulatedMark(captions[query], here.ids[image], verdict, rank, score, f"round {number}"))
    return marks


def mark_suggested(user: UserConfig, here: World, served: UPPerson) -> list[SimulatedMark]:
    """As many marks on the same captions as `mark` makes, half of them on first results and half on what
    `train.finetuning.active_learning` asks for, as many at a time as the page does. Nobody else marks and no version
    served before, so every suggestion is an uncertain one. Raises ValueError when there is nothing left to ask."""
    asked, captions, _ = _asked(user, here, 0)
    rng = np.random.default_rng([user.seed, 97])
    marks = mark(replace(user, top=(user.top + 1) // 2), here, served)
    scores = embed_captions(served, captions) @ embed_pixels(served, here.gallery.pixels).T
    ranked = rankings(captions, here.ids, scores, "round 0")
    pids = dict(zip(here.ids, here.gallery.pids, strict=True))
    wanted = {caption_key(caption): here.gallery.pids[index] for caption, index in zip(captions, asked, strict=True)}
    while left := user.captions * user.top - len(marks):
        batch = suggest(ranked, marks, k=min(AT_ONCE, left))
        if not batch:
            raise ValueError(f"nothing is left to ask after {len(marks)} marks; {left} more are wanted")
        for one in batch:
            assert one.rank is not None, "only contested ones may lie deeper"
            assert one.score is not None
            verdict = _verdict(bool(pids[one.image_id] == wanted[caption_key(one.caption)]), user, rng)
            marks.append(SimulatedMark(one.caption, one.image_id, verdict, one.rank, one.score, "round 0"))
    return marks


def asked_people(user: UserConfig, here: World, number: int) -> set[int]:
    """The people whose captions this user asks in round `number`."""
    return set(here.gallery.pids[_asked(user, here, number)[0]].tolist())


def _asked(user: UserConfig, here: World, number: int) -> tuple[NDArray[np.int64], list[str], np.random.Generator]:
    """The gallery pictures whose captions this user asks in a round, these captions, and what the verdicts draw on."""
    left = np.arange(len(here.gallery.pids))
    for turn in range(number + 1):
        rng = np.random.default_rng([user.seed, 99, turn] if turn else [user.seed, 99])
        asked = left[rng.choice(len(left), user.captions, replace=False)]
        left = np.setdiff1d(left, asked)
    return asked, [here.gallery.takes[index].caption(annotator=1 + user.seed) for index in asked], rng


def measure_reranked(model: UPPerson, here: World, user: UserConfig, *, judged: int) -> dict[str, Measured]:
    """Metrics by test set of searches whose first `judged` results this user marks, the others re-ordered by that.

    No weights change. Marked results keep their places, so R@1 is that of the model.
    """
    found = {}
    for domain, data in here.tests.items():
        rng = np.random.default_rng([user.seed, 98])
        texts, images = embed_captions(model, data.captions), embed_pixels(model, data.pixels)
        scores = np.empty((len(texts), len(images)), np.float32)
        for query, text in enumerate(texts):
            order = np.argsort(-(images @ text), kind="stable")
            matches = data.pids[order[:judged]] == data.pids[query]
            verdicts = np.zeros(len(order), np.int64)
            verdicts[:judged] = [1 if _verdict(bool(match), user, rng) == "hit" else -1 for match in matches]
            scores[query, order[rerank(text, images[order], verdicts)]] = -np.arange(len(order))
        found[domain] = _measured(scores, data.pids, data.pids)
    return found


def _verdict(match: bool, user: UserConfig, rng: np.random.Generator) -> str:
    if user.behaviour == "random":
        match = bool(rng.random() < 0.5)
    if (user.behaviour == "inverted") != (rng.random() < user.flip):
        match = not match
    return "hit" if match else "miss"


@dataclass(frozen=True, slots=True)
class Start:
    """What serves before the first mark: the plain backbone, the adapted version with the verdict on it, or a version
    trained elsewhere; and the version that its line begins with."""

    served: UPPerson
    origin: UPPerson
    verdict: Verdict | None = None


def start(backbone: Backbone, here: World, *, adapting: bool = True) -> Start:
    """The adapted version where it passes its gate, else the plain backbone."""
    plain = UPPerson(backbone)
    if not adapting:
        return Start(plain, plain)
    known, watched = held_back(here.replay)
    assert known is not None
    assert watched is not None
    model, verdict = adapt(Adaptation(plain, known, watched, here.base, here.gallery.pixels))
    return Start(model if verdict.decision == "promoted" else plain, plain, verdict)


def start_from(folder: Path, backbone: Backbone, here: World, *, cache: Path | None = None) -> tuple[Start, World]:
    """A version that `fit` made, as what serves at the start, and the world with the pairs that it knows.

    Raises ValueError for a version that does not say what it was trained on.
    """
    source = source_of(read_facts(folder), folder)
    if source is None or source.kind == "nothing":
        raise ValueError(f"{folder} does not say what it was trained on: expected a version that `fit` made")
    known = known_before(backbone, source, cache=cache or folder / "cache")
    assert known.replay is not None
    assert known.base is not None
    served = load_version(backbone, folder)
    return Start(served, served), replace(here, replay=known.replay, base=known.base)


def play(
    begin: Start,
    here: World,
    user: UserConfig,
    *,
    rounds: int = 1,
    mode: Mode = "full",
    learning: LearnConfig | None = None,
    gate: GateConfig | None = None,
) -> list[dict[str, Any]]:
    """One user from what serves at the start, a report for each round: the verdict and the metrics on all sets.

    "before" are those of the version that served, "after" those of the candidate, whether the gate lets it serve or
    not, and "served" those of the version that serves after the round. Marks add up; what was promoted marks on.
    """
    served, reports = begin.served, []
    pixels = dict(zip(here.ids, here.gallery.pixels, strict=True))
    tuning = (learning or LEARNING[mode], gate or GateConfig(), mode)
    marks: list[SimulatedMark] = []
    learnt: set[str] = set()
    people: set[int] = set()
    for number in range(rounds):
        people |= asked_people(user, here, number)
        marks += mark(user, here, served, number=number)
        given = Round(served, marks, pixels, here.ids, learnt, here.replay, here.base, begin.origin, *tuning)
        outcome = fine_tune(given)
        before = measure(served, here, people)
        after = before if outcome.model is None else measure(outcome.model, here, people)
        promoted = outcome.model is not None and outcome.verdict.decision == "promoted"
        report: dict[str, Any] = {
            "user": asdict(user),
            "round": number + 1,
            "mode": mode,
            "domain": here.domain,
            "generator": FOREIGN_VERSION if here.domain == "foreign" else VERSION,
            "marks": len(marks),
            "hits": sum(m.verdict == "hit" for m in marks),
            "adaptation": None if begin.verdict is None else asdict(begin.verdict),
            "decision": outcome.verdict.decision,
            "reason": outcome.verdict.reason,
            "numbers": outcome.verdict.numbers,
            "mix": outcome.mix,
            "length": outcome.length,
            "seconds": outcome.seconds,
            "harmed": harmed(before, after, here.domain),
        }
        for name in before:
            sides = {"before": before, "after": after, "served": after if promoted else before}
            report |= {f"{name}_{when}": side[name].metrics for when, side in sides.items()}
        reports.append(report)
        if promoted and outcome.model is not None:
            served, learnt = outcome.model, {caption_key(m.caption) for m in marks}
    return reports


def side_by_side(work: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int) -> Iterator[Result]:
    """`map(work, tasks)` in order, by so many spawned processes, each with its share of the threads; one: by this one.

    A step on `mini` is too small to keep two cores busy, two users side by side are not. `work` and what it holds
    are pickled once for each process.
    """
    workers = min(workers, len(tasks))
    if workers < 2:
        yield from map(work, tasks)
        return
    threads = max(1, torch.get_num_threads() // workers)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin, initargs=(work, threads)) as pool:
        yield from pool.map(_do, tasks)


def _begin(work: Callable[[Any], Any], threads: int) -> None:
    global _work
    torch.set_num_threads(threads)
    keep_little()
    _work = work


def _do(task: Any) -> Any:
    return _work(task)


@dataclass(frozen=True, slots=True)
class Measured:
    """Metrics on a set, and the rank from 0 of the first match of each query (Q,)."""

    metrics: dict[str, float]
    first: NDArray[np.int64]


def measure(model: UPPerson, here: World, people: Collection[int] = ()) -> dict[str, Measured]:
    """Metrics of the test sets by domain, and of the gallery asked in other words: "asked" for these `people`,
    "others" for the rest."""
    found = {}
    for domain, data in here.tests.items():
        scores = embed_captions(model, data.captions) @ embed_pixels(model, data.pixels).T
        found[domain] = _measured(scores, data.pids, data.pids)
    pids = here.gallery.pids
    scores = embed_captions(model, here.again) @ embed_pixels(model, here.gallery.pixels).T
    theirs = np.isin(pids, sorted(people))
    for name, part in (("asked", theirs), ("others", ~theirs)):
        if part.any():
            found[name] = _measured(scores[part], pids[part], pids)
    return found


def _measured(scores: NDArray[np.float32], queries: NDArray[np.int64], gallery: NDArray[np.int64]) -> Measured:
    order = np.argsort(-scores, axis=1, kind="stable")
    first = (gallery[order] == queries[:, None]).argmax(axis=1)
    return Measured(asdict(rank_metrics(scores, queries, gallery)), first)


def harmed(before: Mapping[str, Measured], after: Mapping[str, Measured], name: str) -> dict[str, float]:
    """The share of queries whose first match fell by more than `HARM` ranks: of "all" of set `name`, and of those that
    were "right" before."""
    fell = after[name].first - before[name].first > HARM
    right = before[name].first == 0
    return {"all": float(fell.mean()), "right": float(fell[right].mean()) if right.any() else 0.0}


def summary(report: dict[str, Any]) -> str:
    """A report of `play` in one line, and why the round was not promoted in another."""
    user, moved = report["user"], []
    for name in (report["domain"], "studio", "asked", "others"):
        if f"{name}_before" in report:
            before, after = report[f"{name}_before"]["r1"], report[f"{name}_after"]["r1"]
            moved.append(f"{name} R@1 {before:.1%} -> {after:.1%}")
    who = f"{user['behaviour']} user {user['seed']}, round {report['round']}, {report['marks']} marks"
    moved.append(f"harmed {report['harmed']['right']:.1%} of the right ones")
    seconds = sum(report["seconds"].values())
    line = f"{who} ({report['hits']} hits): {'; '.join(moved)}; {report['decision']}, {seconds:.0f} s"
    return line if report["decision"] == "promoted" else f"{line}\n    {report['reason']}"
