"""Logistic regression: scikit-learn's optimum, whatever the data look like."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from clipaudit.config import AuditConfig
from clipaudit.errors import ClipAuditError
from clipaudit.estimates import InMemory, Problem
from clipaudit.estimates.curvature import sample_size
from clipaudit.estimates.induced import _stratified, fit
from clipaudit.estimates.logistic import LogisticModel, fit_logistic_regression


def clip_like(
    n: int, d: int, k: int, seed: int, *, noise: float = 0.2, imbalance: float = 1.0, separation: float = 0.6
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit rows in a narrow cone around one direction, as CLIP gives them, with wrong labels."""
    generator = torch.Generator().manual_seed(seed)
    shares = imbalance ** torch.linspace(0, -1, k)
    labels = torch.multinomial(shares, n, replacement=True, generator=generator)
    means = torch.randn(k, d, generator=generator) / math.sqrt(d)
    spread = torch.linspace(2, 0.2, d) / math.sqrt(d)
    x = 1.2 * torch.eye(d)[0] + separation * means[labels] + 0.8 * spread * torch.randn(n, d, generator=generator)
    wrong = torch.rand(n, generator=generator) < noise
    labels = torch.where(wrong, torch.randint(0, k, (n,), generator=generator), labels)
    return torch.nn.functional.normalize(x, dim=1), labels


def fitted(x: torch.Tensor, y: torch.Tensor, k: int, **options: Any) -> LogisticModel:
    return fit_logistic_regression(InMemory(x), y, k, **options)


def largest_difference(
    x: torch.Tensor, y: torch.Tensor, k: int, *, c: float = 1.0, balanced: bool = True, **options: int
) -> float:
    model = fitted(x, y, k, c=c, balanced=balanced, **options)
    assert model.converged
    weights = "balanced" if balanced else None
    reference = LogisticRegression(C=c, class_weight=weights, tol=1e-8, max_iter=10000).fit(x.double(), y)
    expected = np.zeros((len(y), k))
    expected[:, reference.classes_] = reference.predict_proba(x.double())
    return float(np.abs(model.log_proba(x).exp().numpy() - expected).max())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("n", "d", "k"), [(1500, 64, 2), (1500, 64, 3), (900, 128, 10), (3000, 48, 200), (80, 300, 4)])
def test_probabilities_are_scikit_learns(n: int, d: int, k: int, seed: int) -> None:
    assert largest_difference(*clip_like(n, d, k, seed), k) <= 1e-3


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_penalty_and_weights_are_scikit_learns(c: float, balanced: bool) -> None:
    x, y = clip_like(1500, 48, 6, 3, imbalance=50)
    assert largest_difference(x, y, 6, c=c, balanced=balanced) <= 1e-3


@pytest.mark.parametrize("balanced", [True, False])
def test_one_sample_against_thousands(balanced: bool) -> None:
    x, y = clip_like(3000, 32, 2, 4)
    y[:] = 0
    y[7], y[11:40] = 2, 1
    assert largest_difference(x, y, 3, balanced=balanced) <= 1e-3


@pytest.mark.parametrize("c", [1.0, 1e4])
def test_separable_data(c: float) -> None:
    x, y = clip_like(1000, 32, 5, 5, noise=0, separation=6)
    assert largest_difference(x, y, 5, c=c) <= 1e-3


def test_duplicates_and_constant_columns() -> None:
    x, y = clip_like(300, 16, 3, 6)
    x = torch.cat([x, x, torch.zeros_like(x[:10]) + 0.25])
    y = torch.cat([y, y, torch.zeros_like(y[:10])])
    x[:, 4] = 0.1
    assert largest_difference(x, y, 3) <= 1e-3


def test_gaps_in_class_ids_have_probability_zero() -> None:
    x, y = clip_like(400, 16, 3, 7)
    assert largest_difference(x, y * 4 + 1, 12) <= 1e-3
    log_p = fitted(x, y * 4 + 1, 12).log_proba(x)
    assert torch.isneginf(log_p[:, [0, 2, 3, 11]]).all()
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(400))


def test_a_single_class_is_certain() -> None:
    x, _ = clip_like(20, 8, 2, 8)
    log_p = fitted(x, torch.full((20,), 3), 5).log_proba(x)
    assert (log_p[:, 3] == 0).all()


