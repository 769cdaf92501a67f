"""What embed says of a source, what it unites, and when it fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import DIGITS
from source_helpers import digit, images, labels, touch, write_parquet

import clipaudit
from clipaudit.clip.pipeline import EmbedProgress
from clipaudit.errors import CacheError, SourceError
from clipaudit.samples import Sample, SourceOptions, open_source
from clipaudit.samples.labels import read_column

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def test_spellings_that_look_the_same_are_one_class(tmp_path: Path, run_cli: Cli) -> None:
    touch(tmp_path / "p", "cat/1.png", "cat /2.png", "cafe\u0301/3.png", "caf\u00e9/4.png", "Dog/5.png", "dog/6.png")
    source = open_source(tmp_path / "p")
    assert sorted(set(labels(source))) == ["Dog", "caf\u00e9", "cat", "dog"]
    assert "the folders 'cat' and 'cat ' are one class" in source.notes()
    result = run_cli("embed", "p", "--model", DIGITS.model, "--device", "cpu")
    assert result.returncode == 0, result.stderr
    assert "4: Dog, caf\u00e9, cat, dog" in result.stdout
    assert "'cat' and 'cat ' are one class" in result.stdout
    assert "Dog" in result.stdout.split("warning", 1)[1]


SPELLED = ["deer", "deer ", "cafe\u0301", "caf\u00e9", "None", "NA", "NA"]


def labels_and_notes(kind: str, folder: Path, given: list[str]) -> tuple[list[str], list[str]]:
    """What a table with these labels is read as, and what is said about it."""
    ids = [f"{number}.png" for number in range(len(given))]
    touch(folder, *ids)
    table = folder / "t.csv" if kind.endswith("csv") else folder / "t.parquet"
    if kind == "images":
        write_parquet(table, {"image": images(len(given)), "label": given})
    elif kind == "manifest.parquet":
        write_parquet(table, {"path": ids, "label": given})
    else:
        table.write_text("\n".join(["path,label", *map(",".join, zip(ids, given, strict=True))]))
    if kind == "labels.csv":
        column = read_column(table, ids, folder)
        return column.values, list(column.notes)
    source = open_source(table)
    return labels(source), source.notes()


@pytest.mark.parametrize(
    ("kind", "first_rows"),
    [
        ("manifest.csv", ("line 6", "line 7")),
        ("labels.csv", ("line 6", "line 7")),
        ("manifest.parquet", ("row 4", "row 5")),
        ("images", ("row 4", "row 5")),
    ],
)
def test_every_table_says_which_labels_it_united_and_which_look_missing(
    kind: str, first_rows: tuple[str, str], tmp_path: Path
) -> None:
    found, notes = labels_and_notes(kind, tmp_path, SPELLED)
    assert found == ["deer", "deer", "caf\u00e9", "caf\u00e9", "None", "NA", "NA"]
    *united, none, na = notes
    assert united == [
        "the labels 'deer' and 'deer ' are one class",
        "the labels 'cafe\\u0301' and 'caf\\xe9' are one class",
    ]
    assert none.endswith(f"{first_rows[0]}: the label 'None' looks like a missing one")
    assert na.endswith(f"{first_rows[1]}: the label 'NA' looks like a missing one")


def test_notes_about_labels_are_few_however_many_labels_are_odd(tmp_path: Path) -> None:
    """Hundreds of spellings of one class, of labels that look missing, and of files that have the same ones."""
    given = ["deer" + " " * number for number in range(300)] + ["-" * number for number in range(1, 301)]
    found, notes = labels_and_notes("manifest.csv", tmp_path / "csv", given)
    assert found[299:301] == ["deer", "-"]
    assert (len(notes), max(map(len, notes)) < 300) == (7, True)
    assert "and 295 more are one class" in notes[0]
    assert notes[-1] == "295 more labels look missing"
    for number in range(10):
        write_parquet(tmp_path / f"p/{number}.parquet", {"image": images(2), "label": ["NA", "dog"]})
    source = open_source(tmp_path / "p")
    labels(source)
    assert [note for note in source.notes() if "'NA'" in note] == source.notes()[-1:]
    assert "0.parquet" in source.notes()[-1]


def test_names_go_with_numbered_folders_or_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "0/1.png", "1/2.png")
    names = SourceOptions(names=["cat", "dog"])
    assert labels(open_source(tmp_path, names)) == ["cat", "dog"]
    touch(tmp_path, "bird/3.png")
    with pytest.raises(SourceError, match="'bird' is not one of the 2 class names"):
        labels(open_source(tmp_path, names))


def test_embed_says_what_it_decided(small_images: Path, tmp_path: Path) -> None:
    summary = clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS)
    assert list(summary.decided) == ["source", "classes"]
    assert summary.decided["classes"].startswith(f"{len(list(small_images.iterdir()))}: ")
    info = clipaudit.EmbeddingsCache.open(tmp_path / "c").info
    assert (info.decided, tuple(info.notes)) == (summary.decided, summary.notes)
    touch(tmp_path / "numbers", "0/1.png", "1/2.png")
    numbers = clipaudit.embed(tmp_path / "numbers", cache=tmp_path / "d", encoder=DIGITS)
    assert "class names are numbers" in numbers.warnings[0]
    touch(tmp_path / "single", "cat/1.png")
    single = clipaudit.embed(tmp_path / "single", cache=tmp_path / "e", encoder=DIGITS)
    assert "all images have the label 'cat'" in single.warnings[0]


FAILED = {
    "paths of another machine": (
        "path,label\n" + "".join(f"C:\\x\\{i}.png,cat\n" for i in range(20)),
        "on another machine?",
    ),
    "folders": ("path,label\ncat,cat\ndog,dog\n", "a folder, not to a file"),
    "nearly all": ("path,label\ncat/1.png,cat\n" + "".join(f"{i}.png,dog\n" for i in range(19)), "No such file"),
    "no images": ("path,label\ntext.png,cat\nempty.png,dog\n", "text.png"),
    "a folder too few": ("path,label\nwhole/1.png,cat\nwhole/2.png,dog\n", "may mean"),
}


@pytest.mark.parametrize("name", FAILED)
def test_a_run_that_can_read_nearly_nothing_has_failed(tmp_path: Path, name: str) -> None:
    table, reason = FAILED[name]
    touch(tmp_path, "cat/1.png", "dog/1.png", "moved/whole/1.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_text("")
    (tmp_path / "m.csv").write_text(table)
    for _ in range(2):
        with pytest.raises(SourceError, match=r"images of .* cannot be read") as failure:
            clipaudit.embed(tmp_path / "m.csv", cache=tmp_path / "c", encoder=DIGITS)
        assert reason in str(failure.value)
    embeddings = clipaudit.EmbeddingsCache.open(tmp_path / "c").read()
    assert embeddings.table.num_rows == table.count("\n") - 1
    assert all(embeddings.table.filter(~pa.array(embeddings.readable).to_numpy(False))["reason"].to_pylist())


def test_a_run_that_has_failed_offers_no_next_step(tmp_path: Path, run_cli: Cli) -> None:
    (tmp_path / "m.csv").write_text(FAILED["paths of another machine"][0])
    result = run_cli("embed", "m.csv", "--model", DIGITS.model, "--device", "cpu", "--cache", "c")
    assert result.returncode == 1
    assert "on another machine?" in result.stderr
    assert "Next:" not in result.stdout
    assert "Traceback" not in result.stderr


def after_scanning(change: Callable[[], object]) -> Callable[[EmbedProgress], None]:
    """Calls `change` after every plan, as if somebody wrote into the source."""
    return lambda progress: change() if progress.stage == "scanning" else None


def test_a_source_that_changes_meanwhile_is_planned_again(tmp_path: Path) -> None:
    root = touch(tmp_path / "p", "cat/1.png", "dog/2.png")
    times = iter([10**18])
    once = after_scanning(lambda: [os.utime(root / "cat/1.png", ns=(t, t)) for t in times])
    summary = clipaudit.embed(root, cache=tmp_path / "c", encoder=DIGITS, progress=once)
    assert (summary.complete, summary.n_samples) == (True, 2)
    rows = clipaudit.EmbeddingsCache.open(tmp_path / "c").read()
    assert rows.readable.all()
    endless = iter(range(10**18, 2 * 10**18, 10**15))
    always = after_scanning(lambda: os.utime(root / "dog/2.png", ns=(0, next(endless))))
    with pytest.raises(CacheError, match="changes while it is embedded"):
        clipaudit.embed(root, cache=tmp_path / "d", encoder=DIGITS, progress=always)
    assert next(endless) > 10**18, "the source was never changed"


def test_a_manifest_with_the_folder_of_the_cache_is_no_endless_change(tmp_path: Path, run_cli: Cli) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "m.csv").write_text("path,label\ncat/1.png,cat\ndog/1.png,dog\n.,dog\n.clipaudit,cat\n")
    for _ in range(2):
        result = run_cli("embed", "m.csv", "--model", DIGITS.model, "--device", "cpu")
        assert result.returncode == 0, result.stderr
        assert "unreadable     2" in result.stdout
        assert "Other shards" not in result.stdout


def test_samples_of_a_source_hold_no_surprises(tmp_path: Path) -> None:
    """Every source says what it decided, and its ids lead back to the images."""
    touch(tmp_path / "f", "cat/1.png", "dog/2.png")
    (tmp_path / "f" / "m.csv").write_text("path,label\ncat/1.png,cat\ndog/2.png,dog\n")
    write_parquet(tmp_path / "t.parquet", {"image": images(2), "label": ["cat", "dog"]})
    for path in (tmp_path / "f", tmp_path / "f" / "m.csv", tmp_path / "t.parquet"):
        source = open_source(path)
        found: list[Sample] = list(source.samples())
        assert [sample.label for sample in found] == ["cat", "dog"]
        assert source.decided()["source"]
        assert source.read(found[0].id) == digit()
