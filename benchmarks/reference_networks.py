"""The networks of the reference CLIP: a convolutional teacher, and a CLIP that begins where trained ones end."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTextConfig, CLIPVisionConfig

from benchmarks.train_digits_clip import build_tokenizer

SIDE, PATCH, WIDTH, LAYERS, HEADS, DIMENSION = 32, 4, 192, 6, 3, 128
PATCHES = (SIDE // PATCH) ** 2


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
    """An untrained CLIP with mimetic initialisation (Trockman and Kolter, 2023), and its processor."""
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
        model.vision_model.embeddings.position_embedding.weight[1:] = sine_positions(SIDE // PATCH, WIDTH)
        for layer in model.vision_model.encoder.layers:
            mimic_trained_attention(layer.self_attn)
    mean = [0.5, 0.5, 0.5]
    size = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size, image_mean=mean, image_std=mean)
    return model, CLIPProcessor(images, tokenizer)


def sine_positions(side: int, width: int) -> Tensor:
    """(side^2, width) sines and cosines of row and column."""
    rates = 10_000 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat([rows, columns], 2).reshape(side * side, width)


def mimic_trained_attention(attention: Any) -> None:
    """Let W_q W_k^T begin near the identity and W_v W_o near its negative, as they end in large trained ones."""
    width, part = WIDTH, WIDTH // HEADS
    for head in range(HEADS):
        rows = slice(head * part, (head + 1) * part)
        left, values, right = torch.linalg.svd(
            0.7 * torch.randn(width, width) / math.sqrt(width) + 0.7 * torch.eye(width)
        )
        root = values[:part].sqrt()
        attention.q_proj.weight[rows] = (left[:, :part] * root).T
        attention.k_proj.weight[rows] = right[:part] * root[:, None]
    left, values, right = torch.linalg.svd(0.4 * torch.randn(width, width) / math.sqrt(width) - 0.4 * torch.eye(width))
    attention.v_proj.weight.copy_((left * values.sqrt()).T)
    attention.out_proj.weight.copy_((values.sqrt()[:, None] * right).T)


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
