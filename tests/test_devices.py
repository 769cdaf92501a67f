"""What a device refuses is explained, and a GPU gives what the processor gives. The latter runs where there is one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import DIGITS

import clipaudit
from clipaudit import PRESETS, AuditConfig, ClipAuditError
from clipaudit.clip.devices import choose_device, device_faults
from clipaudit.clip.encoders import Encoder, load_encoder
from clipaudit.errors import UsageError
from clipaudit.selectors.mixture import split_losses

LATE = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported."


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 14.00 MiB."), "too little memory. Do less at"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "too little memory. Do less at once."),
        (MemoryError(), "too little memory. Do less at once."),
        (RuntimeError(LATE), "failed: CUDA error: device-side assert triggered. Run the same command again"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "failed: cuDNN error"),
        (RuntimeError("NCCL error in: NCCLUtils.cpp:94, unhandled system error"), "failed: NCCL error in"),
    ],
)
def test_what_a_device_refuses_is_one_sentence(error: Exception, sentence: str) -> None:
    with pytest.raises(ClipAuditError, match=sentence) as found, device_faults(torch.device("cpu"), "Do less at once."):
        raise error
    assert "\n" not in str(found.value)


def test_a_full_device_is_no_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")

    monkeypatch.setattr(torch, "ones", full)
    with pytest.raises(ClipAuditError, match=r"^cuda has too little memory\. Try --device cpu\.$") as found:
        choose_device("cuda")
    assert not isinstance(found.value, UsageError)


def test_a_fault_of_ours_stays_one() -> None:
    with pytest.raises(RuntimeError, match="shapes"), device_faults(torch.device("cpu"), ""):
        raise RuntimeError("the shapes do not match")


class _Spoilt:
    """Embeddings of a GPU that failed while nobody waited."""

    def cpu(self) -> torch.Tensor:
        raise RuntimeError(LATE)


def test_a_late_fault_of_a_gpu_is_explained_and_leaves_no_part(
    small_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "encode_images", lambda self, pixels: _Spoilt())
    with pytest.raises(ClipAuditError, match=r"cpu failed: CUDA error: device-side assert triggered\. Run the same"):
        clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS)
    assert not list((tmp_path / "c" / "parts").rglob("*.parquet"))
    monkeypatch.undo()
    assert clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS).n_embedded == 24


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "atol"), [("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 1e-2)])
def test_a_gpu_embeds_as_the_processor(precision: str, atol: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    texts = ["a photo of a cat", "seven"]
    there = load_encoder(replace(DIGITS, device="cuda", precision=precision))
    here = load_encoder(DIGITS)
    found = there.encode_images(pixels).cpu()
    torch.testing.assert_close(found, here.encode_images(pixels), atol=atol, rtol=0)
    np.testing.assert_allclose(there.encode_texts(texts), here.encode_texts(texts), atol=atol)
    assert torch.equal(found, there.encode_images(pixels).cpu())


@pytest.mark.cuda
@pytest.mark.parametrize("preset", ["paper", "recommended"])
def test_a_gpu_audits_as_the_processor(noisy_cache: Path, preset: str) -> None:
    config = AuditConfig(**PRESETS[preset])
    here, there, again = (clipaudit.select(noisy_cache, config=config, device=d) for d in ("cpu", "cuda", "cuda"))
    assert there.table.equals(again.table)
    assert (there.is_clean == here.is_clean).all()
    scores = [field.name for field in here.table.schema if pa.types.is_floating(field.type)]
    assert "clean_score" in scores
    for name in scores:
        np.testing.assert_allclose(there.table[name].to_numpy(), here.table[name].to_numpy(), atol=1e-3)


@pytest.mark.cuda
def test_a_gpu_splits_losses_as_the_processor() -> None:
    generator = np.random.default_rng(0)
    losses, labels = torch.from_numpy(generator.gamma(1, 1, 5000)), torch.from_numpy(generator.integers(0, 7, 5000))
    here, there = split_losses(losses, labels, 7), split_losses(losses.cuda(), labels.cuda(), 7)
    torch.testing.assert_close(there.posterior.cpu(), here.posterior, atol=1e-6, rtol=0)


# Run in a process of its own: after a fault, a process can do nothing on the GPU any more.
FAULTS = {
    "select": """
import torch
torch.cuda.set_per_process_memory_fraction(1e-7)
""",
    "embed": """
import torch
from clipaudit.clip.encoders import Encoder
encode = Encoder.encode_images
def spoil(self, pixels):
    found = encode(self, pixels)
    torch.zeros(4, device="cuda")[torch.full((5,), 99, device="cuda")]
    return found
Encoder.encode_images = spoil
""",
}


@pytest.mark.cuda
@pytest.mark.parametrize("command", FAULTS)
def test_faults_of_a_real_gpu_end_in_a_sentence(
    command: str, noisy_digits: tuple[Path, object], noisy_cache: Path, tmp_path: Path
) -> None:
    words: dict[str, list[object]] = {
        "select": [noisy_cache, "--out", tmp_path / "clean.parquet"],
        "embed": [noisy_digits[0], "--cache", tmp_path / "c", "--model", DIGITS.model, "--batch-size", 64],
    }
    arguments = ["clipaudit", command, *map(str, words[command]), "--device", "cuda"]
    code = f"{FAULTS[command]}\nimport sys\nfrom clipaudit.cli import main\nsys.argv = {arguments!r}\nmain()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("clipaudit: cuda ")
