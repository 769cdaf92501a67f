"""What `embed` has to do: the parts of a source as it is now, and what is odd about its classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from clipaudit.auditing.plausibility import class_warnings
from clipaudit.cache.embeddings import EmbeddingsCache, split_into_parts
from clipaudit.clip.pipeline import EmbedProgress, Progress
from clipaudit.samples import Source

CLASSES_SHOWN = 5


def with_plan(store: EmbeddingsCache, source: Source, report: Progress) -> tuple[EmbeddingsCache, Counter[str]]:
    """The cache with a plan of the source as it is now, and the number of samples of each class."""
    plan, counts = [], Counter[str]()
    for part in split_into_parts(source.samples()):
        plan.append((store.part_name(part), len(part)))
        counts.update(sample.label for sample in part)
        report(EmbedProgress("scanning", done=counts.total()))
    names = [*(source.class_names or sorted(counts))]
    shown = ", ".join(names[:CLASSES_SHOWN]) + (", ..." if len(names) > CLASSES_SHOWN else "")
    decided = source.decided() | {"classes": f"{len(names):,}: {shown}"}
    return EmbeddingsCache(store.path, replace(store.info, plan=plan, decided=decided, notes=source.notes())), counts


def planned_files(store: EmbeddingsCache) -> dict[str, Path]:
    """The files of the plan's parts that are there; those of no plan go once all of them are."""
    every = store.part_files()
    files = {name: every[name] for name, _ in store.info.plan if name in every}
    if len(files) == len(store.info.plan):
        for name in every.keys() - files.keys():
            every[name].unlink(missing_ok=True)
    return files


def source_warnings(counts: Mapping[str, int]) -> list[str]:
    """What is odd about the classes of a source, by its number of samples of each."""
    if len(counts) == 1:
        (name,) = counts
        return [
            f"all images have the label {name!r}, so there is no class that one could be confused with. Is the source"
            " one folder too deep, or one too high?"
        ]
    return class_warnings(counts)
