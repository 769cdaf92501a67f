"""A model is tried out before it is trusted: a folder with a file too few loads, and tells all texts the same."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from clipaudit.errors import ClipAuditError, ModelError
from clipaudit.files import irregular, read_bounded

if TYPE_CHECKING:
    from clipaudit.clip.encoders import Encoder

# Of equal length in pairs: a vocabulary without these words would still tell short from long.
TEXTS = ("a photo of a cat", "a photo of a dog", "seven", "eight", "blue sky")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
# The longest edge, in pixels, that an image processor may ask for.
MAX_EDGE = 8192
MAX_LAYERS, MAX_CONFIG_BYTES = 1000, 10_000_000
# Mean and deviation of a channel, of pixels that were not rescaled.
MOST_OF_A_CHANNEL = 255
# Half precision rounds entries of unit vectors by less.
SAME = 1e-4


@contextmanager
def model_faults(model: str) -> Iterator[None]:
    """Whatever fails inside is a fault of the model. Raises ModelError instead of anything but our own errors."""
    try:
        yield
    except ClipAuditError:
        raise
    except Exception as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"the model {model} was loaded but cannot embed texts and images: {first_line}"
            " Its files may belong to different models: copy the whole folder again."
        ) from error


def check_model_folder(model: str) -> None:
    """Let through a hub id, or a folder in which nothing would hang or never end when it is read.

    Raises:
        ModelError: a file, pipe or device instead of a folder, or a pipe or device within it.
    """
    path = Path(model)
    try:
        if not path.is_dir():
            if path.exists():
                raise ModelError(
                    f"the model {model} is {irregular(path) or 'a file'}, not a folder. Name the folder that holds"
                    " config.json."
                )
            return
        for entry in sorted(path.iterdir()):
            if entry.exists() and not entry.is_dir() and (kind := irregular(entry)):
                raise ModelError(f"{entry} in the model folder is {kind}, not a file. Copy the model's folder again.")
        _check_depth(path / "config.json")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"the model folder {model} cannot be read: {reason}. Check its permissions.") from None


def _check_depth(path: Path) -> None:
    """Layers are built before their weights are looked for: millions of them would take hours."""
    try:
        content = json.loads(read_bounded(path, MAX_CONFIG_BYTES, ModelError))
    except (FileNotFoundError, ValueError, RecursionError):
        return  # Whoever loads the model says what is wrong.
    parts = [content, *content.values()] if isinstance(content, dict) else []
    for layers in (part.get("num_hidden_layers") for part in parts if isinstance(part, dict)):
        if isinstance(layers, (int, float)) and layers > MAX_LAYERS:
            raise ModelError(f"{path} asks for {layers:,} layers, over the limit of {MAX_LAYERS:,}. Copy it again.")


def check_weights(model: str, loading: Mapping[str, Any]) -> None:
    """Refuse a model of which transformers made up weights.

    Raises:
        ModelError: naming some of them.
    """
    made_up = sorted(map(str, {*loading.get("missing_keys", ()), *loading.get("mismatched_keys", ())}))
    if made_up:
        raise ModelError(
            f"the model {model} lacks {len(made_up):,} of its weights ({', '.join(made_up[:3])}, ...), which would be"
            " random. Its model.safetensors and config.json do not belong together, or it was saved incompletely."
        )


def check_processor(model: str, config: Mapping[str, Any]) -> None:
    """Refuse an image processor with settings that no image can be prepared by.

    Args:
        model: Named in the error.
        config: The processor's `to_dict()`.

    Raises:
        ModelError: naming the setting and its value.
    """

    def refuse(setting: str, value: object) -> None:
        raise ModelError(
            f"the image processor of {model} has {setting}: {_shortened(value)}, which no image can be prepared with."
            " Correct its preprocessor_config.json (or processor_config.json), or copy the file again."
        )

    for name, step in (("size", "do_resize"), ("crop_size", "do_center_crop")):
        edges = config.get(name)
        if config.get(step) and not edges:
            refuse(name, edges)
        for edge in edges.values() if isinstance(edges, Mapping) else ():
            if edge is not None and not _lies_between(0, edge, MAX_EDGE):
                refuse(name, edges)
    if config.get("do_resize") and config.get("resample") not in set(Image.Resampling):
        refuse("resample", config.get("resample"))
    if config.get("do_rescale") and not _lies_between(0, config.get("rescale_factor"), 1):
        refuse("rescale_factor", config.get("rescale_factor"))
    for name, least in (("image_mean", -MOST_OF_A_CHANNEL), ("image_std", 0)):
        values = config.get(name)
        channels = values if isinstance(values, (list, tuple)) else [values]
        usable = channels and all(_lies_between(least, value, MOST_OF_A_CHANNEL) for value in channels)
        if config.get("do_normalize") and not usable:
            refuse(name, values)


def _lies_between(least: float, value: object, most: float) -> bool:
    """A number above `least` and not above `most`; NaN is neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least < value <= most


def _shortened(value: object) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def try_out(encoder: Encoder, model: str) -> None:
    """Embed a few texts and pictures: different ones must differ, equal ones must not, and all must be numbers.

    Raises:
        ModelError: they do not; the message says what is probably missing.
    """
    import torch

    if not (math.isfinite(encoder.logit_scale) and encoder.logit_scale > 0):
        raise ModelError(f"the model {model} has a logit scale of {encoder.logit_scale}: its weights are damaged.")
    tokens = [tuple(ids) for ids in encoder.tokenize(TEXTS)]
    if len(set(tokens)) < len(tokens):
        raise ModelError(f"the tokenizer of {model} cannot tell one text from another. {_tokenizer_advice(model)}")
    texts = encoder.encode_texts([*TEXTS, *TEXTS])
    pixels = np.stack([encoder.prepare_image(picture) for picture in _pictures()])
    images = encoder.image_features(torch.from_numpy(pixels)).cpu().numpy()
    for what, vectors in (("text", texts), ("image", images)):
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=0.01):
            raise encoder.not_finite(what)
    if texts.shape[1] != images.shape[1]:
        raise ModelError(
            f"the model {model} gives texts {texts.shape[1]} dimensions and images {images.shape[1]}: they share no"
            " space. Choose a CLIP-like model."
        )
    if np.abs(texts[: len(TEXTS)] - texts[len(TEXTS) :]).max() > 10 * SAME:
        raise ModelError(f"the model {model} gives the same text different embeddings, so no result could be trusted.")
    for what, vectors in (("texts", texts[: len(TEXTS)]), ("images", images)):
        differences = np.abs(vectors[:, None] - vectors[None]).max(axis=2)
        if (differences + np.eye(len(vectors)) < SAME).any():
            raise ModelError(
                f"the model {model} gives different {what} the same embedding: its files are damaged or mixed up."
            )


def _tokenizer_advice(model: str) -> str:
    folder = Path(model)
    if folder.is_dir() and not any((folder / name).exists() for name in TOKENIZER_FILES):
        return f"The folder has no {TOKENIZER_FILES[0]} (or {', '.join(TOKENIZER_FILES[1:])}): copy it there, too."
    return f"Its {TOKENIZER_FILES[0]} is damaged or belongs to another model: copy it again."


def _pictures() -> list[Image.Image]:
    """A ramp, its negative turned by 90 degrees, and coarse noise: unlike in brightness, direction and colour."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    flat = np.repeat(ramp[None, :], 64, axis=0)
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return [Image.fromarray(pixels).convert("RGB") for pixels in (flat, 255 - flat.T, noise)]
