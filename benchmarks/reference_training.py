"""How the reference CLIP and its teacher learn: data, half precision, and the two training loops."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    adaptive_avg_pool2d,
    affine_grid,
    batch_norm,
    cross_entropy,
    grid_sample,
    kl_div,
    mse_loss,
    normalize,
    one_hot,
)
from transformers import CLIPModel, CLIPProcessor

from benchmarks.reference_networks import GRID, WIDTH, ConvolutionalTower

BATCH, REPORT_EVERY = 128, 200
SHARE = BATCH // 2  # of each data set
SMALLEST_MATRIX = 48  # rows and columns; what is narrower (pixels in, say) has little to gain from Muon
ADVICE, HINT = 4.0, 8.0  # the weights of the teacher's probabilities and feature maps beside the labels
SETTLING_STEPS = 50


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
    """Muon for matrices and AdamW for the rest, over float32 weights, while the networks compute in bfloat16 copies.

    Muon (Jordan et al., 2024) makes each step of a matrix orthogonal; its steps are scaled to AdamW's, so that both
    share one learning rate, a cosine with warm-up. Convolutions count as matrices, one row an output channel.
    """

    def __init__(self, module: nn.Module, rate: float, steps: int, decay: float) -> None:
        self.module = half(module)
        self.working = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.master = [parameter.detach().float().flatten(1 if parameter.ndim > 1 else 0) for parameter in self.working]
        embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
        matrices, others = [], []
        for weight, copy in zip(self.master, self.working, strict=True):
            is_matrix = weight.ndim > 1 and min(weight.shape) >= SMALLEST_MATRIX and id(copy) not in embeddings
            (matrices if is_matrix else others).append(weight)
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]
        self.schedules = [
            torch.optim.lr_scheduler.OneCycleLR(
                optimiser, rate, total_steps=steps, pct_start=0.08, cycle_momentum=False
            )
            for optimiser in self.optimisers
        ]

    def step(self, loss: Tensor) -> None:
        """Backward, clip, update, and copy the weights back."""
        loss.backward()
        for weight, copy in zip(self.master, self.working, strict=True):
            weight.grad = None if copy.grad is None else copy.grad.float().reshape(weight.shape)
            copy.grad = None
        nn.utils.clip_grad_norm_(self.master, 1.0)
        for optimiser, schedule in zip(self.optimisers, self.schedules, strict=True):
            optimiser.step()
            schedule.step()
        self.write_back()

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the float32 weights into the module's."""
        for copy, weight in zip(self.working, self.master, strict=True):
            copy.copy_(weight.view_as(copy))

    def finish(self) -> None:
        """Put the float32 weights into the module."""
        self.module.float()
        self.write_back()


