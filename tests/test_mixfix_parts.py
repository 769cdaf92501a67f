"""The parts of training, one by one: sampling, methods, augmentation, networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_digits import TINY, Digits

from clipaudit.demo.digits import as_picture, load_split
from clipaudit.training.augment import Augmentation
from clipaudit.training.data import Samples
from clipaudit.training.engine import Engine
from clipaudit.training.methods import method_of
from clipaudit.training.methods.base import Batch, Look, Subsets
from clipaudit.training.models import Architecture, build
from clipaudit.training.pixels import load_pixels
from clipaudit.training.preact import PreActResNet18
from clipaudit.training.sampling import draw
from clipaudit.training.trainer import Trainer


def test_classes_come_equally_often_whatever_their_size() -> None:
    labels = np.repeat([0, 1, 2], [1, 20, 300])
    rows = np.arange(len(labels)) + 1000
    drawn = draw(rows, labels, 100, True, np.random.default_rng(0))
    per_class = np.bincount(labels[drawn - 1000])
    assert sorted(per_class.tolist()) == [33, 33, 34]
    middle = np.bincount(drawn - 1000)[1:21]
    assert middle.max() - middle.min() <= 1
    plain = draw(rows, labels, 2 * len(rows), False, np.random.default_rng(0))
    assert (np.bincount(plain - 1000) == 2).all()


def test_co_training_asks_the_other_network() -> None:
    labels, clean = np.array([0, 0, 1, 1]), np.array([True, False, False, True])
    subsets = Subsets(labels, clean, ~clean, 2)
    sure, unsure = Look(np.full(4, 0.99, np.float32), labels), Look(np.full(4, 0.5, np.float32), labels)
    config = replace(TINY, batch_size=4, co_training=True)
    sizes = {}
    for co_training in (True, False):
        method = method_of(subsets, replace(config, co_training=co_training))
        epochs = [method.epoch(1, network, [sure, unsure], np.random.default_rng(0)) for network in (0, 1)]
        sizes[co_training] = [epoch.n_samples for epoch in epochs]
    assert sizes == {True: [2, 4], False: [4, 2]}


def test_dividemix_never_sees_the_given_labels_of_the_rest() -> None:
    labels, clean = np.arange(20) % 2, np.arange(20) < 8
    method = method_of(Subsets(labels, clean, ~clean, 2), replace(TINY, method="dividemix", batch_size=4, warm_up=2))
    warm = method.epoch(1, 0, [], np.random.default_rng(0))
    assert warm.rows.shape == (5, 4)
    assert clean[warm.rows].all()
    epoch = method.epoch(2, 0, [], np.random.default_rng(0))
    assert epoch.rows.shape == (5, 16)
    assert clean[epoch.rows[:, :8]].all()
    assert not clean[epoch.rows[:, 8:]].any()
    assert (epoch.targets[:, 8:] == -1).all()
    assert (epoch.rows[:, :4] == epoch.rows[:, 4:8]).all()
    assert (epoch.rows[:, 8:12] == epoch.rows[:, 12:]).all()


def test_dividemix_loss_is_that_of_the_paper() -> None:
    """With constant networks all parts can be written down: no mixing (lambda 1), uniform predictions over K."""
    k, b = 4, 2

    class Uniform(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(x), k) * x.sum()

    subsets = Subsets(np.zeros(8, np.int64), np.arange(8) < 4, np.arange(8) >= 4, k)
    method = method_of(subsets, replace(TINY, method="dividemix", batch_size=b))
    batch = Batch(
        torch.rand(4 * b, 3, 8, 8), torch.tensor([1, 2] * 2 + [-1] * 4), torch.tensor(1.0), torch.arange(8), 1
    )
    loss = method.loss(Uniform(), Uniform(), batch)
    # L_x = log K; the guess equals the prediction: L_u = 0; the mean prediction is the prior: L_reg = 0.
    assert loss.item() == pytest.approx(np.log(k))


def test_augmentation_differs_between_images_and_repeats_with_the_seed() -> None:
    images = torch.from_numpy(
        np.stack([np.asarray(as_picture(i).convert("RGB")) for i in load_split().train_images[:1]])
    )
    same = images.permute(0, 3, 1, 2).repeat(64, 1, 1, 1)
    for policy in ("cifar10", "imagenet", "svhn", "none"):
        augment = Augmentation(policy, 32, 4, flip=True)
        results = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            results.append(augment(same))
        assert results[0].shape == same.shape
        assert results[0].dtype == torch.uint8
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])
        assert len(results[0].flatten(1).unique(dim=0)) > 32
    assert Augmentation("none", 32, 0, flip=False)(same) is same


def test_the_look_covers_what_was_asked_for_and_combines_networks(tmp_path: Path) -> None:
    digits = Digits(tmp_path, n=160, rate=0.3)
    architecture = Architecture("preact-resnet18", 4, 10, 16, (0.5,) * 3, (0.5,) * 3)
    engine = Engine(torch.device("cpu"), "float32", architecture)
    samples = Samples(digits.ids, digits.labels, lambda name: (digits.root / name).read_bytes())
    options = {"place": "device", "folder": tmp_path, "workers": 1, "report": lambda done, total: None}
    pixels, unreadable = load_pixels(samples, np.arange(160), architecture.preprocessing, engine.device, **options)
    assert len(unreadable) == 0
    networks = [engine.place(PreActResNet18(10, 4)) for _ in range(2)]
    rows = np.array([3, 99, 7])
    looks = engine.look(networks, pixels, rows, 160)
    assert len(looks) == 3
    for look in looks:
        assert np.flatnonzero(np.isfinite(look.p_m)).tolist() == [3, 7, 99]
    image = next(iter(pixels.blocks([rows])))
    p = torch.stack([network(engine.normalise(image)).softmax(1) for network in networks]).mean(0).max(1)
    assert looks[2].p_m[rows] == pytest.approx(p.values.detach().numpy(), abs=1e-5)
    assert looks[2].y_m[rows].tolist() == p.indices.tolist()


def test_preact_resnet18_has_the_published_size() -> None:
    """11.17 million parameters; 8 x 8 blocks see an image of 32 x 32 as 4 x 4."""
    network = PreActResNet18(10)
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_172_170
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert network.blocks(network.stem(torch.zeros(2, 3, 32, 32))).shape == (2, 512, 4, 4)


@pytest.mark.cuda
@pytest.mark.parametrize("method", ["mixfix", "ce", "dividemix"])
def test_the_host_waits_for_nothing_inside_a_step(method: str) -> None:
    architecture = Architecture("preact-resnet18", 8, 10, 32, (0.5,) * 3, (0.5,) * 3)
    engine = Engine(torch.device("cuda"), "auto", architecture)
    subsets = Subsets(np.arange(64) % 10, np.arange(64) < 32, np.arange(64) >= 32, 10)
    config = replace(TINY, method=method)
    chosen = method_of(subsets, config)
    trainer = Trainer(chosen, [build(architecture) for _ in range(config.networks)], None, engine, config)
    images = engine.normalise(torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, device="cuda"))
    targets, partners = torch.arange(64, device="cuda") % 10, torch.randperm(64, device="cuda")
    batch = Batch(images, targets, torch.tensor(0.7, device="cuda"), partners, 1.0)
    for debug_mode in ("default", "error"):
        torch.cuda.set_sync_debug_mode(debug_mode)
        try:
            trainer.step(trainer.networks[0], trainer.networks[-1], trainer.optimizers[0], batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
