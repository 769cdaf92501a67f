"""Other ways to find wrong labels from the same embeddings: cleanlab itself, the others from their papers' formulas.

Each returns a `Verdict`. Sources: cleanlab 2.9 (Northcutt et al., JAIR 2021); SimiFeat (Zhu et al., ICML 2022) with HOC
(Zhu et al., ICML 2021); LEMoN (Zhang et al., ICML 2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from clipaudit.auditing.metrics import best_threshold
from clipaudit.estimates import ZeroShot

# Neighbours that are looked up once for all peers; each subsample then finds its own among them.
CANDIDATES = 60
SIMIFEAT_ROUNDS, SIMIFEAT_NEIGHBOURS, SIMIFEAT_SAMPLE = 21, 10, 35_000
HOC_STEPS, HOC_RATE = 1501, 0.1
LEMON_NEIGHBOURS = 30
# Weights beta and gamma, exponents tau1 and tau2: the fixed ones, and the grid's.
LEMON_FIXED_WEIGHTS, LEMON_FIXED_TAUS = (5.0, 5.0), (0.1, 5.0)
LEMON_WEIGHTS, LEMON_TAUS = tuple(range(0, 101, 5)), (0.0, 1.0, 5.0, 10.0)

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Verdict:
    """(n,) is_clean and (n,) scores, higher is cleaner."""

    is_clean: NDArray[np.bool_]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """What every peer may look at.

    Attributes:
        embeddings: (n, d) float32 unit rows.
        prompts: (P, d) float32 unit rows, and `owners`, the class of each.
        labels: (n,) int64 noisy labels.
        seed: Of every draw.
    """

    embeddings: Tensor
    prompts: Tensor
    owners: tuple[int, ...]
    labels: Tensor
    seed: int = 0

    @cached_property
    def texts(self) -> Tensor:
        """(K, d) float32 unit rows, the mean text embedding of each class."""
        owners = torch.tensor(self.owners)
        sums = torch.zeros(int(owners.max()) + 1, self.prompts.shape[1]).index_add_(0, owners, self.prompts)
        return normalize(sums, dim=1)

    @cached_property
    def neighbours(self) -> tuple[Tensor, Tensor]:
        """(n, CANDIDATES) numbers of the most similar other samples, and their cosines."""
        numbers, cosines = [], []
        for start in range(0, len(self.embeddings), 1000):
            cosine = self.embeddings[start : start + 1000] @ self.embeddings.T
            cosine[torch.arange(len(cosine)), torch.arange(start, start + len(cosine))] = -torch.inf
            best = cosine.topk(CANDIDATES, 1)
            numbers.append(best.indices)
            cosines.append(best.values)
        return torch.cat(numbers), torch.cat(cosines)


def zero_shot_disagreement(task: Task, temperature: float) -> Verdict:
    """Clean where the zero-shot class is the label; ranked by the label's probability."""
    log_p = ZeroShot(task.prompts, task.owners, temperature).log_proba(task.embeddings, task.labels)
    own = log_p.gather(1, task.labels[:, None]).squeeze(1).exp()
    return Verdict((log_p.argmax(1) == task.labels).numpy(), own.double().numpy())


def cleanlab(task: Task) -> Verdict:
    """`find_label_issues` with its defaults, on out-of-fold logistic regression: its documented way."""
    x, y = task.embeddings.numpy(), task.labels.numpy()
    probabilities = cross_val_predict(LogisticRegression(max_iter=1000), x, y, cv=5, method="predict_proba")
    issues = find_label_issues(y, probabilities, n_jobs=1)
    return Verdict(~issues, get_label_quality_scores(y, probabilities))


def simifeat(task: Task) -> Verdict:
    """SimiFeat-R: neighbours vote in random subsamples; each class flags as many as its noise rate (HOC) says.

    HOC is fitted once, to all samples. Its rate of flags has few values; ties are broken by the mean vote score.
    """
    n, classes = len(task.labels), len(task.texts)
    generator = torch.Generator().manual_seed(task.seed)
    kept_share = _trusted_share(task, classes)
    flagged, times, total = torch.zeros(n), torch.zeros(n), torch.zeros(n)
    for _ in range(SIMIFEAT_ROUNDS):
        sample = torch.randperm(n, generator=generator)[: min(SIMIFEAT_SAMPLE, int(0.9 * n))]
        scores = _vote_scores(task, sample, classes)
        times[sample] += 1
        total[sample] += scores
        for k in range(classes):
            mine = task.labels[sample] == k
            limit = torch.quantile(scores[mine], float(kept_share[k]))
            flagged[sample[mine & (scores >= limit)]] += 1
    rate = (flagged + 1) / (times + 2)
    mean = (total / times.clamp_min(1)).double()
    return Verdict((rate <= 0.5).numpy(), -(rate.double() + 1e-6 * mean / mean.max()).numpy())


