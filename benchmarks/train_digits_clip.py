"""Train the small CLIP model that the demo ships: python -m benchmarks.train_digits_clip.

Contrastive, as CLIP is: every step pairs each picture with a random text of its class and pulls the two embeddings
together, away from the rest of the batch. A batch holds several pictures of a class, so all texts of a picture's class
count as its partners. The digits that the demo audits are read once, after the last step, to be measured.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, nll_loss
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from clipaudit.clip.encoders import EncoderOptions, load_encoder
from clipaudit.demo import MODEL
from clipaudit.demo.digits import CLASS_NAMES, PICTURE_SIZE, DigitsSplit, as_picture, load_split
from clipaudit.estimates import ZeroShot
from clipaudit.prompts.sets import PromptSet, class_prompts, load_prompts

PROMPTS = Path(__file__).parents[1] / "prompts" / "digits.toml"
PLAIN_TEMPLATES = ("a photo of {}", "a photo of the digit {}", "a handwritten {}")
EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 160, 49, 1e-3, 0.1
PAPER_TEMPERATURE = 0.07

CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags: [clip, handwritten-digits]
---

# The digits CLIP of clipaudit's demo

A real but very small `CLIPModel` ({parameters:,} parameters, float32) that knows handwritten digits and the words of
`prompts/digits.toml`. `clipaudit demo` audits digits with it offline. It is good for nothing else.

## Data

Scikit-learn's `load_digits`: {n_digits:,} digits of 8 x 8 pixels, the test set of UCI's Optical Recognition of
Handwritten Digits (E. Alpaydin, C. Kaynak, 1998), enlarged to {side} x {side} as in the demo.

| part | rows, in scikit-learn's order | digits |
|---|---|---:|
| training | 0 to {last_train_row} | {n_train:,} |
| audited by the demo | {n_train} to {last_row} | {n_audit:,} |

The split is contiguous. Scikit-learn's labels repeat one sequence fourteen times, so the rows are fourteen copies of
one form, and the split lies between the sixth and the seventh: no form is on both sides. There were thirteen writers,
so at most one of them can be.

## Training

    python -m benchmarks.train_digits_clip --seed {seed}

Contrastive on image-text pairs (symmetric cross-entropy, all pairs of a class positive): {epochs} epochs, batches of
{batch_size}, AdamW, cosine schedule, random affine augmentation, on one CPU thread. The texts are the prompts of
`prompts/digits.toml`, and the name or the numeral in these templates: {templates}.

The audited digits had no part in training, and none in the choice of the settings: that was done by leaving out forms
of the training part.

## Zero-shot accuracy on the {n_audit:,} audited digits

Measured by the command above on the saved folder: PNG files, the prompts of `prompts/digits.toml`, the paper's eq. 4.

| temperature | accuracy | mean confidence | mean -log P(true class) |
|---|---:|---:|---:|
{rows}

The second temperature is the model's own, `exp(-logit_scale)`.

## Limits

It has seen six filled-in forms. Hands unlike those are misread, some of them with confidence; pictures of other things
get a digit all the same. Texts beyond the digits' names, numerals and listed features mean nothing to it.
"""


@dataclass(frozen=True)
class Measurement:
    """Zero-shot results at one temperature: shares in [0, 1], the loss in nats."""

    temperature: float
    accuracy: float
    confidence: float
    loss: float


def training_texts(prompts: PromptSet) -> list[list[str]]:
    """Return each class's texts: the prompts of the set, and its name and aliases in CLIP's plain templates."""
    return [
        [prompts.template.format(name=entry.name, feature=feature) for feature in entry.features]
        + [template.format(name) for template in PLAIN_TEMPLATES for name in (entry.name, *entry.aliases)]
        for entry in prompts.classes
    ]


