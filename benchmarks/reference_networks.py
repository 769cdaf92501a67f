"""The networks of the reference CLIP: a convolutional teacher, and a CLIP that is a convolutional network at heart."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot, relu
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTextConfig, CLIPVisionConfig

from benchmarks.train_digits_clip import build_tokenizer

SIDE, PATCH, WIDTH, INNER, LAYERS, DIMENSION = 32, 4, 192, 384, 7, 128
GRID = SIDE // PATCH
NEIGHBOURS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]

# The transformer's channels: those of the convolutional network, then the ones that `write_into` explains.
HIDDEN = 216
BALANCE, CODES, ANCHORS = WIDTH, slice(WIDTH + 1, WIDTH + 1 + 2 * GRID), slice(HIDDEN - 2, HIDDEN)
ANCHOR = 4096.0
SPREAD = ANCHOR * math.sqrt(2 / HIDDEN)  # the standard deviation over the channels
# How much higher the neighbour's logit is than any other's.
SHARPNESS = 20.0


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
    """An untrained CLIP whose vision half has the shape of a `ConvolutionalTower`, and its processor."""
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
        hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=len(NEIGHBOURS),
        image_size=SIDE, patch_size=PATCH, projection_dim=DIMENSION, hidden_act="relu",
    )  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIMENSION))
    mean = [0.5, 0.5, 0.5]
    size = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size, image_mean=mean, image_std=mean)
    return model, CLIPProcessor(images, tokenizer)


class Normalisation(nn.BatchNorm1d):
    """Batch normalisation of the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) to the same shape."""
        return super().forward(x.reshape(-1, x.shape[-1])).view_as(x)

    def as_affine(self) -> tuple[Tensor, Tensor]:
        """What it does once trained: (c,) factors and (c,) summands."""
        factors = self.weight / (self.running_var + self.eps).sqrt()
        return factors, self.bias - factors * self.running_mean


class Block(nn.Module):
    """A convolution of low rank, then a perceptron at each place, each with a way around it.

    The first of the tokens is the class token: it sees all places at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before_values, self.before_perceptron = Normalisation(WIDTH), Normalisation(WIDTH)
        self.values, self.out = nn.Linear(WIDTH, HIDDEN, bias=False), nn.Linear(HIDDEN, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 1 + patches, c) to the same shape."""
        values = self.values(self.before_values(x))
        parts = values[:, 1:].unflatten(1, (GRID, GRID)).chunk(len(NEIGHBOURS), -1)
        seen = [look(look(part, down, 1), right, 2) for part, (down, right) in zip(parts, NEIGHBOURS, strict=True)]
        everything = values.mean(1, keepdim=True)
        return self.perceive(x + self.out(torch.cat([everything, torch.cat(seen, -1).flatten(1, 2)], 1)))

    def summarise(self, x: Tensor) -> Tensor:
        """(b, 1 + patches, c) to (b, c): what `forward` makes of the class token."""
        return self.perceive(x[:, 0] + self.out(self.values(self.before_values(x).mean(1))))

    def perceive(self, x: Tensor) -> Tensor:
        """(..., c) to the same shape."""
        return x + self.down(relu(self.up(self.before_perceptron(x))))


def look(x: Tensor, steps: int, axis: int) -> Tensor:
    """Each place gets what stands so many steps further along an axis, or at its end."""
    rest = x.shape[axis] - abs(steps)
    if steps > 0:
        return torch.cat([x.narrow(axis, steps, rest), *[x.narrow(axis, -1, 1)] * steps], axis)
    return torch.cat([*[x.narrow(axis, 0, 1)] * -steps, x.narrow(axis, 0, rest)], axis)


class ConvolutionalTower(nn.Module):
    """A convolutional network that is also a CLIP vision transformer, which `write_into` turns it into.

    It learns from few images what a transformer learns from many (a place's neighbours matter, and a picture moved by
    a patch shows the same thing), and trains without the cost of attention.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pixels = nn.Linear(3 * PATCH**2, WIDTH)
        self.start = nn.Parameter(torch.zeros(WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.last, self.projection = Normalisation(WIDTH), nn.Linear(WIDTH, DIMENSION, bias=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 3, 32, 32) pixels to (b, 128) unit rows, and the (b, patches, c) that they summarise."""
        patches = pixels.unflatten(3, (GRID, PATCH)).unflatten(2, (GRID, PATCH))
        patches = self.pixels(patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))
        x = torch.cat([self.start.expand(len(patches), 1, -1), patches], 1)
        for block in self.blocks[:-1]:
            x = block(x)
        rows = self.projection(self.last(self.blocks[-1].summarise(x)))
        return normalize(rows.float(), dim=-1), x[:, 1:]

    @torch.no_grad()
    def write_into(self, clip: CLIPModel) -> None:
        """Set the weights of CLIP's vision half such that it computes the same, once this tower is in `eval` mode.

        The transformer has more channels. Two of them hold a number so large, and its negative, that they alone decide
        the variance in every layer normalisation; another one holds the negative sum of all others, so that the mean is
        nought. What layer normalisation is left to do is what a trained batch normalisation does: multiply and add.
        The last new channels hold each patch's row and column, one-hot. A head's query asks for the row and column of
        one neighbour, as far as there is one; the class token's asks for nothing, and so gets the mean of everything.
        """
        for parameter in [*clip.vision_model.parameters(), *clip.visual_projection.parameters()]:
            parameter.zero_()
        tower = clip.vision_model
        embeddings = tower.embeddings
        embeddings.patch_embedding.weight.copy_(balanced(self.pixels.weight).unflatten(1, (3, PATCH, PATCH)))
        embeddings.class_embedding.copy_(balanced(self.start))
        positions = embeddings.position_embedding.weight
        positions[1:] = balanced(self.pixels.bias)
        positions[1:, CODES] = places()
        positions[1:, BALANCE] -= places().sum(1)
        positions[:, ANCHORS] = torch.tensor([ANCHOR, -ANCHOR])
        tower.pre_layrnorm.weight.fill_(SPREAD)
        for layer, block in zip(tower.encoder.layers, self.blocks, strict=True):
            set_affine(layer.layer_norm1, block.before_values)
            layer.layer_norm1.weight[CODES] = SPREAD
            look_at_neighbours(layer.self_attn)
            layer.self_attn.v_proj.weight[:, :WIDTH] = block.values.weight
            layer.self_attn.out_proj.weight.copy_(balanced(block.out.weight))
            set_affine(layer.layer_norm2, block.before_perceptron)
            layer.mlp.fc1.weight[:, :WIDTH] = block.up.weight
            layer.mlp.fc1.bias.copy_(block.up.bias)
            layer.mlp.fc2.weight.copy_(balanced(block.down.weight))
            layer.mlp.fc2.bias.copy_(balanced(block.down.bias))
        set_affine(tower.post_layernorm, self.last)
        clip.visual_projection.weight[:, :WIDTH] = self.projection.weight


def balanced(rows: Tensor) -> Tensor:
    """(c, ...) to (HIDDEN, ...): with the channel that brings the sum to nought."""
    wide = rows.new_zeros(HIDDEN, *rows.shape[1:])
    wide[:WIDTH], wide[BALANCE] = rows, -rows.sum(0)
    return wide


def set_affine(norm: nn.LayerNorm, trained: Normalisation) -> None:
    """Let a layer normalisation do what a trained batch normalisation does; other channels become nought."""
    factors, summands = trained.as_affine()
    norm.weight[:WIDTH], norm.bias[:WIDTH] = SPREAD * factors, summands


def places() -> Tensor:
    """(patches, 2 * GRID): each patch's row and column, one-hot."""
    rows, columns = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    return torch.cat([one_hot(rows.flatten(), GRID), one_hot(columns.flatten(), GRID)], 1).float()


def look_at_neighbours(attention: Any) -> None:
    """Give each head's query the code of another neighbour, and its key the code of the patch itself."""
    part = HIDDEN // len(NEIGHBOURS)
    for head, (down, right) in enumerate(NEIGHBOURS):
        rows = slice(head * part, head * part + 2 * GRID)
        moves = [one_hot((torch.arange(GRID) + steps).clamp(0, GRID - 1), GRID).T for steps in (down, right)]
        attention.q_proj.weight[rows, CODES] = SHARPNESS * math.sqrt(part) * torch.block_diag(*moves).float()
        attention.k_proj.weight[rows, CODES] = torch.eye(2 * GRID)
