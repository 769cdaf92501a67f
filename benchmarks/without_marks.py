"""Could the audit be better without any marks? Changes to `--preset recommended` that were tried, on every noise.

    python -m benchmarks.without_marks --cache CACHE [--data ../shared/data] [--out without-marks.json]

The mistakes that depend on the picture are made where the model errs, so that every estimate agrees with them. Tried
are a smaller weight of the logistic regression, the more it has learnt the noise; temperatures by likelihood; a prior
on the noise rate of each class; and to leave the transition matrix out. Prints AUROC, F1 at the preset's threshold,
and the best F1, as means over the noises that options are chosen on and over the others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

import clipaudit
from benchmarks.human_noise import CHOSEN_ON, REPOSITORY, label_columns
from clipaudit.auditing.metrics import best_threshold
from clipaudit.estimates import InMemory, Problem
from clipaudit.estimates.induced import fold_keys
from clipaudit.estimates.joint import fit
from clipaudit.prompts.sets import class_prompts, find_prompts

NEIGHBOURS = 10
SCALES = (0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0)
RATES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
# P(y|x) from which the preset calls a label clean.
LEAST = 0.7
PRIOR_SAMPLES = 10.0

Judged = dict[str, float]


class Noise:
    """Both estimates of one noise: (n, K) float32 log-probabilities, of the second after one round and after two."""

    def __init__(self, problem: Problem, neighbours: Tensor) -> None:
        rows = torch.arange(len(problem.labels))
        vectors = next(iter(problem.vectors.chunks(len(rows))))[1]
        self.labels, n_classes = problem.labels, problem.n_classes
        joint = fit(problem)
        self.zero_shot, self.learnt = (one.log_proba(vectors, rows) for one in (joint.first, joint.second))
        agreed = self.with_evidence(self.zero_shot + self.learnt).argmax(1) == self.labels
        self.logistic = fit(problem.keeping(agreed)).second.log_proba(vectors, rows)
        votes = torch.zeros(len(rows), n_classes)
        votes.scatter_add_(1, self.labels[neighbours], torch.ones(neighbours.shape))
        self.contradicted = votes.argmax(1) != self.labels

    def with_evidence(self, log_p: Tensor, class_prior: float = 0.0) -> Tensor:
        """P(k|x, y) by EM, as `clipaudit.estimates.transition`, with a prior on each class's noise rate in samples."""
        log_p, k = log_p.log_softmax(1), log_p.shape[1]
        matrix = torch.full((k, k), 1 / k)
        for _ in range(100):
            posterior = (log_p + matrix.log().T[self.labels]).softmax(1)
            counts = torch.zeros(k, k).index_add_(1, self.labels, posterior.T)
            right = float((counts.trace() + 1) / (counts.sum() + 2))
            smoothed = counts + PRIOR_SAMPLES * torch.full((k, k), (1 - right) / (k - 1)).fill_diagonal_(right)
            before, matrix = matrix, smoothed / smoothed.sum(1, keepdim=True)
            if class_prior:
                kept = (counts.diag() + class_prior * right) / (counts.sum(1) + class_prior)
                others = matrix.clone().fill_diagonal_(0)
                matrix = others / others.sum(1, keepdim=True) * (1 - kept)[:, None] + torch.diag(kept)
            if float((matrix - before).abs().max()) < 1e-3:
                break
        return (log_p + matrix.log().T[self.labels]).log_softmax(1)

    def likeliest_scale(self, log_p: Tensor) -> float:
        """The inverse temperature that makes the given labels likeliest, with uniform noise at whatever rate."""

        def likelihood(scale: float, rate: float) -> float:
            p = (scale * log_p).log_softmax(1).gather(1, self.labels[:, None]).exp()
            return float(((1 - rate) * p + rate / log_p.shape[1]).log().mean())

        return max((likelihood(scale, rate), scale) for scale in SCALES for rate in RATES)[1]

    def memorised(self) -> float:
        """How much oftener the regression than zero-shot agrees with labels that their neighbours contradict."""
        agreed = [(log_p.argmax(1) == self.labels)[self.contradicted].float().mean() for log_p in self.both]
        return float((1 - agreed[1]) / (1 - agreed[0]))

    @property
    def both(self) -> tuple[Tensor, Tensor]:
        """Zero-shot, and the regression that was fitted to all labels."""
        return self.zero_shot, self.learnt