def build_tokenizer(texts: list[str]) -> CLIPTokenizer:
    """Learn byte-pair merges from `texts`, in the layout of CLIP's own vocabulary.

    All bytes come first, inside a word and at its end, so that no text has an unknown token: CLIP writes that as its
    end of text, where the text encoder would stop reading.
    """
    characters = sorted(ByteLevel.alphabet())
    alphabet = [*characters, *(f"{character}</w>" for character in characters)]
    learner = CLIPTokenizer().backend_tokenizer
    # The trainer numbers special tokens in the given order and all others by hash, which would differ from run to run.
    trainer = BpeTrainer(vocab_size=1024, special_tokens=alphabet, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(texts, trainer)
    merges: Any = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = [*alphabet, *dict.fromkeys(map("".join, merges)), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def build_processor(texts: list[str]) -> CLIPProcessor:
    """Return CLIP's preprocessing at the model's size, with the tokenizer of `texts`."""
    side = PICTURE_SIZE
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return CLIPProcessor(image_processor, build_tokenizer(texts))


def build_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return an untrained CLIP: two small transformers into one space of 64 dimensions."""
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=PICTURE_SIZE,
        patch_size=8,
        projection_dim=64,
    )
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def to_pixels(processor: CLIPProcessor, images: NDArray[np.uint8]) -> Tensor:
    """Turn `(n, 8, 8)` digits into the model's `(n, 3, 32, 32) float32` input, by way of the demo's pictures."""
    pixels: Tensor = processor(images=[as_picture(image) for image in images], return_tensors="pt")["pixel_values"]
    return pixels


def augment(pixels: Tensor, paper: Tensor) -> Tensor:
    """Shift, turn, stretch and slant each picture at random; `paper` is what comes into view at the sides."""

    def uniform(limit: float, *shape: int) -> Tensor:
        return torch.empty(len(pixels), *shape).uniform_(-limit, limit)

    angle, slant, shift = uniform(math.radians(20)), uniform(0.4), uniform(0.2, 2, 1)
    width, height = uniform(0.25).exp(), uniform(0.25).exp()
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    stretch = torch.stack([width, width * slant, torch.zeros_like(width), height], 1).view(-1, 2, 2)
    affine = torch.cat([turn @ stretch, shift], 2)
    grid = affine_grid(affine, list(pixels.shape), align_corners=False)
    return grid_sample(pixels - paper, grid, align_corners=False) + paper


def contrastive_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy of `(b, b)` logits, each target spread evenly over the pairs of its class."""
    same_class = (labels[:, None] == labels).float()
    targets = same_class / same_class.sum(1, keepdim=True)
    return (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2


def train(
    model: CLIPModel,
    processor: CLIPProcessor,
    images: NDArray[np.uint8],
    labels: Tensor,
    texts: list[list[str]],
) -> None:
    """Fit `model` in place to `(n, 8, 8)` images, each paired in every epoch with a random text of its class."""
    pixels, paper = to_pixels(processor, images), to_pixels(processor, np.full((1, 8, 8), 255, np.uint8))
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    # A short warm-up, then the cosine down to zero.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        LEARNING_RATE,
        epochs=EPOCHS,
        steps_per_epoch=math.ceil(len(pixels) / BATCH_SIZE),
        pct_start=0.05,
    )
    model.train()
    for epoch in range(1, EPOCHS + 1):
        started, total = time.perf_counter(), 0.0
        for rows in torch.randperm(len(pixels)).split(BATCH_SIZE):
            drawn = [texts[label][int(torch.randint(len(texts[label]), ()))] for label in labels[rows].tolist()]
            tokens = processor(text=drawn, padding=True, return_tensors="pt")
            output: Any = model(pixel_values=augment(pixels[rows], paper), **tokens)
            loss = contrastive_loss(output.logits_per_image, labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(rows)
        seconds = time.perf_counter() - started
        print(f"epoch {epoch:3d}/{EPOCHS}  loss {total / len(pixels):.4f}  {seconds:.1f} s", flush=True)


def measure(folder: Path, images: NDArray[np.uint8], labels: Tensor, prompts: PromptSet) -> list[Measurement]:
    """Classify the audited digits zero-shot with the saved model, just as `clipaudit` will: PNG files, eq. 3-4."""
    encoder = load_encoder(EncoderOptions(model=str(folder), device="cpu", precision="float32"))
    prepared = []
    for image in images:
        file = BytesIO()
        as_picture(image).save(file, "PNG")
        prepared.append(encoder.prepare(file.getvalue()))
    embeddings = encoder.encode_images(np.stack(prepared))
    wording = class_prompts(CLASS_NAMES, prompts)
    texts = torch.from_numpy(encoder.encode_texts(wording.texts))
    rows = torch.arange(len(labels))
    measurements = []
    for temperature in (PAPER_TEMPERATURE, 1 / encoder.logit_scale):
        log_p = ZeroShot(texts, wording.owners, temperature).log_proba(embeddings, rows)
        confidence, prediction = log_p.exp().max(1)
        correct = (prediction == labels).float().mean().item()
        loss = nll_loss(log_p, labels).item()
        measurements.append(Measurement(temperature, correct, confidence.mean().item(), loss))
    return measurements


def model_card(seed: int, parameters: int, split: DigitsSplit, measurements: list[Measurement]) -> str:
    """Return the model's README: what it was trained on, how, and what was measured."""
    n_train, n_audit = len(split.train_labels), len(split.audit_labels)
    rows = [
        f"| {measured.temperature:.3f} | {measured.accuracy:.2%} | {measured.confidence:.2%} | {measured.loss:.3f} |"
        for measured in measurements
    ]
    return CARD.format(
        parameters=parameters,
        n_digits=n_train + n_audit,
        side=PICTURE_SIZE,
        n_train=n_train,
        n_audit=n_audit,
        last_train_row=n_train - 1,
        last_row=n_train + n_audit - 1,
        seed=seed,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        templates=", ".join(f'"{template}"' for template in PLAIN_TEMPLATES),
        rows="\n".join(rows),
    )


def main() -> None:
    """Train, save the folder, measure it and write its card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=MODEL, help="the model's folder")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, batches, texts and augmentation")
    arguments = parser.parse_args()
    # The number of threads decides the order of sums, and with it the last bits of the weights.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(arguments.seed)

    split, prompts = load_split(), load_prompts(PROMPTS)
    texts = training_texts(prompts)
    processor = build_processor([text for of_class in texts for text in of_class])
    model = build_model(processor.tokenizer)
    train(model, processor, split.train_images, torch.from_numpy(split.train_labels), texts)
    model.save_pretrained(arguments.out)
    processor.save_pretrained(arguments.out)

    measurements = measure(arguments.out, split.audit_images, torch.from_numpy(split.audit_labels), prompts)
    card = model_card(arguments.seed, model.num_parameters(), split, measurements)
    (arguments.out / "README.md").write_text(card, encoding="utf-8")
    for measured in measurements:
        print(f"T {measured.temperature:.3f}: {measured.accuracy:.2%} of the audited digits right")


if __name__ == "__main__":
    main()
