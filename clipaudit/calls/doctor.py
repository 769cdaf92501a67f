"""`doctor`: what a bug report has to say about the installation and the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clipaudit.calls.embed import CACHE_HOME
from clipaudit.clip.devices import first_line
from clipaudit.remote import without_secrets

# What clipaudit needs, then what its extras bring.
PACKAGES = (
    *("clipaudit", "torch", "transformers", "huggingface_hub", "safetensors", "numpy", "scipy", "scikit-learn"),
    *("pyarrow", "pillow", "fsspec", "jinja2", "rich", "typer"),
    *("faiss-cpu", "faiss-gpu", "cleanvision", "kornia", "datasets", "pandas", "ray", "s3fs", "matplotlib"),
)
# What changes how clipaudit and its libraries compute, or where they look. None of them is a secret.
VARIABLES = (
    *("CLIPAUDIT_MAX_TABLE_GB", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "ONEDNN_MAX_CPU_ISA"),
    *("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_HUB_ETAG_TIMEOUT"),
)


@dataclass(frozen=True)
class Device:
    """Something to compute on, by the name that --device takes.

    Attributes:
        name: "cpu", "cuda:0", "mps".
        title: What its maker calls it.
        memory, free: Bytes; None where nobody says.
    """

    name: str
    title: str
    memory: int | None = None
    free: int | None = None


@dataclass(frozen=True)
class Store:
    """A folder that grows: what is in it, its path and its bytes."""

    kind: str
    path: Path
    n_bytes: int


@dataclass(frozen=True)
class Diagnosis:
    """What a bug report has to say.

    Attributes:
        versions: Of Python and each package; None where one is not installed.
        system: The operating system.
        devices: What there is to compute on; the one that "auto" takes comes first.
        threads: Cores of the machine, those that this process may use, and threads that torch uses.
        memory: Bytes of the machine, those that are available now, and the limit of the container, as far as known.
        disk_free: Bytes that are free where the command runs.
        stores: The embeddings caches below `.clipaudit`, and the hub's cache of models.
        environment: The variables that were set, of those that have an effect.
        warnings: What could not be found out.
    """

    versions: Mapping[str, str | None]
    system: str
    devices: tuple[Device, ...]
    threads: Mapping[str, int]
    memory: Mapping[str, int]
    disk_free: int
    stores: tuple[Store, ...]
    environment: Mapping[str, str]
    warnings: tuple[str, ...]


def diagnose(home: Path = CACHE_HOME) -> Diagnosis:
    """Look at the installation and the machine; nothing is changed, and nothing that fails ends it.

    Args:
        home: Where the embeddings caches lie.
    """
    warnings: list[str] = []
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices, torch_threads = _devices(warnings)
    return Diagnosis(
        versions={"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        system=platform.platform(),
        devices=devices,
        threads={"cores": os.cpu_count() or 1, "usable": usable, **torch_threads},
        memory=_memory(),
        disk_free=_disk_free(Path.cwd()),
        stores=_stores(home, warnings),
        environment={name: without_secrets(os.environ[name]) for name in VARIABLES if name in os.environ},
        warnings=tuple(warnings),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices(warnings: list[str]) -> tuple[tuple[Device, ...], dict[str, int]]:
    """The devices, and the number of torch's threads."""
    cpu = Device("cpu", platform.processor() or platform.machine())
    try:
        import torch

        found = [_card(number) for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        if torch.backends.mps.is_available():
            found.append(Device("mps", "Apple GPU"))
        return (*found, cpu), {"torch": torch.get_num_threads()}
    except Exception as error:
        # A broken installation of torch, or of a driver, is what a bug report may be about.
        warnings.append(f"torch or a device cannot be used: {first_line(error)}")
        return (cpu,), {}


def _card(number: int) -> Device:
    import torch

    free, total = torch.cuda.mem_get_info(number)
    title = f"{torch.cuda.get_device_name(number)}, CUDA {torch.version.cuda}"
    return Device(f"cuda:{number}", title, total, free)


def _memory() -> dict[str, int]:
    found = {}
    if hasattr(os, "sysconf"):
        found["total"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            found["available"] = int(line.split()[1]) * 1024
    for line in _lines(Path("/sys/fs/cgroup/memory.max")):
        if line.isdecimal():
            found["limit"] = int(line)
    return found


def _lines(file: Path) -> list[str]:
    """Of a file that only Linux has."""
    try:
        return file.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []


def _disk_free(folder: Path) -> int:
    from shutil import disk_usage

    return disk_usage(folder).free


def _stores(home: Path, warnings: list[str]) -> tuple[Store, ...]:
    """The caches that there are."""
    stores = [Store("embeddings", file.parent, _size(file.parent)) for file in sorted(home.glob("*/cache.json"))]
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except Exception as error:
        # Its settings are checked when it is imported.
        warnings.append(f"the hub's client cannot be used: {first_line(error)}")
        return tuple(stores)
    models = Path(HF_HUB_CACHE)
    return (*stores, Store("models of the hub", models, _size(models)))


def _size(folder: Path) -> int:
    """The bytes of all files in a folder; links are not followed, and what cannot be read is passed over."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
            except OSError:
                continue
    return total
