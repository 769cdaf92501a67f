"""Images that show none of the classes: how well they are found, beside other scores and cleanlab Datalab's.

    python -m benchmarks.open_set --cache CACHE [--data ../shared/data] [--work FOLDER] [--out docs/open-set.md]

CACHE holds the embeddings of `cifar10/train.parquet`. 20 and 40, 1 and 0.2 % of its images are replaced by images of
Tiny ImageNet from classes that show none of CIFAR-10's (EXCLUDED are left out), which are embedded into FOLDER first,
and keep their labels: the true ones, or those of one human annotator (17.2 % wrong). Every score gets the same
embeddings. The last tasks have no stranger at all: whatever is called one there is a mistake.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from cleanlab import Datalab
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import clipaudit
from clipaudit.auditing.method import score
from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.clip.texts import Texts
from clipaudit.estimates import InMemory
from clipaudit.estimates.off_topic import FARTHEST, SHARPNESS, off_topic
from clipaudit.estimates.zero_shot import ZeroShot
from clipaudit.prompts.nouns import everyday_nouns, noun_text
from clipaudit.prompts.sets import class_prompts, find_prompts
from clipaudit.vocabulary import OFF_TOPIC

REPOSITORY = Path(__file__).parents[1]
RATES, N_INTRUDERS = (0.2, 0.4, 0.01, 0.002), 20_000
LABELS = {"true": "label_true", "one annotator": "label_human_random1"}
# They show an airplane, automobile, bird, cat, deer, dog, frog, horse, ship or truck. First names in WordNet.
EXCLUDED = (
    *("bullfrog", "tailed frog", "goose", "black stork", "king penguin", "albatross", "Chihuahua", "Yorkshire terrier"),
    *("golden retriever", "Labrador retriever", "German shepherd", "standard poodle", "tabby", "Persian cat"),
    *("Egyptian cat", "gazelle", "beach wagon", "convertible", "limousine", "sports car", "moving van", "police van"),
    *("lifeboat", "gondola"),
)
Scores = NDArray[np.floating]


@dataclass(frozen=True)
class Task:
    """Images, some of them strangers, and what is known of them.

    Attributes:
        vectors: (n, d) float32 unit rows.
        labels: (n,) given classes.
        stranger: (n,) bool.
        wrong: (n,) bool, the label of an image on topic is not the true one.
    """

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]
    stranger: NDArray[np.bool_]
    wrong: NDArray[np.bool_]


@dataclass(frozen=True)
class Words:
    """Embeddings of prompts, their classes, of the shipped nouns, and which of them no intruder is called."""

    texts: torch.Tensor
    owners: list[int]
    nouns: torch.Tensor
    foreign: NDArray[np.bool_]
    temperature: float


def intruders(data: Path, work: Path, model: str) -> tuple[NDArray[np.float32], set[str]]:
    """(N_INTRUDERS, d) embeddings of Tiny ImageNet's images, and all names of their classes."""
    table = pq.read_table(data / "tinyimagenet32" / "train.parquet")
    words = table["label_words"].to_pylist()
    allowed = np.flatnonzero([word.split(", ")[0] not in EXCLUDED for word in words])
    rows = np.sort(np.random.default_rng(0).permutation(allowed)[:N_INTRUDERS])
    work.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.take(rows), work / "intruders.parquet")
    options = clipaudit.EncoderOptions(model=model)
    found = clipaudit.embed(work / "intruders.parquet", cache=work / "intruders", encoder=options)
    names = {name.lower() for row in rows for name in words[row].split(", ")}
    return EmbeddingsCache.open(found.cache).read().vectors.astype(np.float32), names


def tasks(
    vectors: NDArray[np.float32], strangers: NDArray[np.float32], noise: Path, names: list[str]
) -> Iterator[tuple[str, Task]]:
    """All tasks, by what they are."""
    table = pq.read_table(noise)
    true = np.array([names.index(name) for name in table["label_true"].to_pylist()])
    for words, column in LABELS.items():
        labels = np.array([names.index(name) for name in table[column].to_pylist()])
        for rate in (*RATES, 0.0):
            generator = np.random.default_rng(1)
            rows = generator.permutation(len(vectors))[: round(rate * len(vectors))]
            mixed, stranger = vectors.copy(), np.zeros(len(vectors), bool)
            mixed[rows], stranger[rows] = strangers[generator.permutation(len(strangers))[: len(rows)]], True
            title = f"{rate:.1%}, {words} labels".replace(".0%", "%")
            yield title, Task(mixed, labels, stranger, (labels != true) & ~stranger)


def ours(task: Task, words: Words, nouns: torch.Tensor) -> tuple[Scores, Scores]:
    """`off_topic_score` and `clean_score` of the recommended audit, on the same samples."""
    config = clipaudit.preset("recommended").with_changes(temperature=words.temperature)
    vectors, labels = InMemory(torch.from_numpy(task.vectors)), torch.from_numpy(task.labels)
    keys = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    scores = score(vectors, labels, 10, words.texts, words.owners, config, keys=keys)
    clean = clipaudit.auditing.method.decide(scores.estimates, task.labels, 10, config).clean_score
    confirmed = scores.confirmed(task.labels, config.estimates)
    found = off_topic(vectors, words.texts, words.owners, nouns, words.temperature, confirmed)
    assert found is not None
    return found.score, clean


