"""The audit beside its peers on 50,000 real images, with human and synthetic label noise.

    python -m benchmarks.human_noise [--model MODEL] [--data ../shared/data] [--out docs/human-noise]

Every contender gets the same embeddings, of the CLIP model MODEL (a folder or a hub id; by default the reference CLIP,
which `benchmarks.train_reference_clip` makes), and the same labels: the four noisy columns of `cifar10/noise.parquet`,
and symmetric and asymmetric noise made as `clipaudit corrupt` makes it. Each runs in a process of its own, so that its
peak memory is its own; ours starts from the cache on disk, the peers from arrays in memory. Writes OUT.md (all results,
the short tables before them), OUT.json and OUT.svg.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

import clipaudit
from benchmarks.memory import peak_memory, reset_peak_memory
from clipaudit.auditing.metrics import best_threshold, metrics
from clipaudit.calls.corrupt import CIFAR10_MAP, asymmetric, symmetric
from clipaudit.clip.encoders import load_encoder
from clipaudit.prompts.sets import class_prompts, find_prompts
from clipaudit.vocabulary import ROLES, ZERO_SHOT

REPOSITORY = Path(__file__).parents[1]
HUMAN = ("label_human_aggregate", "label_human_random1", "label_instance_0.2", "label_instance_0.4")
SYNTHETIC = tuple(f"{kind}_{rate}" for kind in ("symmetric", "asymmetric") for rate in (0.2, 0.5, 0.8))
# Options beyond the paper are chosen on these and confirmed on the others.
CHOSEN_ON = ("label_human_random1", "label_instance_0.4", "symmetric_0.2", "symmetric_0.8", "asymmetric_0.5")

BY_ZERO_SHOT = tuple(role for role in ROLES if role.startswith(ZERO_SHOT.name))
BY_INDUCED = tuple(role for role in ROLES if role not in BY_ZERO_SHOT)
# Decisions upon one computation of scores: the selectors alone and combined, as in the paper's Fig. 4.
DECISIONS: Mapping[str, Mapping[str, Any]] = {
    "clipaudit (the paper's default)": {},
    "clipaudit --preset cifar": clipaudit.PRESETS["cifar"],
    **{f"{name.replace('_', ' ')} alone": {"selectors": (name,)} for name in ROLES},
    "zero-shot alone (both selectors)": {"selectors": BY_ZERO_SHOT},
    "induced alone (both selectors)": {"selectors": BY_INDUCED},
    "all four, union": {"combine": "union"},
    "all four, majority": {"combine": "majority"},
    "all four, 2-of-4": {"combine": "2-of-4"},
}
# Configurations that compute scores of their own.
RECOMMENDED = clipaudit.PRESETS["recommended"]
RECOMMENDED_NAME = "clipaudit --preset recommended"
CONFIGURATIONS: Mapping[str, Mapping[str, Any]] = {
    RECOMMENDED_NAME: RECOMMENDED,
    "clipaudit, the recommended scores, all four selectors": {
        **RECOMMENDED,
        "selectors": ROLES,
        "threshold": clipaudit.AuditConfig.threshold,
    },
    "clipaudit, out-of-fold": {"folds": 5},
}
PEERS = (
    "zero-shot disagreement",
    "zero-shot disagreement, the model's temperature",
    "cleanlab",
    "SimiFeat",
    "LEMoN, threshold from 2,500 known labels",
    "LEMoN, fitted to 2,500 known labels",
)

Row = dict[str, Any]
Flags = NDArray[np.bool_]
Result = TypeVar("Result")


def label_columns(
    data: Path, synthetic: Sequence[str] = SYNTHETIC
) -> tuple[list[str], NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Class names, (n,) true class indices, and (n,) noisy ones by the name of the noise, some of it `synthetic`."""
    table = pq.read_table(data / "cifar10" / "noise.parquet")
    truth = np.asarray(table["label_true"].to_pylist())
    names, true = np.unique(truth, return_inverse=True)
    columns = {name: np.searchsorted(names, np.asarray(table[name].to_pylist())) for name in HUMAN}
    number = {str(name): index for index, name in enumerate(names)}
    mapping = np.arange(len(names))
    for one, other in CIFAR10_MAP.items():
        mapping[number[one]] = number[other]
    for noise in synthetic:
        kind, rate = noise.split("_")
        generator = np.random.default_rng(0)
        if kind == "symmetric":
            columns[noise], _ = symmetric(true, len(names), float(rate), generator, others_only=False)
        else:
            columns[noise], _ = asymmetric(true, mapping, float(rate), generator)
    return [str(name) for name in names], true, columns


@dataclass(frozen=True)
class Cost:
    """Seconds, and peak memory in MB beyond what was resident before."""

    seconds: float
    peak_mb: int


