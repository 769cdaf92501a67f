"""The pure core of `review` and `estimate`: draws with known chances, curves, intervals that cover."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipaudit.certainty.classes import wrong_by_class
from clipaudit.certainty.curve import fit_curve, positions
from clipaudit.certainty.sampling import chances, strata, systematic
from clipaudit.certainty.survey import Marks, Surveyed, binned, draw, survey, wrong_by_bin
from clipaudit.certainty.thresholds import (
    Unshown,
    best_f1,
    for_precision,
    for_recall,
    interval,
    reach,
)

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=60).map(np.array)


def unmarked(n: int) -> Marks:
    return Marks(*np.zeros((5, n), bool))


def marked(wrong: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> Marks:
    said_wrong, said_right, nobody = np.zeros((3, len(wrong)), bool)
    said_wrong[rows[wrong[rows]]] = True
    said_right[rows[~wrong[rows]]] = True
    return Marks(said_wrong, said_right, nobody, nobody, nobody)


@given(spread=SHARES, data=st.data())
def test_every_sample_has_a_chance_and_the_chances_sum_to_the_budget(spread: Any, data: st.DataObject) -> None:
    budget = data.draw(st.integers(1, len(spread)))
    chance = chances(spread, budget)
    assert chance.sum() == pytest.approx(budget)
    assert (chance > 0).all()
    assert (chance <= 1 + 1e-12).all()
    order = np.argsort(spread, kind="stable")
    assert (np.diff(chance[order]) >= -1e-12).all(), "a less certain label has no smaller chance"
    rows = systematic(chance, order, np.random.default_rng(0))
    assert len(rows) == budget
    assert len(set(rows.tolist())) == budget


def test_samples_are_drawn_as_often_as_their_chances_say() -> None:
    generator = np.random.default_rng(0)
    chance = chances(generator.uniform(size=50), 10)
    order, times = generator.permutation(50), 4000
    drawn = np.bincount(np.concatenate([systematic(chance, order, generator) for _ in range(times)]), minlength=50)
    error = np.sqrt(chance * (1 - chance) / times)
    assert (np.abs(drawn / times - chance) < 5 * error + 1e-9).all()


def test_a_draw_is_spread_over_the_ranking_and_the_classes() -> None:
    generator = np.random.default_rng(0)
    ranking, labels = generator.uniform(size=2000), generator.integers(0, 5, 2000)
    chance = np.full(2000, 100 / 2000)
    rows = systematic(chance, strata(ranking, labels, chance, 5), generator)
    tenths = np.bincount((np.argsort(np.argsort(ranking))[rows] * 10) // 2000, minlength=10)
    assert tenths.tolist() == pytest.approx([10] * 10, abs=2)
    assert np.bincount(labels[rows], minlength=5).tolist() == pytest.approx([20] * 5, abs=7)


@given(scores=st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1), min_size=1, max_size=80))
def test_bins_keep_the_order_and_never_part_equal_scores(scores: list[float]) -> None:
    ranking = np.array(scores)
    bins = binned(ranking)
    assert bins.size.sum() == len(scores)
    assert (bins.size > 0).all()
    assert (np.diff(bins.x) > 0).all()
    order = np.argsort(ranking, kind="stable")
    assert (np.diff(bins.of[order]) >= 0).all()
    same = np.diff(positions(ranking)[order]) == 0
    assert (np.diff(bins.of[order])[same] == 0).all()


def test_without_marks_the_curve_is_the_prior_and_marks_narrow_it() -> None:
    x = np.linspace(-2, 2, 30)
    nothing = np.zeros(30)
    prior = fit_curve(x, nothing, nothing, 1000, np.random.default_rng(0)).p_wrong
    assert prior[:, 0].mean() > prior[:, -1].mean(), "what ranks low is likelier to be wrong"
    right = nothing.copy()
    right[15] = 50
    after = fit_curve(x, nothing, right, 1000, np.random.default_rng(0)).p_wrong
    assert after[:, 15].mean() < 0.1 < prior[:, 15].mean()
    assert after[:, 15].std() < prior[:, 15].std() / 3
    with_mistakes = fit_curve(x, nothing + (np.arange(30) == 29), right, 1000, np.random.default_rng(0))
    assert 0 < with_mistakes.mistaken.mean() < 0.1


def test_ten_right_answers_are_no_proof() -> None:
    ranking = np.random.default_rng(0).uniform(size=1000)
    rows = np.arange(0, 1000, 100)
    found = survey(ranking, marked(np.zeros(1000, bool), rows), np.random.default_rng(0))
    total = interval(wrong_by_bin(found, np.ones(1000, bool), np.random.default_rng(0)).sum(axis=1))
    assert total.low <= 5
    assert total.high >= 50


def reviewed(seed: int, budget: int, *, mistaken: float = 0.0) -> tuple[Surveyed, Any, Any]:
    """A made-up audit that is too sure of itself, reviewed: what is found, which labels are wrong, their classes."""
    generator = np.random.default_rng(seed)
    logits = 3 - 3.5 * generator.standard_normal(3000)
    labels = generator.integers(0, 5, 3000)
    wrong = generator.uniform(size=3000) > 1 / (1 + np.exp(1 - logits + labels / 2))
    ranking = 1 / (1 + np.exp(-logits))
    before = survey(ranking, unmarked(3000), np.random.default_rng(0))
    rows, _ = draw(before, np.arange(len(ranking)), ranking, labels, 5, budget, generator)
    said = wrong ^ (generator.uniform(size=3000) < mistaken)
    return survey(ranking, marked(said, rows), generator), wrong, labels


@pytest.mark.parametrize("mistaken", [0.0, 0.05])
def test_intervals_cover(mistaken: float) -> None:
    covered, classes, width = [], [], []
    for seed in range(60):
        found, wrong, labels = reviewed(seed, 100, mistaken=mistaken)
        generator = np.random.default_rng(seed)
        total = interval(wrong_by_bin(found, np.ones(3000, bool), generator).sum(axis=1))
        covered.append(total.low <= wrong.sum() <= total.high)
        width.append(total.high - total.low)
        by_class = [interval(draws) for draws in wrong_by_class(found, labels, 5, generator).T]
        true = np.bincount(labels[wrong], minlength=5)
        classes += [one.low <= number <= one.high for one, number in zip(by_class, true, strict=True)]
    # Of 60 intervals of 95 %, fewer than 52 cover once in five hundred times.
    assert sum(covered) >= 52
    assert np.mean(classes) >= 0.9
    assert np.mean(width) < 3000 * 0.25


def test_what_a_person_knows_is_counted_and_not_generalised() -> None:
    found, _, _ = reviewed(0, 100)
    marks = found.marks
    picked = np.flatnonzero(marks.open)[:200]
    known = marks.known_wrong.copy()
    known[picked] = True
    more = Surveyed(found.bins, found.curve, Marks(marks.wrong, marks.right, known, marks.known_right, marks.unsure))
    everyone, generator = np.ones(3000, bool), np.random.default_rng(0)
    before = wrong_by_bin(found, everyone, generator).sum(axis=1)
    after = wrong_by_bin(more, everyone, generator).sum(axis=1)
    assert after.min() >= 200
    others = ~known
    same = [wrong_by_bin(one, others, np.random.default_rng(1)).sum(axis=1).mean() for one in (found, more)]
    assert same[0] == pytest.approx(same[1], rel=0.02)
    assert after.mean() > before.mean()


def test_copies_are_one_witness_and_share_what_is_known() -> None:
    n = 9
    same = np.array([0, 0, 0, 3, 3, 5, 5, 7, 8])

    def flags(*rows: int) -> np.ndarray[Any, Any]:
        return np.isin(np.arange(n), rows)

    # Two drawn copies say wrong, the third was not marked; 3 and 4 contradict each other; 5 is known from elsewhere.
    marks = Marks(flags(1, 2, 3), flags(4), flags(), flags(5), flags(7))
    once = marks.once(same)
    assert np.flatnonzero(once.wrong).tolist() == [1, 3]
    assert not once.right.any()
    assert np.flatnonzero(once.known_wrong).tolist() == [0, 2]
    assert np.flatnonzero(once.known_right).tolist() == [4, 5, 6]
    assert np.flatnonzero(once.open).tolist() == [7, 8]
    assert once.unseen(same).tolist() == [8]
    alone = marks.once(np.arange(n))
    assert all(np.array_equal(getattr(alone, name), value) for name, value in vars(marks).items())
    assert unmarked(n).unseen(same).tolist() == [0, 3, 5, 7, 8]


@settings(max_examples=50)
@given(counts=st.lists(st.integers(0, 9), min_size=2, max_size=20), data=st.data())
def test_cuts_reach_what_counting_says(counts: list[int], data: st.DataObject) -> None:
    size = np.array([data.draw(st.integers(max(1, number), 10)) for number in counts])
    wrong = np.array([counts])
    reached, total = reach(wrong, size), sum(counts)
    cut = data.draw(st.integers(1, len(counts)))
    found, noisy = sum(counts[:cut]), int(size[:cut].sum())
    assert reached.precision[0, cut] == pytest.approx(found / noisy)
    assert reached.recall[0, cut] == pytest.approx(found / total if total else 1)
    assert reached.f1[0, cut] == pytest.approx(2 * found / (noisy + total))
    assert best_f1(reached).f1.estimate == pytest.approx(reached.f1.max())


def test_targets_hold_at_the_low_end_or_are_refused_with_a_number_of_marks() -> None:
    found, _, _ = reviewed(1, 200)
    reached = reach(wrong_by_bin(found, np.ones(3000, bool), np.random.default_rng(0)), found.bins.size)
    precise, thorough = for_precision(reached, 0.7, 200), for_recall(reached, 0.8, 200)
    assert not isinstance(precise, Unshown)
    assert not isinstance(thorough, Unshown)
    assert precise.precision.low >= 0.7
    assert thorough.recall.low >= 0.8
    one_more = reached.at(precise.bin + 1)
    assert one_more.precision.low < 0.7, "the cut finds as many wrong labels as it may"
    draws = np.random.default_rng(0).binomial(10, [0.8, 0.3], size=(500, 2))
    vague = reach(draws, np.array([10, 10]))
    not_yet, never = for_precision(vague, 0.7, 50), for_precision(vague, 0.9, 50)
    assert isinstance(not_yet, Unshown)
    assert isinstance(never, Unshown)
    assert not_yet.marks is not None
    assert not_yet.marks > 50
    assert never.marks is None


def test_mistaken_marks_do_not_make_a_flawless_class_wrong() -> None:
    generator = np.random.default_rng(0)
    ranking, labels = generator.uniform(size=4000), generator.integers(0, 4, 4000)
    wrong = (labels < 2) & (generator.uniform(size=4000) > ranking)
    covered = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        rows = generator.choice(4000, 300, replace=False)
        said = wrong ^ (generator.uniform(size=4000) < 0.05)
        found = survey(ranking, marked(said, rows), generator)
        draws = wrong_by_class(found, labels, 4, generator)
        covered += [interval(draws[:, k]).low <= 1 for k in (2, 3)]
    assert np.mean(covered) >= 0.8


def test_a_class_of_three_and_a_class_without_marks_have_intervals() -> None:
    found, wrong, labels = reviewed(2, 100)
    labels = labels.copy()
    labels[:3] = 5
    draws = wrong_by_class(found, labels, 7, np.random.default_rng(0))
    assert draws.shape[1] == 7
    assert draws[:, 5].min() >= 0
    assert draws[:, 5].max() <= 3
    assert (draws[:, 6] == 0).all(), "a class without samples has no wrong labels"
    assert draws.sum(axis=1).mean() == pytest.approx(wrong.sum(), rel=0.35)