TRIED: Mapping[str, Callable[[Noise], Tensor]] = {
    "as it is": lambda noise: noise.with_evidence(noise.zero_shot + noise.logistic),
    "regression weighed by what it has learnt of the noise": lambda noise: noise.with_evidence(
        noise.zero_shot + min(1.0, noise.memorised()) * noise.logistic
    ),
    "half the weight for the regression": lambda noise: noise.with_evidence(noise.zero_shot + 0.5 * noise.logistic),
    "temperature of zero-shot by likelihood": lambda noise: noise.with_evidence(
        noise.likeliest_scale(noise.zero_shot) * noise.zero_shot + noise.logistic
    ),
    "temperature of the joint estimate by likelihood": lambda noise: noise.with_evidence(
        noise.likeliest_scale(noise.zero_shot + noise.logistic) * (noise.zero_shot + noise.logistic)
    ),
    "prior on each class's noise rate, 100 samples": lambda noise: noise.with_evidence(
        noise.zero_shot + noise.logistic, 100
    ),
    "prior on each class's noise rate, 5,000 samples": lambda noise: noise.with_evidence(
        noise.zero_shot + noise.logistic, 5000
    ),
    "without the transition matrix": lambda noise: (noise.zero_shot + noise.logistic).log_softmax(1),
}


def judge(log_p: Tensor, labels: Tensor, wrong: NDArray[np.bool_]) -> Judged:
    """AUROC, F1 of the wrong labels at the preset's threshold, and the best F1."""
    p = log_p.gather(1, labels[:, None]).squeeze(1).exp().double().numpy()
    agreed = (log_p.argmax(1) == labels).numpy()
    noisy = ~(agreed & (p >= LEAST))
    ranking = np.where(agreed, 0.5 + p / 2, p / 2)
    f1 = 2 * (noisy & wrong).sum() / (noisy.sum() + wrong.sum())
    return {
        "AUROC": float(roc_auc_score(~wrong, ranking)),
        "F1": float(f1),
        "best F1": best_threshold(ranking, ~wrong)[1],
    }


def nearest(vectors: Tensor) -> Tensor:
    """(n, NEIGHBOURS) int64, of each sample the others with the highest cosine."""
    found = []
    for start in range(0, len(vectors), 2000):
        similarity = vectors[start : start + 2000] @ vectors.T
        similarity[torch.arange(len(similarity)), torch.arange(start, start + len(similarity))] = -2
        found.append(similarity.topk(NEIGHBOURS, 1).indices)
    return torch.cat(found)


def main() -> None:
    """Try everything on every noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="embeddings of cifar10/train.parquet")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=Path("without-marks.json"))
    options = parser.parse_args()
    names, true, columns = label_columns(options.data)
    store = clipaudit.EmbeddingsCache.open(options.cache)
    embeddings = store.read()
    vectors = torch.from_numpy(embeddings.vectors).float()
    neighbours = nearest(vectors)
    wording = class_prompts(names, find_prompts("cifar10", names)[0])
    texts = store.read_texts(wording.texts)
    if texts is None:
        parser.error("run clipaudit select on the cache with --prompts cifar10 first: it embeds the prompts")
    config = clipaudit.preset("recommended").with_changes(temperature=store.info.temperature)
    keys = fold_keys(embeddings.table["id"].to_pylist(), config.seed)
    found: dict[str, dict[str, Judged]] = {}
    for name, given in columns.items():
        labels = torch.from_numpy(given).long()
        problem = Problem(
            InMemory(vectors), labels, len(names), torch.from_numpy(texts).float(), wording.owners, config, keys
        )
        noise = Noise(problem, neighbours)
        found[name] = {tried: judge(change(noise), labels, given != true) for tried, change in TRIED.items()}
        options.out.write_text(json.dumps(found, indent=1))
    print("| change | chosen on: AUROC | F1 | best F1 | confirmed on: AUROC | F1 | best F1 |\n|---|" + "---:|" * 6)
    for tried in TRIED:
        cells = [tried]
        for chosen in (True, False):
            judged = [found[name][tried] for name in found if (name in CHOSEN_ON) is chosen]
            auroc, f1, best = (float(np.mean([one[word] for one in judged])) for word in ("AUROC", "F1", "best F1"))
            cells += [f"{auroc:.4f}", f"{f1:.1%}", f"{best:.1%}"]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
