"""Losses on score matrices: pure functions of tensors, no I/O. Q queries (captions), N pictures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.02
EPSILON = 1e-8


def identity_targets(query_pids: Tensor, gallery_pids: Tensor) -> Tensor:
    """Target matrix (Q, N): 1 where caption and picture show the same person, else 0."""
    return (query_pids[:, None] == gallery_pids[None, :]).float()


def masked_sdm(
    scores: Tensor, targets: Tensor, *, weight: Tensor | None = None, temperature: float = TEMPERATURE
) -> Tensor:
    """Similarity distribution matching, both directions, over the pairs that are known.

    `scores` (Q, N) are cosines, `targets` (Q, N) 1 for a match and 0 else, `weight` (Q, N) from 0 to 1 how sure that
    is (by default 1). It multiplies a pair's share of both distributions, so one of weight 0, where nobody can say
    whether it matches, leaves the softmax altogether and is neither positive nor negative. Rows (for the other
    direction columns) without a positive have no target distribution and are left out. Targets are normalised per
    row: label / sum over the row, which is right for matrices that are not symmetric too. KL(p || q) with
    p = softmax(scores / temperature), q = targets, epsilon 1e-8 (IRRA, arXiv 2303.12501, eq. 4-6; UP-Person uses it
    alone). Returns the sum of both directions' means.
    """
    weight = torch.ones_like(targets) if weight is None else weight
    return _match(scores, targets, weight, temperature) + _match(scores.T, targets.T, weight.T, temperature)


def _match(scores: Tensor, targets: Tensor, weight: Tensor, temperature: float) -> Tensor:
    targets = targets * weight
    rows = targets.sum(dim=1) > 0
    if not bool(rows.any()):
        return scores.sum() * 0.0
    scores, targets, weight = scores[rows], targets[rows], weight[rows]
    known = weight > 0
    logits = (scores / temperature + weight.log()).masked_fill(~known, -torch.inf)
    log_p = F.log_softmax(logits, dim=1).masked_fill(~known, 0.0)
    p = log_p.exp() * known
    log_q = torch.log(targets / targets.sum(dim=1, keepdim=True) + EPSILON)
    return (p * (log_p - log_q)).sum(dim=1).mean()


def negative_only_loss(
    scores: Tensor, misses: Tensor, threshold: Tensor, *, temperature: float = TEMPERATURE
) -> Tensor:
    """Push down the misses of captions that have no hit to rank above them.

    `scores` is (Q, N), `misses` (Q, N) what each counts, 0 where there is none, `threshold` (Q,) the score that a
    caption's misses had before training, in the mean. Returns the weighted mean of
    softplus((score - threshold) / temperature), 0 without any miss. Differentiable.
    """
    over = F.softplus((scores - threshold[:, None]) / temperature)
    return (over * misses).sum() / misses.sum().clamp(min=EPSILON)


def person_loss(rows: Tensor, relation: Tensor, *, temperature: float = 0.05) -> Tensor:
    """Bring pictures of one person together: SDM among pictures, over the pairs whose relation is known.

    `rows` (P, E) are unit rows of pictures, `relation` (P, P) is 1 for one person, -1 for two people and 0 where
    nobody can say; the diagonal is 0. Returns 0 where no two pictures show one person. Differentiable.
    """
    return masked_sdm(rows @ rows.T, (relation > 0).float(), weight=(relation != 0).float(), temperature=temperature)
