"""Train the reference CLIP for 32 x 32 images: python -m benchmarks.train_reference_clip.

It learns from CIFAR-10's test images and Tiny ImageNet's training images with texts from `prompts/`; no label of
CIFAR-10's training split is read before the last step, which measures the finished folder on it.

Two networks take turns. A convolutional teacher, which learns much from few images, is trained on the labels first.
Then a CLIP is trained contrastively on image-text pairs and, at the same time, to give every picture the teacher's
class probabilities through its own texts. Both see random crops and flips, the CLIP mixtures of two pictures as well.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, kl_div, normalize, one_hot
from transformers import CLIPModel, CLIPProcessor

import clipaudit
from benchmarks.reference_networks import PATCHES, VisionTower, build_clip, build_teacher
from clipaudit.prompts import PromptSet, load_prompts

REPOSITORY = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "reference_clip"
BATCH, REPORT_EVERY = 128, 200
# Tokens that the vision tower sees until the last quarter of training: patch dropout, faster and a regulariser.
KEPT_PATCHES = 40

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

took {minutes:.0f} minutes on {device}{without}. A nine-layer residual network is trained on CIFAR-10's test images
and labels first. The CLIP then learns contrastively from image-text pairs of both data sets (symmetric cross-entropy;
each class by a random one of its prompts) and from the residual network's class probabilities, on random crops and
mixtures of pictures.

## Zero-shot accuracy on CIFAR-10's 50,000 training images

Measured by the command above on the saved folder (`embed`, `select`; prompts of `prompts/cifar10.toml`, eq. 4).

| temperature | accuracy |
|---|---:|
{rows}

## Limits

Photographs of other things get one of the known classes all the same. Texts beyond the two prompt sets mean nothing
to it. Both data sets are for research; so is this model.
"""


@dataclass(frozen=True)
class Pairs:
    """Pictures of one data set, (n, 3, 32, 32) float in [-1, 1], and their classes' texts."""

    pixels: Tensor
    labels: Tensor
    texts: list[tuple[str, ...]]

    def batches(self, size: int) -> Iterator[Tensor]:
        """Row numbers of one random batch after another, each epoch in a new order, for ever."""
        while True:
            yield from torch.randperm(len(self.labels)).split(size)[:-1]


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


def augment(pixels: Tensor) -> Tensor:
    """Shift, zoom and mirror each picture at random."""
    n, device = len(pixels), pixels.device
    zoom = torch.empty(n, device=device).uniform_(0.9, 1.1)
    affine = torch.zeros(n, 2, 3, device=device)
    affine[:, 0, 0], affine[:, 1, 1] = zoom * (torch.randint(0, 2, (n,), device=device) * 2 - 1), zoom
    affine[:, :, 2] = torch.empty(n, 2, device=device).uniform_(-0.2, 0.2)
    grid = affine_grid(affine, list(pixels.shape), align_corners=False)
    return grid_sample(pixels, grid, align_corners=False, padding_mode="reflection")


