"""How likely it is that an image shows none of the classes (beyond the paper).

A classifier cannot know: it was only ever asked which class. A dual encoder can, for it compares the image with other
words, too (the idea of NegLabel; Jiang et al., ICLR 2024). That first guess is weak, as an image of a class is near
some noun or other; but among the embeddings, what is off topic lies together. So a plane is fitted between the surest
guesses, and once more between its own. It only orders the images. How likely the answer is, the given labels tell:
nobody can have labelled a stranger rightly.

A few strangers lie nowhere together, so that no plane finds them, but they are far from everything else. Where hardly
any is found, the distance to the nearest images (Sun et al., ICML 2022), the guess and the plane order the others,
combined as Fisher combines tests. Images that are hard to recognise are as far away, so that the answer is never above
one half then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from clipaudit.estimates.base import rows_at_once
from clipaudit.estimates.logistic import LogisticModel, fit_logistic_regression
from clipaudit.estimates.vectors import Vectors
from clipaudit.vocabulary import OFF_TOPIC

# The share of the nouns that is farthest from all classes: nearer ones fit images of the classes as well.
FARTHEST = 0.25
# How many times sharper than the model's own softmax the best nouns are picked, and what they weigh beside the classes.
SHARPNESS, WEIGHT = 3.0, 0.5
# Shares of the images that are surest to be off and on topic, and how often the plane is fitted to the surest.
SUREST_OFF, SUREST_ON, ROUNDS = 0.1, 0.3, 2
# Rows that a plane is fitted to, at most: two classes have few parameters.
FIT_ROWS = 200_000
# Fewer images say nothing about the rest.
MIN_SAMPLES = 50
# Images whose labels are counted together, at least, and groups of them, at most.
MIN_BIN, MAX_BINS = 20, 1_000
# A smaller share of strangers is too few for a plane; what it counts beside the guess and the distance then.
FEW, PLANE_WEIGHT = 0.02, 2.0
# The neighbour whose distance tells how lonely an image is, and among how many images it is looked for.
LONELY_NEIGHBOUR, LONELY_AMONG = 10, 2_000
# What the order of the images adds to their probability, so that those of one probability stay apart.
ORDER = 1e-3


@dataclass(frozen=True)
class OffTopic:
    """What is off topic among n images.

    Attributes:
        score: (n,) float32 in [0, 1], P(none of the classes | x).
        noun: (n,) int64, the noun that fits best, among those given to `off_topic`.
    """

    score: NDArray[np.float32]
    noun: NDArray[np.int64]


def off_topic(
    vectors: Vectors,
    texts: Tensor,
    owners: Sequence[int],
    nouns: Tensor,
    temperature: float,
    confirmed: NDArray[np.bool_],
) -> OffTopic | None:
    """Estimate P(none of the classes | x).

    Args:
        vectors: n unit rows of d dimensions.
        texts: (P, d) float32 unit rows, embeddings of the prompts, on the device that computes.
        owners: Class of each prompt.
        nouns: (W, d) float32 unit rows, embeddings of nouns that mean none of the classes, on the same device.
        temperature: The model's own T.
        confirmed: (n,) bool, an estimate that was not made for this one agrees with the given label.

    Returns:
        None where the images are too few to tell.
    """
    if len(vectors) < MIN_SAMPLES or not len(nouns) or not confirmed.any():
        return None
    guess, noun = _first_guess(vectors, texts, owners, nouns, SHARPNESS / temperature)
    keys, held = _keys(vectors, nouns.device), torch.from_numpy(confirmed).to(nouns.device)
    plane = guess
    for _ in range(ROUNDS):
        plane = _separated(vectors, plane, held, keys)
    score = _probability(plane.cpu().double().numpy(), confirmed)
    called = score > OFF_TOPIC
    if called.mean() < FEW:
        order = _surprise(guess) + PLANE_WEIGHT * _surprise(plane) + _surprise(_loneliness(vectors, keys))
        score = np.where(called, score, np.float32(OFF_TOPIC) * _probability(order, confirmed))
    return OffTopic(score, noun.cpu().numpy())


def _first_guess(
    vectors: Vectors, texts: Tensor, owners: Sequence[int], nouns: Tensor, sharpness: float
) -> tuple[Tensor, Tensor]:
    """(n,) float32, larger for images that are nearer to nouns than to classes; (n,) int64, the nearest noun."""
    n, device = len(vectors), texts.device
    present, dense = torch.unique(torch.tensor(owners, device=device), return_inverse=True)
    classes = normalize(texts.new_zeros(len(present), texts.shape[1]).index_add_(0, dense, texts))
    nearness = (nouns @ classes.T).amax(1)
    far = nearness.argsort(stable=True)[: max(1, round(FARTHEST * len(nouns)))]
    guess, noun = torch.empty(n, device=device), torch.empty(n, dtype=torch.int64, device=device)
    for part, chunk in vectors.chunks(rows_at_once(8 * (len(far) + len(classes)), vectors.dimension)):
        to_nouns = chunk @ nouns[far].T
        best = (to_nouns * sharpness).logsumexp(1) / sharpness
        guess[part] = WEIGHT * best - (chunk @ classes.T).amax(1)
        noun[part] = far[to_nouns.argmax(1)]
    return guess, noun


def _keys(vectors: Vectors, device: torch.device) -> Tensor:
    """(n,) int64: a hash of each embedding, so that neither names nor order matter, and copies stay together."""
    keys = torch.empty(len(vectors), dtype=torch.int64, device=device)
    odd = 2 * torch.arange(vectors.dimension, device=device) + 1
    for part, chunk in vectors.chunks(rows_at_once(16 * vectors.dimension, vectors.dimension)):
        keys[part] = ((chunk.view(torch.int32).long() >> 13) * odd * odd).sum(1) % 1_000_003
    return keys


def _separated(vectors: Vectors, guess: Tensor, confirmed: Tensor, keys: Tensor) -> Tensor:
    """(n,) float32: the log-odds of a plane between the surest images, each judged by one that was not fitted to it.

    Off topic are sure ones whose label is not confirmed, on topic those whose label is. Where there are none of a kind,
    the guess stands.
    """
    ordered, fold = guess.sort().values, keys % 2
    off = (guess >= ordered[len(ordered) - round(SUREST_OFF * len(ordered))]) & ~confirmed
    on = (guess <= ordered[round(SUREST_ON * len(ordered)) - 1]) & confirmed
    if any(not bool((kind & (fold == number)).any()) for kind in (off, on) for number in (0, 1)):
        return guess
    models = [_plane(vectors, off, on, fold != number, keys) for number in (0, 1)]
    result = torch.empty_like(guess)
    for part, chunk in vectors.chunks(rows_at_once(8 * len(models), vectors.dimension)):
        odds = torch.stack([model.log_proba(chunk) for model in models])
        result[part] = (odds[:, :, 1] - odds[:, :, 0]).gather(0, fold[part][None]).squeeze(0)
    return result


def _plane(vectors: Vectors, off: Tensor, on: Tensor, mine: Tensor, keys: Tensor) -> LogisticModel:
    rows = (mine & (off | on)).nonzero().squeeze(1)
    if len(rows) > FIT_ROWS:
        rows = rows[keys[rows].argsort(stable=True)[:FIT_ROWS]].sort().values
    return fit_logistic_regression(vectors.subset(rows), off[rows].long(), 2)


def _loneliness(vectors: Vectors, keys: Tensor) -> Tensor:
    """(n,) float32: the distance, 1 - cosine, to the 10th neighbour among a choice of images that follows the keys."""
    chosen = keys.argsort(stable=True)[:LONELY_AMONG]
    others = vectors.take(chosen.sort().values)
    is_chosen = torch.zeros_like(keys).index_fill_(0, chosen, 1)
    result = torch.empty(len(keys), device=keys.device)
    for part, chunk in vectors.chunks(rows_at_once(8 * len(others), vectors.dimension)):
        nearest = (chunk @ others.T).topk(LONELY_NEIGHBOUR + 1).values
        # An image that was chosen is its own nearest neighbour.
        result[part] = 1 - nearest.gather(1, LONELY_NEIGHBOUR - 1 + is_chosen[part][:, None]).squeeze(1)
    return result


def _surprise(evidence: Tensor) -> NDArray[np.float64]:
    """(n,) -log of the share of images with at least as much of it."""
    values = evidence.cpu().double().numpy()
    below = np.searchsorted(np.sort(values), values)
    return np.asarray(-np.log1p(-below / len(values)))


def _probability(order: NDArray[np.float64], confirmed: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(n,) P(off topic), never falling along `order`, by the two-groups model (Efron, 2001).

    A confirmed label belongs to an image on topic. Half of those images lie below their median, and hardly any stranger
    does: twice the share of all images below it is the share on topic. At any place of the order, images on topic are
    as frequent as confirmed labels are, but for those on topic whose label is not confirmed, as many everywhere.
    """
    from sklearn.isotonic import IsotonicRegression

    n = len(order)
    rows = np.argsort(order, kind="stable")
    on_topic = min(1.0, 2 * float((order <= np.median(order[confirmed])).mean()))
    groups = np.array_split(rows, min(MAX_BINS, max(1, n // MIN_BIN)))
    share = np.array([confirmed[group].mean() for group in groups])
    centre = np.array([order[group].mean() for group in groups])
    falling = IsotonicRegression(increasing=False, out_of_bounds="clip").fit(centre, share)
    there = falling.predict(order) * on_topic / confirmed.mean()
    place = np.empty(n)
    place[rows] = np.arange(n) / n
    score: NDArray[np.float64] = (1 - ORDER) * (1 - np.minimum(there, 1.0)) + ORDER * place
    return score.astype(np.float32)
