"""The loss selector's mixtures: scikit-learn's optimum, monotone, and honest about what cannot be split."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from clipaudit.errors import ClipAuditError
from clipaudit.selectors.mixture import LossSplit, split_losses


def noisy_losses(n: int, k: int, seed: int, *, width: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Losses of k classes, a quarter of them of wrong labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, k, n)
    wrong = generator.random(n) < 0.25
    losses = np.abs(np.where(wrong, generator.normal(3, 1, n), generator.normal(0.2, width, n)))
    return losses, labels


def split(losses: np.ndarray, labels: np.ndarray, k: int, **options: int) -> LossSplit:
    return split_losses(torch.tensor(losses), torch.tensor(labels), k, **options)


def mean_log_likelihood(x: np.ndarray, weights: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> float:
    densities = np.exp(-(((x[:, None] - means) / deviations) ** 2) / 2) / (deviations * math.sqrt(2 * math.pi))
    return float(np.log(densities @ weights).mean())


@pytest.mark.parametrize(
    ("n", "k", "seed", "width"), [(4000, 10, 0, 0.3), (600, 2, 1, 0.05), (9000, 200, 2, 0.5), (900, 3, 3, 2.0)]
)
def test_the_likelihood_reaches_scikit_learns(n: int, k: int, seed: int, width: float) -> None:
    losses, labels = noisy_losses(n, k, seed, width=width)
    result = split(losses, labels, k)
    for name in range(0, k, max(1, k // 10)):
        x = losses[labels == name]
        low, spread = x.min(), np.ptp(x)
        scaled = (x - low) / spread
        reference = GaussianMixture(2, tol=1e-10, max_iter=10000, random_state=0).fit(scaled[:, None])
        ours = mean_log_likelihood(
            scaled,
            result.weights[name].numpy(),
            (result.means[name].numpy() - low) / spread,
            result.deviations[name].numpy() / spread,
        )
        assert ours >= reference.score(scaled[:, None]) - 1e-6


def test_from_the_same_start_the_parameters_are_scikit_learns() -> None:
    losses, labels = noisy_losses(3000, 5, 4)
    result = split(losses, labels, 5)
    for name in range(5):
        x = losses[labels == name]
        low, spread = x.min(), np.ptp(x)
        scaled = np.sort((x - low) / spread)
        costs = [scaled[:i].var() * i + scaled[i:].var() * (len(x) - i) for i in range(1, len(x))]
        border = int(np.argmin(costs)) + 1
        parts = (scaled[:border], scaled[border:])
        start = {
            "weights_init": [len(part) / len(x) for part in parts],
            "means_init": [[part.mean()] for part in parts],
            "precisions_init": [[[1 / (part.var() + 1e-6)]] for part in parts],
        }
        reference = GaussianMixture(2, tol=1e-10, max_iter=10000, **start).fit(scaled[:, None])
        order = reference.means_.ravel().argsort()
        np.testing.assert_allclose((result.means[name] - low) / spread, reference.means_.ravel()[order], atol=1e-4)
        np.testing.assert_allclose(result.weights[name], reference.weights_[order], atol=1e-4)
        deviations = np.sqrt(reference.covariances_.ravel()[order])
        np.testing.assert_allclose(result.deviations[name] / spread, deviations, atol=1e-4)
        expected = reference.predict_proba(((x - low) / spread)[:, None])[:, order[0]]
        np.testing.assert_allclose(result.raw_posterior[labels == name], expected, atol=1e-3)


def test_the_order_of_the_rows_does_not_matter_to_the_bit() -> None:
    losses, labels = noisy_losses(2000, 7, 5)
    shuffled = np.random.default_rng(0).permutation(2000)
    one, two = split(losses, labels, 7), split(losses[shuffled], labels[shuffled], 7)
    assert torch.equal(one.posterior[shuffled], two.posterior)
    assert torch.equal(one.means, two.means)


def test_groups_of_classes_change_nothing() -> None:
    losses, labels = noisy_losses(2000, 20, 6)
    labels[labels == 4] = 5  # An empty class.
    whole = split(losses, labels, 20)
    parts = split(losses, labels, 20, group_samples=150)
    torch.testing.assert_close(whole.posterior, parts.posterior, atol=1e-9, rtol=0)
    assert torch.equal(whole.abstained, parts.abstained)


def assert_monotone(result: LossSplit, losses: np.ndarray, labels: np.ndarray) -> None:
    for name in np.unique(labels):
        mine = labels == name
        ordered = result.posterior.numpy()[mine][np.argsort(losses[mine], kind="stable")]
        assert (np.diff(ordered) <= 0).all()


@settings(deadline=None)
@given(st.lists(st.floats(0, 50, width=32), min_size=1, max_size=80), st.integers(1, 4))
def test_a_smaller_loss_is_never_judged_dirtier(values: list[float], k: int) -> None:
    losses, labels = np.array(values), np.arange(len(values)) % k
    result = split(losses, labels, k)
    assert_monotone(result, losses, labels)
    assert ((result.posterior >= 0) & (result.posterior <= 1)).all()


@pytest.mark.parametrize(("narrow", "wide"), [(0.05, 2.0), (2.0, 0.05)])
def test_a_wide_component_does_not_win_on_both_sides(narrow: float, wide: float) -> None:
    generator = np.random.default_rng(7)
    losses = np.concatenate([generator.normal(10, narrow, 500), generator.normal(12, wide, 500)])
    labels = np.zeros(1000, np.int64)
    result = split(losses, labels, 1)
    order = losses.argsort()
    assert (np.diff(result.raw_posterior.numpy()[order]) > 0).any(), "the raw posterior was monotone by itself"
    assert_monotone(result, losses, labels)
    assert result.posterior[order[0]] > 0.5 > result.posterior[order[-1]]


def test_nothing_to_split_is_kept_and_said() -> None:
    losses = np.concatenate([np.full(50, 0.3), np.arange(5.0), noisy_losses(300, 1, 8)[0]])
    labels = np.repeat([0, 1, 3], [50, 5, 300])
    result = split(losses, labels, 5)
    assert result.abstained.tolist() == [True, True, True, False, True]
    assert (result.posterior[:55] == 1).all()
    assert (result.raw_posterior[:55] == 1).all()
    assert result.means.isnan().all(1).tolist() == [True, True, True, False, True]
    nothing = split(np.zeros(0), np.zeros(0, np.int64), 3)
    assert nothing.abstained.all()


@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (1e-6, 0.0), (1.0, 1e4), (1e6, -3.0)])
def test_units_do_not_matter(scale: float, shift: float) -> None:
    losses, labels = noisy_losses(1000, 3, 9)
    one, two = split(losses, labels, 3), split(losses * scale + shift, labels, 3)
    torch.testing.assert_close(one.posterior, two.posterior, atol=1e-4, rtol=0)
    torch.testing.assert_close(one.means * scale + shift, two.means, rtol=1e-4, atol=1e-4 * scale)


def test_one_far_outlier_does_not_break_a_class() -> None:
    losses, labels = noisy_losses(500, 1, 10)
    losses[3] = 1e8
    result = split(losses, labels, 1)
    assert torch.isfinite(result.posterior).all()
    assert result.posterior[3] < 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_losses_that_are_not_finite_are_named(value: float) -> None:
    losses, labels = noisy_losses(50, 2, 11)
    losses[17] = value
    with pytest.raises(ClipAuditError, match="sample 17 is not finite"):
        split(losses, labels, 2)