def half(module: nn.Module) -> nn.Module:
    """To bfloat16, but for batch normalisation: its running means move by less than bfloat16 can tell."""
    module.bfloat16()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.float()
    return module


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Symmetric, of (b, k) logits and targets whose rows sum to one; texts that no picture has are left out."""
    columns = targets.sum(0)
    present = columns > 0
    by_text = (targets / columns.clamp_min(1e-6)).T[present]
    return (cross_entropy(logits, targets) + cross_entropy(logits.T[present], by_text)) / 2


def train_teacher(teacher: nn.Module, sets: tuple[Pairs, Pairs], steps: int, device: torch.device) -> None:
    """Fit the teacher in place: its outputs are the first set's classes, then the second's."""
    trainer = HalfTrainer(teacher, 3e-3, steps, 0.05)
    sizes = [len(pairs.texts) for pairs in sets]
    streams, report = [pairs.batches(SHARE) for pairs in sets], Report("teacher", steps)
    for step in range(steps):
        rows = [next(stream) for stream in streams]
        views = torch.cat([augment(pairs.pixels[row].to(device)) for pairs, row in zip(sets, rows, strict=True)])
        logits = teacher(views.bfloat16().contiguous(memory_format=torch.channels_last)).float()
        own = [part.split(sizes, 1)[number] for number, part in enumerate(logits.split(SHARE))]
        labels = [pairs.labels[row].to(device) for pairs, row in zip(sets, rows, strict=True)]
        loss = sum(cross_entropy(*pair, label_smoothing=0.1) for pair in zip(own, labels, strict=True)) / 2
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
    teacher: nn.Sequential,
    sets: tuple[Pairs, Pairs],
    steps: int,
    rate: float,
    device: torch.device,
) -> None:
    """Fit `clip` in place: contrastively to each set's texts, and to the teacher's view of every picture.

    The vision half learns as a convolutional network. To agree with the teacher about the class is little to learn
    from; it shall also predict the teacher's feature maps.
    """
    tower = ConvolutionalTower()
    hint = nn.Linear(WIDTH, teacher[-1].in_features)
    clip.vision_model.requires_grad_(False)
    clip.visual_projection.requires_grad_(False)
    learners = nn.ModuleList([clip, tower, hint]).to(device).train()
    trainer = HalfTrainer(learners, rate, steps, 0.05)
    teacher.eval()
    features, head = teacher[:-3], teacher[-3:]
    compiled = torch.compile(tower)
    tokens = [
        [
            processor(text=list(of_class), padding="max_length", max_length=77, return_tensors="pt").to(device)
            for of_class in pairs.texts
        ]
        for pairs in sets
    ]
    streams, report = [pairs.batches(SHARE) for pairs in sets], Report("clip", steps)
    for step in range(steps):
        rows = [next(stream) for stream in streams]
        pixels, targets = zip(*(drawn(pairs, row, device) for pairs, row in zip(sets, rows, strict=True)), strict=True)
        views = torch.cat(pixels).bfloat16()
        with torch.no_grad():
            maps = features(views.contiguous(memory_format=torch.channels_last))
            advice = head(maps)[:, : len(sets[0].texts)].float().softmax(1)
        images, places = compiled(views)
        classes = [torch.arange(len(sets[0].texts)), sets[1].labels[rows[1]].unique()]
        texts = encode_texts(clip, tokens, classes)
        scale = clip.logit_scale.float().clamp(max=math.log(100)).exp()
        logits = scale * images @ texts[0].T, scale * images[SHARE:] @ texts[1].T
        loss = soft_cross_entropy(logits[0][:SHARE], targets[0])
        loss = loss + 0.5 * soft_cross_entropy(logits[1], targets[1][:, classes[1]])
        loss = loss + ADVICE * kl_div(logits[0].log_softmax(1), advice, reduction="batchmean")
        loss = loss + HINT * map_loss(hint(places), maps)
        trainer.step(loss)
        report(step, loss)
    trainer.finish()
    settle(tower, sets, device)
    tower.cpu().write_into(clip.cpu().eval())


def map_loss(places: Tensor, maps: Tensor) -> Tensor:
    """Mean squared error of (b, patches, f) predictions, pooled to the size of the (b, f, h, w) maps, standardised."""
    side = maps.shape[-1]
    predicted = adaptive_avg_pool2d(places.transpose(1, 2).unflatten(2, (GRID, GRID)).float(), side)
    return mse_loss(predicted, batch_norm(maps.float(), None, None, training=True))


@torch.no_grad()
def settle(tower: ConvolutionalTower, sets: tuple[Pairs, Pairs], device: torch.device) -> None:
    """Take the batch normalisations' means and variances from pictures that are not mixed, and end in `eval` mode."""
    for part in tower.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.reset_running_stats()
            part.momentum = None
    streams = [pairs.batches(SHARE) for pairs in sets]
    for _ in range(SETTLING_STEPS):
        rows = [next(stream) for stream in streams]
        tower(torch.cat([augment(pairs.pixels[row].to(device)) for pairs, row in zip(sets, rows, strict=True)]))
    tower.eval()


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
