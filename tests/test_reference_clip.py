"""The benchmarks' reference CLIP: real photographs with real human label noise, audited by a model that knows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import normalize

import clipaudit
from benchmarks.reference_networks import ConvolutionalTower, build_clip
from clipaudit.auditing.metrics import Metrics

FOLDER = Path(__file__).parents[1] / "benchmarks" / "reference_clip"
N = 1_500


@pytest.fixture(scope="module")
def cache(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first CIFAR-10 training images, embedded."""
    folder = tmp_path_factory.mktemp("reference")
    pq.write_table(pq.read_table(data_folder / "cifar10" / "train.parquet").slice(0, N), folder / "images.parquet")
    encoder = clipaudit.EncoderOptions(str(FOLDER), device="cpu", precision="float32")
    return clipaudit.embed(folder / "images.parquet", cache=folder / "cache", encoder=encoder).cache


@pytest.fixture(scope="module")
def noise(data_folder: Path) -> dict[str, list[str]]:
    """The true and the noisy labels of these images."""
    return pq.read_table(data_folder / "cifar10" / "noise.parquet").slice(0, N).to_pydict()


def test_the_model_is_small_and_knows_the_classes(cache: Path, noise: dict[str, list[str]]) -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 15e6
    index = clipaudit.select(cache, device="cpu")
    assert index.metadata.prompts.source == "CIFAR-10"
    predicted = index.table["zero_shot_label"].to_pylist()
    assert np.mean([guess == true for guess, true in zip(predicted, noise["label_true"], strict=True)]) > 0.8


# What the recommended preset is better at in so few samples.
@pytest.mark.parametrize(("column", "measure"), [("label_human_random1", "noisy_f1"), ("label_instance_0.4", "auroc")])
def test_wrong_labels_of_photographs_are_found(
    cache: Path, noise: dict[str, list[str]], column: str, measure: str
) -> None:
    def judged(preset: str) -> Metrics:
        config = clipaudit.AuditConfig(**clipaudit.PRESETS[preset])
        index = clipaudit.select(cache, labels=noise[column], config=config, device="cpu")
        return clipaudit.evaluate(index, noise["label_true"]).overall

    paper, recommended = judged("paper"), judged("recommended")
    assert paper.auroc is not None
    assert paper.clean_precision is not None
    assert paper.noise_rate is not None
    assert min(paper.auroc, recommended.auroc or 0) > 0.94
    assert getattr(recommended, measure) > getattr(paper, measure)
    assert 1 - paper.clean_precision < paper.noise_rate / 2


@pytest.mark.parametrize("preset", ["paper", "recommended"])
def test_real_noise_raises_no_false_warning_and_what_is_wrong_does(
    cache: Path, noise: dict[str, list[str]], preset: str
) -> None:
    config = clipaudit.AuditConfig(**clipaudit.PRESETS[preset])

    def warned(labels: list[str]) -> list[str]:
        warnings: list[str] = clipaudit.select(cache, labels=labels, config=config, device="cpu").metadata["warnings"]
        return warnings

    for column in ("label_true", "label_human_aggregate", "label_human_random1"):
        assert warned(noise[column]) == []
    # 40 % are wrong, and the paper's four selectors doubt as many again.
    assert all("more than half" in warning for warning in warned(noise["label_instance_0.4"]))
    swap = {"cat": "horse", "horse": "cat"}
    swapped = warned([swap.get(label, label) for label in noise["label_human_random1"]])
    assert any(warning.startswith("'cat' and 'horse' look swapped") for warning in swapped)


def test_the_convolutional_tower_and_the_transformer_written_from_it_are_one_function() -> None:
    torch.manual_seed(0)
    tower = ConvolutionalTower()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for part in tower.modules():
            if isinstance(part, torch.nn.BatchNorm1d):
                part.momentum = 1.0
        pixels = torch.randn(16, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
        tower(pixels)
        tower.eval()
        clip, _ = build_clip(["a photo of a cat"])
        tower.write_into(clip)
        expected, _ = tower(pixels)
        features = clip.eval().get_image_features(pixel_values=pixels).pooler_output
    assert expected.std(0).mean() > 1e-2  # the pictures differ
    torch.testing.assert_close(normalize(features, dim=-1), expected, rtol=0, atol=2e-3)
