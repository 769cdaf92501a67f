"""Train the reference CLIP for 32 x 32 images: python -m benchmarks.train_reference_clip.

It learns from CIFAR-10's test images and Tiny ImageNet's training images with texts from `prompts/`; no label of
CIFAR-10's training split is read before the last step, which measures the finished folder on it.

A convolutional teacher is trained on both data sets' labels first. Then a CLIP is trained contrastively on image-text
pairs and, at the same time, to give every picture the teacher's probabilities of CIFAR-10's classes through its own
texts, and to predict the teacher's feature maps. Both see random crops and flips, the CLIP mixtures of two pictures as
well.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import clipaudit
from benchmarks.reference_networks import build_clip, build_teacher
from benchmarks.reference_training import Pairs, half, train_clip, train_teacher
from clipaudit.prompts.sets import PromptSet, load_prompts

REPOSITORY = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "reference_clip"
CARD = """---
license: cc-by-nc-4.0
language: en
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags: [clip, cifar-10, tiny-imagenet]
---

# The reference CLIP of clipaudit's benchmarks

A real but small `CLIPModel` ({parameters:,} parameters, float32) for photographs of 32 x 32 pixels. It knows CIFAR-10's
and Tiny ImageNet's classes, in the words of `prompts/cifar10.toml` and `prompts/tiny-imagenet.toml`. Label audits are
measured with it offline (`python -m benchmarks.human_noise`); the package does not ship it.

## Data

CIFAR-10's 10,000 test images and 50,000 images of Tiny ImageNet's training split, scaled to 32 x 32, with their true
classes. CIFAR-10's 50,000 training images, which the benchmarks audit, had no part in training, nor their labels.
Accuracy on CIFAR-10's *test* images would mean nothing: the model saw them.

## Training

    {command}

took {minutes:.0f} minutes on {device}{without}. A nine-layer residual network
is trained on the images and labels of both data sets first. The CLIP then learns contrastively from image-text pairs
(symmetric cross-entropy; each class by a random one of its prompts), from the residual network's class probabilities
and from its feature maps, on random crops and mixtures of pictures, with Muon.

Its vision half is a vision transformer by form and a convolutional network at heart: each attention head looks at one
neighbour of a patch, and the layer normalisations do what trained batch normalisations do (`ConvolutionalTower` in
`benchmarks/reference_networks.py`). It was trained in the second form and written in the first.

## Zero-shot accuracy on CIFAR-10's 50,000 training images

Measured by the command above on the saved folder (`embed`, `select`; prompts of `prompts/cifar10.toml`, eq. 4).

| temperature | accuracy |
|---|---:|
{rows}

## Limits

Photographs of other things get one of the known classes all the same. Texts beyond the two prompt sets mean nothing
to it. Both data sets are for research; so is this model.
"""


def read_pairs(file: Path, prompts: PromptSet) -> Pairs:
    """Read a Parquet file of pictures; labels meet the prompt set's classes by name or alias."""
    table = pq.read_table(file, columns=["image", "label"])
    names = sorted(set(table["label"].to_pylist()))
    matched = prompts.match(names)
    texts = [prompts.texts(entry) for entry in matched if entry]
    if len(texts) < len(names):
        raise SystemExit(
            f"{prompts.name} lacks {[name for name, entry in zip(names, matched, strict=True) if not entry]}"
        )
    number = {name: index for index, name in enumerate(names)}
    pictures = np.stack(
        [np.asarray(Image.open(BytesIO(row["bytes"])).convert("RGB")) for row in table["image"].to_pylist()]
    )
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    return Pairs(pixels, torch.tensor([number[name] for name in table["label"].to_pylist()]), texts)


def zero_shot_accuracies(folder: Path, data: Path) -> dict[float | str, float]:
    """Share of CIFAR-10's training images that the saved model names rightly, by temperature."""
    accuracies: dict[float | str, float] = {}
    with tempfile.TemporaryDirectory() as cache:
        clipaudit.embed(data / "cifar10" / "train.parquet", cache=cache, encoder=clipaudit.EncoderOptions(str(folder)))
        for temperature in (0.07, "model"):
            config = clipaudit.AuditConfig(temperature=temperature)
            table = clipaudit.select(cache, prompts="cifar10", config=config).table
            pairs = zip(table["zero_shot_label"].to_pylist(), table["label"].to_pylist(), strict=True)
            accuracies[temperature] = float(np.mean([guess == true for guess, true in pairs]))
    return accuracies


def ready_teacher(options: argparse.Namespace, sets: tuple[Pairs, Pairs]) -> nn.Sequential:
    """The teacher of an earlier run where its file is there; else a new one, trained, and saved if a file is named."""
    teacher = build_teacher(options.teacher_width, sum(len(pairs.texts) for pairs in sets))
    half(teacher).to(options.device, memory_format=torch.channels_last)
    if options.teacher and options.teacher.exists():
        teacher.load_state_dict(load_file(options.teacher))
        return teacher
    train_teacher(teacher, sets, options.teacher_steps, torch.device(options.device))
    if options.teacher:
        save_file({name: value.contiguous() for name, value in teacher.state_dict().items()}, options.teacher)
    return teacher


def write_card(options: argparse.Namespace, parameters: int, minutes: float, reused: bool) -> None:
    """Measure the saved folder and describe it."""
    accuracies = zero_shot_accuracies(options.out, options.data)
    recorded = ("teacher_steps", "teacher_width", "steps", "rate", "seed")
    words = [f"--{name.replace('_', '-')} {vars(options)[name]}" for name in recorded]
    card = CARD.format(
        parameters=parameters,
        command=" ".join(["python -m benchmarks.train_reference_clip", *words]),
        minutes=minutes,
        device=torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} CPU threads",
        without=", the residual network's training not counted" if reused else "",
        rows="\n".join(f"| {name} | {accuracy:.2%} |" for name, accuracy in accuracies.items()),
    )
    (options.out / "README.md").write_text(card, encoding="utf-8")
    print(f"{minutes:.0f} minutes; zero-shot accuracy {accuracies}")


def main() -> None:
    """Train both networks and save the CLIP."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument(
        "--teacher", type=Path, help="its weights (safetensors); trained and saved there if it is not there yet"
    )
    parser.add_argument("--teacher-steps", type=int, default=3000)
    parser.add_argument("--teacher-width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=5e-3, help="the CLIP's highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    sets = (
        read_pairs(options.data / "cifar10" / "test.parquet", load_prompts(REPOSITORY / "prompts" / "cifar10.toml")),
        read_pairs(
            options.data / "tinyimagenet32" / "train.parquet",
            load_prompts(REPOSITORY / "prompts" / "tiny-imagenet.toml"),
        ),
    )
    began, reused = time.perf_counter(), bool(options.teacher and options.teacher.exists())
    teacher = ready_teacher(options, sets)
    clip, processor = build_clip([text for pairs in sets for of_class in pairs.texts for text in of_class])
    train_clip(clip, processor, teacher, sets, options.steps, options.rate, torch.device(options.device))
    clip.save_pretrained(options.out)
    processor.save_pretrained(options.out)
    write_card(options, clip.num_parameters(), (time.perf_counter() - began) / 60, reused)


if __name__ == "__main__":
    main()
