"""`train`: from a clean index to a classifier and a relabelled data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clipaudit.cache.embeddings import Embeddings
from clipaudit.cache.info import Fingerprint
from clipaudit.calls.probe import cache_behind, embed_test_set
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
from clipaudit.training.airbench import Airbench
from clipaudit.training.config import PROBE, TrainConfig
from clipaudit.training.engine import Engine
from clipaudit.training.methods import method_of
from clipaudit.training.models import Architecture, build, describe
from clipaudit.training.pixels import Pixels, load_pixels
from clipaudit.training.probe import Probe, find_vectors
from clipaudit.training.run import Load, Material, Progress, Run, TrainProgress, TrainSummary, load_material
from clipaudit.training.run_facts import RunFacts
from clipaudit.training.run_folder import RunFolder
from clipaudit.training.trainer import Trainer

if TYPE_CHECKING:
    from clipaudit.training.tensorboard import Board

__all__ = ["TrainProgress", "TrainSummary", "train"]

# What loads the training samples and what loads those of a test set, given a device and the run's folder.
Loads = Callable[[torch.device, Path], tuple[Load, Load]]
# Images whose patches tell how the patches of all vary.
WHITENING_IMAGES = 2_000
# Shows a stage, what of it is done and what there is to do.
Show = Callable[[str, int, int], None]


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
    embeddings: str | Path | None = None,
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
        embeddings: For a probe, the cache that the index was made from; None takes the only one below `.clipaudit` of
            the index's source and model.
        device: "auto", or a torch device.
        precision: "auto", "bfloat16" (mixed) or "float32".
        pixels: Where decoded images are kept: "device", "disk" or "auto".
        workers: Threads that decode or read images; None takes one a core.
        tensorboard: Also write RUN/tensorboard (needs the extra of that name).
        progress: Called as the run goes on.

    Raises:
        SourceError: the clean subset is empty, or images cannot be used, or a sample has no embedding.
        CacheError: no cache fits the index, or the named one does not.
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
    chosen = None if PIXELS.take(pixels) == PIXELS.default else pixels
    _refuse_idle(config.model, images=images, pixels=chosen, embeddings=embeddings)
    report(TrainProgress("reading", epochs=config.epochs))
    index = index if isinstance(index, CleanIndex) else read_index(index)
    data = data_of.training_set(index, config, images=images, truth=truth, has_test=test is not None)
    test_samples = data_of.test_set(test, test_options, index.class_names) if test else None

    def show(stage: str, done: int, total: int) -> None:
        report(TrainProgress(stage, done, total, epochs=config.epochs))

    def embed_test(encoder: Fingerprint) -> Embeddings:
        return embed_test_set(str(test), test_options, encoder, device, workers, show)

    architecture, loads = (
        _on_embeddings(config, index, embeddings, embed_test)
        if config.model == PROBE
        else _on_images(config, len(index.class_names), pixels, threads, show)
    )
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
        material = load_material(data, test_samples, *loads(engine.device, folder.path))
        method = method_of(material.data.subsets(), config)
        networks = _networks(architecture, engine, config)
        _whiten(networks, material, engine)
        trainer = Trainer(method, networks, material.pixels, engine, config)
        return Run(folder, trainer, material, config, report, board).to_the_end()


def _refuse_idle(model: str, **given: object) -> None:
    """UsageError for what this kind of model has no use for: a probe reads no images, the others no embeddings."""
    for name in ("images", "pixels") if model == PROBE else ("embeddings",):
        if given[name] is not None:
            raise UsageError(f"{name} has no effect with the model {model}. Leave it out.")


def _on_images(
    config: TrainConfig, classes: int, place: str, threads: int, show: Show
) -> tuple[Architecture | Probe, Loads]:
    """A classifier of images, and what decodes them, onto the device or into the run's folder."""
    architecture = describe(config, classes)
    if (config.crop_padding or 0) > architecture.image_size:
        raise UsageError(
            f"crop_padding must not exceed the images' edge of {architecture.image_size}, not {config.crop_padding}."
        )

    def loads(device: torch.device, folder: Path) -> tuple[Load, Load]:
        def decode(samples: data_of.Samples, rows: NDArray[np.int64]) -> tuple[Pixels, NDArray[np.int64]]:
            return load_pixels(
                samples,
                rows,
                architecture.preprocessing,
                device,
                place=place,
                folder=folder,
                workers=threads,
                report=lambda done, total: show("decoding", done, total),
            )

        return decode, decode

    return architecture, loads


def _on_embeddings(
    config: TrainConfig,
    index: CleanIndex,
    named: str | Path | None,
    embed_test: Callable[[Fingerprint], Embeddings],
) -> tuple[Architecture | Probe, Loads]:
    """A probe, and what finds its embeddings: the cache behind the index, and the same encoder for the test set."""
    cache = cache_behind(index, named)
    encoder = cache.info.fingerprint

    def loads(device: torch.device, folder: Path) -> tuple[Load, Load]:
        def find(samples: data_of.Samples, rows: NDArray[np.int64]) -> tuple[Pixels, NDArray[np.int64]]:
            return find_vectors(samples.ids, rows, cache.read(), device)

        def find_test(samples: data_of.Samples, rows: NDArray[np.int64]) -> tuple[Pixels, NDArray[np.int64]]:
            return find_vectors(samples.ids, rows, embed_test(encoder), device)

        return find, find_test

    return Probe(PROBE, config.probe_hidden, len(index.class_names), encoder), loads


def _networks(architecture: Architecture | Probe, engine: Engine, config: TrainConfig) -> list[nn.Module]:
    """As many as the configuration trains, each with weights of its own draw."""
    networks = []
    for number in range(config.networks):
        with engine.repeatable(config.seed, 0, number):
            networks.append(build(architecture, pretrained=config.pretrained))
    return networks


def _whiten(networks: list[nn.Module], material: Material, engine: Engine) -> None:
    """Show some images of the clean subset to networks whose first layer is made from their statistics."""
    if learners := [network for network in networks if isinstance(network, Airbench)]:
        clean = np.flatnonzero(material.data.clean)
        # At equal distances: where the source goes class by class, some of every class.
        rows = clean[np.linspace(0, len(clean) - 1, min(len(clean), WHITENING_IMAGES)).astype(np.int64)]
        images = engine.normalise(next(iter(material.pixels.blocks([rows])))).cpu()
        for network in learners:
            network.whiten(images)


def _open_board(out: Path) -> Board:
    from clipaudit.training.tensorboard import Board

    return Board(out / "tensorboard")
