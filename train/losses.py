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
    scores: Tensor, targets: Tensor, *, known: Tensor | None = None, temperature: float = TEMPERATURE
) -> Tensor:
    """Similarity distribution matching, both directions, over the pairs that are known.

    `scores` (Q, N) are cosines, `targets` (Q, N) 1 for a match and 0 else, `known` (Q, N) False where nobody
    can say whether the pair matches: such a pair leaves the softmax altogether and is neither positive nor
    negative. Rows (for the other direction columns) without a positive have no target distribution and are
    left out. Targets are normalised per row: label / sum over the row, which is right for matrices that are not
    symmetric too. KL(p || q) with p = softmax(scores / temperature), q = targets, epsilon 1e-8
    (IRRA, arXiv 2303.12501, eq. 4-6; UP-Person uses it alone). Returns the sum of both directions' means.
    """
    known = torch.ones_like(targets, dtype=torch.bool) if known is None else known
    return _match(scores, targets, known, temperature) + _match(scores.T, targets.T, known.T, temperature)


def _match(scores: Tensor, targets: Tensor, known: Tensor, temperature: float) -> Tensor:
    targets = targets * known
    rows = targets.sum(dim=1) > 0
    if not bool(rows.any()):
        return scores.sum() * 0.0
    scores, targets, known = scores[rows], targets[rows], known[rows]
    logits = (scores / temperature).masked_fill(~known, -torch.inf)
    log_p = F.log_softmax(logits, dim=1).masked_fill(~known, 0.0)
    p = log_p.exp() * known
    log_q = torch.log(targets / targets.sum(dim=1, keepdim=True) + EPSILON)
    return (p * (log_p - log_q)).sum(dim=1).mean()


def misses_alone(scores: Tensor, misses: Tensor, threshold: Tensor, *, temperature: float = TEMPERATURE) -> Tensor:
    """Pushes down the misses of captions that have no hit to rank above them.

    `scores` and `misses` (bool) are (Q, N), `threshold` (Q,) the score that a caption's misses had before training, in
    the mean. Returns the mean of softplus((score - threshold) / temperature) over all misses, 0 without any.
    Differentiable.
    """
    over = F.softplus((scores - threshold[:, None]) / temperature)
    return (over * misses).sum() / misses.sum().clamp(min=1)
