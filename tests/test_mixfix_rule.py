"""Eq. 7, by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clipaudit.errors import UsageError
from clipaudit.training.config import TrainConfig
from clipaudit.training.recipes import RECIPES, recipe
from clipaudit.training.rule import ABSORBED, DROPPED, RELABELLED, SELECTED, fix

N, K = 12, 4
probabilities = arrays(np.float32, N, elements=st.floats(0, 1, width=32))
classes = arrays(np.int64, N, elements=st.integers(0, K - 1))
flags = arrays(np.bool_, N)
thresholds = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)


def test_the_table_of_the_paper() -> None:
    p_m = np.array([0.71, 0.70, 0.81, 0.80, 0.99, 0.99, np.nan], np.float64)
    y_m = np.array([1, 1, 2, 2, 1, 2, 1])
    labels = np.array([1, 1, 1, 1, 1, 1, 1])
    selected = np.array([False, False, False, False, True, True, False])
    fixed = fix(p_m, y_m, labels, selected, 0.7, 0.8)
    assert fixed.actions.tolist() == [ABSORBED, DROPPED, RELABELLED, DROPPED, SELECTED, SELECTED, DROPPED]
    assert fixed.labels.tolist() == [1, 1, 2, 1, 1, 1, 1]
    assert fixed.trained.tolist() == [True, False, True, False, True, True, False]


def test_the_published_code_relabels_selected_samples_too() -> None:
    p_m, selected = np.array([0.9, 0.9, 0.7]), np.array([True, True, True])
    fixed = fix(p_m, np.array([0, 1, 1]), np.array([0, 0, 0]), selected, 0.7, 0.8, relabel_selected=True)
    assert fixed.actions.tolist() == [SELECTED, RELABELLED, SELECTED]
    assert fixed.labels.tolist() == [0, 1, 0]


@settings(deadline=None)
@given(probabilities, classes, classes, flags)
def test_thresholds_at_1_never_act(p_m, y_m, labels, selected) -> None:
    fixed = fix(p_m, y_m, labels, selected, 1.0, 1.0)
    assert (fixed.actions == np.where(selected, SELECTED, DROPPED)).all()
    assert (fixed.labels == labels).all()


@settings(deadline=None)
@given(probabilities, classes, classes, flags, thresholds)
def test_selected_samples_keep_their_labels(p_m, y_m, labels, selected, limits) -> None:
    fixed = fix(p_m, y_m, labels, selected, *limits)
    assert (fixed.actions[selected] == SELECTED).all()
    assert (fixed.actions[~selected] != SELECTED).all()
    assert (fixed.labels[selected] == labels[selected]).all()


@settings(deadline=None)
@given(probabilities, classes, classes, flags, thresholds)
def test_a_label_changes_only_where_it_is_relabelled(p_m, y_m, labels, selected, limits) -> None:
    fixed = fix(p_m, y_m, labels, selected, *limits)
    assert ((fixed.labels != labels) == (fixed.actions == RELABELLED)).all()
    assert (fixed.labels[fixed.actions == RELABELLED] == y_m[fixed.actions == RELABELLED]).all()
    assert (p_m[fixed.actions == RELABELLED] > limits[1]).all()


@settings(deadline=None)
@given(probabilities, classes, classes, flags, thresholds, thresholds)
def test_higher_thresholds_only_drop(p_m, y_m, labels, selected, some, others) -> None:
    low, high = np.minimum(some, others), np.maximum(some, others)
    loose, strict = fix(p_m, y_m, labels, selected, *low), fix(p_m, y_m, labels, selected, *high)
    assert ((strict.actions == loose.actions) | (strict.actions == DROPPED)).all()


def test_relabelling_needs_no_less_certainty_than_absorbing() -> None:
    with pytest.raises(UsageError, match="must not exceed"):
        TrainConfig(theta_r=0.9, theta_r_prime=0.8)


def test_recipes_hold_the_published_numbers() -> None:
    cases = {
        "cifar": (0.8, 0.8, 1.0, 128, 300, (200, 250)),
        "animal10n": (0.7, 0.95, 0.5, 128, 300, (200, 250)),
        "red-mini-imagenet": (0.8, 0.95, 4.0, 64, 300, (200, 250)),
        "webvision": (0.7, 1.0, 0.5, 64, 150, (80, 120)),
    }
    for name, numbers in cases.items():
        c = recipe(name)
        assert (c.theta_r, c.theta_r_prime, c.beta, c.batch_size, c.epochs, c.milestones) == numbers
    assert set(RECIPES) == {*cases, "clothing1m", "fast", "probe"}, "the last two are our own"
    assert (TrainConfig().theta_r, TrainConfig().theta_r_prime) == (0.7, 0.8)


def test_an_option_overrides_a_recipe_and_milestones_move_with_the_epochs() -> None:
    config = recipe("webvision", epochs=15, beta=2.0, theta_r=None)
    assert (config.milestones, config.beta, config.theta_r) == ((8, 12), 2.0, 0.7)
    assert recipe("cifar", epochs=30, milestones=(29,)).milestones == (29,)
    rates = [config.learning_rate_in(epoch) for epoch in (0, 7, 8, 12)]
    assert rates == pytest.approx([0.02, 0.02, 0.002, 0.0002])
    assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "unknown method"),
        ({"policy": "magic"}, "unknown policy"),
        ({"method": "ce", "co_training": True}, "belongs to mixfix"),
        ({"theta_r": 1.5}, "theta_r must be a number from 0 to 1"),
        ({"theta_r": float("nan")}, "theta_r must be a number from 0 to 1"),
        ({"epochs": 0}, "epochs must be a whole number from 1 to"),
        ({"beta": 0.0}, "beta must be a number from"),
        ({"learning_rate": float("inf")}, "learning_rate must be a number from"),
        ({"val_share": 1.0}, "val_share must be a number from 0 to"),
        ({"image_size": 4}, "image_size must be a whole number from 8 to"),
        ({"colour": "red"}, "no option 'colour'"),
    ],
)
def test_meaningless_numbers_are_refused(changes, message) -> None:
    with pytest.raises(UsageError, match=message):
        recipe("cifar", **changes)
    with pytest.raises(UsageError, match="unknown recipe"):
        recipe("mnist")
