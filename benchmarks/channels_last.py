"""Channels last on a CPU: which convolutions end their process in it, and what it gains.

    MALLOC_CHECK_=3 LD_PRELOAD=libc_malloc_debug.so.0 python -m benchmarks.channels_last crashes
    python -m benchmarks.channels_last speed

The fault is oneDNN's `jit_avx2_1x1_convolution_bwd_weights_t` (torch 2.13.0): a 1 x 1 convolution of stride 2 with few
input channels writes beyond its buffer. Every ResNet has such convolutions beside its blocks. On a processor with
AVX-512, `ONEDNN_MAX_CPU_ISA=AVX2` shows what one without it does.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from statistics import median

import torch
from torch import nn
from torch.nn import functional

from clipaudit.training.preact import PreActResNet18

ISAS = ("AVX2", "AVX512_CORE", "ALL")
LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}
CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 24, 64)


def ends_its_process(isa: str, threads: int, channels: int, layout: torch.memory_format, mixed: bool) -> bool:
    """Whether five backward passes of one convolution end a child by a signal, or hang in it."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.alarm(10)
        os.environ["ONEDNN_MAX_CPU_ISA"] = isa
        torch.set_num_threads(threads)
        convolution = nn.Conv2d(channels, 8, 1, stride=2, bias=False).to(memory_format=layout)
        images = torch.randn(16, channels, 16, 16).contiguous(memory_format=layout).requires_grad_()
        for _ in range(5):
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                result = convolution(images)
            result.float().square().sum().backward()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) < 0


def crashes() -> None:
    """For each setting the numbers of input channels that end the process."""
    for isa in ISAS:
        for threads in (1, 2):
            for words, layout in LAYOUTS.items():
                for mixed in (False, True):
                    found = [n for n in CHANNELS if ends_its_process(isa, threads, n, layout, mixed)]
                    precision = "bfloat16" if mixed else "float32"
                    print(f"{isa:<12} {threads} thread(s), {words:<14}, {precision:<8}: {found or 'none'}", flush=True)


def seconds_a_step(width: int, layout: torch.memory_format) -> float:
    """Median time of a step of SGD on 32 images of 32 x 32."""
    torch.manual_seed(0)
    network = PreActResNet18(10, width).to(memory_format=layout)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    images = torch.randn(32, 3, 32, 32).contiguous(memory_format=layout)
    times = []
    for _ in range(6):
        began = time.perf_counter()
        loss = functional.cross_entropy(network(images), torch.arange(32) % 10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - began)
    return median(times[1:])


def speed() -> None:
    """Time of a step in both layouts, in turn."""
    for width in (4, 16, 64):
        pairs = [[seconds_a_step(width, layout) for layout in LAYOUTS.values()] for _ in range(5)]
        ratio = median(last / first for last, first in pairs)
        times = zip(LAYOUTS, zip(*pairs, strict=True), strict=True)
        shown = ", ".join(f"{words} {1000 * median(found):.0f} ms" for words, found in times)
        print(f"width {width:>2}, {torch.get_num_threads()} thread(s): {shown}; ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    measurements = {"crashes": crashes, "speed": speed}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", choices=measurements)
    measurements[parser.parse_args().measurement]()
