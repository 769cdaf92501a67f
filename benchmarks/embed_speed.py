"""How busy `embed` keeps the model: its images/s beside the bare model on tensors that are in memory already.

    python -m benchmarks.embed_speed [--images 512] [--size 400] [--rounds 3] [--geometry vit-l-14-336] [--json FILE]

The model has the geometry of openai/clip-vit-base-patch32 (or -large-patch14-336) and random weights; the images are
JPEG files of the given size, made from scikit-learn's two photographs. Each contender runs in a process of its own, on
the same device in the same precision and batch size; the peak is that of the process's resident memory (Linux).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.memory import peak_memory

# What differs from the defaults of transformers, which are ViT-B/32's.
GEOMETRIES: dict[str, dict[str, Any]] = {
    "vit-b-32": {"edge": 224},
    "vit-l-14-336": {
        "edge": 336,
        "vision": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
        | {"image_size": 336, "patch_size": 14},
        "text": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        "projection_dim": 768,
    },
    # For dry runs.
    "tiny": {
        "edge": 32,
        "vision": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
        | {"image_size": 32, "patch_size": 16},
        "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2},
        "projection_dim": 32,
    },
}


def make_model(folder: Path, geometry: Mapping[str, Any]) -> None:
    """A CLIPModel folder with a geometry and random weights."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizerFast(vocab={word: number for number, word in enumerate(words)}, merges=[])
    text = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "vocab_size": len(words)}
    text |= geometry.get("text", {})
    vision, dimension, edge = geometry.get("vision", {}), geometry.get("projection_dim", 512), geometry["edge"]
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=dimension)
    CLIPModel(config).save_pretrained(folder)
    processor = CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge})
    CLIPProcessor(processor, tokenizer).save_pretrained(folder)


def make_images(folder: Path, count: int, size: int) -> None:
    """JPEG files in two class folders, each a different crop."""
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(0)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    for number in range(count):
        photo = photos[number % 2]
        left, top = generator.integers(0, 100, 2).tolist()
        path = folder / f"photo{number % 2}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((left, top, left + 320, top + 320)).resize((size, size)).save(path, quality=90)


def run_bare_model(model: str, count: int, batch: int, device: str) -> tuple[int, float]:
    """Encode one batch in memory again and again."""
    import torch

    from clipaudit.clip.encoders import EncoderOptions, load_encoder

    encoder = load_encoder(EncoderOptions(model, batch_size=batch, device=device))
    shape = encoder.prepare_image(Image.new("RGB", (64, 64))).shape
    pixels = np.random.default_rng(0).integers(0, 256, (batch, *shape), dtype=np.uint8)
    # A GPU has finished its first batch only when somebody looks at it.
    torch.linalg.norm(encoder.encode_images(pixels)).item()
    began, done = time.perf_counter(), 0
    while done < count:
        features = encoder.encode_images(pixels)
        done += batch
    torch.linalg.norm(features).item()
    return done, time.perf_counter() - began


def run_embed(model: str, images: str, batch: int, device: str) -> tuple[int, float, float]:
    """The whole of `embed`; its own clock leaves out loading the model."""
    import clipaudit

    with tempfile.TemporaryDirectory() as cache:
        encoder = clipaudit.EncoderOptions(model, batch_size=batch, device=device)
        summary = clipaudit.embed(images, cache=Path(cache) / "c", encoder=encoder)
    return summary.n_embedded, summary.seconds, summary.seconds_waiting


def contender(name: str, *arguments: object) -> dict[str, float]:
    """Run one contender in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.embed_speed", "--contender", name, *map(str, arguments)]
    result: dict[str, float] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--size", type=int, default=400, help="edge of the JPEG files, pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--geometry", choices=GEOMETRIES, default="vit-b-32")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each; the best one counts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contender", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        name, *arguments = options.contender
        count, seconds, *rest = (run_embed if name == "embed" else run_bare_model)(
            arguments[0], arguments[1] if name == "embed" else int(arguments[1]), int(arguments[2]), arguments[3]
        )
        peak = peak_memory() / 1024
        print(json.dumps({"images_per_second": count / seconds, "peak_mb": peak, "waiting": sum(rest) / seconds}))
        return
    with tempfile.TemporaryDirectory() as folder:
        model, images = Path(folder) / "model", Path(folder) / "images"
        make_model(model, GEOMETRIES[options.geometry])
        make_images(images, options.images, options.size)
        rounds = [
            (
                contender("bare", model, options.images, options.batch, options.device),
                contender("embed", model, images, options.batch, options.device),
            )
            for _ in range(options.rounds)
        ]
    # The best of each: whatever else the machine does can only take away.
    bare, embed = (max(column, key=lambda result: result["images_per_second"]) for column in zip(*rounds, strict=True))
    results = {"bare model": bare, "clipaudit embed": embed}
    table = Table("contender", "images/s", "of the possible", "waiting for images", "peak MB")
    for name, result in results.items():
        share = result["images_per_second"] / bare["images_per_second"]
        waiting = f"{result['waiting']:.1%}" if name == "clipaudit embed" else "-"
        table.add_row(name, f"{result['images_per_second']:.1f}", f"{share:.1%}", waiting, f"{result['peak_mb']:,.0f}")
    Console(width=110).print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
