"""The label as evidence: P(k|x, y) from the noise transition matrix, and the matrix from EM."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipaudit.auditing.method import score
from clipaudit.config import AuditConfig
from clipaudit.estimates import InMemory, Transition, estimate, fit_transition

NOISE = torch.tensor([[0.9, 0.05, 0.05], [0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])


class Table:
    """P(k|x) from a table; the embeddings do not matter."""

    converged = True

    def __init__(self, p: Tensor, row_bytes: int = 24) -> None:
        self.log_p, self.row_bytes, self.most_rows = p.log(), row_bytes, 0

    def log_proba(self, embeddings: Tensor, rows: Tensor) -> Tensor:
        """(m, K) log P(k|x) of these rows."""
        self.most_rows = max(self.most_rows, len(rows))
        return self.log_p[rows]


def noisy_samples(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(n, 3) P(k|x) that hold, true classes drawn from them, and labels drawn by NOISE."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.softmax(2 * torch.randn(n, 3, generator=generator), 1)
    true = torch.multinomial(p, 1, generator=generator).squeeze(1)
    labels = torch.multinomial(NOISE[true], 1, generator=generator).squeeze(1)
    return p, true, labels


def test_a_label_weighs_as_much_as_bayes_theorem_says() -> None:
    p, _, labels = noisy_samples(50)
    found = Transition(Table(p), labels, NOISE + 1e-9).log_proba(torch.empty(50, 1), torch.arange(50)).exp()
    product = (p * NOISE.T[labels]).numpy()
    np.testing.assert_allclose(found, product / product.sum(1, keepdims=True), atol=1e-5)


def test_the_matrix_is_found_and_calibrates_the_probability_of_a_wrong_label() -> None:
    p, true, labels = noisy_samples(60_000)
    images = InMemory(torch.empty(60_000, 1))
    fitted = fit_transition(Table(p), images, labels, 3)
    np.testing.assert_allclose(fitted.matrix.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(fitted.matrix, NOISE, atol=0.03)
    (result,), *_ = estimate([fitted], images, labels)
    p_right = result.log_p_label.exp()
    for low in (0.1, 0.4, 0.7):
        among = (p_right >= low) & (p_right < low + 0.2)
        assert float((labels == true)[among].float().mean()) == pytest.approx(float(p_right[among].mean()), abs=0.03)
    # An estimate that needs much memory is asked for few rows at once.
    hungry = Table(p, row_bytes=10_000)
    torch.testing.assert_close(fit_transition(hungry, images, labels, 3).matrix, fitted.matrix, atol=1e-4, rtol=0)
    assert 0 < hungry.most_rows < 7_001


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 6), st.integers(1, 8), st.integers(0, 1_000))
def test_few_samples_absent_classes_and_certain_estimates_give_probabilities(k: int, n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    p = torch.softmax(100 * torch.randn(n, k, generator=generator), 1)
    p[:, 0] = 0  # As of a class that no fold has seen.
    p[:, 1] += 1e-3
    labels = torch.randint(0, k, (n,), generator=generator)
    fitted = fit_transition(Table(p), InMemory(torch.empty(n, 1)), labels, k)
    found = fitted.log_proba(torch.empty(n, 1), torch.arange(n)).exp()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert (fitted.matrix > 0).all()


def test_a_class_with_few_samples_borrows_the_common_rate_of_mistakes() -> None:
    p, _, labels = noisy_samples(3_000)
    four = torch.cat([p * 0.999, torch.full((3_000, 1), 0.001)], 1)
    rare = torch.tensor([[0.001, 0.001, 0.001, 0.997]])
    images, labels = InMemory(torch.empty(3_001, 1)), torch.cat([labels, labels[:1]])
    fitted = fit_transition(Table(torch.cat([four, rare])), images, labels, 4)
    # One sample of class 3, with another label: that does not make all labels of the class wrong.
    assert 0.4 < float(fitted.matrix[3, 3]) < 0.8


def test_one_sided_mistakes_are_found_where_the_estimates_alone_do_not_see_them() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(6_000) % 3
    spread = torch.nn.functional.normalize(torch.randn(6_000, 16, generator=generator), dim=1)
    images = torch.nn.functional.normalize(torch.eye(3, 16)[true] + 1.6 * spread, dim=1)
    swapped = (true == 1) & (torch.rand(6_000, generator=generator) < 0.5)
    labels = torch.where(swapped, 0, true)
    found = {}
    for transition in (False, True):
        config = AuditConfig(temperature=0.25, induced="joint", folds=5, transition=transition)
        scores = score(InMemory(images), labels, 3, torch.eye(3, 16), range(3), config)
        induced = scores.estimates[config.estimates[-1].name]
        judged_wrong = torch.from_numpy(induced.prediction) != labels
        found[transition] = float((judged_wrong == (labels != true)).float().mean())
    assert found[True] > found[False] + 0.02
