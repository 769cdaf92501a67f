"""What an engine is given to do, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.cache.info import Fingerprint
from clipaudit.cache.plan import SavedPlan
from clipaudit.clip.pipeline import Progress
from clipaudit.samples.base import Images


@dataclass(frozen=True)
class Job:
    """Parts to embed.

    Attributes:
        store: The cache that they go into.
        plan: What the parts consist of.
        todo: The parts, with their numbers of samples.
        known: Files of parts that hold embeddings of some of the samples.
        quality: Measure the quality of each image.
    """

    store: EmbeddingsCache
    plan: SavedPlan
    todo: Mapping[str, int]
    known: Sequence[Path]
    quality: bool


@dataclass
class Done:
    """What was done.

    Attributes:
        n_embedded: Images encoded.
        n_reused: Embeddings taken over.
        seconds: Wall-clock time.
        seconds_waiting: Seconds of these in which the model waited for decoded images; the workers' mean.
        parts: Names of the parts that were written.
    """

    n_embedded: int = 0
    n_reused: int = 0
    seconds: float = 0.0
    seconds_waiting: float = 0.0
    parts: set[str] = field(default_factory=set)


class Engine(Protocol):
    """Runs the model."""

    fingerprint: Fingerprint
    logit_scale: float
    """The model's own 1 / temperature."""
    device: str
    precision: str

    def embed(self, job: Job, images: Images, report: Progress) -> Done:
        """Write the parts of a job; those of images that have changed since the plan was made stay away.

        Workers elsewhere read the images by themselves, as the cache's metadata says.
        """
        ...
