"""What `embed` does to a cache: plan, find what is missing, let an engine embed it, and look whether all is there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.cache.info import CacheInfo, UnusableCacheError
from clipaudit.cache.plan import SavedPlan
from clipaudit.calls.planning import classes_decided, current_plan
from clipaudit.clip.pipeline import Progress
from clipaudit.engines.base import Engine, Job
from clipaudit.errors import CacheError
from clipaudit.samples import Source

# A source that changes while it is embedded is looked at again, but not for ever.
PLANS = 3


@dataclass
class Work:
    """What was done so far: counts of images and parts, and seconds."""

    n_embedded: int = 0
    n_reused: int = 0
    n_damaged_parts: int = 0
    seconds: float = 0.0
    seconds_waiting: float = 0.0


@dataclass(frozen=True)
class Wish:
    """What the user wants.

    Attributes:
        source: The images.
        key: A hash of what is read, how, and for which model.
        shard: (i, n): the i-th of n shares.
        quality: Measure the quality of each image.
        verify: Trust nothing that is saved: scan the source, and read every byte of the parts.
    """

    source: Source
    key: str
    shard: tuple[int, int]
    quality: bool
    verify: bool

    def share(self, parts: Collection[tuple[str, int]]) -> dict[str, int]:
        """Of a plan, the parts to see to."""
        number, shards = self.shard
        return dict(list(parts)[number - 1 :: shards])


@dataclass(frozen=True)
class _Found:
    """What lies in a cache: parts by name, files that are damaged, and parts with unreadable images of the share."""

    parts: Mapping[str, Path]
    damaged: list[Path] = field(default_factory=list)
    unreadable: frozenset[str] = frozenset()


def fill(
    store: EmbeddingsCache, wish: Wish, engine: Engine, report: Progress
) -> tuple[EmbeddingsCache, SavedPlan, Work]:
    """The cache with all parts of a share of the source, its plan, and what was done.

    Raises:
        CacheError: the cache belongs to another model or source, or the source was another one at each attempt.
    """
    work = Work()
    for attempt in range(PLANS):
        # What was scanned a moment ago need not be scanned again, unless it has changed since.
        wish = replace(wish, verify=wish.verify and not attempt)
        plan = _plan(store, wish, report)
        facts = plan.facts
        decided = facts.decided | {"classes": classes_decided(wish.source.class_names, facts.classes)}
        info = replace(store.info, plan=facts.parts, decided=decided, notes=facts.notes)
        store = EmbeddingsCache(store.path, info)
        written = _embed_missing(store, plan, wish, engine, report, work)
        present = written | store.part_files().keys()
        if wish.share(facts.parts).keys() <= present and (not written or plan.is_current()):
            return store, plan, work
    raise CacheError(
        f"{wish.source.location} changes while it is embedded: its files were other ones at each of {PLANS} attempts."
        " Run the same command again when nothing writes there; it goes on where it stopped."
    )


def _plan(store: EmbeddingsCache, wish: Wish, report: Progress) -> SavedPlan:
    present = store.part_files()
    return current_plan(
        store,
        wish.source,
        wish.key,
        report,
        share=wish.share,
        again=wish.verify,
        accept=lambda names: refuse_foreign_cache(store, not names.isdisjoint(present)),
    )


def _embed_missing(
    store: EmbeddingsCache, plan: SavedPlan, wish: Wish, engine: Engine, report: Progress, work: Work
) -> set[str]:
    """Embed the parts of the share that are not there yet; names of those that were written.

    Those of images that changed meanwhile stay away.
    """
    share = wish.share(plan.facts.parts)
    found = _look(store, share, verify=wish.verify)
    store.save()
    mine = {name: file for name, file in found.parts.items() if name in share}
    faulty = {name: mine[name] for name in found.unreadable}
    again = store.not_opened(faulty) | (store.without_quality(mine) if wish.quality else set())
    planned = dict(plan.facts.parts)
    todo = {name: count for name, count in share.items() if name not in mine or name in again}
    for file in found.damaged:
        file.unlink(missing_ok=True)
    work.n_damaged_parts += len(found.damaged)
    if not todo:
        return set()
    known = [file for name, file in found.parts.items() if name not in planned or name in again]
    done = engine.embed(Job(store, plan, todo, known, wish.quality), wish.source, report)
    store.remove_replaced(mine[name] for name in again)
    work.n_embedded += done.n_embedded
    work.n_reused += done.n_reused
    work.seconds += done.seconds
    work.seconds_waiting += done.seconds_waiting
    return done.parts


def _look(store: EmbeddingsCache, share: Mapping[str, int], *, verify: bool) -> _Found:
    if verify:
        parts, damaged = store.verified_parts()
    else:
        parts, damaged = store.part_files(), []
    unreadable, broken = store.whole_parts({name: file for name, file in parts.items() if name in share})
    whole = {name: file for name, file in parts.items() if file not in broken}
    return _Found(whole, damaged + broken, frozenset(name for name, has_some in unreadable.items() if has_some))


def refuse_foreign_cache(store: EmbeddingsCache, shares_parts: bool) -> None:
    """A cache belongs to one model and one source. A source that was moved is known by the parts it still shares.

    Raises:
        CacheError: it belongs to others.
    """
    try:
        held: CacheInfo = EmbeddingsCache.open(store.path).info
    except UnusableCacheError:
        return  # None there, or a damaged cache.json: the parts speak for themselves.
    if held.fingerprint.digest != store.info.fingerprint.digest:
        difference = held.fingerprint.differences(store.info.fingerprint)
        raise CacheError(
            f"{store.path} holds embeddings of another model: {held.fingerprint.model} there,"
            f" {store.info.fingerprint.model} now ({difference}). Choose another --cache, or that model and precision."
        )
    if held.source != store.info.source and not shares_parts:
        raise CacheError(
            f"{store.path} holds embeddings of {held.source}, not of {store.info.source}. Choose another --cache."
        )
