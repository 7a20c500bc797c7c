"""Masked SDM equals its definition written out in loops; unknown pairs leave no trace."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from train.losses import EPSILON, TEMPERATURE, identity_targets, masked_sdm, negative_only_loss, person_loss


def one_way(scores: Tensor, targets: Tensor, weight: Tensor, temperature: float) -> float:
    """KL(p || q), row by row, with nothing but loops: IRRA's equations 4 to 6, each pair by its weight."""
    rows = []
    for row in range(len(scores)):
        columns = [c for c in range(scores.shape[1]) if float(weight[row, c]) > 0]
        positives = sum(float(targets[row, c] * weight[row, c]) for c in columns)
        if positives == 0:
            continue
        parts = [float(weight[row, c]) * math.exp(float(scores[row, c]) / temperature) for c in columns]
        divergence = 0.0
        for column, part in zip(columns, parts, strict=True):
            p = part / sum(parts)
            q = float(targets[row, column] * weight[row, column]) / positives
            divergence += p * (math.log(p) - math.log(q + EPSILON)) if p > 0 else 0.0
        rows.append(divergence)
    return sum(rows) / len(rows) if rows else 0.0


def naive(scores: Tensor, targets: Tensor, weight: Tensor, temperature: float) -> float:
    there = one_way(scores, targets, weight, temperature)
    return there + one_way(scores.T, targets.T, weight.T, temperature)


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_definition_in_loops(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, pictures = 3 + seed % 4, 2 + seed % 5
    scores = torch.rand(queries, pictures, generator=generator, dtype=torch.float64) * 2 - 1
    targets = (torch.rand(queries, pictures, generator=generator) < 0.3).double()
    known = torch.rand(queries, pictures, generator=generator) < 0.7
    weight = known * torch.rand(queries, pictures, generator=generator, dtype=torch.float64)
    for temperature in (TEMPERATURE, 0.1, 1.0):
        found = float(masked_sdm(scores, targets, weight=weight, temperature=temperature))
        assert found == pytest.approx(naive(scores, targets, weight, temperature), rel=1e-9, abs=1e-12)


def test_targets_are_normalised_by_row_where_the_matrix_is_not_symmetric() -> None:
    # Query 0 matches two pictures, query 1 one: its picture is shared. Dividing by the wrong axis shows here.
    scores = torch.tensor([[0.5, 0.1, 0.3], [0.2, 0.4, 0.1]], dtype=torch.float64)
    targets = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    everything = torch.ones(2, 3)
    assert float(masked_sdm(scores, targets)) == pytest.approx(naive(scores, targets, everything, TEMPERATURE))
    assert float(masked_sdm(scores, targets)) == pytest.approx(float(masked_sdm(scores.T, targets.T)))


def test_scores_that_follow_the_targets_cost_nothing() -> None:
    targets = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert float(masked_sdm(targets, targets, temperature=0.02)) == pytest.approx(0.0, abs=1e-5)
    assert float(masked_sdm(1 - targets, targets, temperature=0.02)) > 10


def test_without_weights_everything_is_known() -> None:
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    targets = torch.eye(4, 6)
    assert torch.equal(masked_sdm(scores, targets), masked_sdm(scores, targets, weight=torch.ones(4, 6)))


def test_an_unknown_pair_has_no_gradient_and_its_score_no_effect() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = (torch.rand(6, 9, generator=generator) * 2 - 1).requires_grad_()
    targets = (torch.rand(6, 9, generator=generator) < 0.3).float()
    known = torch.rand(6, 9, generator=generator) < 0.6
    assert bool((targets.bool() & ~known).any())  # some matches are unknown, too
    loss = masked_sdm(scores, targets, weight=known.float(), temperature=1.0)
    loss.backward()
    assert scores.grad is not None
    assert (scores.grad[~known] == 0).all()
    assert (scores.grad[known & (targets * known).any(dim=1, keepdim=True)] != 0).all()

    moved = torch.where(known, scores.detach(), torch.full_like(scores, 0.999))
    assert torch.equal(masked_sdm(moved, targets, weight=known.float(), temperature=1.0), loss.detach())


def test_a_miss_is_pushed_down_and_a_hit_up() -> None:
    scores = torch.zeros(1, 3, requires_grad=True)
    masked_sdm(scores, torch.tensor([[1.0, 0.0, 0.0]]), weight=torch.tensor([[1.0, 1.0, 0.0]])).backward()
    assert scores.grad is not None
    hit, miss, unknown = scores.grad[0].tolist()
    assert hit < 0 < miss
    assert unknown == 0


def test_what_fewer_agree_on_moves_less() -> None:
    targets = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    scores = torch.zeros(1, 4, requires_grad=True)
    masked_sdm(scores, targets, weight=torch.tensor([[1.0, 0.25, 1.0, 0.25]]), temperature=1.0).backward()
    assert scores.grad is not None
    hit, doubted_hit, miss, doubted_miss = scores.grad[0].tolist()
    assert hit < doubted_hit < 0 < doubted_miss < miss


def test_rows_without_a_positive_are_left_out_of_the_mean() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.3]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    rows_only = masked_sdm(scores[:1], targets[:1])  # the column direction of one row says nothing: it is certain
    both = masked_sdm(scores, targets)
    first_column = masked_sdm(scores[:, :1].T, targets[:, :1].T)
    assert float(both) == pytest.approx(float(rows_only) + float(first_column))


