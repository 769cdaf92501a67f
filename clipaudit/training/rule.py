"""Eq. 7: which samples outside the clean subset are absorbed, relabelled or dropped. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# What happens to a sample in the coming epoch; the codes index ACTIONS.
ACTIONS = ("selected", "absorbed", "relabelled", "dropped")
SELECTED, ABSORBED, RELABELLED, DROPPED = range(4)


@dataclass(frozen=True)
class Fixed:
    """The outcome of eq. 7.

    Attributes:
        actions: (n,) int8 index into ACTIONS.
        labels: (n,) int64 label to train on; of a dropped sample the given one.
    """

    actions: NDArray[np.int8]
    labels: NDArray[np.int64]

    @property
    def trained(self) -> NDArray[np.bool_]:
        """(n,) bool: takes part in training."""
        return np.asarray(self.actions != DROPPED)


def fix(
    p_m: NDArray[np.floating],
    y_m: NDArray[np.integer],
    labels: NDArray[np.integer],
    selected: NDArray[np.bool_],
    theta_r: float,
    theta_r_prime: float,
    *,
    relabel_selected: bool = False,
) -> Fixed:
    """Apply eq. 7.

    | condition | action |
    |---|---|
    | p_m > theta_r and y_m = y_i | absorb: its own label |
    | p_m > theta_r' and y_m != y_i | relabel: y_m |
    | otherwise | drop |

    Args:
        p_m: (n,) largest probability that the classifier gives to any class; NaN acts on nothing.
        y_m: (n,) the class that has it.
        labels: (n,) given labels.
        selected: (n,) bool, in the clean subset: keeps its label and always takes part.
        theta_r: Threshold to absorb, in [0, 1]; at 1 nothing is absorbed.
        theta_r_prime: Threshold to relabel, in [theta_r, 1]; at 1 nothing is relabelled.
        relabel_selected: Let the second row act on selected samples, too, as the published code does.
    """
    agrees = y_m == labels
    absorbed = ~selected & agrees & (p_m > theta_r)
    relabelled = ~agrees & (p_m > theta_r_prime)
    if not relabel_selected:
        relabelled &= ~selected
    actions = np.full(len(labels), DROPPED, np.int8)
    actions[selected] = SELECTED
    actions[absorbed] = ABSORBED
    actions[relabelled] = RELABELLED
    return Fixed(actions, np.where(relabelled, y_m, labels).astype(np.int64))