def mix(pixels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mixup of pictures and (n, k) targets with one random partner each, in half of the batches."""
    share = 1.0 if torch.rand(()) < 0.5 else float(torch.rand(()))
    partner = torch.randperm(len(pixels))
    return share * pixels + (1 - share) * pixels[partner], share * targets + (1 - share) * targets[partner]


class HalfTrainer:
    """AdamW over float32 weights, while the networks compute in bfloat16 copies of them; one cosine with warm-up."""

    def __init__(self, module: nn.Module, rate: float, steps: int, decay: float) -> None:
        self.module = half(module)
        self.working = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.master = [parameter.detach().float().clone() for parameter in self.working]
        groups = [
            {"params": [weight for weight in self.master if weight.ndim > 1], "weight_decay": decay},
            {"params": [weight for weight in self.master if weight.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, rate, total_steps=steps, pct_start=0.08, cycle_momentum=False
        )

    def step(self, loss: Tensor) -> None:
        """Backward, clip, update, and copy the weights back."""
        loss.backward()
        for weight, copy in zip(self.master, self.working, strict=True):
            weight.grad = None if copy.grad is None else copy.grad.float()
            copy.grad = None
        nn.utils.clip_grad_norm_(self.master, 1.0)
        self.optimiser.step()
        self.schedule.step()
        with torch.no_grad():
            torch._foreach_copy_(self.working, self.master)

    def finish(self) -> None:
        """Put the float32 weights into the module."""
        self.module.float()
        with torch.no_grad():
            for copy, weight in zip(self.working, self.master, strict=True):
                copy.copy_(weight)


def half(module: nn.Module) -> nn.Module:
    """To bfloat16, but for batch normalisation: its running means move by less than bfloat16 can tell."""
    module.bfloat16()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.float()
    return module


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Symmetric, of (b, k) logits and targets whose rows sum to one; texts that no picture has are left out."""
    columns = targets.sum(0)
    present = columns > 0
    by_text = (targets / columns.clamp_min(1e-6)).T[present]
    return (cross_entropy(logits, targets) + cross_entropy(logits.T[present], by_text)) / 2


def train_teacher(teacher: nn.Module, pairs: Pairs, steps: int, device: torch.device) -> None:
    """Fit the teacher in place to CIFAR-10's classes."""
    trainer = HalfTrainer(teacher, 1.5e-3, steps, 0.05)
    stream, report = pairs.batches(BATCH), Report("teacher", steps)
    for step in range(steps):
        rows = next(stream)
        pixels = augment(pairs.pixels[rows].to(device)).bfloat16().contiguous(memory_format=torch.channels_last)
        loss = cross_entropy(teacher(pixels).float(), pairs.labels[rows].to(device), label_smoothing=0.1)
        trainer.step(loss)
        report(step, loss)


def drawn(pairs: Pairs, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """One augmented, mixed batch: (b, 3, 32, 32) pixels and (b, k) targets."""
    targets = one_hot(pairs.labels[rows], len(pairs.texts)).float().to(device)
    return mix(augment(pairs.pixels[rows].to(device)), targets)


class Report:
    """A line every REPORT_EVERY steps: mean loss and images a second."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.total, self.began = name, steps, 0.0, time.perf_counter()

    def __call__(self, step: int, step_loss: Tensor) -> None:
        """Add a step's loss."""
        self.total += step_loss.detach()
        if (step + 1) % REPORT_EVERY == 0:
            rate = (step + 1) * BATCH / (time.perf_counter() - self.began)
            loss = float(self.total) / REPORT_EVERY
            print(f"{self.name} {step + 1:,}/{self.steps:,}  loss {loss:.3f}  {rate:.0f} images/s", flush=True)
            self.total = 0.0


def train_clip(
    clip: CLIPModel,
    processor: CLIPProcessor,
    teacher: nn.Module,
    sets: tuple[Pairs, Pairs],
    steps: int,
    device: torch.device,
) -> None:
    """Fit `clip` in place: contrastively to each set's texts, and to the teacher's view of every picture."""
    clip.to(device).train()
    trainer = HalfTrainer(clip, 8e-4, steps, 0.05)
    teacher.eval()
    tower = torch.compile(VisionTower(clip))
    tokens = [
        [
            processor(text=list(of_class), padding="max_length", max_length=77, return_tensors="pt").to(device)
            for of_class in pairs.texts
        ]
        for pairs in sets
    ]
    shares = (BATCH // 2, BATCH // 2)
    streams = [pairs.batches(share) for pairs, share in zip(sets, shares, strict=True)]
    report = Report("clip", steps)
    for step in range(steps):
        rows = [next(stream) for stream in streams]
        pixels, targets = zip(*(drawn(pairs, row, device) for pairs, row in zip(sets, rows, strict=True)), strict=True)
        views = torch.cat(pixels).bfloat16().contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            advice = teacher(views).float().softmax(1)
        kept = KEPT_PATCHES if step < 0.75 * steps else PATCHES
        patches = torch.randperm(PATCHES, device=device)[:kept]
        # Two halves at a time fit the cache of a CPU.
        images = torch.cat([tower(view, patches) for view in views.split(BATCH // 2)])
        classes = [torch.arange(len(sets[0].texts)), sets[1].labels[rows[1]].unique()]
        texts = encode_texts(clip, tokens, classes)
        scale = clip.logit_scale.float().clamp(max=math.log(100)).exp()
        logits = scale * images @ texts[0].T, scale * images[shares[0] :] @ texts[1].T
        loss = soft_cross_entropy(logits[0][: shares[0]], targets[0])
        loss = loss + 0.5 * soft_cross_entropy(logits[1], targets[1][:, classes[1]])
        loss = loss + 2 * kl_div(logits[0].log_softmax(1), advice, reduction="batchmean")
        trainer.step(loss)
        report(step, loss)
    trainer.finish()
    clip.cpu().eval()


def encode_texts(clip: CLIPModel, tokens: list[list[Any]], classes: list[Tensor]) -> list[Tensor]:
    """For each set, (k, 128) unit rows: one random text of each of these classes."""
    drawn_tokens = [
        {key: value[choice] for key, value in of_class.items()}
        for of_set, numbers in zip(tokens, classes, strict=True)
        for of_class in (of_set[number] for number in numbers.tolist())
        for choice in [int(torch.randint(len(of_class["input_ids"]), ()))]
    ]
    together = {key: torch.stack([one[key] for one in drawn_tokens]) for key in drawn_tokens[0]}
    length = int(together["attention_mask"].sum(1).max())
    features = clip.text_projection(
        clip.text_model(**{key: value[:, :length] for key, value in together.items()}).pooler_output
    )
    return list(normalize(features.float(), dim=-1).split([len(numbers) for numbers in classes]))


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


def main() -> None:
    """Train both networks and save the CLIP."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument(
        "--teacher", type=Path, help="its weights (safetensors); trained and saved there if it is not there yet"
    )
    parser.add_argument("--teacher-steps", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--teacher-width", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    sets = (
        read_pairs(options.data / "cifar10" / "test.parquet", load_prompts(REPOSITORY / "prompts" / "cifar10.toml")),
        read_pairs(
            options.data / "tinyimagenet32" / "train.parquet",
            load_prompts(REPOSITORY / "prompts" / "tiny-imagenet.toml"),
        ),
    )
    began = time.perf_counter()
    teacher = build_teacher(options.teacher_width, len(sets[0].texts))
    half(teacher).to(device, memory_format=torch.channels_last)
    reused = bool(options.teacher and options.teacher.exists())
    if reused:
        teacher.load_state_dict(load_file(options.teacher))
    else:
        train_teacher(teacher, sets[0], options.teacher_steps, device)
        if options.teacher:
            save_file({name: value.contiguous() for name, value in teacher.state_dict().items()}, options.teacher)
    clip, processor = build_clip([text for pairs in sets for of_class in pairs.texts for text in of_class])
    train_clip(clip, processor, teacher, sets, options.steps, device)
    clip.save_pretrained(options.out)
    processor.save_pretrained(options.out)
    minutes = (time.perf_counter() - began) / 60
    accuracies = zero_shot_accuracies(options.out, options.data)
    command = (
        f"python -m benchmarks.train_reference_clip --teacher-steps {options.teacher_steps} --steps {options.steps}"
    )
    card = CARD.format(
        parameters=clip.num_parameters(),
        command=f"{command} --teacher-width {options.teacher_width} --seed {options.seed}",
        minutes=minutes,
        without=", the residual network's training not counted" if reused else "",
        device=torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads",
        rows="\n".join(f"| {name} | {accuracy:.2%} |" for name, accuracy in accuracies.items()),
    )
    (options.out / "README.md").write_text(card, encoding="utf-8")
    print(f"{minutes:.0f} minutes; zero-shot accuracy {accuracies}")


if __name__ == "__main__":
    main()
