"""`embed` on a Ray cluster: workers take parts of the plan until none is left, whoever dies meanwhile."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.cache.plan import SavedPlan
from clipaudit.clip.encoders import EncoderOptions
from clipaudit.clip.pipeline import EmbedProgress, Progress
from clipaudit.engines.base import Done, Job
from clipaudit.engines.crew import Crew, shares
from clipaudit.errors import ClipAuditError, UsageError
from clipaudit.samples.base import Images

# Parts that a worker takes at once: between two calls, its model waits for the first images.
MOST_PARTS = 8
# A part whose worker dies so often, each time with nothing else to do, kills it.
MOST_DEATHS = 5


def _imported() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise UsageError("engine ray needs Ray: pip install 'clipaudit[ray]'") from None


@contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Be part of a cluster for a while: of the one at the address, or of the one that the caller has joined already.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """
    if address is not None and "://" in address:
        raise UsageError(
            f"address {address!r} leads to a cluster from outside, which cannot reach this machine's files. Run the"
            " command on a machine of the cluster, for example by `ray job submit`."
        )
    # A cluster that is started here tells nobody of it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    ray = _imported()
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UsageError(
            f"no Ray cluster answers at {address or 'this machine'}: {reason} Start one with `ray start --head`, or"
            " leave out --address to use this machine alone."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


class RayEngine:
    """The model in workers of the cluster that this process has joined.

    Args:
        options: The model. A folder has to be there on every machine.
        workers: How many; None takes one a GPU, or one a machine where none has one.

    Raises:
        UsageError: more workers than the cluster has room for, or one GPU is named.
        ModelError: the workers cannot load the model.
    """

    def __init__(self, options: EncoderOptions | None, workers: int | None) -> None:
        options = options or EncoderOptions()
        if options.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"device {options.device!r} is one machine's. For engine ray, name auto, cpu or cuda.")
        nodes = [node["Resources"] for node in _imported().nodes() if node["Alive"]]
        # Workers have other working directories.
        model = str(Path(options.model).absolute()) if Path(options.model).is_dir() else options.model
        share = shares(nodes, workers, use_gpus=options.device != "cpu")
        self._crew = Crew(replace(options, model=model), share)
        while self._crew.description is None:
            self._crew.answers()
        first = self._crew.description
        self.fingerprint, self.logit_scale = replace(first.fingerprint, model=options.model), first.logit_scale
        self.device, self.precision = f"{share.workers} worker(s) with {first.device}", first.precision

    def embed(self, job: Job, images: Images, report: Progress) -> Done:
        """See Engine."""
        return _Run(self._crew, job, report).finish()

    def close(self) -> None:
        """End the workers."""
        self._crew.dismiss()


class _Run:
    """One job on its way through the workers."""

    def __init__(self, crew: Crew, job: Job, report: Progress) -> None:
        self._crew, self._todo, self._report = crew, job.todo, report
        # Workers read images by themselves, and have other working directories.
        self._store = EmbeddingsCache(job.store.path.absolute(), job.store.info)
        plan = SavedPlan(self._store, job.plan.facts)
        known = [file.absolute() for file in job.known]
        self._job = _imported().put(replace(job, store=self._store, plan=plan, known=known))
        self._before = set(self._store.files())
        self._waiting, self._taken = deque(job.todo), dict[int, list[str]]()
        self._asked: set[int] = set()
        self._seen: dict[int, EmbedProgress] = {}
        self._deaths = Counter[str]()
        self._done, self._n_done, self._n_unreadable = Done(), 0, 0

    def finish(self) -> Done:
        """Go on until every part was taken and came to an end; what was done."""
        began = time.perf_counter()
        self._tell()
        while self._waiting or self._taken:
            while self._crew.idle and self._waiting:
                self._give(self._crew.idle.pop())
            for worker in self._taken.keys() - self._asked:
                self._asked.add(worker)
                self._crew.call(worker, "progress")
            for worker, method, result in self._crew.answers():
                self._take_in(worker, method, result)
            self._tell()
        self._done.seconds = time.perf_counter() - began
        self._done.seconds_waiting /= self._crew.shares.workers
        return self._done

    def _give(self, worker: int) -> None:
        """Some parts for a worker: fewer towards the end, and one that was in the hands of a dead worker by itself."""
        count = max(1, min(MOST_PARTS, len(self._waiting) // (2 * self._crew.shares.workers)))
        names = [self._waiting.popleft()]
        while len(names) < count and not self._deaths.keys() & {names[0], self._waiting[0]}:
            names.append(self._waiting.popleft())
        self._taken[worker] = names
        self._crew.call(worker, "embed", self._job, names)

    def _take_in(self, worker: int, method: str, result: Any) -> None:
        if method in ("progress", "died"):
            self._asked.discard(worker)
        if method == "progress" and worker in self._taken:
            self._seen[worker] = result
        elif method == "embed":
            self._finished(worker, result)
        elif method == "died" and worker in self._taken:
            self._lost(worker)

    def _finished(self, worker: int, done: Done) -> None:
        names = self._taken.pop(worker)
        self._n_done += sum(self._todo[name] for name in names)
        self._seen.pop(worker, None)
        self._done.n_embedded += done.n_embedded
        self._done.n_reused += done.n_reused
        self._done.seconds_waiting += done.seconds_waiting
        self._done.parts |= done.parts
        self._n_unreadable += sum(self._todo[name] for name in done.parts) - done.n_embedded - done.n_reused
        self._crew.idle.append(worker)

    def _lost(self, worker: int) -> None:
        """Of what a dead worker had, keep the parts that it wrote; others take the rest, which comes first.

        Raises:
            ClipAuditError: one of them kills every worker.
        """
        names = self._taken.pop(worker)
        self._seen.pop(worker, None)
        written = {file.name.split(".")[0]: file for file in self._store.files() if file not in self._before}
        for name in names:
            if name in written:
                n_unreadable = len(self._store.unreadable([written[name]]))
                self._n_done += self._todo[name]
                self._done.n_embedded += self._todo[name] - n_unreadable
                self._n_unreadable += n_unreadable
                self._done.parts.add(name)
        left = [name for name in names if name not in written]
        self._waiting.extendleft(reversed(left))
        self._deaths.update(left)
        for name in left:
            if self._deaths[name] >= MOST_DEATHS:
                raise ClipAuditError(self._killer(name))

    def _killer(self, name: str) -> str:
        samples: Sequence[Any] = next((part for _, part in self._store_plan().parts([name])), [])
        where = f" ({samples[0].id} to {samples[-1].id})" if samples else ""
        return (
            f"{MOST_DEATHS} workers died, one after the other, over the same {self._todo[name]:,} images{where}. Look"
            " into Ray's logs, whether it was for lack of memory; lower workers or --batch-size and run again. All"
            " other finished parts are kept."
        )

    def _store_plan(self) -> SavedPlan:
        plan: SavedPlan = _imported().get(self._job).plan
        return plan

    def _tell(self) -> None:
        stage = "embedding" if self._crew.n_ready else "waiting for workers"
        done = self._n_done + sum(seen.done for seen in self._seen.values())
        unreadable = self._n_unreadable + sum(seen.unreadable for seen in self._seen.values())
        self._report(EmbedProgress(stage, done, sum(self._todo.values()), unreadable))
