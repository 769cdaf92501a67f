"""What estimates of P(y|x) are made from, and the one way to make any of them by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module

from torch import Tensor

from clipaudit.config import AuditConfig
from clipaudit.estimates.base import Estimator
from clipaudit.estimates.vectors import Vectors
from clipaudit.vocabulary import ESTIMATES, EstimateTerm


@dataclass(frozen=True)
class Problem:
    """Samples and labels, what is known about the classes, and how to estimate P(y|x).

    Attributes:
        vectors: n unit rows of d dimensions.
        labels: (n,) int64 in [0, n_classes), on the device that computes.
        n_classes: K.
        texts: (P, d) float32 unit rows, embeddings of the prompts, on the same device.
        owners: Class of each prompt, ascending.
        config: Its temperature must be a number here.
        keys: (n,) int64, different for each sample, that draw the folds, so that the order of the rows does not matter;
            None takes the order of the rows.
        first: (n,) int64, the first row with the same image, its own without copies: they share a fold, or one would
            give away the other's label. None where nobody looked.
        kept: (n,) bool, the samples to fit on; None takes all. All are judged.
    """

    vectors: Vectors
    labels: Tensor
    n_classes: int
    texts: Tensor
    owners: Sequence[int]
    config: AuditConfig
    keys: Tensor | None = None
    first: Tensor | None = None
    kept: Tensor | None = None
    _made: dict[str, Estimator] = field(default_factory=dict, repr=False)

    def estimator(self, term: EstimateTerm) -> Estimator:
        """The estimate that a term names, fitted. It is made once, whoever asks: the audit, or another estimate."""
        if term.home not in self._made:
            self._made[term.home] = import_module(term.home).fit(self)
        return self._made[term.home]

    def keeping(self, kept: Tensor) -> Problem:
        """The same with other `kept` samples; estimates that fit on all of them in any case stay made."""
        anew = {term.home for term in ESTIMATES.values() if "rounds" in term.options}
        return replace(self, kept=kept, _made={home: made for home, made in self._made.items() if home not in anew})
