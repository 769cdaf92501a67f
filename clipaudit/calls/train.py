"""`train`: from a clean index to a classifier and a relabelled data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import nn

from clipaudit.clip.devices import choose_device, device_faults
from clipaudit.errors import UsageError
from clipaudit.files import check_folder
from clipaudit.index.clean_index import CleanIndex, read_index
from clipaudit.index.fingerprints import subset_fingerprint
from clipaudit.options.arguments import typed
from clipaudit.options.shared import PIXELS
from clipaudit.remote import is_remote, to_path
from clipaudit.samples import SourceOptions
from clipaudit.samples.hugging_face import Dataset
from clipaudit.threads import thread_count
from clipaudit.training import data as data_of
from clipaudit.training.config import TrainConfig
from clipaudit.training.engine import Engine
from clipaudit.training.methods import method_of
from clipaudit.training.models import Architecture, build, describe
from clipaudit.training.pixels import Pixels, load_pixels
from clipaudit.training.run import Load, Progress, Run, TrainProgress, TrainSummary, decode_material
from clipaudit.training.run_facts import RunFacts
from clipaudit.training.run_folder import RunFolder
from clipaudit.training.trainer import Trainer

if TYPE_CHECKING:
    from clipaudit.training.tensorboard import Board

__all__ = ["TrainProgress", "TrainSummary", "train"]


@typed
def train(
    index: CleanIndex | str | Path,
    *,
    out: str | Path = "run",
    config: TrainConfig | None = None,
    test: str | Path | None = None,
    test_options: SourceOptions | None = None,
    truth: str | Path | None = None,
    images: str | Path | Dataset | None = None,
    device: str = "auto",
    precision: str = "auto",
    pixels: str = "auto",
    workers: int | None = None,
    tensorboard: bool = False,
    progress: Progress | None = None,
) -> TrainSummary:
    """Train a classifier from a clean index; given again, the same call goes on after the last finished epoch.

    Args:
        index: A clean index or its file; its images are found below its root.
        out: The run folder (docs/training.md); a new one, or one of the same configuration.
        config: Method, model and all numbers; `clipaudit.recipe(name)` gives the published ones.
        test: Test images in any form that `embed` reads. Without one, a share of the clean subset is held out.
        test_options: How to read them.
        truth: True labels of the index's samples, `FILE[:COLUMN]`: counts how often eq. 7 was right. Trains nothing.
        images: Where the images lie now, if they were moved.
        device: "auto", or a torch device.
        precision: "auto", "bfloat16" (mixed) or "float32".
        pixels: Where decoded images are kept: "device", "disk" or "auto".
        workers: Threads that decode or read images; None takes one a core.
        tensorboard: Also write RUN/tensorboard (needs the extra of that name).
        progress: Called as the run goes on.

    Raises:
        SourceError: the clean subset is empty, or images cannot be used.
        RunError: the folder holds another run, or a loss is not finite; the weights of the last epoch are kept.
        ModelError, UsageError: see their messages.
    """
    if is_remote(to_path(out)):
        raise UsageError(
            f"{out}: a run is written bit by bit, which needs a folder of this machine. Name one, and copy it."
        )
    check_folder(out, new=False)
    threads = thread_count(workers)
    config, report = config or TrainConfig(), progress or (lambda _: None)
    PIXELS.take(pixels)
    report(TrainProgress("reading", epochs=config.epochs))
    index = index if isinstance(index, CleanIndex) else read_index(index)
    data = data_of.training_set(index, config, images=images, truth=truth, has_test=test is not None)
    test_samples = data_of.test_set(test, test_options, index.class_names) if test else None
    architecture = describe(config, len(index.class_names))
    _check_padding(config, architecture)
    engine = Engine(choose_device(device), precision, architecture)
    board = _open_board(Path(out)) if tensorboard else None
    folder = RunFolder.start(
        Path(out),
        RunFacts(
            config=config,
            index_fingerprint=subset_fingerprint(index),
            index_source=index.metadata.source,
            test=str(to_path(test).resolve()) if test else None,
            class_names=index.class_names,
            architecture=architecture,
        ),
    )

    with device_faults(engine.device, "Choose a smaller --batch-size, --width or --image-size, or --pixels disk."):
        decode = _decoder(architecture, engine, pixels, folder.path, threads, config, report)
        material = decode_material(data, test_samples, decode)
        method = method_of(material.data.subsets(), config)
        trainer = Trainer(method, _networks(architecture, engine, config), material.pixels, engine, config)
        return Run(folder, trainer, material, config, report, board).to_the_end()


def _check_padding(config: TrainConfig, architecture: Architecture) -> None:
    if (config.crop_padding or 0) > architecture.image_size:
        raise UsageError(
            f"crop_padding must not exceed the images' edge of {architecture.image_size}, not {config.crop_padding}."
        )


def _decoder(
    architecture: Architecture,
    engine: Engine,
    place: str,
    folder: Path,
    threads: int,
    config: TrainConfig,
    report: Progress,
) -> Load:
    """What decodes samples for the networks, onto the device or into the folder."""

    def decode(samples: data_of.Samples, rows: NDArray[np.int64]) -> tuple[Pixels, NDArray[np.int64]]:
        return load_pixels(
            samples,
            rows,
            architecture.preprocessing,
            engine.device,
            place=place,
            folder=folder,
            workers=threads,
            report=lambda done, total: report(TrainProgress("decoding", done, total, epochs=config.epochs)),
        )

    return decode


def _networks(architecture: Architecture, engine: Engine, config: TrainConfig) -> list[nn.Module]:
    """As many as the configuration trains, each with weights of its own draw."""
    networks = []
    for number in range(config.networks):
        with engine.repeatable(config.seed, 0, number):
            networks.append(build(architecture, pretrained=config.pretrained))
    return networks


def _open_board(out: Path) -> Board:
    from clipaudit.training.tensorboard import Board

    return Board(out / "tensorboard")
