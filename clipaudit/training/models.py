"""The classifiers: ours for small images, any of transformers, any of timm where it is installed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import nn

from clipaudit.clip.hub import only_cached
from clipaudit.clip.trial import check_model_folder, check_processor
from clipaudit.errors import ModelError, UsageError
from clipaudit.images.decoding import Preprocessing
from clipaudit.training.airbench import LEAST_EDGE, Airbench
from clipaudit.training.config import AIRBENCH, PREACT, TrainConfig
from clipaudit.training.preact import PreActResNet18
from clipaudit.training.probe import Probe, head

TIMM = "timm:"
# Ours, which need no other package.
_SMALL: Mapping[str, Callable[[int, int], nn.Module]] = {PREACT: PreActResNet18, AIRBENCH: Airbench}
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
# Channel means and deviations of the CIFAR-10 and ImageNet training images.
CIFAR: Statistics = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a classifier again, without its weights.

    Attributes:
        model: As in TrainConfig.
        width: As in TrainConfig.
        classes: K.
        image_size: Edge of its images in pixels.
        mean: Of each channel, of pixels in [0, 1].
        std: Of each channel.
        hugging_face: The model's configuration, for one of transformers.
    """

    model: str
    width: int
    classes: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    hugging_face: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """All fields, for the run folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Architecture:
        """The inverse of `to_dict`."""
        return cls(**{**content, "mean": tuple(content["mean"]), "std": tuple(content["std"])})

    @property
    def sample_values(self) -> int:
        """Numbers in an image."""
        return 3 * self.image_size**2

    @property
    def sees(self) -> str:
        """What a sample is, in words."""
        return f"Images of {self.image_size} x {self.image_size} pixels"

    @property
    def preprocessing(self) -> Preprocessing:
        """From an image of any size to the model's."""
        size = self.image_size
        return Preprocessing(size, (size, size), int(Image.Resampling.BICUBIC), 1 / 255, self.mean, self.std)


class _Logits(nn.Module):
    """A model of transformers that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.model(pixel_values=x).logits)


def describe(config: TrainConfig, classes: int) -> Architecture:
    """The architecture that a configuration names, with its image size, mean and deviation.

    Raises:
        ModelError: there is no such model, or it cannot be reached.
        UsageError: timm is not installed, or the images are too small.
    """
    if config.model == AIRBENCH and (config.image_size or LEAST_EDGE) < LEAST_EDGE:
        raise UsageError(f"{AIRBENCH} needs an image_size of at least {LEAST_EDGE} pixels, not {config.image_size}.")
    if config.model in _SMALL:
        return Architecture(config.model, config.width, classes, config.image_size or 32, *CIFAR)
    if config.model.startswith(TIMM):
        return _describe_timm(config, classes)
    return _describe_hugging_face(config, classes)


def build(architecture: Architecture | Probe, *, pretrained: bool = False) -> nn.Module:
    """The classifier, (b, 3, h, w) normalised images or (b, d) embeddings to (b, K) logits.

    Its weights are random unless pretrained.

    Raises:
        ModelError: pretrained weights cannot be loaded.
    """
    if isinstance(architecture, Probe):
        return head(architecture)
    name, classes = architecture.model, architecture.classes
    if name in _SMALL:
        return _SMALL[name](classes, architecture.width)
    if name.startswith(TIMM):
        try:
            return cast(nn.Module, _timm().create_model(name[len(TIMM) :], pretrained=pretrained, num_classes=classes))
        except Exception as error:
            raise ModelError(f"the model {name} cannot be loaded: {_first_line(error)}") from error
    return _build_hugging_face(architecture, pretrained)


def _describe_timm(config: TrainConfig, classes: int) -> Architecture:
    timm = _timm()
    try:
        model = timm.create_model(config.model[len(TIMM) :], pretrained=False, num_classes=classes)
    except RuntimeError as error:
        raise ModelError(f"timm has no model {config.model[len(TIMM) :]!r}: {_first_line(error)}") from None
    data = timm.data.resolve_model_data_config(model)
    size = config.image_size or int(data["input_size"][-1])
    return Architecture(config.model, config.width, classes, size, tuple(data["mean"]), tuple(data["std"]))


def _timm() -> Any:
    try:
        import timm
        import timm.data
    except ImportError:
        raise UsageError("models of timm need it installed: pip install 'clipaudit[timm]'") from None
    except RuntimeError as error:
        # The torchvision that timm stands on was built for another torch.
        raise ModelError(f"timm is installed but cannot be used: {_first_line(error)}") from error
    return timm


def _describe_hugging_face(config: TrainConfig, classes: int) -> Architecture:
    _quiet()
    check_model_folder(config.model)
    place: dict[str, Any] = {"trust_remote_code": False, "local_files_only": _only_cached(config.model)}
    from transformers import AutoConfig, AutoImageProcessor

    try:
        settings = AutoConfig.from_pretrained(config.model, num_labels=classes, **place)
    except Exception as error:
        # transformers and the hub client raise types of their own when a folder or a network is not right.
        raise _load_fault(config.model, error) from error
    mean, std = IMAGENET
    size = int(getattr(settings, "image_size", None) or 224)
    try:
        load: Callable[..., Any] = AutoImageProcessor.from_pretrained
        processor = load(config.model, backend="pil", **place)
        settings_of_images = processor.to_dict()
        check_processor(config.model, settings_of_images)
        if preprocessing := Preprocessing.from_processor(settings_of_images):
            mean, std = preprocessing.mean, preprocessing.std
            size = preprocessing.crop[0] if preprocessing.crop else preprocessing.target
    except (OSError, ValueError):
        pass  # A model without an image processor: ImageNet's mean and deviation, which nearly all of them use.
    plain = {"id2label", "label2id"}
    described = {key: value for key, value in settings.to_dict().items() if key not in plain}
    size = config.image_size or size
    return Architecture(config.model, config.width, classes, size, mean, std, described)


def _build_hugging_face(architecture: Architecture, pretrained: bool) -> nn.Module:
    _quiet()
    from transformers import AutoConfig, AutoModelForImageClassification

    settings = {**(architecture.hugging_face or {}), "num_labels": architecture.classes}
    config = AutoConfig.for_model(**settings)
    folder = Path(architecture.model)
    has_weights = not folder.is_dir() or any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
    local_only = pretrained and has_weights and _only_cached(architecture.model)
    try:
        if not (pretrained and has_weights):
            from_config: Callable[..., nn.Module] = AutoModelForImageClassification.from_config
            return _Logits(from_config(config))
        model = AutoModelForImageClassification.from_pretrained(
            architecture.model,
            num_labels=architecture.classes,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            trust_remote_code=False,
            local_files_only=local_only,
            use_safetensors=True,  # Weights in pickle format could run code.
        )
    except Exception as error:
        raise _load_fault(architecture.model, error) from error
    return _Logits(model)


def _only_cached(model: str) -> bool:
    """As `only_cached`; who has no hub may not need one."""
    try:
        return only_cached(model, None)
    except ModelError as error:
        raise ModelError(*error.args, f"train another model: {PREACT}, or timm:NAME") from None


def _load_fault(model: str, error: Exception) -> ModelError:
    return ModelError(
        f"the model {model} cannot be loaded for image classification: {_first_line(error)}"
        f" Name {' or '.join(_SMALL)}, timm:NAME, a folder that save_pretrained wrote, or a hub id."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _quiet() -> None:
    """A new head for new classes is what training wants, not a thing to warn of."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    disable: Callable[[], None] = transformers_logging.disable_progress_bar
    disable()
