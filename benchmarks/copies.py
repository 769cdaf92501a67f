"""Copies: how many changed images are found again, and how many others are taken for copies, beside the peers.

    python -m benchmarks.copies [--model MODEL] [--data ../shared/data] [--images 5000] [--cache CACHE]

CIFAR-10 test images and copies of some of them, each changed in one of nine ways, in class folders. clipaudit looks
at them through `embed` and `select`, cleanlab Datalab at the same embeddings, cleanvision at the files. A pair is right
where both are the same image. Prints a Markdown table.

With the cache of `cifar10/train.parquet`, it also prints what copies in other folds give away: of 20,000 images, a
fifth with a wrong label, 4,000 are there twice with the same label, and judged with both copies in one fold or not.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from cleanlab import Datalab
from cleanvision import Imagelab
from PIL import Image, ImageDraw, ImageEnhance

import clipaudit
from clipaudit.auditing.method import score
from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.clip.texts import Texts
from clipaudit.estimates import InMemory
from clipaudit.index.copies import copies_in
from clipaudit.prompts.sets import class_prompts, find_prompts

REPOSITORY = Path(__file__).parents[1]
COPIED = 90
Pairs = set[tuple[str, str]]


def _recompressed(picture: Image.Image, quality: int) -> Image.Image:
    picture.save(file := io.BytesIO(), "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _marked(picture: Image.Image) -> Image.Image:
    ImageDraw.Draw(marked := picture.copy()).text((3, 20), "(c) me", fill="white")
    return marked


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same file": lambda picture: picture,
    "JPEG, quality 75": lambda picture: _recompressed(picture, 75),
    "JPEG, quality 50": lambda picture: _recompressed(picture, 50),
    "scaled to 200 %": lambda picture: picture.resize((64, 64), Image.Resampling.BICUBIC),
    "scaled to 75 %": lambda picture: picture.resize((24, 24), Image.Resampling.BICUBIC),
    "5 % cropped": lambda picture: picture.crop((1, 1, 31, 31)),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "25 % brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.25),
    "watermark text": _marked,
}


def write_images(data: Path, root: Path, n: int) -> dict[str, Pairs]:
    """The images and their changed copies as PNG; the pairs of each change."""
    rows = pq.read_table(data / "cifar10" / "test.parquet", columns=["image", "label"])
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:n])
    planted: dict[str, Pairs] = {name: set() for name in CHANGES}
    names = list(CHANGES)
    for number, row in enumerate(rows.take(chosen).to_pylist()):
        picture = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        folder = root / row["label"]
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{number:05}.png")
        # Every so often, so that all classes have copies.
        place, rest = divmod(number, max(1, n // (COPIED * len(names))))
        if not rest and place < COPIED * len(names):
            change = names[place % len(names)]
            CHANGES[change](picture).save(folder / f"{number:05}-copy.png")
            planted[change].add((f"{row['label']}/{number:05}-copy.png", f"{row['label']}/{number:05}.png"))
    return planted


def pairs_of(groups: Iterable[Iterable[str]]) -> Pairs:
    """All pairs within groups, each in the names' order."""
    return {pair for group in groups for pair in combinations(sorted(set(group)), 2)}


def ours(root: Path, work: Path, model: str) -> Pairs:
    """What `select` calls copies."""
    cache = clipaudit.embed(root, cache=work / "cache", encoder=clipaudit.EncoderOptions(model=model)).cache
    index = clipaudit.select(cache)
    copies = copies_in(index.table)
    assert copies is not None
    groups: dict[int, list[str]] = {}
    for name, group in zip(index.table["id"].to_pylist(), copies.group.tolist(), strict=True):
        if group >= 0:
            groups.setdefault(group, []).append(name)
    return pairs_of(groups.values())


def datalab(cache: Path) -> Pairs:
    """cleanlab's near duplicates of the embeddings."""
    held = EmbeddingsCache.open(cache).read()
    names = held.table["id"].to_pylist()
    lab = Datalab({"label": held.table["label"].to_pylist()}, label_name="label", verbosity=0)
    lab.find_issues(features=held.vectors.astype(np.float32), issue_types={"near_duplicate": {}})
    found = lab.get_issues("near_duplicate")
    rows = found.index[found["is_near_duplicate_issue"]]
    return pairs_of((names[row], names[other]) for row in rows for other in found.loc[row, "near_duplicate_sets"])


def cleanvision(root: Path) -> Pairs:
    """cleanvision's exact and near duplicates of the files."""
    lab = Imagelab(data_path=str(root), verbose=False)
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, verbose=False)
    sets = [*lab.info["exact_duplicates"]["sets"], *lab.info["near_duplicates"]["sets"]]
    return pairs_of((Path(name).relative_to(root).as_posix() for name in group) for group in sets)


def folds(cache: Path) -> None:
    """How well wrong labels of copies are found where both are in one fold, and where they are not."""
    store = EmbeddingsCache.open(cache)
    held = store.read()
    names = sorted(set(held.table["label"].to_pylist()))
    true = np.array([names.index(name) for name in held.table["label"].to_pylist()])[:20_000]
    prompts, _ = find_prompts("auto", names)
    described, generator = class_prompts(names, prompts), np.random.default_rng(0)
    labels = np.where(generator.random(len(true)) < 0.2, (true + generator.integers(1, 10, len(true))) % 10, true)
    twice = np.concatenate([np.arange(len(true)), generator.permutation(len(true))[:4000]])
    labels, wrong = labels[twice], labels[twice] != true[twice]
    vectors, copied = InMemory(torch.from_numpy(held.vectors[twice])), np.isin(twice, twice[len(true) :])
    texts = torch.from_numpy(Texts(store, None, "cpu").embed(described.texts))
    config = clipaudit.preset("recommended", temperature=store.info.temperature)
    keys = torch.randperm(len(twice), generator=torch.Generator().manual_seed(0))
    print("\n| copies | wrong labels found | right labels doubted |\n|---|---:|---:|")
    for title, first in (("in any fold", None), ("in one fold", torch.from_numpy(twice))):
        scores = score(vectors, torch.from_numpy(labels), 10, texts, described.owners, config, keys=keys, first=first)
        doubted = scores.estimates[config.estimates[-1].name].prediction != labels
        print(f"| {title} | {doubted[wrong & copied].mean():.1%} | {doubted[~wrong & copied].mean():.1%} |")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(REPOSITORY / "benchmarks" / "reference_clip"))
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--cache", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        planted = write_images(arguments.data, work / "images", arguments.images)
        every = set().union(*planted.values())
        found, seconds = {}, {}
        for name, look in (
            ("clipaudit (with embed)", lambda: ours(work / "images", work, arguments.model)),
            ("cleanlab Datalab (without)", lambda: datalab(work / "cache")),
            ("cleanvision", lambda: cleanvision(work / "images")),
        ):
            began = time.perf_counter()
            found[name] = look()
            seconds[name] = time.perf_counter() - began
    print(f"| found | {' | '.join(found)} |\n|---|{'---:|' * len(found)}")
    for change, pairs in planted.items():
        shares = [f"{len(pairs & mine) / len(pairs):.0%}" for mine in found.values()]
        print(f"| {change} ({len(pairs)}) | {' | '.join(shares)} |")
    print(f"| other pairs | {' | '.join(f'{len(mine - every):,}' for mine in found.values())} |")
    print(f"| seconds | {' | '.join(f'{seconds[name]:.0f}' for name in found)} |")
    if arguments.cache:
        folds(arguments.cache)


if __name__ == "__main__":
    main()
