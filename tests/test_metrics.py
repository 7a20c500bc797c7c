"""R@K, mAP and mINP equal a brute-force ranking and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.functional.retrieval import retrieval_average_precision, retrieval_hit_rate

from train import metrics
from train.metrics import RankMetrics, rank_metrics, rank_metrics_of


def brute_force(scores: NDArray[np.float64], queries: list[int], gallery: list[int]) -> RankMetrics:
    """One query at a time, with Python's own stable sort."""
    rows = []
    for row, pid in enumerate(queries):
        ranking = sorted(range(len(gallery)), key=lambda column: -scores[row, column])
        places = [place for place, column in enumerate(ranking, start=1) if gallery[column] == pid]
        if not places:
            continue
        precision = [found / place for found, place in enumerate(places, start=1)]
        recalls = [float(places[0] <= k) for k in (1, 5, 10)]
        rows.append([*recalls, sum(precision) / len(places), len(places) / places[-1]])
    return RankMetrics(*(sum(column) / len(rows) for column in zip(*rows, strict=True)), len(rows))


def random_case(seed: int) -> tuple[NDArray[np.float64], list[int], list[int]]:
    rng = np.random.default_rng(seed)
    queries, gallery = rng.integers(0, 6, 1 + seed % 7).tolist(), rng.integers(0, 6, 1 + seed % 23).tolist()
    scores = rng.normal(size=(len(queries), len(gallery)))
    if seed % 2:  # many ties
        scores = scores.round(0)
    return scores, queries, gallery


def assert_same(found: RankMetrics, expected: RankMetrics) -> None:
    for name in RankMetrics.__slots__:
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-12), name


@pytest.mark.parametrize("seed", range(60))
def test_equals_brute_force_with_ties_and_queries_without_a_match(seed: int) -> None:
    scores, queries, gallery = random_case(seed)
    if not set(queries) & set(gallery):
        with pytest.raises(ValueError, match="no query has a correct picture"):
            rank_metrics(scores, queries, gallery)
        return
    assert_same(rank_metrics(scores, queries, gallery), brute_force(scores, queries, gallery))


@pytest.mark.parametrize("seed", range(10))
def test_equals_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, gallery = rng.integers(0, 8, 20), np.concatenate([np.arange(8), rng.integers(0, 8, 30)])
    scores = rng.random((20, 38))  # torchmetrics takes scores of 0 and less for not retrieved
    found = rank_metrics(scores, queries, gallery)
    rows = [(torch.from_numpy(scores[row]), torch.from_numpy(gallery == pid)) for row, pid in enumerate(queries)]
    ap = [float(retrieval_average_precision(s, t)) for s, t in rows]
    assert found.mean_ap == pytest.approx(np.mean(ap), abs=1e-6)
    for k, value in ((1, found.r1), (5, found.r5), (10, found.r10)):
        assert value == pytest.approx(np.mean([float(retrieval_hit_rate(s, t, top_k=k)) for s, t in rows]))


def test_known_numbers() -> None:
    # The second and the fourth of five are right: AP = (1/2 + 2/4) / 2, INP = 2/4.
    found = rank_metrics(np.array([[5.0, 4.0, 3.0, 2.0, 1.0]]), [7], [1, 7, 2, 7, 3])
    assert found == RankMetrics(0.0, 1.0, 1.0, 0.5, 0.5, 1)


def test_queries_without_a_match_are_left_out_and_not_counted() -> None:
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.5, 0.6]])
    assert rank_metrics(scores, [1, 99, 2], [1, 2]) == RankMetrics(1.0, 1.0, 1.0, 1.0, 1.0, 2)


def test_ties_are_ranked_by_gallery_position() -> None:
    assert rank_metrics(np.zeros((1, 3)), [1], [1, 0, 0]).r1 == 1.0
    assert rank_metrics(np.zeros((1, 3)), [1], [0, 0, 1]).mean_ap == pytest.approx(1 / 3)


def test_a_gallery_of_one_picture() -> None:
    assert rank_metrics(np.array([[-0.3]]), ["a"], ["a"]) == RankMetrics(1.0, 1.0, 1.0, 1.0, 1.0, 1)


def test_pids_may_be_words() -> None:
    assert rank_metrics(np.array([[0.1, 0.9]]), ["anna"], ["bert", "anna"]).r1 == 1.0


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(broken: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity: check the embeddings"):
        rank_metrics(np.array([[0.1, broken]]), [1], [1, 1])


def test_shapes_that_do_not_agree_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \(queries, gallery\) = \(2, 3\), not \(3, 2\)"):
        rank_metrics(np.zeros((3, 2)), [1, 2], [1, 2, 3])


@pytest.mark.parametrize("cells", [1, 100, 320, 1_000_000])
def test_in_chunks_of_any_size_the_same_comes_out(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    queries, gallery = rng.integers(0, 30, 50), rng.integers(0, 20, 40)  # some chunks hold no match at all
    scores = rng.normal(size=(50, 40)).round(1)
    whole = rank_metrics(scores, queries, gallery)
    monkeypatch.setattr(metrics, "CELLS", cells)
    assert rank_metrics(scores, queries, gallery) == whole


@pytest.mark.parametrize("seed", range(20))
def test_of_embeddings_the_same_comes_out_as_of_their_scores(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both directions; several captions describe one picture, some none; all are whole numbers, so scores tie."""
    rng = np.random.default_rng(seed)
    pids, captioned = rng.integers(0, 9, 1 + seed), rng.integers(0, 9, 30)
    images, texts = (rng.integers(-2, 3, (len(each), 4)).astype(np.float32) for each in (pids, captioned))
    monkeypatch.setattr(metrics, "CELLS", 1 + 7 * seed)
    for one, other, asked, held in ((texts, images, captioned, pids), (images, texts, pids, captioned)):
        if set(asked.tolist()) & set(held.tolist()):
            expected = brute_force((one @ other.T).astype(np.float64), asked.tolist(), held.tolist())
            assert_same(rank_metrics_of(one, other, asked, held), expected)


def test_a_picture_finds_all_of_its_captions() -> None:
    captions = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    found = rank_metrics_of(np.array([[1.0, 0.0]]), captions, [4], [4, 5, 4])
    assert found == RankMetrics(1.0, 1.0, 1.0, pytest.approx((1 + 2 / 3) / 2), pytest.approx(2 / 3), 1)


def test_embeddings_that_do_not_fit_are_refused() -> None:
    rows = np.eye(3)
    with pytest.raises(ValueError, match=r"must be \(queries, E\) and \(gallery, E\), not \(3, 2\) and \(3, 3\)"):
        rank_metrics_of(rows[:, :2], rows, [1, 2, 3], [1, 2, 3])
    with pytest.raises(ValueError, match="3 queries and 3 gallery rows came with"):
        rank_metrics_of(rows, rows, [1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="NaN or infinity"):
        rank_metrics_of(rows * np.nan, rows, [1, 2, 3], [1, 2, 3])
