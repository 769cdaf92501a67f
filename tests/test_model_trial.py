"""A model is tried out when it is loaded: what lacks a file, has damaged weights or cannot work is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import DIGITS
from safetensors.torch import load_file, save_file

from clipaudit.clip.devices import choose_device
from clipaudit.clip.encoders import Encoder, load_encoder
from clipaudit.clip.trial import check_processor
from clipaudit.demo import MODEL
from clipaudit.errors import ModelError, UsageError

REFERENCE = Path(__file__).parents[1] / "benchmarks" / "reference_clip"
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(MODEL, tmp_path / "model")
    return tmp_path / "model"


def load(folder: Path, **options: Any) -> Encoder:
    return load_encoder(replace(DIGITS, model=str(folder), **options))


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("model", [MODEL, REFERENCE])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("exact", [False, True])
def test_the_shipped_models_pass(model: Path, precision: str, exact: bool) -> None:
    assert load(model, precision=precision, exact=exact).fingerprint.dimension >= 64


def test_a_model_without_its_tokenizer_is_refused(folder: Path) -> None:
    """FAULTS 4: transformers makes up a vocabulary of two tokens."""
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"cannot tell one text from another. The folder has no tokenizer\.json"):
        load(folder)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        load(folder)


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    def shift(content: dict[str, Any]) -> None:
        for token in content["added_tokens"]:
            token["id"] += 50_000
        content["model"]["vocab"] = {
            word: number + 50_000 if word.startswith("<|") else number
            for word, number in content["model"]["vocab"].items()
        }
        content["post_processor"]["sep"][1] += 50_000
        content["post_processor"]["cls"][1] += 50_000

    edit_json(folder / "tokenizer.json", shift)
    with pytest.raises(ModelError, match="belong to different models"):
        load(folder)


def test_a_damaged_tokenizer_is_refused(folder: Path) -> None:
    def forget(content: dict[str, Any]) -> None:
        content["model"]["vocab"] = {"<|startoftext|>": 887, "<|endoftext|>": 888}
        content["model"]["merges"] = []

    edit_json(folder / "tokenizer.json", forget)
    with pytest.raises(ModelError, match=r"Its tokenizer\.json is damaged|cannot"):
        load(folder)
    (folder / "tokenizer.json").write_bytes(b"{")
    with pytest.raises(ModelError):
        load(folder)


PROCESSORS: list[dict[str, Any]] = [
    {"resample": None},  # FAULTS 25
    {"rescale_factor": None},
    {"resample": 99},
    {"resample": "bicubic"},
    {"rescale_factor": 0},
    {"rescale_factor": -1},
    {"rescale_factor": float("nan")},
    {"rescale_factor": 1e30},
    {"size": {"shortest_edge": 10**9}},
    {"size": {"shortest_edge": -3}},
    {"size": {"height": 32, "width": 0}},
    {"size": {"shortest_edge": True}},
    {"size": None},
    {"crop_size": {"height": 10**9, "width": 10**9}},
    {"crop_size": {"height": 0, "width": 0}},
    {"crop_size": None},
    {"image_mean": None},
    {"image_mean": []},
    {"image_mean": [0.5, float("nan"), 0.5]},
    {"image_mean": [0.5, 0.5]},
    {"image_mean": [1e9] * 3},
    {"image_std": [0.0, 0.0, 0.0]},
    {"image_std": [1.0, -1.0, 1.0]},
    {"image_std": [1.0, float("inf"), 1.0]},
    {"image_std": "large"},
    {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
    {"do_center_crop": False},
]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("changes", PROCESSORS, ids=str)
def test_an_image_processor_that_cannot_work_is_refused(changes: dict[str, Any], exact: bool, folder: Path) -> None:
    edit_json(folder / "processor_config.json", lambda content: content["image_processor"].update(changes))
    if changes in ({"size": None}, {"crop_size": None}, {"do_center_crop": False}):
        with suppress(ModelError):  # transformers may put a default in place, which fits the model or not.
            load(folder, exact=exact)
        return
    with pytest.raises(ModelError, match="model"):
        load(folder, exact=exact)


def test_train_refuses_such_a_processor_and_a_pipe(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTImageProcessor

    from clipaudit import TrainConfig
    from clipaudit.training.models import describe

    ViTConfig(image_size=32).save_pretrained(tmp_path / "vit")
    ViTImageProcessor().save_pretrained(tmp_path / "vit")
    assert describe(TrainConfig(model=str(tmp_path / "vit")), 3).image_size == 224
    edit_json(tmp_path / "vit" / "preprocessor_config.json", lambda content: content.update(resample=None))
    with pytest.raises(ModelError, match="has resample: null"):
        describe(TrainConfig(model=str(tmp_path / "vit")), 3)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="is a named pipe, not a folder"):
        describe(TrainConfig(model=str(tmp_path / "pipe")), 3)


def test_the_refusal_names_the_setting() -> None:
    with pytest.raises(ModelError, match="has resample: null, which no image"):
        check_processor("m", {"do_resize": True, "size": {"shortest_edge": 3}, "resample": None})
    check_processor("m", {"do_resize": False, "resample": None, "do_rescale": False, "rescale_factor": None})


def test_missing_weights_are_not_made_up(folder: Path) -> None:
    edit_weights(folder, lambda weights: [weights.pop(name) for name in list(weights) if "text_model.encoder" in name])
    with pytest.raises(ModelError, match=r"lacks 32 of its weights \(text_model"):
        load(folder)


@pytest.mark.parametrize("part", ["text_model.encoder", "vision_model.encoder", "text_projection", "logit_scale"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(part: str, value: float, folder: Path) -> None:
    edit_weights(folder, lambda weights: [weights[name].fill_(value) for name in weights if part in name])
    with pytest.raises(ModelError, match="weights are damaged"):
        load(folder)


@pytest.mark.parametrize("part", ["text_projection", "visual_projection"])
def test_a_side_that_tells_nothing_apart_is_refused(part: str, folder: Path) -> None:
    edit_weights(folder, lambda weights: weights[f"{part}.weight"].zero_())
    with pytest.raises(ModelError, match="weights are damaged"):
        load(folder)


def test_images_that_all_look_alike_are_refused(folder: Path) -> None:
    name = "vision_model.embeddings.patch_embedding.weight"
    edit_weights(folder, lambda weights: weights[name].zero_())
    with pytest.raises(ModelError, match="different images the same embedding"):
        load(folder)


def test_half_precision_that_overflows_names_the_way_out(folder: Path) -> None:
    name = "visual_projection.weight"
    edit_weights(folder, lambda weights: weights.update({name: weights[name] * 1e5}))
    with pytest.raises(ModelError, match=r"NaN in float16\. Run again with --precision float32"):
        load(folder, precision="float16")
    assert load(folder).precision == "float32"


def test_sides_of_unequal_dimension_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    features = Encoder.image_features
    monkeypatch.setattr(
        Encoder, "image_features", lambda self, batch: torch.nn.functional.normalize(features(self, batch)[:, :32])
    )
    with pytest.raises(ModelError, match="texts 64 dimensions and images 32"):
        load(MODEL)


def test_embeddings_that_change_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, generator = Encoder.encode_texts, np.random.default_rng(0)

    def noisy(self: Encoder, words: list[str]) -> np.ndarray:
        vectors = texts(self, words) + generator.normal(0, 0.1, (len(words), 64))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    monkeypatch.setattr(Encoder, "encode_texts", noisy)
    with pytest.raises(ModelError, match="the same text different embeddings"):
        load(MODEL)


def test_a_config_of_other_or_endless_weights_is_refused(folder: Path) -> None:
    edit_json(folder / "config.json", lambda content: content["vision_config"].update(image_size=10**9))
    with pytest.raises(ModelError, match="weights of other shapes"):
        load(folder)
    edit_json(folder / "config.json", lambda content: content["text_config"].update(num_hidden_layers=10**7))
    with pytest.raises(ModelError, match="asks for 10,000,000 layers"):
        load(folder)


def test_pickled_weights_are_never_loaded(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    torch.save({"weights": Payload()}, folder / "pytorch_model.bin")
    assert load(folder).fingerprint.weights
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pickle format only"):
        load(folder)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "processor_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff" * 50, b'{"model_type": ["clip"]}'])
def test_damaged_files_are_refused(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)
    if name in ("config.json", "model.safetensors"):
        with pytest.raises(ModelError):
            load(folder)
    else:
        with suppress(ModelError):  # transformers has defaults for these settings, which may do.
            load(folder)


def test_no_pipe_device_or_file_is_opened_as_a_model(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("no model")
    for name, kind in (("pipe", "a named pipe"), ("file", "a file")):
        with pytest.raises(ModelError, match=f"is {kind}, not a folder"):
            load(tmp_path / name)
    with pytest.raises(ModelError, match="is a device, not a folder"):
        load(Path("/dev/zero"))
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(ModelError, match=r"config.json in the model folder is a named pipe"):
        load(folder)


@pytest.mark.parametrize(
    "name", ["meta", "abacus", "cuda:99", "-1", "", "cuda:-1", "hpu", "xla", "mkldnn", "lazy", "cpu\0", "CPU", " cpu"]
)
def test_devices_that_cannot_compute_are_wrong_usage(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        choose_device(name)


@pytest.mark.parametrize("size", [0, -1, 4097, 10**30])
def test_the_batch_size_has_a_range(size: int) -> None:
    with pytest.raises(UsageError, match="batch_size must be a whole number from 1 to 4,096"):
        load_encoder(replace(DIGITS, batch_size=size))


def test_a_device_that_refuses_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(MODEL, batch_size=8)
    pixels = np.zeros((20, 32, 32, 3), np.uint8)

    def refuse(self: Encoder, batch: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(Encoder, "image_features", refuse)
    with pytest.raises(ModelError, match="cpu cannot run this model: no kernel image"):
        encoder.encode_images(pixels)

    def exhausted(self: Encoder, batch: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(Encoder, "image_features", exhausted)
    with pytest.raises(ModelError, match="too little memory for one image"):
        encoder.encode_images(pixels)


def test_commands_refuse_in_one_line(folder: Path, small_images: Path, run_cli: Cli) -> None:
    (folder / "tokenizer.json").unlink()
    for words in (
        ("embed", small_images, "--cache", "c", "--model", folder),
        ("prompts", "check", "digits", "--model", folder),
    ):
        result = run_cli(*words)
        assert result.returncode == 1, result.stderr
        assert "Traceback" not in result.stderr
        assert "tokenizer.json" in " ".join(result.stderr.split())
    for words in (("--device", "meta"), ("--batch-size", "0"), ("--workers", "1000000")):
        result = run_cli("embed", small_images, "--cache", "c", "--model", MODEL, *words)
        assert result.returncode == 2, result.stderr
        assert "Traceback" not in result.stderr
