"""A Hugging Face dual encoder: images and texts to unit vectors in one space."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipaudit.cache.info import Fingerprint
from clipaudit.clip.devices import (
    choose_device,
    choose_precision,
    device_faults,
    exact_convolutions,
    first_line,
    is_lack_of_memory,
)
from clipaudit.clip.hub import hub_id, only_cached
from clipaudit.clip.trial import check_model_folder, check_processor, check_weights, model_faults, try_out
from clipaudit.errors import ImageError, ModelError, PromptError
from clipaudit.images.decoding import Preprocessing, opened
from clipaudit.options.arguments import typed
from clipaudit.options.shared import BATCH_SIZE, MODEL, MODELS, PRECISION

if TYPE_CHECKING:
    import torch

CPU_BATCH, LARGEST_BATCH, PROBE_BATCH = 64, 1024, 16
# A model's own processor enlarges the whole picture before it crops, and needs memory for all of it.
MAX_EXACT_RATIO = 100

Pixels = NDArray[np.uint8] | NDArray[np.float32]


@typed
@dataclass(frozen=True)
class EncoderOptions:
    """How to load and run a model.

    Attributes:
        model: Folder of a Hugging Face model, a hub id, or a short name of `clipaudit.options.shared.MODELS`, which
            becomes its hub id.
        revision: Branch, tag or commit on the hub.
        device: "auto" (CUDA, else MPS, else CPU) or a torch device such as "cuda:1".
        precision: "float32", "bfloat16", "float16", or "auto": half precision where the device computes faster in it.
        batch_size: Images in a step, 1 to 4,096; None fits it to the device's memory.
        exact: Let the model's own image processor prepare every image, without reduced JPEG decoding.
    """

    model: str = MODEL.default
    revision: str | None = None
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", hub_id(self.model))


class Encoder:
    """A loaded model. `prepare` may run in many threads; `encode_images` and `encode_texts` belong to one."""

    def __init__(
        self, model: Any, processor: Any, options: EncoderOptions, device: torch.device, revision: str
    ) -> None:
        import torch

        self._name, self.device = options.model, device
        self.precision = choose_precision(options.precision, self.device)
        self._tokenizer, self._image_processor = processor.tokenizer, processor.image_processor
        config = json.loads(json.dumps(self._image_processor.to_dict(), sort_keys=True, default=str))
        check_processor(options.model, config)
        self._preprocessing = None if options.exact else Preprocessing.from_processor(config)
        if self._preprocessing:
            # Brought there once: each time, the host would wait until the GPU has nothing left to do.
            self._mean, self._std = (
                torch.tensor(values, device=self.device)
                for values in (self._preprocessing.mean, self._preprocessing.std)
            )
        weights = _hash_weights(model)
        self.logit_scale = float(model.logit_scale.detach().exp()) if hasattr(model, "logit_scale") else 1 / 0.07
        self._model = model.to(self.device, getattr(torch, self.precision)).eval()
        self.fingerprint = Fingerprint(
            model=options.model,
            revision=revision,
            weights=weights,
            preprocessing=self._preprocessing.to_dict() if self._preprocessing else {"processor": config},
            precision=self.precision,
            dimension=self.encode_texts(["a photo"]).shape[1],
        )
        self.batch_size = options.batch_size or self._fitting_batch()

    def prepare(self, data: bytes) -> Pixels:
        """Decode one image file for this model.

        Returns:
            (height, width, 3) uint8, or (3, height, width) float32 from the model's own processor in exact mode.

        Raises:
            ImageError: the image cannot be read.
        """
        with self.opened(data) as image:
            return self.prepare_image(image)

    @contextmanager
    def opened(self, data: bytes) -> Iterator[Image.Image]:
        """An upright RGB picture, decoded no finer than the model needs; ImageError where it cannot be read."""
        with opened(data, target=self._preprocessing.target if self._preprocessing else None) as image:
            if not self._preprocessing and max(image.size) > MAX_EXACT_RATIO * min(image.size):
                raise ImageError(f"{image.width} x {image.height} pixels are too long a strip for exact mode")
            yield image

    def prepare_image(self, image: Image.Image) -> Pixels:
        """The same from an RGB image."""
        if self._preprocessing:
            return self._preprocessing.apply(image)
        pixels: NDArray[np.float32] = self._image_processor(image, return_tensors="np")["pixel_values"][0]
        return pixels

    def encode_images(self, pixels: NDArray[Any]) -> torch.Tensor:
        """Embed a batch.

        Args:
            pixels: (b, ...) stack of what `prepare` returned.

        Returns:
            (b, d) float32 unit rows, still on the device. On a GPU the work has only been enqueued.
        """
        import torch

        features = []
        batch, start = torch.from_numpy(pixels), 0
        while start < len(batch):
            part = batch[start : start + self.batch_size]
            try:
                # From pinned memory, the GPU fetches them by itself.
                features.append(self.image_features(part.pin_memory() if self.device.type == "cuda" else part))
                start += len(part)
            except (RuntimeError, MemoryError) as error:
                if not is_lack_of_memory(error):
                    raise ModelError(
                        f"{self.device} cannot run this model: {first_line(error).rstrip('.')}."
                        " Try --precision float32, or --device cpu."
                    ) from error
                if self.batch_size == 1:
                    raise ModelError(
                        f"{self.device} has too little memory for one image. Choose a smaller model or --device cpu."
                    ) from None
                self.batch_size //= 2
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
        return torch.cat(features)

    def image_features(self, batch: torch.Tensor) -> torch.Tensor:
        """The same for one batch that the device has room for."""
        import torch

        with torch.inference_mode(), exact_convolutions():
            batch = batch.to(self.device, non_blocking=True)
            if self._preprocessing:
                batch = (batch.float() * self._preprocessing.scale - self._mean) / self._std
                batch = batch.permute(0, 3, 1, 2)
            return _unit_rows(self._model.get_image_features(pixel_values=batch.to(self._model.dtype)))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Returns:
            (m, d) float32 unit rows.

        Raises:
            PromptError: a text has more tokens than the encoder reads.
            ModelError: the tokenizer belongs to another model, or an embedding is not finite.
        """
        import torch

        limit, known = self._token_limit, self._known_tokens
        for text, tokens in zip(texts, self.tokenize(texts), strict=True):
            if len(tokens) > limit:
                raise PromptError(f"{len(tokens)} tokens, the text encoder reads {limit}. Shorten: {text!r}")
            if max(tokens, default=0) >= known:
                raise ModelError(
                    f"the tokenizer gives token {max(tokens):,}, but the text encoder knows {known:,} only: their files"
                    " belong to different models. Copy tokenizer.json from where the weights come from."
                )
        features = []
        # CLIP looks at no token behind the end of a text. Other dual encoders (SigLIP) know full lines only.
        padding = "longest" if self._model.config.model_type == "clip" else "max_length"
        for start in range(0, len(texts), CPU_BATCH):
            tokens = self._tokenizer(
                list(texts[start : start + CPU_BATCH]), padding=padding, max_length=limit, return_tensors="pt"
            )
            with torch.inference_mode():
                features.append(_unit_rows(self._model.get_text_features(**tokens.to(self.device))).cpu())
        result: NDArray[np.float32] = torch.cat(features).numpy()
        if not np.isfinite(result).all():
            raise self.not_finite("text")
        return result

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each text, begin and end included, without padding."""
        tokens: list[list[int]] = self._tokenizer(list(texts))["input_ids"]
        return tokens

    def not_finite(self, what: str) -> ModelError:
        """Why a "text" or an "image" has no finite embedding: the precision, or the weights themselves."""
        sound = all(bool(tensor.isfinite().all()) for tensor in self._model.state_dict().values())
        if sound and self.precision != "float32":
            return ModelError(
                f"the model {self._name} gives a {what} NaN in {self.precision}. Run again with --precision float32."
            )
        return ModelError(
            f"the model {self._name} gives a {what} NaN or a zero vector: its weights are damaged. Copy them again."
        )

    @property
    def _known_tokens(self) -> int:
        text_config = getattr(self._model.config, "text_config", self._model.config)
        return int(getattr(text_config, "vocab_size", None) or sys.maxsize)

    @property
    def _token_limit(self) -> int:
        text_config = getattr(self._model.config, "text_config", self._model.config)
        return int(getattr(text_config, "max_position_embeddings", 77))

    def _fitting_batch(self) -> int:
        """Images a step: as many as fill 60 % of the free GPU memory, by a small batch; elsewhere a fixed number."""
        import torch

        if self.device.type != "cuda":
            return CPU_BATCH
        blank = Image.new("RGB", (64, 64))
        probe = np.stack([self.prepare_image(blank)] * PROBE_BATCH)
        self.batch_size = PROBE_BATCH
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self.encode_images(probe)
        an_image = max(1, (torch.cuda.max_memory_allocated(self.device) - before) // PROBE_BATCH)
        free, _ = torch.cuda.mem_get_info(self.device)
        fitting = int(0.6 * free / an_image)
        return max(1, min(LARGEST_BATCH, 1 << max(0, fitting.bit_length() - 1)))


def load_encoder(options: EncoderOptions | None = None) -> Encoder:
    """Load a dual encoder from a local folder or the Hugging Face hub. Code in a model's repository is never run.

    Raises:
        ModelError: it cannot be found, reached or loaded, it is no dual encoder of images and texts, or a trial shows
            that its embeddings mean nothing.
        UsageError: an unknown device or precision, a batch size out of range.
    """
    options = options or EncoderOptions()
    PRECISION.take(options.precision)
    BATCH_SIZE.take(options.batch_size)
    check_model_folder(options.model)
    local_only = only_cached(options.model, options.revision)
    # Missing torchvision, unexpected weights and the like concern the developer of a model, not the user of an audit.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers import AutoModel, AutoProcessor
    from transformers.utils import logging as transformers_logging

    quiet: Callable[[], None] = transformers_logging.disable_progress_bar
    quiet()

    place: dict[str, Any] = {
        "revision": options.revision,
        "trust_remote_code": False,
        "local_files_only": local_only,
    }
    load_processor: Callable[..., Any] = AutoProcessor.from_pretrained
    try:
        # Weights in pickle format could run code; safetensors hold numbers only.
        model, loading = AutoModel.from_pretrained(
            options.model, use_safetensors=True, output_loading_info=True, **place
        )
        processor = load_processor(options.model, backend="pil", **place)
    except Exception as error:
        # transformers, the hub client and safetensors raise types of their own when a folder or a network is not right.
        raise ModelError(_load_fault(options.model, error)) from error
    needed = ((model, "get_image_features"), (model, "get_text_features"), (processor, "tokenizer"))
    if not all(hasattr(part, name) for part, name in (*needed, (processor, "image_processor"))):
        raise ModelError(
            f"{options.model} is a {type(model).__name__}, no dual encoder of images and texts."
            f" Choose a CLIP-like model, for example {MODEL.default}."
        )
    check_weights(options.model, loading)
    device, revision = choose_device(options.device), str(getattr(model.config, "_commit_hash", None) or "")
    with model_faults(options.model), device_faults(device, "Choose a smaller model, or --device cpu."):
        encoder = Encoder(model, processor, options, device, revision)
        try_out(encoder, options.model)
    return encoder


def _load_fault(model: str, error: Exception) -> str:
    reason = first_line(error)
    if "ignore_mismatched_sizes" in reason:
        reason = "config.json describes weights of other shapes than model.safetensors holds."
    if Path(model).is_dir():
        if not any(Path(model).glob("*.safetensors")) and any(Path(model).glob("*.bin")):
            return (
                f"the model folder {model} holds its weights in pickle format only (.bin), which could run code and is"
                " never loaded. Save it again with save_pretrained, which writes model.safetensors."
            )
        return (
            f"the model folder {model} cannot be loaded: {reason} It must hold what save_pretrained writes:"
            " config.json, model.safetensors, tokenizer and image processor files."
        )
    return (
        f"the model {model} cannot be loaded: it is no local folder, and the Hugging Face hub gave: {reason}"
        f" Check the name: a folder, a hub id, or {', '.join(MODELS)}. Or copy the model's folder here (hf download,"
        " elsewhere) and name it: --model FOLDER"
    )


def _unit_rows(output: Any) -> torch.Tensor:
    """Features as transformers 5 returns them (an output object) or as earlier versions did (a tensor), normalised."""
    import torch

    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return torch.nn.functional.normalize(features.float(), dim=-1)


def _hash_weights(model: Any) -> str:
    import torch

    digest = blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
