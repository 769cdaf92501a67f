"""What runs in a worker of a cluster: one encoder, which embeds the parts that it is told to."""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass, replace

from clipaudit import __version__
from clipaudit.cache.info import Fingerprint
from clipaudit.clip.encoders import EncoderOptions
from clipaudit.clip.pipeline import EmbedProgress
from clipaudit.engines.base import Done, Job
from clipaudit.engines.local import LocalEngine
from clipaudit.errors import CacheError, SourceError
from clipaudit.samples.reader import ImageReader
from clipaudit.samples.stamps import Stamp


@dataclass(frozen=True)
class Description:
    """What a worker says of itself; all workers of a run must say the same, but for the host."""

    version: str
    fingerprint: Fingerprint
    logit_scale: float
    device: str
    precision: str
    host: str


class Worker:
    """Calls come one after the other, but for `progress`, which comes while another one runs.

    Args:
        options: The model.
        cores: Of this machine, those that are the worker's.
    """

    def __init__(self, options: EncoderOptions, cores: int) -> None:
        self._options, self._cores = options, cores
        self._engine: LocalEngine | None = None
        self._images: tuple[dict[str, Stamp], ImageReader] | None = None
        self._progress = EmbedProgress("embedding")

    def load(self) -> Description:
        """Load the model.

        Raises:
            ModelError, UsageError: see `load_encoder`.
        """
        engine = self._engine = LocalEngine(self._options, cores=self._cores)
        return Description(
            __version__, engine.fingerprint, engine.logit_scale, engine.device, engine.precision, socket.gethostname()
        )

    def embed(self, job: Job, names: Collection[str]) -> Done:
        """Embed some parts of a job.

        Raises:
            CacheError, SourceError: the cache or the source is not within reach of this machine.
        """
        self._progress = EmbedProgress("embedding")
        self._check_reach(job)
        assert self._engine is not None, "load comes first"
        stamps = job.plan.facts.stamps
        # Opening an archive takes a while; where it has changed, so have the stamps.
        if self._images is None or self._images[0] != stamps:
            self._images = stamps, ImageReader(job.store.info)
        todo = {name: job.todo[name] for name in names}
        return self._engine.embed(replace(job, todo=todo), self._images[1], self._keep)

    def progress(self) -> EmbedProgress:
        """How far the call that runs has come."""
        return self._progress

    def _keep(self, progress: EmbedProgress) -> None:
        self._progress = progress

    @staticmethod
    def _check_reach(job: Job) -> None:
        host = socket.gethostname()
        shared = "All machines of the cluster have to see it at the same path: put it on storage that they share."
        if not job.plan.file.is_file():
            raise CacheError(f"{job.store.path} is not within reach of the worker on {host}. {shared}")
        if not job.store.info.root_path.exists():
            raise SourceError(f"{job.store.info.root} is not within reach of the worker on {host}. {shared}")
