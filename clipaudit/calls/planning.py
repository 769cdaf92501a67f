"""What `embed` has to do: the parts of a source as it is now, and what is odd about its classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from clipaudit import __version__
from clipaudit.auditing.plausibility import class_warnings
from clipaudit.cache.embeddings import EmbeddingsCache, split_into_parts
from clipaudit.cache.info import Fingerprint, json_digest
from clipaudit.cache.plan import SavedPlan, write_plan
from clipaudit.clip.pipeline import EmbedProgress, Progress
from clipaudit.samples import Source, SourceOptions

CLASSES_SHOWN = 5

Parts = Collection[tuple[str, int]]


def plan_key(source: Source, options: SourceOptions | None, fingerprint: Fingerprint) -> str:
    """What a saved plan must have been made of to be one of this source, read this way, for this model."""
    where = [str(source.location), str(source.root), source.access, source.image_column, type(source).__name__]
    names = list(source.class_names) if source.class_names is not None else None
    how = {**asdict(options or SourceOptions()), "names": names}
    return json_digest([__version__, where, how, fingerprint.digest])


def current_plan(
    store: EmbeddingsCache,
    source: Source,
    key: str,
    report: Progress,
    *,
    share: Callable[[Parts], Mapping[str, int]],
    again: bool,
    accept: Callable[[set[str]], None],
) -> SavedPlan:
    """The plan that the cache holds, where the source is unchanged; else one of a new scan.

    Folders, tables and archives are the same when their sizes and times are; so are the images of the `share` of the
    parts. Whoever embeds another share looks at the images of that.

    Args:
        store: The cache.
        source: What to plan.
        key: See `plan_key`.
        report: Called with every part.
        share: The parts, of all, whose images are to be looked at.
        again: Scan in any case.
        accept: Called with the names of all parts before a new plan replaces one; it may raise.
    """
    saved = None if again else SavedPlan.read(store)
    if saved and saved.is_of(source, key) and _unchanged(saved, share(saved.facts.parts), report):
        accept({name for name, _ in saved.facts.parts})
        return saved
    is_new = not store.path.exists()
    try:
        return write_plan(store, source, key, lambda done: report(EmbedProgress("scanning", done=done)), accept)
    except BaseException:
        if is_new:
            with suppress(OSError):
                store.path.rmdir()
        raise


def _unchanged(plan: SavedPlan, share: Mapping[str, int], report: Progress) -> bool:
    done, total = 0, sum(share.values())
    for _, samples in plan.unchanged_parts(share):
        done += len(samples)
        report(EmbedProgress("looking for changes", done=done, total=total))
    return done == total


def with_plan(store: EmbeddingsCache, source: Source, report: Progress) -> tuple[EmbeddingsCache, Counter[str]]:
    """The cache of own vectors with a plan of them as they are now, and the number of samples of each class."""
    plan, counts = [], Counter[str]()
    for part in split_into_parts(source.samples()):
        plan.append((store.part_name(part), len(part)))
        counts.update(sample.label for sample in part)
        report(EmbedProgress("scanning", done=counts.total()))
    decided = source.decided() | {"classes": classes_decided(source.class_names, counts)}
    return EmbeddingsCache(store.path, replace(store.info, plan=plan, decided=decided, notes=source.notes())), counts


def classes_decided(declared: Sequence[str] | None, counts: Mapping[str, int]) -> str:
    """In words: "10: cat, dog, ..."."""
    names = [*(declared or sorted(counts))]
    shown = ", ".join(names[:CLASSES_SHOWN]) + (", ..." if len(names) > CLASSES_SHOWN else "")
    return f"{len(names):,}: {shown}"


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
