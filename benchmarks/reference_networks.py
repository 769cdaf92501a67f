"""The networks of the reference CLIP: a convolutional teacher, and a CLIP that begins as a convolution."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTextConfig, CLIPVisionConfig

from benchmarks.train_digits_clip import build_tokenizer

SIDE, PATCH, WIDTH, LAYERS, HEADS, DIMENSION = 32, 4, 192, 6, 6, 128
GRID = SIDE // PATCH
PATCHES = GRID**2


class Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(channels, channels), convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to the same shape."""
        return x + self.body(x)


def convolution(inputs: int, outputs: int, *, halve: bool = False) -> nn.Sequential:
    """3 x 3, batch normalisation and ReLU; with `halve`, pooled to half the side."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
    if halve:
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def build_teacher(width: int, n_classes: int) -> nn.Sequential:
    """A nine-layer residual network (Coleman et al., DAWNBench, 2017)."""
    return nn.Sequential(
        convolution(3, width),
        convolution(width, 2 * width, halve=True),
        Residual(2 * width),
        convolution(2 * width, 4 * width, halve=True),
        convolution(4 * width, 8 * width, halve=True),
        Residual(8 * width),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, n_classes),
    )


def build_clip(texts: list[str]) -> tuple[CLIPModel, CLIPProcessor]:
    """An untrained CLIP whose attention begins as a convolution (Zheng, Li and Lucey, 2024), and its processor."""
    tokenizer = build_tokenizer(texts)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=DIMENSION,
        **special,
    )
    vision = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        image_size=SIDE, patch_size=PATCH, projection_dim=DIMENSION, hidden_act="gelu",
    )  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIMENSION))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        embeddings = model.vision_model.embeddings
        codes = position_codes()
        embeddings.position_embedding.weight[1:] = 0
        embeddings.position_embedding.weight[1:, : codes.shape[1]] = codes
        # Contents start well below the codes in the channels that they share, so that attention can read the codes.
        embeddings.patch_embedding.weight.normal_(0, 0.7 / math.sqrt(3 * PATCH**2))
        embeddings.patch_embedding.weight[: codes.shape[1]] *= 0.25
        for layer in model.vision_model.encoder.layers:
            attend_to_neighbours(layer.self_attn)
    mean = [0.5, 0.5, 0.5]
    size = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size, image_mean=mean, image_std=mean)
    return model, CLIPProcessor(images, tokenizer)


def angles() -> Tensor:
    """The (8,) angles by which one step along an axis of the grid turns its code."""
    return math.pi * torch.arange(1, GRID + 1) / GRID


def position_codes() -> Tensor:
    """(64, 32): sines and cosines of each patch's row and column; the product of two codes peaks where they agree."""
    turned = torch.arange(GRID)[:, None] * angles()
    waves = torch.cat([turned.sin(), turned.cos()], 1)
    rows, columns = waves[:, None].expand(-1, GRID, -1), waves[None].expand(GRID, -1, -1)
    return torch.cat([rows, columns], 2).reshape(PATCHES, 4 * GRID)


def shift(steps: int) -> Tensor:
    """(16, 16): takes the code of a place on one axis to the code of the place so many steps further."""
    cosines, sines = torch.diag((steps * angles()).cos()), torch.diag((steps * angles()).sin())
    return torch.cat([torch.cat([cosines, sines], 1), torch.cat([-sines, cosines], 1)])


def attend_to_neighbours(attention: Any) -> None:
    """Let each head look at another neighbour of a patch, and take a part of what it sees away from the patch."""
    part, codes, strength = WIDTH // HEADS, 4 * GRID, 1.6
    neighbours = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
    for weight in (attention.q_proj.weight, attention.k_proj.weight):
        weight.normal_(0, 0.02)
    for head, chosen in enumerate(torch.randperm(len(neighbours))[:HEADS].tolist()):
        down, right = neighbours[chosen]
        rows = slice(head * part, (head + 1) * part)
        attention.q_proj.weight[rows, :codes] += strength * torch.block_diag(shift(down), shift(right))
        attention.k_proj.weight[rows, :codes] += strength * torch.eye(codes)
    # W_v W_o begins near a negative identity, as it ends in large trained towers (Trockman and Kolter, 2023).
    left, values, basis = torch.linalg.svd(0.4 * torch.randn(WIDTH, WIDTH) / math.sqrt(WIDTH) - 0.4 * torch.eye(WIDTH))
    attention.v_proj.weight.copy_((left * values.sqrt()).T)
    attention.out_proj.weight.copy_((values.sqrt()[:, None] * basis).T)


class VisionTower(nn.Module):
    """CLIP's vision half over a random part of the patches."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.tower, self.projection = clip.vision_model, clip.visual_projection

    def forward(self, pixels: Tensor, patches: Tensor) -> Tensor:
        """(b, 3, 32, 32) pixels and the numbers of the patches to see: (b, 128) unit rows."""
        embedded = self.tower.embeddings(pixels)
        hidden = self.tower.pre_layrnorm(torch.cat([embedded[:, :1], embedded[:, patches + 1]], 1))
        hidden = self.tower.encoder(inputs_embeds=hidden).last_hidden_state
        return normalize(self.projection(self.tower.post_layernorm(hidden[:, 0])).float(), dim=-1)
