"""Options of several calls: where and in which arithmetic they compute, and with how many threads."""

from __future__ import annotations

from clipaudit.options import Option
from clipaudit.options.kinds import Choice, Range, Text

DEVICE = Option(
    "auto",
    Text("the name of a device"),
    "Device to compute on: auto (CUDA if present, else MPS, else CPU), cpu, cuda, cuda:1 or mps",
    "Model",
    name="device",
)
TRAIN_PRECISION = Option(
    "auto",
    Choice({"auto": "mixed on a GPU that has it", "bfloat16": "mixed", "float32": ""}),
    "Arithmetic",
    "Model",
    name="precision",
)
PIXELS = Option(
    "auto",
    Choice({"auto": "on the device if they fit", "device": "", "disk": ""}),
    "Where decoded images are kept",
    "Work",
    name="pixels",
)
WORKERS = Option(
    None,
    Range(1, 256, whole=True),
    "Number of threads that decode and read images",
    "Work",
    unset="one a core",
    name="workers",
)
