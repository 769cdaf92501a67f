"""The images that are there more than once, those with different labels first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clipaudit.report.sections.base import Material


@dataclass(frozen=True)
class CopiesOf:
    """One image's copies: the ids of those shown and their labels, how many there are, "exact" or "near"."""

    members: Sequence[tuple[str, str]]
    n: int
    kind: str


@dataclass(frozen=True)
class Copies:
    """What is there more than once.

    Attributes:
        n_samples, n_groups: All that have copies.
        n_conflicts, n_in_conflict: Groups with different labels, and the samples in them.
        conflicting: The groups with different labels that are shown, in the order of the script's data.
    """

    n_samples: int
    n_groups: int
    n_conflicts: int
    n_in_conflict: int
    conflicting: Sequence[CopiesOf]


def copies(material: Material) -> Copies | None:
    """The copies, if there are any."""
    columns, choice = material.columns, material.choice
    found = columns.copies
    if found is None or not found.n_samples:
        return None
    shown = []
    for rows in choice.conflicts:
        names = [columns.class_names[k] for k in columns.scored[rows].tolist()]
        ids = [str(name) for name in columns.strings("id", rows)]
        shown.append(
            CopiesOf(list(zip(ids, names, strict=True)), found.size_of(int(rows[0])), found.kind_of(int(rows[0])))
        )
    return Copies(found.n_samples, found.n_groups, found.n_conflicts, int(found.in_conflict.sum()), shown)
