"""The model in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from clipaudit.cache.embeddings import Rows
from clipaudit.clip.devices import device_faults
from clipaudit.clip.encoders import EncoderOptions, load_encoder
from clipaudit.clip.pipeline import Pipeline, Progress
from clipaudit.engines.base import Done, Job
from clipaudit.images.quality import measurer
from clipaudit.remote import READERS, is_remote
from clipaudit.samples.base import Images
from clipaudit.threads import thread_count


class LocalEngine:
    """One model, fed by threads that decode.

    Args:
        options: The model.
        threads: How many decode; None fits them to the device and the cores.
        cores: Of this machine, those that are to be used.

    Raises:
        ModelError, UsageError: see `load_encoder`.
    """

    def __init__(self, options: EncoderOptions | None, threads: int | None = None, cores: int | None = None) -> None:
        self._model = load_encoder(options)
        self._wanted, self._cores = threads, cores or os.cpu_count() or 1
        self.fingerprint, self.logit_scale = self._model.fingerprint, self._model.logit_scale
        # A cluster's worker is asked for parts of the same job again and again.
        self._known: tuple[Sequence[Path], Rows] = [], {}
        self.device, self.precision = str(self._model.device), self._model.precision

    def embed(self, job: Job, images: Images, report: Progress) -> Done:
        """See Engine."""
        if job.known != self._known[0]:
            self._known = job.known, job.store.rows_of(job.known)
        pipeline = Pipeline(job.store, images, self._model, self._known[1], report, measurer() if job.quality else None)
        with device_faults(self._model.device, "Choose a smaller --batch-size."):
            pipeline.run(job.plan.unchanged_parts(job.todo), sum(job.todo.values()), self._threads(job))
        return Done(
            pipeline.n_embedded, pipeline.n_reused, pipeline.seconds, pipeline.seconds_waiting, pipeline.written
        )

    def _threads(self, job: Job) -> int:
        """Decoders: every core beside a GPU. On a CPU the model needs the cores itself, and is slow to feed."""
        fitting = max(1, self._cores // 8) if self._model.device.type == "cpu" else self._cores
        # For images elsewhere, they wait for another machine most of the time.
        far = is_remote(job.store.info.root_path)
        return thread_count(self._wanted, max(READERS, self._cores) if far else fitting)