def _vote_scores(task: Task, sample: Tensor, classes: int) -> Tensor:
    """-ln of the given label's normalised vote among k weighted neighbours, the sample's own damped vote included."""
    inside = torch.zeros(len(task.labels), dtype=torch.bool)
    inside[sample] = True
    numbers, cosines = (part[sample] for part in task.neighbours)
    # The candidates are sorted: a stable sort by membership brings the nearest of this subsample to the front.
    order = (~inside[numbers]).byte().argsort(dim=1, stable=True)[:, : SIMIFEAT_NEIGHBOURS - 1]
    weights = cosines.gather(1, order)
    itself = 1 - (2 * (1 - weights[:, :1]) - (1 - weights[:, 1:2]))
    votes = torch.zeros(len(sample), classes)
    votes.scatter_add_(1, task.labels[numbers.gather(1, order)], weights)
    votes.scatter_add_(1, task.labels[sample, None], itself)
    votes = normalize(votes, dim=1)
    return -(votes.gather(1, task.labels[sample, None]).squeeze(1) + 1e-8).log()


def _trusted_share(task: Task, classes: int) -> Tensor:
    """(K,) P(true = k | given = k) by HOC: from how often the labels of near pairs and triples agree."""
    given = one_hot(task.labels, classes).float()
    second, third = (given[task.neighbours[0][:, place]] for place in (0, 1))
    first_order = given.mean(0)
    second_order = given.T @ second / len(given)
    third_order = torch.einsum("na,nb,nc->abc", given, second, third) / len(given)
    generator = torch.Generator().manual_seed(task.seed)
    rows = (5 * torch.eye(classes) - 1).requires_grad_()
    prior = (1 / classes + 0.1 * torch.rand(classes, generator=generator)).requires_grad_()
    optimiser = torch.optim.Adam([rows, prior], lr=HOC_RATE)
    for _ in range(HOC_STEPS):
        transition, p = rows.softmax(1), prior.softmax(0)
        weighted = p[:, None] * transition
        gaps = (
            first_order - p @ transition,
            second_order - weighted.T @ transition,
            third_order - torch.einsum("ka,kb,kc->abc", weighted, transition, transition),
        )
        loss = sum(gap.norm() for gap in gaps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    share = (rows.softmax(1).diag() * prior.softmax(0) / first_order).detach().clamp(max=1)
    return torch.where(share >= 1, 0.95, torch.where(share <= 0, 0.05, share))


def lemon(task: Task, right: Flags, *, fitted: bool) -> Verdict:
    """LEMoN with its fixed hyperparameters, or with those of its grid that suit a validation set best.

    The validation set is a twentieth of the samples with known errors; it sets the threshold either way (highest F1).
    """
    known = validation_set(len(right), task.seed)
    own = 1 - (task.embeddings * task.texts[task.labels]).sum(1)
    highest, verdict = -1.0, None
    for taus in product(LEMON_TAUS, LEMON_TAUS) if fitted else [LEMON_FIXED_TAUS]:
        by_image, by_text = _lemon_terms(task, own, *taus)
        for beta, gamma in product(LEMON_WEIGHTS, LEMON_WEIGHTS) if fitted else [LEMON_FIXED_WEIGHTS]:
            score = (own + beta * by_image + gamma * by_text).double().numpy()
            limit, f1 = best_threshold(-score[known], right[known])
            if f1 > highest:
                highest, verdict = f1, Verdict(-score >= limit, -score)
    assert verdict is not None
    return verdict


def validation_set(n: int, seed: int = 0) -> NDArray[np.int64]:
    """Row numbers of the twentieth of n samples whose true labels some contenders know."""
    # A stream of its own: the one of the seed alone has drawn the wrong labels, and would draw the same samples again.
    return np.random.default_rng([seed, 1]).choice(n, n // 20, replace=False)


def _lemon_terms(task: Task, own: Tensor, tau1: float, tau2: float) -> tuple[Tensor, Tensor]:
    """(n,) s_n, over the nearest by image, and (n,) s_m, over the nearest by text.

    The distance of two labels is 0 or 1, as in the authors' runs on CIFAR. By text all samples of a class tie, and
    which of them count is arbitrary there; here all do. Every class has at least two samples.
    """
    x, y, k = task.embeddings, task.labels, len(task.texts)
    trust = (-tau2 * own).exp()
    numbers, cosines = (part[:, :LEMON_NEIGHBOURS] for part in task.neighbours)
    other = (y[:, None] != y[numbers]).float()
    by_image = (other * (-tau1 * (1 - cosines)).exp() * trust[numbers]).mean(1)
    # The sum over the class of trust_j (1 - <x, x_j>), to which the sample itself adds nothing.
    sums = torch.zeros(k, x.shape[1]).index_add_(0, y, x * trust[:, None])
    totals, sizes = torch.zeros(k).index_add_(0, y, trust), torch.bincount(y, minlength=k)
    by_text = (totals[y] - (x * sums[y]).sum(1)) / (sizes[y] - 1)
    return by_image, by_text