def others(task: Task, words: Words) -> dict[str, Callable[[], Scores]]:
    """Scores that others use, the larger the less likely on topic."""
    x = torch.from_numpy(task.vectors)
    classes = torch.stack([words.texts[np.array(words.owners) == k].mean(0) for k in range(10)])
    classes = torch.nn.functional.normalize(classes)
    far = words.nouns[(words.nouns @ classes.T).amax(1).argsort()[: round(FARTHEST * len(words.nouns))]]
    sharp = SHARPNESS / words.temperature

    def softmax() -> Scores:
        return -ZeroShot(words.texts, words.owners, 0.07).log_proba(x, torch.arange(len(x))).amax(1).numpy()

    def neighbours() -> Scores:
        distances = []
        for chunk in x.split(1000):
            distances.append(-(chunk @ x.T).topk(51, 1).values[:, 1:].mean(1))
        return torch.cat(distances).numpy()

    def negative_words() -> Scores:
        ours, theirs = (x @ classes.T * sharp).logsumexp(1), (x @ far.T * sharp).logsumexp(1)
        return torch.sigmoid(theirs - ours).numpy()

    def datalab() -> Scores:
        lab = Datalab({"label": task.labels.tolist()}, label_name="label", verbosity=0)
        lab.find_issues(features=task.vectors, issue_types={"outlier": {}})
        return -lab.get_issues("outlier")["outlier_score"].to_numpy()

    return {
        "maximum softmax": softmax,
        "maximum cosine": lambda: -(x @ words.texts.T).amax(1).numpy(),
        "energy": lambda: -(x @ classes.T / 0.07).logsumexp(1).numpy(),
        "50 nearest neighbours": neighbours,
        "negative words (NegLabel)": negative_words,
        "cleanlab Datalab's outlier score": datalab,
    }


def auroc(truth: NDArray[np.bool_], found: Scores) -> str:
    """Three decimals; a dash where there is only one kind."""
    return f"{roc_auc_score(truth, found):.3f}" if truth.any() else "-"


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=Path("open-set"))
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "open-set.md")
    arguments = parser.parse_args()
    store = EmbeddingsCache.open(arguments.cache)
    embeddings = store.read()
    names = sorted(set(embeddings.table["label"].to_pylist()))
    prompts, _ = find_prompts("auto", names)
    assert prompts is not None
    described, texts = class_prompts(names, prompts), Texts(store, None, "auto")
    strangers, theirs = intruders(arguments.data, arguments.work, store.info.fingerprint.model)
    kept = everyday_nouns(prompts.spellings(names))
    words = Words(
        torch.from_numpy(texts.embed(described.texts)),
        list(described.owners),
        torch.from_numpy(texts.embed([noun_text(noun) for noun in kept])),
        np.array([noun not in theirs for noun in kept]),
        store.info.temperature,
    )
    print(f"{len(kept):,} nouns, {len(kept) - words.foreign.sum():,} of them names of intruders")
    found: dict[str, dict[str, str]] = {}
    calls, swapped = [], []
    for title, task in tasks(
        embeddings.vectors.astype(np.float32), strangers, arguments.data / "cifar10" / "noise.parquet", names
    ):
        began = time.perf_counter()
        mine, clean = ours(task, words, words.nouns)
        print(f"{title}: {time.perf_counter() - began:.1f} s", flush=True)
        called = mine > OFF_TOPIC
        right = f"{task.stranger[called].mean():.1%}" if called.any() else "-"
        recall = f"{called[task.stranger].mean():.1%}" if task.stranger.any() else "-"
        calls.append(f"| {title} | {task.stranger.sum():,} | {called.sum():,} | {right} | {recall} |")
        swapped.append((title, auroc(task.wrong[~task.stranger], -clean[~task.stranger])))
        if not task.stranger.any():
            continue
        column = {"**`off_topic_score`**": auroc(task.stranger, mine)}
        blind, _ = ours(task, words, words.nouns[words.foreign])
        column["the same without the intruders' names"] = auroc(task.stranger, blind)
        for name, contender in others(task, words).items():
            column[name] = auroc(task.stranger, contender())
        found[title] = column
        print(column, flush=True)
    arguments.out.write_text(_page(found, calls, swapped))


def _page(found: dict[str, dict[str, str]], calls: list[str], swapped: list[tuple[str, str]]) -> str:
    rows = [
        f"| {name} | {' | '.join(column[name] for column in found.values())} |" for name in next(iter(found.values()))
    ]
    return "\n".join(
        [
            "# Images of no class: all results",
            "",
            "`python -m benchmarks.open_set` wrote this page; [the measurements](benchmarks.md#images-of-no-class)"
            " describe it.",
            "",
            "AUROC of strangers among all images:",
            "",
            f"| score | {' | '.join(found)} |",
            f"|---|{'---:|' * len(found)}",
            *rows,
            "",
            f"What is called none of the classes (`off_topic_score` above {OFF_TOPIC}):",
            "",
            "| task | strangers | called | of these strangers | found |",
            "|---|---:|---:|---:|---:|",
            *calls,
            "",
            "AUROC of swapped labels among the images on topic, by `clean_score` of `--preset recommended`, which knows"
            " nothing of strangers:",
            "",
            "| task | AUROC |",
            "|---|---:|",
            *(f"| {title} | {value} |" for title, value in swapped if value != "-"),
            "",
        ]
    )


if __name__ == "__main__":
    main()
