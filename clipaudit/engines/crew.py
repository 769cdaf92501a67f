"""The workers of a run on a Ray cluster, and who replaces those that die."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from clipaudit.clip.encoders import EncoderOptions
from clipaudit.engines.worker import Description, Worker
from clipaudit.errors import ClipAuditError, ModelError, UsageError

# So many workers in a row, beyond one each, that die before they have loaded the model are no accident.
DEATHS_IN_A_ROW = 3
# With several machines, each question takes a while; more often, nobody would see a difference.
SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Shares:
    """How many workers there are, and what each one gets."""

    workers: int
    cpus: int
    gpus: int


def shares(nodes: list[dict[str, float]], workers: int | None, *, use_gpus: bool) -> Shares:
    """Share out machines: one worker a GPU; without GPUs, one a machine with all its cores.

    Args:
        nodes: "CPU" and "GPU" of each machine.
        workers: How many are wanted.
        use_gpus: Whether the device may be one.

    Raises:
        UsageError: there is nothing for so many.
    """
    n_gpus = [int(node.get("GPU", 0)) if use_gpus else 0 for node in nodes]
    n_cpus = [int(node.get("CPU", 0)) for node in nodes]
    if any(n_gpus):
        most, unit = sum(n_gpus), "GPU"
        cpus = min(max(1, cpus // gpus) for cpus, gpus in zip(n_cpus, n_gpus, strict=True) if gpus)
    else:
        most, unit = sum(n_cpus), "CPU core"
        wanted = workers or sum(cpus > 0 for cpus in n_cpus)
        # As many cores each as leave room for all of them.
        fitting = [cores for cores in range(1, max(n_cpus, default=0) + 1) if _room(n_cpus, cores) >= wanted]
        cpus = max(fitting, default=1)
    count = workers or (most if any(n_gpus) else sum(number > 0 for number in n_cpus))
    if not 0 < count <= most:
        raise UsageError(f"the cluster has {most:,} {unit}(s), too few for {count or 1:,} worker(s). Lower workers.")
    return Shares(count, cpus, int(any(n_gpus)))


def _room(n_cpus: list[int], cores: int) -> int:
    return sum(number // cores for number in n_cpus)


@dataclass
class Crew:
    """Workers as Ray's actors; each is known by its number.

    Args:
        options: The model.
        shares: What each worker gets.
    """

    options: EncoderOptions
    shares: Shares
    idle: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ray: Any = import_module("ray")
        self._errors: Any = import_module("ray.exceptions")
        kind = self._ray.remote(num_cpus=self.shares.cpus, num_gpus=self.shares.gpus, max_concurrency=2)(Worker)
        self._hire: Callable[[], Any] = lambda: kind.remote(self.options, self.shares.cpus)
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, tuple[int, str]] = {}
        self._n_hired = self._n_barren = 0
        self.description: Description | None = None
        for _ in range(self.shares.workers):
            self.hire()

    def hire(self) -> None:
        """Ask for another worker. It comes when the cluster has room for it, be it on a machine that is added later."""
        self._n_hired += 1
        self._actors[self._n_hired] = self._hire()
        self.call(self._n_hired, "load")

    def call(self, worker: int, method: str, *arguments: Any) -> None:
        """Call a worker's method; `answers` gives what it returns."""
        self._calls[getattr(self._actors[worker], method).remote(*arguments)] = worker, method

    def answers(self) -> list[tuple[int, str, Any]]:
        """(worker, method, result) of the calls that ended, after at most SECONDS_BETWEEN_LOOKS; "died" of a death.

        Raises:
            ClipAuditError: what a worker raised; or workers die one after the other before they have loaded the model.
        """
        ended, _ = self._ray.wait(list(self._calls), timeout=SECONDS_BETWEEN_LOOKS)
        found = []
        for call in ended:
            worker, method = self._calls.pop(call)
            if worker not in self._actors:
                continue  # Known to be dead.
            try:
                result = self._ray.get(call)
            except self._errors.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, ClipAuditError) else error) from None
            except self._errors.RayError as error:
                self._lose(worker, method, error)
                method, result = "died", None
            if method == "load":
                self._welcome(worker, result)
            found.append((worker, method, result))
        return found

    def dismiss(self) -> None:
        """End all workers."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()

    @property
    def n_ready(self) -> int:
        """Workers that have loaded the model."""
        return len(self._actors) - sum(method == "load" for _, method in self._calls.values())

    def _welcome(self, worker: int, said: Description) -> None:
        self._n_barren = 0
        first = self.description = self.description or said
        if replace(said, host=first.host, device=first.device) != first:
            raise ModelError(
                f"the workers on {first.host} and {said.host} would give different embeddings: clipaudit"
                f" {first.version} and {said.version}, {first.precision} and {said.precision}"
                f" ({first.fingerprint.differences(said.fingerprint) or 'the same model'}). Name --precision and"
                " --device, and install the same versions on all machines."
            )
        self.idle.append(worker)

    def _lose(self, worker: int, method: str, error: Exception) -> None:
        """Hire another worker in place of one that died with its process or its machine."""
        self._ray.kill(self._actors.pop(worker))
        self.idle = [other for other in self.idle if other != worker]
        self._n_barren += method == "load"
        if self._n_barren > DEATHS_IN_A_ROW + self.shares.workers:
            raise ClipAuditError(
                f"the workers die before they have loaded the model ({str(error).splitlines()[0]}). Is there enough"
                " memory for it? Lower workers, and look into Ray's logs."
            )
        self.hire()
