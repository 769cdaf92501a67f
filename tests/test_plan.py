"""The saved plan: what is unchanged is not scanned again, what has changed is noticed, a damaged plan is made again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import DIGITS, any_image, write_class_folders
from tool_files import coco

import clipaudit
from clipaudit.cache.plan import SavedPlan
from clipaudit.samples import FolderSource, ManifestSource, Sample
from clipaudit.samples.stamps import mapped

LONG_AGO = 1_600_000_000


@pytest.fixture(autouse=True)
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The sources that were scanned, in order."""
    found: list[Path] = []
    for kind in (FolderSource, ManifestSource):

        def samples(self: Any, scan: Callable[[Any], Iterator[Sample]] = kind.samples) -> Iterator[Sample]:
            found.append(self.location)
            return scan(self)

        monkeypatch.setattr(kind, "samples", samples)
    return found


def age(root: Path) -> None:
    """Let everything below a folder be old, so that a plan of it holds."""
    for path in [root, *root.rglob("*")]:
        os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_class_folders(tmp_path / "photos", 40)
    listed = sorted((tmp_path / "photos").rglob("*.png"))
    rows = [f"photos/{file.relative_to(tmp_path / 'photos').as_posix()},{file.parent.name}\n" for file in listed]
    (tmp_path / "photos.csv").write_text("path,label\n" + "".join(rows))
    age(tmp_path)
    return tmp_path / "photos"


def embed(source: Path, cache: Path, **options: Any) -> clipaudit.EmbedSummary:
    return clipaudit.embed(source, cache=cache, encoder=DIGITS, **options)


@pytest.mark.parametrize("name", ["photos", "photos.csv"])
def test_an_unchanged_source_is_scanned_once(name: str, photos: Path, tmp_path: Path, scans: list[Path]) -> None:
    source = photos.parent / name
    first = embed(source, tmp_path / "c")
    second = embed(source, tmp_path / "c")
    assert len(scans) == 1
    assert second.n_embedded == 0
    assert (second.decided, second.notes, second.warnings) == (first.decided, first.notes, first.warnings)
    embed(source, tmp_path / "c", shard=(2, 3))
    assert len(scans) == 1
    embed(source, tmp_path / "c", verify=True)
    assert len(scans) == 2


def add(photos: Path) -> None:
    any_image().save(photos / "zero" / "new.png")


def remove(photos: Path) -> None:
    next(photos.rglob("*.png")).unlink()


def change(photos: Path) -> None:
    any_image().save(next(photos.rglob("*.png")))


def add_a_class(photos: Path) -> None:
    (photos / "ten").mkdir()
    any_image().save(photos / "ten" / "1.png")


@pytest.mark.parametrize("alter", [add, remove, change, add_a_class])
def test_what_has_changed_is_noticed(
    alter: Callable[[Path], None], photos: Path, tmp_path: Path, scans: list[Path]
) -> None:
    embed(photos, tmp_path / "c")
    alter(photos)
    embed(photos, tmp_path / "c")
    assert len(scans) == 2
    embed(photos, tmp_path / "fresh")
    held = [clipaudit.EmbeddingsCache.open(tmp_path / name).read().table for name in ("c", "fresh")]
    assert held[0].equals(held[1])


def test_another_reading_of_a_source_is_another_plan(photos: Path, tmp_path: Path, scans: list[Path]) -> None:
    table = photos.parent / "photos.csv"
    embed(table, tmp_path / "c")
    names = sorted(folder.name for folder in photos.iterdir())
    embed(table, tmp_path / "c", options=clipaudit.SourceOptions(names=names))
    assert len(scans) == 2


def test_a_file_that_was_missing_and_is_there_now_is_noticed(photos: Path, tmp_path: Path, scans: list[Path]) -> None:
    victim = next(photos.rglob("*.png"))
    content = victim.read_bytes()
    victim.unlink()
    table = photos.parent / "photos.csv"
    assert embed(table, tmp_path / "c").n_unreadable == 1
    assert embed(table, tmp_path / "c").n_unreadable == 1
    assert len(scans) == 1
    victim.write_bytes(content)
    assert embed(table, tmp_path / "c").n_unreadable == 0


def test_a_source_that_was_just_written_is_scanned_again(photos: Path, tmp_path: Path, scans: list[Path]) -> None:
    """A file that comes within the same tick of the clock leaves its folder the same time."""
    os.utime(photos / "zero", (time.time(), time.time()))
    embed(photos, tmp_path / "c")
    add(photos)
    assert embed(photos, tmp_path / "c").n_samples == 41


@pytest.mark.parametrize("place", [0.1, 0.5, 0.98])
def test_a_damaged_plan_is_made_again(place: float, photos: Path, tmp_path: Path) -> None:
    embed(photos, tmp_path / "c")
    plan = tmp_path / "c" / "plan.parquet"
    good = plan.read_bytes()
    damaged = bytearray(good)
    damaged[int(place * len(good))] ^= 0xFF
    plan.write_bytes(damaged)
    for file in (tmp_path / "c" / "parts").iterdir():
        file.unlink()
    summary = embed(photos, tmp_path / "c")
    assert (summary.n_embedded, summary.complete) == (40, True)
    assert plan.read_bytes() == good
    assert SavedPlan.read(clipaudit.EmbeddingsCache.open(tmp_path / "c"))


def test_a_part_that_was_cut_short_is_made_again(photos: Path, tmp_path: Path) -> None:
    embed(photos, tmp_path / "c")
    (part,) = (tmp_path / "c" / "parts").iterdir()
    whole = part.read_bytes()
    part.write_bytes(whole[:-100])
    assert embed(photos, tmp_path / "c").n_damaged_parts == 1
    assert part.read_bytes() == whole


def test_a_refused_source_leaves_the_plan_of_the_cache(photos: Path, tmp_path: Path, scans: list[Path]) -> None:
    embed(photos, tmp_path / "c")
    before = (tmp_path / "c" / "plan.parquet").read_bytes()
    write_class_folders(tmp_path / "others", 5, seed=9)
    with pytest.raises(clipaudit.errors.CacheError, match="Choose another --cache"):
        embed(tmp_path / "others", tmp_path / "c")
    assert (tmp_path / "c" / "plan.parquet").read_bytes() == before
    coco(tmp_path / "none.json", {})
    with pytest.raises(clipaudit.errors.SourceError):
        embed(tmp_path / "none.json", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_slow_storage_is_asked_by_threads_in_order() -> None:
    def slow(number: int) -> int:
        time.sleep(0.0001)
        return 2 * number

    assert list(mapped(slow, range(3_000))) == [2 * number for number in range(3_000)]
