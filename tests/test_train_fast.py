"""What the recipe `fast` adds to training: its network, one cycle, label smoothing, the average of the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from training_digits import Digits, train

import clipaudit
from clipaudit.errors import UsageError
from clipaudit.training.airbench import Airbench
from clipaudit.training.config import TrainConfig
from clipaudit.training.methods import method_of
from clipaudit.training.methods.base import Batch, Subsets
from clipaudit.training.models import describe
from clipaudit.training.muon import Muon, orthogonal

FAST = clipaudit.recipe("fast", width=4, image_size=16, epochs=3, batch_size=16, flip=False, crop_padding=1)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits(tmp_path_factory.mktemp("digits"), n=160, rate=0.3)


def test_the_first_layer_of_airbench_whitens_patches_and_is_not_trained() -> None:
    torch.manual_seed(0)
    # Neighbouring pixels and channels vary together, as in photographs.
    images = torch.randn(200, 1, 9, 9).repeat_interleave(3, 1) + 0.3 * torch.randn(200, 3, 9, 9)
    network = Airbench(classes=10, width=4)
    network.whiten(images)
    seen = network.whitening(images).transpose(0, 1).flatten(1)[:12]
    assert torch.allclose(seen @ seen.T / seen.shape[1], torch.eye(12), atol=0.02)
    assert network(images).shape == (200, 10)
    network(images).square().sum().backward()
    assert network.whitening.weight.grad is None


def test_airbench_has_the_published_size_and_refuses_images_that_are_too_small() -> None:
    """1.97 million weights (section 3.1 of its paper)."""
    trained = [parameter for parameter in Airbench(10).parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == 1_971_328
    with pytest.raises(UsageError, match="at least 9 pixels, not 8"):
        describe(replace(FAST, image_size=8), 10)


def test_one_cycle_rises_and_falls_in_a_line() -> None:
    config = TrainConfig(epochs=100, learning_rate=1.0, schedule="one-cycle")
    rates = [config.learning_rate_in(epoch) for epoch in (0, 11.5, 23, 61.5, 100)]
    assert rates == pytest.approx([0.2, 0.6, 1.0, 0.535, 0.07])
    with pytest.raises(UsageError, match="milestones has no effect with the schedule one-cycle"):
        clipaudit.recipe("fast", milestones=(3,))
    assert clipaudit.recipe("fast", epochs=3).milestones == TrainConfig().milestones


def test_smoothing_is_refused_where_labels_are_guessed() -> None:
    with pytest.raises(UsageError, match="label_smoothing has no effect with the method dividemix"):
        clipaudit.recipe(method="dividemix", label_smoothing=0.1)
    assert clipaudit.recipe("fast", method="dividemix").method == "dividemix"


def test_muon_turns_filters_by_orthogonal_steps_and_leaves_their_norm() -> None:
    torch.manual_seed(0)
    for shape in ((8, 40), (40, 8)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.shape == (8,)
        assert ((values > 0.6) & (values < 1.3)).all()
    network = Airbench(classes=10, width=4)
    optimizer = Muon(network, lr=0.1, momentum=0.6, weight_decay=0.01)
    filters, shift = network.stages[0].conv1.weight, network.stages[0].norm1.bias
    network(torch.randn(8, 3, 16, 16)).square().sum().backward()
    slope = shift.grad.clone()
    optimizer.step()
    # The norm is set before a step whose own norm is at most 0.1 * 2.
    assert filters.norm().item() == pytest.approx(2.0, abs=0.25)
    assert torch.allclose(shift, -0.1 * 640 * 1.6 * slope)
    with pytest.raises(UsageError, match="muon is for the model airbench, not for preact-resnet18"):
        clipaudit.recipe("cifar", optimizer="muon")


def test_eq_7_decides_only_in_its_epochs(digits: Digits, tmp_path: Path) -> None:
    rows = train(
        digits, tmp_path / "run", replace(FAST, epochs=5, look_every=2, theta_r=0.0, theta_r_prime=0.0)
    ).history
    assert ["absorbed" in row for row in rows] == [False, True, True, True, True]
    clean = digits.clean.sum()
    assert [row["n_samples"] for row in rows[:2]] == [clean, clean]
    assert rows[2]["n_samples"] == clean + rows[1]["absorbed"] + rows[1]["relabelled"] == len(digits.ids)
    assert rows[2]["absorbed"] == rows[1]["absorbed"]


@pytest.mark.parametrize("method", ["mixfix", "ce", "ce-all"])
def test_label_smoothing_spreads_labels_over_all_classes(method: str) -> None:
    logits, targets = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
    subsets = Subsets(np.zeros(1, int), np.ones(1, bool), np.zeros(1, bool), 3)
    chosen = method_of(subsets, clipaudit.recipe("fast", method=method))
    batch = Batch(torch.zeros(6, 3, 2, 2), targets, torch.tensor(1.0), torch.arange(6), 0.0)
    soft = 0.8 * functional.one_hot(targets, 3) + 0.2 / 3
    loss = chosen.loss(lambda _: logits, lambda _: logits, batch)
    assert loss.item() == pytest.approx(-(soft * logits.log_softmax(dim=1)).sum(dim=1).mean().item())


def test_the_average_of_the_weights_is_what_sees_and_is_kept(digits: Digits, tmp_path: Path) -> None:
    """With a decay of 0 at its first step, the average is the network; later it lags behind."""
    runs = [train(digits, tmp_path / str(decay), replace(FAST, averaging=decay)) for decay in (0.0, 0.9)]
    states = [load_file(run.folder / "state.safetensors") for run in runs]
    assert not any(name.startswith("average.") for name in states[0])
    kept = load_file(runs[1].folder / "last.safetensors")
    assert all(torch.equal(states[1][f"average.{name}"], value) for name, value in kept.items())
    assert not torch.equal(states[1]["0.head.weight"], kept["0.head.weight"])
    predicted = clipaudit.predict(runs[1].folder, digits.test, device="cpu")
    same = np.mean([row["predicted_label"] == row["label"] for row in predicted.to_pylist()])
    assert same == pytest.approx(runs[1].history[-1]["test_accuracy"])
