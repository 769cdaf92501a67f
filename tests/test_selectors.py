"""The pure core: zero-shot, consistency, combination, fallback, clean score, neighbours, folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors
from vector_parts import InParts

from clipaudit.auditing.method import EstimateScores, decide, score
from clipaudit.config import PRESETS, AuditConfig, preset, votes_needed
from clipaudit.errors import UsageError
from clipaudit.estimates import InMemory, Problem, ZeroShot, estimate
from clipaudit.estimates.induced import FoldedLogistic, fit, stratified_folds
from clipaudit.estimates.joint import Joint
from clipaudit.estimates.neighbours import Neighbours
from clipaudit.selectors.combine import clean_scores, fallback, margins
from clipaudit.selectors.consistency import consistency
from clipaudit.vocabulary import ROLES


def unit_rows(n: int, d: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=generator), dim=1)


def logistic(
    images: torch.Tensor, labels: torch.Tensor, k: int, kept: torch.Tensor | None = None, **config: float
) -> FoldedLogistic:
    texts = torch.eye(k, images.shape[1])
    return fit(Problem(InMemory(images), labels, k, texts, range(k), AuditConfig(**config), kept=kept))


@pytest.mark.parametrize("temperature", [0.07, 0.01, 1.0])
def test_zero_shot_is_equation_4_with_a_mean(temperature: float) -> None:
    images, texts, owners = unit_rows(50, 16), unit_rows(7, 16, seed=1), [0, 0, 0, 1, 2, 2, 2]
    similarity = np.exp((images.double() @ texts.double().T).numpy() / temperature)
    s = np.stack([similarity[:, [j for j, owner in enumerate(owners) if owner == k]].mean(1) for k in range(3)], axis=1)
    log_p = ZeroShot(texts, owners, temperature).log_proba(images, torch.arange(50))
    np.testing.assert_allclose(log_p.exp(), s / s.sum(1, keepdims=True), atol=2e-5)


def test_zero_shot_does_not_favour_classes_with_more_prompts() -> None:
    text, images = unit_rows(1, 8, seed=2), unit_rows(20, 8)
    log_p = ZeroShot(text.repeat(5, 1), [0, 1, 1, 1, 1], 0.07).log_proba(images, torch.arange(20))
    np.testing.assert_allclose(log_p.exp(), 0.5, atol=1e-6)


def test_zero_shot_losses_stay_finite_at_small_temperatures() -> None:
    images = unit_rows(20, 4)
    log_p = ZeroShot(torch.cat([images[:1], -images[:1]]), [0, 1], 1e-3).log_proba(images, torch.arange(20))
    assert torch.isfinite(log_p).all()
    assert float(log_p.min()) < -500


def test_consistency_is_exactly_one_at_the_largest_probability() -> None:
    log_p = torch.log_softmax(torch.randn(1000, 10, generator=torch.Generator().manual_seed(0)) * 20, 1)
    log_p[:, 3] = log_p.max(1).values  # A tie is no doubt.
    c = consistency(log_p[:, 3].numpy(), log_p.max(1).values.numpy())
    assert (c == 1).all()


def test_chunks_do_not_change_an_estimate() -> None:
    embeddings, labels = unit_rows(301, 8).half(), torch.arange(301) % 3
    zero_shot = ZeroShot(unit_rows(3, 8, seed=1), [0, 1, 2], 0.07)
    whole = estimate([zero_shot], InMemory(embeddings), labels)
    parts = estimate([zero_shot], InParts([embeddings], most=10), labels)
    torch.testing.assert_close(whole[0][0].log_p_label, parts[0][0].log_p_label)
    assert torch.equal(whole[1], parts[1])


@pytest.mark.parametrize("most", [7, 64, 200])
def test_neighbours_agree_with_scikit_learn(most: int) -> None:
    embeddings = unit_rows(200, 6)
    labels = torch.randint(0, 4, (200,), generator=torch.Generator().manual_seed(0))
    log_p = Neighbours(InParts([embeddings], most), labels, 4, 10).log_proba(embeddings, torch.arange(200))
    _, nearest = NearestNeighbors(n_neighbors=11).fit(embeddings).kneighbors(embeddings)
    for row in range(200):
        votes = np.bincount(labels[nearest[row, 1:]], minlength=4)
        np.testing.assert_allclose(log_p[row].exp(), (votes + 0.25) / 11, rtol=1e-5)


def test_folds_are_stratified_and_judge_unseen_samples() -> None:
    labels = torch.randint(0, 5, (503,), generator=torch.Generator().manual_seed(0))
    keys, other_keys = (torch.randperm(503, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    folds = stratified_folds(labels, 4, keys)
    counts = np.array([[int(((folds == f) & (labels == k)).sum()) for f in range(4)] for k in range(5)])
    assert (counts.max(1) - counts.min(1) <= 1).all()
    assert not torch.equal(folds, stratified_folds(labels, 4, other_keys))
    shuffled = torch.randperm(503, generator=torch.Generator().manual_seed(3))
    assert torch.equal(folds[shuffled], stratified_folds(labels[shuffled], 4, keys[shuffled]))
    # Random labels cannot be predicted: only a model that has seen them finds them likely.
    embeddings = unit_rows(503, 200)
    means = []
    for number in (0, 4):
        fitted = logistic(embeddings, labels, 5, c=100, folds=number)
        log_p = fitted.log_proba(embeddings, torch.arange(503))
        means.append(float(log_p.exp().gather(1, labels[:, None]).mean()))
    assert means[0] > 0.5
    assert means[1] < 0.3


def test_the_joint_estimate_is_the_normalised_product() -> None:
    images, texts, labels = unit_rows(60, 16), unit_rows(4, 16, seed=1), torch.arange(60) % 4
    zero_shot, fitted = ZeroShot(texts, range(4), 0.1), logistic(images, labels, 4)
    rows = torch.arange(60)
    product = (zero_shot.log_proba(images, rows).exp() * fitted.log_proba(images, rows).exp()).numpy()
    found = Joint(zero_shot, fitted).log_proba(images, rows).exp()
    np.testing.assert_allclose(found, product / product.sum(1, keepdims=True), atol=1e-6)


def test_a_model_is_fitted_on_the_kept_samples_alone() -> None:
    images, labels = unit_rows(300, 16), torch.randint(0, 3, (300,), generator=torch.Generator().manual_seed(0))
    kept, rows = torch.arange(300) % 3 != 0, torch.arange(300)
    masked = logistic(images, labels, 3, kept=kept).log_proba(images, rows)
    alone = logistic(images[kept], labels[kept], 3).log_proba(images, rows)
    assert torch.equal(masked, alone)
    folds = stratified_folds(labels, 3, torch.arange(300))
    judged = logistic(images, labels, 3, folds=3, kept=kept).log_proba(images, rows)
    for number in range(3):
        others, mine = (folds != number) & kept, folds == number
        alone = logistic(images[others], labels[others], 3).log_proba(images[mine], rows[mine])
        torch.testing.assert_close(judged[mine], alone, atol=1e-3, rtol=0)


@pytest.mark.parametrize("folds", [0, 3])
def test_a_second_round_learns_from_the_labels_that_the_first_agreed_with(folds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(900) % 3
    images = torch.nn.functional.normalize(torch.eye(3, 16)[true] + 0.25 * unit_rows(900, 16), dim=1)
    labels = torch.where(torch.rand(900, generator=generator) < 0.4, (true + 1) % 3, true)
    texts, wrong = unit_rows(3, 16, seed=2), (labels != true).numpy()
    doubt = []
    for rounds in (1, 2):
        config = AuditConfig(rounds=rounds, folds=folds)
        scores = score(InMemory(images), labels, 3, texts, range(3), config).estimates[config.estimates[-1].name]
        doubt.append(float(scores["p_label"][wrong].mean()))
    assert doubt[1] < doubt[0] / 2
    assert (scores.prediction[wrong] != labels.numpy()[wrong]).mean() > 0.99


@given(arrays(np.float64, 50, elements=st.floats(0, 1)), st.floats(0, 1))
def test_margins_move_the_threshold_to_one_half(values: np.ndarray, threshold: float) -> None:
    moved = margins(values, threshold)
    assert ((moved >= 0.5) == (values >= threshold)).all()
    assert ((moved >= 0) & (moved <= 1)).all()
    order = np.argsort(values)
    assert (np.diff(moved[order]) >= 0).all()


@given(arrays(np.float64, (4, 30), elements=st.floats(0, 1)), st.integers(1, 4))
def test_clean_score_agrees_with_the_votes(values: np.ndarray, votes: int) -> None:
    score = clean_scores(values, votes)
    assert ((score >= 0.5) == ((values >= 0.5).sum(0) >= votes)).all()
    assert ((score >= 0) & (score <= 1)).all()


@pytest.mark.parametrize(
    ("combine", "n", "votes"),
    [
        ("intersection", 4, 4),
        ("union", 4, 1),
        ("majority", 4, 3),
        ("majority", 3, 2),
        ("2-of-4", 4, 2),
        ("1-of-1", 1, 1),
    ],
)
def test_combinations(combine: str, n: int, votes: int) -> None:
    assert votes_needed(combine, n) == votes


@pytest.mark.parametrize("combine", ["", "all", "5-of-4", "0-of-4", "2-of-3", "x-of-4"])
def test_unknown_combinations_are_refused(combine: str) -> None:
    with pytest.raises(UsageError):
        votes_needed(combine, 4)


@given(st.data(), st.integers(2, 6), st.integers(1, 60))
def test_fallback_rescues_the_best_of_empty_classes_only(data: st.DataObject, k: int, n: int) -> None:
    labels = data.draw(arrays(np.int64, n, elements=st.integers(0, k - 1)))
    clean = data.draw(arrays(np.bool_, n))
    p = data.draw(arrays(np.float32, n, elements=st.floats(0, 1, width=32)))
    rescued = fallback(clean, labels, k, p)
    quota = max(1, n // k**2)
    for name in range(k):
        mine = labels == name
        if clean[mine].any():
            assert not rescued[mine].any()
        else:
            assert rescued[mine].sum() == min(quota, mine.sum())
            if rescued[mine].any() and not rescued[mine].all():
                assert p[mine & rescued].min() >= p[mine & ~rescued].max()


def _scores(values: np.ndarray, losses: np.ndarray) -> EstimateScores:
    p = values.astype(np.float32)
    scores = {"p_label": p, "p_max": np.ones_like(p), "consistency": values, "loss": losses}
    posteriors = {"posterior": 1 - losses, "raw_posterior": 1 - losses}
    return EstimateScores(np.zeros(len(p), np.int64), scores | posteriors)


@given(st.data(), st.sampled_from(["intersection", "union", "majority", "2-of-4"]))
def test_selected_samples_rank_above_rejected_ones(data: st.DataObject, combine: str) -> None:
    draw = [data.draw(arrays(np.float64, 40, elements=st.floats(0, 1))) for _ in range(4)]
    estimates = {"zero_shot": _scores(draw[0], draw[1]), "logistic": _scores(draw[2], draw[3])}
    labels = np.arange(40) % 3
    decision = decide(estimates, labels, 3, AuditConfig(combine=combine))
    flags = np.stack([decision.verdicts[name] for name in decision.verdicts])
    selected = flags.sum(0) >= votes_needed(combine, 4)
    assert (decision.is_clean == (selected | decision.fallback)).all()
    assert not (selected & decision.fallback).any()
    if selected.any() and not selected.all():
        assert decision.clean_score[selected].min() > decision.clean_score[~selected].max()
    assert set(labels[decision.is_clean]) == {0, 1, 2}


@given(st.data())
def test_ranking_by_probability_orders_each_side_and_moves_nobody(data: st.DataObject) -> None:
    draw = [data.draw(arrays(np.float64, 40, elements=st.floats(0, 1))) for _ in range(4)]
    estimates = {"zero_shot": _scores(draw[0], draw[1]), "logistic": _scores(draw[2], draw[3])}
    labels = np.zeros(40, np.int64)
    by_margins = decide(estimates, labels, 1, AuditConfig())
    decision = decide(estimates, labels, 1, AuditConfig(ranking="probability"))
    assert (decision.is_clean == by_margins.is_clean).all()
    for side in (decision.clean_score >= 0.5, decision.clean_score < 0.5):
        by_score = np.argsort(decision.clean_score[side], kind="stable")
        assert (np.diff(draw[3][side][by_score]) <= 1e-9).all()


def test_subsets_of_selectors_vote_alone() -> None:
    values = np.array([1.0, 0.4, 1.0])
    estimates = {"zero_shot": _scores(values, np.zeros(3)), "logistic": _scores(np.zeros(3), np.ones(3))}
    decision = decide(estimates, np.array([0, 0, 1]), 2, AuditConfig(selectors=("zero_shot_consistency",)))
    assert decision.is_clean.tolist() == [True, False, True]


HUGE = 10**5000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature must be 'model' or a number from 0.0001 to 10000, not 0.0"),
        ({"temperature": "warm"}, "temperature must be 'model' or a number"),
        ({"c": -1.0}, "c must be a number from 1e-06 to 10000, not -1.0"),
        ({"folds": 1}, "folds must be 0 or a whole number from 2 to 20, not 1"),
        ({"folds": -HUGE}, "folds must be .* not a very large int"),
        ({"neighbours": 0, "induced": "neighbours"}, "neighbours must be a whole number from 1 to 1,000,000, not 0"),
        ({"rounds": 2, "induced": "neighbours"}, "rounds would have no effect"),
        ({"neighbours": 7}, "neighbours would have no effect: the induced estimate 'logistic' does not look at it"),
        ({"c": 2.0, "folds": 3, "induced": "neighbours"}, "c, folds would have no effect"),
        ({"seed": -1}, "seed must be a whole number from 0 to 9,223,372,036,854,775,807, not -1"),
        ({"theta_loss": 1.5}, r"theta_loss must be a number from 0 to 1, not 1.5"),
        ({"selectors": ("zero_shot",)}, "unknown selector 'zero_shot'"),
        ({"selectors": ()}, "name each selector once"),
        ({"selectors": ROLES[:1] * 2}, "name each selector once"),
        ({"selectors": ([],)}, "unknown selector"),
        ({"selectors": 4}, "unknown selector 4"),
        ({"induced": "forest"}, "unknown induced estimate 'forest'"),
        ({"induced": None}, "unknown induced estimate None"),
        ({"combine": "2-of-3"}, "does not fit"),
        ({"combine": "9" * 5000 + "-of-4"}, "unknown combination"),
        ({"ranking": "loss"}, "unknown ranking"),
        ({"balanced": "no"}, "balanced must be True or False"),
    ],
)
def test_meaningless_configurations_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AuditConfig(**changes)


def test_numbers_of_numpy_are_numbers() -> None:
    config = AuditConfig(folds=np.int64(5), c=np.float32(2), seed=np.uint8(3), balanced=np.bool_(False))
    assert config == AuditConfig(folds=5, c=2.0, seed=3, balanced=False)
    assert AuditConfig(selectors="induced_loss") == AuditConfig(selectors=("induced_loss",))


def test_a_change_without_effect_is_refused_and_what_it_puts_aside_forgotten() -> None:
    recommended = preset("recommended")
    neighbours = recommended.with_changes(induced="neighbours", neighbours=20)
    assert (neighbours.c, neighbours.folds, neighbours.rounds) == (1.0, 0, 1)
    with pytest.raises(UsageError, match="c would have no effect"):
        AuditConfig().with_changes(induced="neighbours", c=1.0)
    # An index that was written before such options were refused stays readable.
    assert AuditConfig.from_dict({"induced": "neighbours", "folds": 5}) == AuditConfig(induced="neighbours")


def test_configurations_survive_a_round_trip() -> None:
    config = AuditConfig(theta_loss=0.7, selectors=ROLES[:2], combine="union", temperature="model")
    assert AuditConfig.from_dict(config.to_dict()) == config
    assert preset("cifar").theta_consistency == 0.8
    for name in PRESETS:
        assert AuditConfig.from_dict(preset(name).to_dict()) == preset(name)
    with pytest.raises(UsageError, match="unknown preset"):
        preset("imagenet")