def costed(call: Callable[[], Result]) -> tuple[Result, Cost]:
    """What a call returns and costs."""
    before, began = reset_peak_memory(), time.perf_counter()
    result = call()
    return result, Cost(time.perf_counter() - began, (peak_memory() - before) // 1024)


def measured(noise: str, contender: str, right: Flags, is_clean: Flags, scores: NDArray[Any], cost: Cost) -> Row:
    """One row of the table."""
    quality = asdict(metrics(right, is_clean, scores.astype(np.float64)))
    place = {"noise": noise, "chosen_on": noise in CHOSEN_ON, "contender": contender}
    return {**place, **quality, "clean_size": int(is_clean.sum()), **asdict(cost)}


def run_ours(name: str, cache: Path, data: Path) -> Iterator[Row]:
    """One configuration of clipaudit, from the cache to the index; for the paper's, all decisions upon its scores."""
    names, true, columns = label_columns(data)
    config = clipaudit.AuditConfig(**CONFIGURATIONS.get(name, {}))
    # Not timed: it loads the libraries and embeds the prompts, which peers get ready made.
    clipaudit.select(cache, labels=[names[k] for k in true], prompts="cifar10", config=config)
    for noise, labels in columns.items():
        given = [names[k] for k in labels]
        index, cost = costed(partial(clipaudit.select, cache, labels=given, prompts="cifar10", config=config))
        for contender, changes in decisions(name, index, labels == true).items():
            decided = clipaudit.reselect(index, index.config.with_changes(**changes))
            scores = decided.table["clean_score"].to_numpy()
            yield measured(noise, contender, labels == true, decided.is_clean, scores, cost)


def decisions(name: str, index: clipaudit.CleanIndex, right: Flags) -> Mapping[str, Mapping[str, Any]]:
    """What is decided upon the scores of one configuration: changes to it, by the contender's name."""
    if name != RECOMMENDED_NAME:
        return {name: {}} if name in CONFIGURATIONS else DECISIONS
    from benchmarks.peers import validation_set

    undecided = {"threshold": clipaudit.AuditConfig.threshold}
    ranking = clipaudit.reselect(index, index.config.with_changes(**undecided)).table["clean_score"].to_numpy()
    known = validation_set(len(right))
    threshold, _ = best_threshold(ranking[known], right[known])
    return {
        name: {},
        f"{name} --threshold 0.5": undecided,
        f"{name}, threshold from 2,500 known labels": {"threshold": threshold},
    }


def run_peer(name: str, cache: Path, data: Path) -> Iterator[Row]:
    """One peer, from arrays in memory; the search for neighbours is in the time of SimiFeat and of LEMoN."""
    from benchmarks import peers

    names, true, columns = label_columns(data)
    store = clipaudit.EmbeddingsCache.open(cache)
    embeddings = torch.from_numpy(store.read().vectors).float()
    wording = class_prompts(names, find_prompts("cifar10", names)[0])
    fingerprint = store.info.fingerprint
    encoder = load_encoder(clipaudit.EncoderOptions(fingerprint.model, precision=fingerprint.precision))
    prompts = torch.from_numpy(encoder.encode_texts(wording.texts))
    methods: Mapping[str, Callable[[peers.Task, Flags], peers.Verdict]] = dict(
        zip(
            PEERS,
            (
                lambda task, _: peers.zero_shot_disagreement(task, clipaudit.AuditConfig.temperature),
                lambda task, _: peers.zero_shot_disagreement(task, 1 / store.info.logit_scale),
                lambda task, _: peers.cleanlab(task),
                lambda task, _: peers.simifeat(task),
                partial(peers.lemon, fitted=False),
                partial(peers.lemon, fitted=True),
            ),
            strict=True,
        )
    )
    for noise, labels in columns.items():
        right, task = labels == true, peers.Task(embeddings, prompts, wording.owners, torch.from_numpy(labels))
        verdict, cost = costed(partial(methods[name], task, right))
        yield measured(noise, name, right, verdict.is_clean, verdict.scores, cost)


def main() -> None:
    """Embed once, run each contender in its own process, write the table, the numbers and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--model", default=str(Path(__file__).parent / "reference_clip"), help="folder or hub id")
    parser.add_argument("--cache", type=Path, help="embeddings of an earlier run")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "human-noise")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        run = run_peer if options.contender in PEERS else run_ours
        json.dump(list(run(options.contender, options.cache, options.data)), sys.stdout)
        return
    with tempfile.TemporaryDirectory() as name:
        cache, data = (options.cache or Path(name) / "cache").resolve(), options.data.resolve()
        model = str(Path(options.model).resolve()) if Path(options.model).is_dir() else options.model
        encoder = clipaudit.EncoderOptions(model)
        summary = clipaudit.embed(data / "cifar10" / "train.parquet", cache=cache, encoder=encoder)
        print(f"embed: {summary.seconds:.0f} s", file=sys.stderr, flush=True)
        rows: list[Row] = []
        for contender in ("clipaudit", *CONFIGURATIONS, *PEERS):
            words = ["--contender", contender, "--cache", str(cache), "--data", str(data)]
            command = [sys.executable, "-m", "benchmarks.human_noise", *words]
            rows += json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=REPOSITORY).stdout)
            print(f"{contender}: done", file=sys.stderr, flush=True)
    from benchmarks.human_noise_tables import figure, markdown

    options.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(rows))
    figure(rows, options.out.with_suffix(".svg"), peers=PEERS)


if __name__ == "__main__":
    main()
