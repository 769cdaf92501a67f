"""Where to compute, and in which words a device refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from clipaudit.errors import ClipAuditError, UsageError

if TYPE_CHECKING:
    import torch


def choose_device(name: str) -> torch.device:
    """A torch device by name; "auto" is CUDA, else MPS, else CPU.

    Raises:
        UsageError: no such device can compute here.
        ClipAuditError: it has no memory left.
    """
    import torch

    if name != "auto":
        try:
            device = torch.device(name)
            # There and back: some devices take numbers and never give them out again ("meta").
            torch.ones(1, device=device).cpu()
        except Exception as error:
            if is_lack_of_memory(error):
                raise ClipAuditError(f"{name} has too little memory. Try --device cpu.") from None
            # RuntimeError, AssertionError, NotImplementedError or ImportError, by the kind of device.
            reason = first_line(error)
            raise UsageError(f"device {name!r} cannot be used: {reason}. Try --device cpu.") from None
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_devices(name: str, n_processes: int) -> list[torch.device]:
    """A torch device for each of several processes: the first GPUs, or the CPU for all; see `choose_device`.

    Args:
        name: As `choose_device` takes it, without a number where there are several processes.
        n_processes: At least 1.

    Raises:
        UsageError: there are fewer GPUs; or the device can only be used by one process.
        ClipAuditError: see `choose_device`.
    """
    import torch

    first = choose_device(name)
    if n_processes == 1 or first.type == "cpu":
        return [first] * n_processes
    if first.type != "cuda":
        raise UsageError(f"--data-parallel takes GPUs with CUDA or the CPU, not {first}. Leave it out.")
    if first.index is not None:
        raise UsageError(
            f"--data-parallel takes the first {n_processes} GPUs: leave out the number of --device {name}. The"
            " environment variable CUDA_VISIBLE_DEVICES says which ones are the first."
        )
    if n_processes > (there := torch.cuda.device_count()):
        raise UsageError(
            f"--data-parallel {n_processes} takes {n_processes} GPUs, and there {'is' if there == 1 else 'are'}"
            f" {there}. Lower it to at most {there}."
        )
    return [torch.device("cuda", index) for index in range(n_processes)]


def choose_precision(name: str, device: torch.device) -> str:
    """A precision by name; "auto" is half precision where the device computes faster in it."""
    import torch

    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device.type == "mps":
        return "float16"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bfloat16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "float32"


def exact_convolutions() -> AbstractContextManager[None]:
    """Inside, cuDNN computes float32 in full and the same way every time; by itself it rounds to TF32."""
    import torch

    flags: Callable[..., AbstractContextManager[None]] = torch.backends.cudnn.flags
    return flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


@contextmanager
def device_faults(device: torch.device, advice: str) -> Iterator[None]:
    """Inside, memory that is not there and a GPU that fails are errors that say what to do.

    A GPU computes behind the host's back: what fails there is raised by whatever waits for it next.

    Args:
        device: Where it is computed.
        advice: What to do where memory is short, as a sentence.

    Raises:
        ClipAuditError: instead of what torch raises.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_lack_of_memory(error):
            raise ClipAuditError(f"{device} has too little memory. {advice}") from None
        if is_gpu_fault(error):
            raise ClipAuditError(
                f"{device} failed: {first_line(error)}. Run the same command again; if it fails again, with --device"
                " cpu."
            ) from error
        raise


def is_gpu_fault(error: BaseException) -> bool:
    """Whether CUDA or one of its libraries refused. Not all versions of torch have a type for it."""
    return any(f"{library} error" in str(error) for library in ("CUDA", "cuDNN", "HIP", "MIOpen", "NCCL"))


def is_lack_of_memory(error: BaseException) -> bool:
    """torch has a type for it on a GPU; on the CPU it says so in words."""
    import torch

    words = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)


def first_line(error: BaseException) -> str:
    """What an error says, without the advice for developers that torch adds below."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
