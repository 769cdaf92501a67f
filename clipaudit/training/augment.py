"""Strong augmentation on the device: an AutoAugment policy, a random crop and a flip, by kornia.

kornia draws one sub-policy for a whole batch. Here each image has its own, as in AutoAugment: a block of many steps is
augmented at once, those images together that have the same sub-policy. So the steps themselves wait for nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from clipaudit.errors import UsageError
from clipaudit.training.config import TrainConfig

Augment = Callable[[torch.Tensor], torch.Tensor]


class Augmentation:
    """A random transformation of uint8 images. All randomness comes from torch's global generators.

    Args:
        policy: "cifar10", "imagenet", "svhn" or "none".
        size: Edge of the images.
        padding: Pixels that the crop may shift an image.
        flip: Mirror half of the images.

    Raises:
        UsageError: kornia is not installed.
    """

    def __init__(self, policy: str, size: int, padding: int, flip: bool) -> None:
        try:
            from kornia.augmentation import RandomCrop, RandomHorizontalFlip
            from kornia.augmentation.auto import AutoAugment
        except ModuleNotFoundError:
            raise UsageError("training needs kornia: pip install 'clipaudit[train]'") from None
        self._policies = list(AutoAugment(policy).children()) if policy != "none" else []
        self._crop = RandomCrop((size, size), padding=padding) if padding else None
        self._flip = RandomHorizontalFlip() if flip else None

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(b, 3, h, w) uint8 to the same."""
        if not (self._policies or self._crop or self._flip):
            return images
        result = torch.empty_like(images)
        # Drawn and sorted on the host, where kornia draws everything else, too.
        chosen = torch.randint(max(1, len(self._policies)), (len(images),))
        for number in sorted(set(chosen.tolist())):
            rows = (chosen == number).nonzero().squeeze(1).to(images.device)
            part = images[rows].contiguous().float() / 255
            if self._policies:
                part = self._policies[number](part)
            for step in (self._crop, self._flip):
                part = step(part) if step else part
            result[rows] = (part.clamp(0, 1) * 255).round().to(torch.uint8)
        return result


def augmentation_of(config: TrainConfig, image_size: int | None) -> Augment:
    """What happens to images of this size before each step. Embeddings, which have no such size, stay as they are."""
    if image_size is None:
        return lambda embeddings: embeddings
    padding = image_size // 8 if config.crop_padding is None else config.crop_padding
    return Augmentation(config.policy, image_size, padding, config.flip)