def test_nothing_positive_is_no_loss_but_still_differentiable() -> None:
    scores = torch.rand(3, 4, requires_grad=True)
    loss = masked_sdm(scores, torch.zeros(3, 4))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert scores.grad is not None
    assert (scores.grad == 0).all()


def test_identity_targets_compare_every_caption_with_every_picture() -> None:
    found = identity_targets(torch.tensor([1, 2]), torch.tensor([2, 1, 1]))
    assert found.tolist() == [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]


# Misses without a hit


def test_misses_without_a_hit_are_pushed_down_from_where_they_were() -> None:
    scores = torch.tensor([[0.4, 0.1, 0.3], [0.2, 0.2, 0.2]], requires_grad=True)
    misses = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    loss = negative_only_loss(scores, misses, torch.tensor([0.3, 0.0]), temperature=0.1)
    assert float(loss.detach()) == pytest.approx((math.log1p(math.exp(1)) + 0.5 * math.log1p(math.exp(-2))) / 1.5)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad[0, 0] > scores.grad[0, 1] > 0
    assert (scores.grad[misses == 0] == 0).all()


def test_no_miss_alone_costs_nothing() -> None:
    scores = torch.rand(2, 3, requires_grad=True)
    loss = negative_only_loss(scores, torch.zeros(2, 3), torch.zeros(2))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert scores.grad is not None
    assert (scores.grad == 0).all()


# Pictures of one person


def relation_of(seed: int, pictures: int) -> Tensor:
    """A symmetric relation of pictures: 1, -1 or 0, the diagonal 0."""
    generator = torch.Generator().manual_seed(seed)
    upper = torch.randint(-1, 2, (pictures, pictures), generator=generator).triu(1)
    return upper + upper.T


@pytest.mark.parametrize("seed", range(10))
def test_person_loss_equals_the_definition_in_loops(seed: int) -> None:
    pictures = 3 + seed % 5
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(pictures, 6, generator=generator, dtype=torch.float64), dim=-1)
    relation = relation_of(seed, pictures)
    scores = torch.tensor([[float(a @ b) for b in rows] for a in rows], dtype=torch.float64)
    expected = naive(scores, (relation == 1).double(), (relation != 0).double(), 0.05)
    assert float(person_loss(rows, relation)) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    expected = naive(scores, (relation == 1).double(), (relation != 0).double(), 0.5)
    assert float(person_loss(rows, relation, temperature=0.5)) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_pictures_of_one_person_are_drawn_together_and_others_apart() -> None:
    rows = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [0.1, 1.0], [0.9, 0.9]]), dim=-1).requires_grad_()
    relation = torch.tensor([[0, 1, -1], [1, 0, 0], [-1, 0, 0]])
    loss = person_loss(rows, relation, temperature=1.0)
    loss.backward()
    assert rows.grad is not None
    with torch.no_grad():
        moved = torch.nn.functional.normalize(rows - 0.1 * rows.grad, dim=-1)
        assert float(moved[0] @ moved[1]) > float(rows[0] @ rows[1])
        assert float(moved[0] @ moved[2]) < float(rows[0] @ rows[2])


def test_pictures_of_which_nothing_is_known_do_not_move() -> None:
    rows = torch.nn.functional.normalize(torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    rows.requires_grad_()
    relation = torch.zeros(4, 4, dtype=torch.int8)
    relation[0, 1] = relation[1, 0] = 1
    relation[0, 2] = relation[2, 0] = -1
    person_loss(rows, relation).backward()
    assert rows.grad is not None
    assert (rows.grad[3] == 0).all()
    assert (rows.grad[0] != 0).any()


@pytest.mark.parametrize("value", [0, -1])
def test_without_two_pictures_of_one_person_there_is_no_loss(value: int) -> None:
    rows = torch.nn.functional.normalize(torch.rand(3, 4), dim=-1).requires_grad_()
    loss = person_loss(rows, torch.full((3, 3), value).fill_diagonal_(0))
    loss.backward()
    assert float(loss.detach()) == 0.0
    none = person_loss(torch.empty(0, 4, requires_grad=True), torch.empty(0, 0))
    assert float(none.detach()) == 0.0