@pytest.mark.parametrize("chunk_rows", [1, 7, 256, 10_000])
def test_chunks_and_half_precision_storage_change_nothing(chunk_rows: int) -> None:
    x, y = clip_like(300, 16, 4, 9)
    whole = fitted(x.half(), y, 4).log_proba(x)
    parts = fitted(x.half(), y, 4, chunk_rows=chunk_rows).log_proba(x)
    torch.testing.assert_close(whole.exp(), parts.exp(), atol=5e-4, rtol=0)
    assert largest_difference(x.half(), y, 4, chunk_rows=chunk_rows) <= 1e-3


def test_a_start_elsewhere_ends_at_the_same_optimum() -> None:
    x, y = clip_like(1000, 24, 5, 10)
    other = fitted(*clip_like(1000, 24, 5, 11), 5)
    cold, warm = fitted(x, y, 5), fitted(x, y, 5, initial=other)
    torch.testing.assert_close(cold.log_proba(x).exp(), warm.log_proba(x).exp(), atol=5e-4, rtol=0)
    again = fitted(x, y, 5, initial=cold)
    assert again.n_iterations < cold.n_iterations


def test_the_same_call_gives_the_same_bits() -> None:
    x, y = clip_like(500, 24, 5, 12)
    first, second = fitted(x, y, 5), fitted(x, y, 5)
    assert torch.equal(first.weight, second.weight)


def test_running_out_of_steps_is_reported() -> None:
    x, y = clip_like(500, 24, 5, 13)
    assert not fitted(x, y, 5, max_iterations=2).converged


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_embeddings_that_are_not_finite_are_named(value: float) -> None:
    x, y = clip_like(100, 8, 3, 14)
    x[42, 3] = value
    with pytest.raises(ClipAuditError, match="embedding 42 is not finite"):
        fitted(x, y, 3)


@pytest.mark.parametrize("balanced", [True, False])
def test_a_stratified_sample_stands_for_all(balanced: bool) -> None:
    x, y = clip_like(40_000, 24, 4, 8, imbalance=30)
    problem = Problem(InMemory(x), y, 4, x[:0], (), AuditConfig(balanced=balanced))
    some, all_of_them = (
        fit(replace(problem, config=problem.config.with_changes(fit_samples=n))).log_proba(x, y).exp()
        for n in (4_000, 0)
    )
    assert 0 < (some - all_of_them).abs().max() < 1e-2


@pytest.mark.parametrize("balanced", [True, False])
def test_counts_make_a_sample_weigh_as_much_as_all(balanced: bool) -> None:
    x, y = clip_like(3_000, 24, 4, 9, imbalance=30)
    twice = torch.bincount(y) * torch.tensor([1, 2, 2, 5])
    rows = torch.cat([torch.arange(len(y))[y == k].repeat(times) for k, times in enumerate([1, 2, 2, 5])])
    drawn = fitted(x, y, 4, balanced=balanced, counts=twice)
    whole = fitted(x[rows], y[rows], 4, balanced=balanced)
    torch.testing.assert_close(drawn.log_proba(x).exp(), whole.log_proba(x).exp(), atol=1e-3, rtol=0)


def test_a_sample_tells_the_curvature_and_saves_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clip_like(40_000, 24, 4, 8, imbalance=30)
    assert sample_size(len(y), 24, 4) > 0
    fewer = fitted(x, y, 4)
    monkeypatch.setattr("clipaudit.estimates.logistic.sample_size", lambda *sizes: 0)
    usual = fitted(x, y, 4)
    assert fewer.n_iterations < usual.n_iterations
    torch.testing.assert_close(fewer.log_proba(x).exp(), usual.log_proba(x).exp(), atol=5e-4, rtol=0)


def test_small_classes_stay_whole_and_the_drawing_follows_keys() -> None:
    labels = torch.arange(4).repeat_interleave(torch.tensor([5, 3_000, 700, 6_000]))
    keys = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(labels)
    drawn = _stratified(labels, counts, 2_500, keys)
    assert torch.bincount(labels[drawn]).tolist() == [5, 897, 700, 897]
    assert keys[(labels == 1) & drawn].max() < keys[(labels == 1) & ~drawn].min()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    assert torch.equal(_stratified(labels[order], counts, 2_500, keys[order]), drawn[order])
