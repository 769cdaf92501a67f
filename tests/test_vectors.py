"""The boundary between estimates and arrays: vectors that lie elsewhere give the same results; estimates by name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from vector_parts import InParts

from clipaudit.auditing.method import Scores, score
from clipaudit.config import AuditConfig
from clipaudit.errors import ClipAuditError
from clipaudit.estimates import InMemory, Problem, Vectors, ZeroShot, estimate
from clipaudit.estimates.joint import Joint
from clipaudit.estimates.logistic import fit_logistic_regression
from clipaudit.estimates.off_topic import off_topic
from clipaudit.vocabulary import ESTIMATES

N, D, K = 900, 24, 4


def samples(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(n, d) float16 unit rows, (n,) labels of which a fifth are wrong, and (K, d) prompts."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.arange(N) % K
    texts = torch.eye(K, D)
    spread = 0.25 * torch.randn(N, D, generator=generator)
    images = torch.nn.functional.normalize(texts[true] + spread, dim=1).half()
    wrong = torch.rand(N, generator=generator) < 0.2
    return images, torch.where(wrong, (true + 1) % K, true), texts


def in_parts(images: Tensor) -> InParts:
    """Parts of odd sizes: one of them empty, one in single precision."""
    first, second, third, fourth = images.split([301, 0, 7, len(images) - 308])
    return InParts([first, second, third.float(), fourth])


@pytest.mark.parametrize(
    "config",
    [
        AuditConfig(),
        AuditConfig(folds=3, rounds=2),
        AuditConfig(induced="joint", folds=3, rounds=2, transition=True),
        AuditConfig(induced="neighbours", neighbours=9, transition=True),
    ],
    ids=["paper", "folds and rounds", "joint, folds, rounds and transition", "neighbours and transition"],
)
def test_where_the_vectors_lie_makes_no_difference(config: AuditConfig) -> None:
    images, labels, texts = samples()
    keys = torch.randperm(N, generator=torch.Generator().manual_seed(1))

    def scored(vectors: Vectors) -> Scores:
        return score(vectors, labels, K, texts, range(K), config, keys=keys)

    whole, parts = scored(InMemory(images)), scored(in_parts(images))
    assert whole.converged
    assert parts.converged
    np.testing.assert_array_equal(parts.suggested, whole.suggested)
    np.testing.assert_allclose(parts.suggested_probability, whole.suggested_probability, atol=1e-3)
    for name, expected in whole.estimates.items():
        found = parts.estimates[name]
        np.testing.assert_array_equal(found.prediction, expected.prediction)
        np.testing.assert_allclose(found["p_label"], expected["p_label"], atol=1e-3)
        np.testing.assert_allclose(found["posterior"], expected["posterior"], atol=1e-2)


@pytest.mark.parametrize(
    "config", [AuditConfig(folds=3, rounds=2), AuditConfig(induced="neighbours", neighbours=9)], ids=["folds", "votes"]
)
def test_a_mask_gives_the_bits_that_a_copy_gives(config: AuditConfig) -> None:
    images, labels, texts = samples()
    rows = torch.arange(N)[torch.arange(N) % 7 != 3]
    masked, copied = (
        score(vectors, labels[rows], K, texts, range(K), config)
        for vectors in (InMemory(images, rows), InMemory(images[rows]))
    )
    np.testing.assert_array_equal(masked.suggested_probability, copied.suggested_probability)
    for name, expected in copied.estimates.items():
        for column, values in expected.scores.items():
            np.testing.assert_array_equal(masked.estimates[name][column], values)


def test_a_subset_of_a_subset_is_numbers_of_rows_beside_the_same_memory() -> None:
    images = samples()[0].float()
    chosen = InMemory(images).subset(torch.arange(0, N, 3)).subset(torch.arange(10, 20))
    images[30] = 7
    ((_, chunk),) = chosen.chunks(100)
    assert torch.equal(chunk, images[30:60:3])
    assert torch.equal(chosen.take(torch.tensor([0, 9])), images[[30, 57]])


def test_logistic_regression_is_the_same_in_parts_down_to_its_steps() -> None:
    images, labels, _ = samples()
    whole = fit_logistic_regression(InMemory(images), labels, K)
    # One chunk a part and one in all differ in the order of their sums, and so in the last bits.
    parts = fit_logistic_regression(in_parts(images), labels, K)
    torch.testing.assert_close(parts.weight, whole.weight, atol=1e-4, rtol=1e-4)
    assert parts.n_iterations == whole.n_iterations


def test_a_vector_that_is_not_finite_is_named_by_its_row_in_all_parts() -> None:
    images, labels, _ = samples()
    images[305, 3] = torch.nan
    with pytest.raises(ClipAuditError, match="embedding 305 is not finite"):
        fit_logistic_regression(in_parts(images), labels, K, chunk_rows=4)


def test_memory_is_not_copied_by_chunks_and_gives_rows_by_number() -> None:
    images = samples()[0].float()
    vectors, rows = InMemory(images), torch.tensor([0, 3, 307, 899])
    assert all(chunk.data_ptr() == images[part].data_ptr() for part, chunk in vectors.chunks(100))
    for held in (vectors, in_parts(images)):
        assert (len(held), held.dimension) == (N, D)
        assert torch.equal(held.take(rows), images[rows])
        ((part, chunk),) = [pair for pair in held.subset(rows).chunks(10) if pair[0].stop == 4]
        assert torch.equal(chunk, images[rows][part])


def test_no_pass_asks_for_more_of_the_matrix_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels, texts = samples()
    most = 1 << 14
    monkeypatch.setattr("clipaudit.estimates.base.CHUNK_BYTES", most)
    asked: list[int] = []

    class Watched(InMemory):
        def chunks(self, rows: int) -> Iterator[tuple[slice, Tensor]]:
            asked.append(rows)
            return super().chunks(rows)

    vectors, confirmed = Watched(images), np.arange(N) % 4 != 0
    estimate([ZeroShot(texts, range(K), 0.07)], vectors, labels)
    off_topic(vectors, texts, range(K), torch.eye(9, D).flip(1), 0.01, confirmed)
    assert len(asked) > 4
    assert max(asked) * 4 * D <= most


def test_an_estimate_is_made_once_and_again_only_where_other_samples_are_kept() -> None:
    images, labels, texts = samples()
    problem = Problem(InMemory(images), labels, K, texts, range(K), AuditConfig())
    made = {name: problem.estimator(term) for name, term in ESTIMATES.items()}
    joint = made["joint"]
    assert problem.estimator(ESTIMATES["joint"]) is joint
    assert isinstance(joint, Joint)
    assert (joint.first, joint.second) == (made["zero_shot"], made["logistic"])
    later = problem.keeping(torch.arange(N) % 2 == 0)
    same = {name for name in made if later.estimator(ESTIMATES[name]) is made[name]}
    assert same == {name for name, term in ESTIMATES.items() if "rounds" not in term.options}
    assert {"zero_shot", "neighbours"} <= same
