"""Wrong labels on purpose, with the truth beside them: the kinds of noise that the literature tests with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.errors import SourceError, UsageError
from clipaudit.files import check_images, check_output, read_bounded, write_atomically
from clipaudit.options.arguments import typed
from clipaudit.options.kinds import SEED, SHARE
from clipaudit.remote import joined, to_path
from clipaudit.samples import SourceOptions, open_source
from clipaudit.samples.base import FILES, relative_id
from clipaudit.spelling import Spellings
from clipaudit.text import excerpt

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# A larger file is no map of classes.
MAX_MAP = 1 << 24
KINDS = ("symmetric", "symmetric-others", "asymmetric", "instance")
CIFAR10_MAP = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}
_CIFAR100_SUPERCLASSES = """\
beaver, dolphin, otter, seal, whale
aquarium fish, flatfish, ray, shark, trout
orchid, poppy, rose, sunflower, tulip
bottle, bowl, can, cup, plate
apple, mushroom, orange, pear, sweet pepper
clock, keyboard, lamp, telephone, television
bed, chair, couch, table, wardrobe
bee, beetle, butterfly, caterpillar, cockroach
bear, leopard, lion, tiger, wolf
bridge, castle, house, road, skyscraper
cloud, forest, mountain, plain, sea
camel, cattle, chimpanzee, elephant, kangaroo
fox, porcupine, possum, raccoon, skunk
crab, lobster, snail, spider, worm
baby, boy, girl, man, woman
crocodile, dinosaur, lizard, snake, turtle
hamster, mouse, rabbit, shrew, squirrel
maple tree, oak tree, palm tree, pine tree, willow tree
bicycle, bus, motorcycle, pickup truck, train
lawn mower, rocket, streetcar, tank, tractor"""
# Each class becomes the next of its superclass, the last the first.
CIFAR100_MAP = {
    name: group[(place + 1) % len(group)]
    for group in (line.split(", ") for line in _CIFAR100_SUPERCLASSES.splitlines())
    for place, name in enumerate(group)
}

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Corruption:
    """What `corrupt` did.

    Attributes:
        out: The manifest.
        n_samples: Its rows.
        n_selected: Samples that were selected for a new label.
        n_wrong: Number of these that got another label than their own.
        confusions: (true, given, count) of the wrong labels, most frequent first.
    """

    out: Path
    n_samples: int
    n_selected: int
    n_wrong: int
    confusions: tuple[tuple[str, str, int], ...]

    @property
    def rate(self) -> float:
        """Measured share of wrong labels, in [0, 1]."""
        return self.n_wrong / self.n_samples


@typed
def corrupt(
    source: str | Path,
    out: str | Path,
    *,
    kind: str,
    rate: float,
    seed: int = 0,
    mapping: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
    options: SourceOptions | None = None,
) -> Corruption:
    """Write a manifest of a source with wrong labels (`label`) and its true labels (`label_true`).

    Where the source's images are files, the manifest has a `path` column and is a source itself. Where they are rows of
    a Parquet file it has an `id` column and goes with `select --labels` and `evaluate --truth`.

    Args:
        source: Anything that `embed` reads; its labels are taken as true.
        out: CSV, TSV, JSONL or Parquet, by ending.
        kind: "symmetric" draws uniformly among all K classes, as most of the literature does, so that 1/K of the
            selected keep their label; "symmetric-others" among the K - 1 others; "asymmetric" by a map of classes;
            "instance" gives the samples that lie nearest to another class the label of that class.
        rate: Share of the samples (asymmetric: of each mapped class) that are selected, rounded to a whole number.
        seed: Random seed of the draw; "instance" draws nothing.
        mapping: True class to given class, for "asymmetric"; the usual map where the classes are CIFAR-10's or
            CIFAR-100's.
        cache: Embeddings of the same source, for "instance".
        options: How to read the source.

    Raises:
        UsageError: an unknown kind or ending, a rate outside [0, 1], a map or cache that does not fit.
        SourceError: the source cannot be read.
    """
    out = to_path(out)
    if kind not in KINDS:
        raise UsageError(f"unknown kind of noise {kind!r}. Choose one of: {', '.join(KINDS)}.")
    rate, seed = SHARE.take("rate", rate), SEED.take("seed", seed)
    check_output(out, [source])
    opened = open_source(source, options)
    samples = [(sample.id, sample.label) for sample in opened.samples()]
    ids, names = [name for name, _ in samples], [label for _, label in samples]
    check_images(out, ids, opened.root)
    classes = list(opened.class_names or sorted(set(names)))
    if len(classes) < 2:
        raise SourceError(f"{source} has a single class; there is nothing to confuse it with.")
    number = {name: index for index, name in enumerate(classes)}
    true = np.array([number[name] for name in names])
    generator = np.random.default_rng(seed)
    if kind == "asymmetric":
        noisy, selected = asymmetric(true, _class_map(classes, mapping), rate, generator)
    elif kind == "instance":
        noisy, selected = instance_dependent(_vectors(cache, ids), true, len(classes), rate)
    else:
        noisy, selected = symmetric(true, len(classes), rate, generator, others_only=kind == "symmetric-others")
    in_rows = opened.access != FILES
    places = ids if in_rows else [relative_id(out.resolve().parent, str(joined(opened.root, name))) for name in ids]
    given = [classes[index] for index in noisy]
    _write(out, pa.table({"id" if in_rows else "path": places, "label": given, "label_true": names}))
    wrong = noisy != true
    pairs, counts = np.unique(np.stack([true[wrong], noisy[wrong]]), axis=1, return_counts=True)
    confusions = [(classes[a], classes[b], int(n)) for a, b, n in zip(*pairs, counts, strict=True)]
    confusions.sort(key=lambda pair: -pair[2])
    return Corruption(out, len(ids), int(selected.sum()), int(wrong.sum()), tuple(confusions))


def symmetric(
    true: Labels, n_classes: int, rate: float, generator: np.random.Generator, *, others_only: bool
) -> tuple[Labels, NDArray[np.bool_]]:
    """Draw the labels of round(rate n) samples anew, uniformly.

    Args:
        true: (n,) in [0, n_classes).
        n_classes: K.
        rate: Share of the samples that are selected.
        generator: Source of randomness.
        others_only: Draw among the K - 1 other classes, so that every selected label becomes wrong.

    Returns:
        (n,) noisy labels, and (n,) which samples were selected.
    """
    selected = np.zeros(len(true), bool)
    selected[generator.choice(len(true), round(rate * len(true)), replace=False)] = True
    count = int(selected.sum())
    noisy = true.copy()
    if others_only:
        noisy[selected] = (true[selected] + generator.integers(1, n_classes, count)) % n_classes
    else:
        noisy[selected] = generator.integers(0, n_classes, count)
    return noisy, selected


def asymmetric(
    true: Labels, mapping: Labels, rate: float, generator: np.random.Generator
) -> tuple[Labels, NDArray[np.bool_]]:
    """Give round(rate n_k) samples of each mapped class k the label mapping[k].

    Args:
        true: (n,) in [0, K).
        mapping: (K,) the class that each is confused with; itself for classes that stay as they are.
        rate: Share of each mapped class.
        generator: Source of randomness.

    Returns:
        (n,) noisy labels, and (n,) which samples were selected.
    """
    selected = np.zeros(len(true), bool)
    for k in np.flatnonzero(mapping != np.arange(len(mapping))):
        members = np.flatnonzero(true == k)
        selected[generator.choice(members, round(rate * len(members)), replace=False)] = True
    return np.where(selected, mapping[true], true), selected


def instance_dependent(
    vectors: NDArray[np.float16], true: Labels, n_classes: int, rate: float
) -> tuple[Labels, NDArray[np.bool_]]:
    """Confuse the round(rate n) samples that lie nearest to another class, each with that class.

    Nearness is the cosine to the nearest other class's centre less that to the own class's.

    Args:
        vectors: (n, d) unit rows; those of unreadable images are zero, and come last.
        true: (n,) in [0, n_classes).
        n_classes: K.
        rate: Share of the samples.

    Returns:
        (n,) noisy labels, and (n,) which samples were selected.
    """
    centres = np.zeros((n_classes, vectors.shape[1]), np.float32)
    np.add.at(centres, true, vectors.astype(np.float32))
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    cosine = vectors.astype(np.float32) @ centres.T
    rows = np.arange(len(true))
    own = cosine[rows, true]
    cosine[rows, true] = -np.inf
    cosine[:, np.bincount(true, minlength=n_classes) == 0] = -np.inf
    nearest = cosine.argmax(1)
    nearness = np.where(vectors.any(1), cosine[rows, nearest] - own, -np.inf)
    selected = np.zeros(len(true), bool)
    selected[np.argsort(-nearness, kind="stable")[: round(rate * len(true))]] = True
    return np.where(selected, nearest, true), selected


def read_map(path: Path) -> dict[str, str]:
    """A map of classes from a JSON object {true: given} or TOML lines true = "given"; UsageError where it is none."""
    form = """Write a JSON object {"true": "given"}, or TOML lines "true" = "given" (.toml)."""
    try:
        text = read_bounded(path, MAX_MAP, UsageError).decode("utf-8-sig")
        content = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist. {form}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no map of classes: {error}. {form}") from None
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise UsageError(f"{path} is no map of classes. {form}")
    return content


def _class_map(classes: Sequence[str], mapping: Mapping[str, str] | None) -> Labels:
    spellings = Spellings(classes)
    if mapping is None:
        built_in = (
            known
            for known in (CIFAR10_MAP, CIFAR100_MAP)
            if all(spellings.find(name) is not None for name in (*known, *known.values()))
        )
        mapping = next(built_in, None)
    if mapping is None:
        raise UsageError(
            "these classes have no built-in map (CIFAR-10's and CIFAR-100's have). Give one: --map FILE.json"
        )
    result = np.arange(len(classes))
    for true, given in mapping.items():
        numbers = [spellings.find(name) for name in (true, given)]
        if numbers[0] is None or numbers[1] is None:
            name = true if numbers[0] is None else given
            raise UsageError(
                f"the map names {excerpt(name)}, which is no class of the source, or may be several"
                f" ({', '.join(classes[:10])})."
            )
        result[numbers[0]] = numbers[1]
    return result


def _vectors(cache: str | Path | None, ids: Sequence[str]) -> NDArray[np.float16]:
    from clipaudit.calls.material import find_cache

    path = to_path(cache) if cache else find_cache()
    embeddings = EmbeddingsCache.open(path).read()
    if embeddings.table["id"].to_pylist() != list(ids):
        raise UsageError(f"{path} holds other samples than the source. Name the right cache: --cache CACHE")
    return embeddings.vectors


def _write(out: Path, table: pa.Table) -> None:
    def write_csv(file: BinaryIO) -> None:
        separator = "\t" if out.suffix.lower() == ".tsv" else ","
        # Raw, unlike an export: programs read a manifest, for which a class must keep its name.
        pyarrow.csv.write_csv(table, file, pyarrow.csv.WriteOptions(delimiter=separator))

    def write_jsonl(file: BinaryIO) -> None:
        file.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in table.to_pylist())

    writers: dict[str, Callable[[BinaryIO], None]] = {
        ".csv": write_csv,
        ".tsv": write_csv,
        ".jsonl": write_jsonl,
        ".parquet": lambda file: pq.write_table(table, file),
    }
    if out.suffix.lower() not in writers:
        raise UsageError(f"{out}: a manifest ends in {', '.join(writers)}.")
    write_atomically(out, writers[out.suffix.lower()])
