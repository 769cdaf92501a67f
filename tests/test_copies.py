"""Copies: exact and near ones are found, contradicting labels are certain errors, leaks are listed."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from conftest import DIGITS, write_class_folders
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from report_helpers import Page

import clipaudit
from clipaudit import AuditConfig
from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.cache.parts import HASHES, checksum
from clipaudit.copies.cells import Cells, has_faiss
from clipaudit.copies.groups import copy_groups, overruled
from clipaudit.copies.hashes import difference_hash, differing_bits, image_hashes
from clipaudit.copies.near import EXACT_UP_TO, NO_PAIRS, near_copies
from clipaudit.errors import CacheError, UsageError
from clipaudit.estimates import InMemory
from clipaudit.estimates.neighbours import Neighbours, voters_by_cells
from clipaudit.index.copies import copies_in

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
needs_faiss = pytest.mark.skipif(not has_faiss(), reason="no faiss: pip install 'clipaudit[copies]'")


def photos(folder: Path, n: int) -> list[Image.Image]:
    rows = (
        pq.read_table(folder / "cifar10" / "test.parquet", columns=["image"])["image"]
        .take(np.arange(n) * 33)
        .to_pylist()
    )
    return [Image.open(io.BytesIO(row["bytes"])).convert("RGB") for row in rows]


def test_a_look_survives_what_people_do_to_pictures(data_folder: Path) -> None:
    pictures = photos(data_folder, 300)
    looks = np.array([difference_hash(picture) for picture in pictures], np.uint64)
    for change in (
        lambda picture: picture.resize((64, 64), Image.Resampling.BICUBIC),
        lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda picture: ImageEnhance.Brightness(picture).enhance(0.8),
    ):
        changed = np.array([difference_hash(change(picture)) for picture in pictures], np.uint64)
        assert (differing_bits(looks, changed) <= 10).mean() > 0.9
        assert (differing_bits(looks, np.roll(changed, 1)) <= 10).mean() < 0.05


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_differing_bits_are_those_of_integers(one: int, other: int) -> None:
    rows = [f"{other:064b}"[start : start + 8] for start in range(0, 64, 8)]
    mirrored = int("".join(row[::-1].translate({48: 49, 49: 48}) for row in rows), 2)
    expected = min((one ^ other).bit_count(), (one ^ mirrored).bit_count())
    assert differing_bits(np.array([one], np.uint64), np.array([other], np.uint64)) == [expected]


def test_a_lossless_copy_has_the_same_pixels_and_other_bytes() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    files = []
    for kind in ("PNG", "BMP"):
        picture.save(file := io.BytesIO(), kind)
        files.append(image_hashes(file.getvalue(), picture))
    assert files[0].content != files[1].content
    assert files[0].pixels == files[1].pixels
    assert image_hashes(b"", picture).pixels != image_hashes(b"", picture.rotate(90, expand=True)).pixels


def hashes(*values: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([[value and value.encode() for value in values]], pa.binary())


def test_groups_are_joined_by_whatever_is_equal() -> None:
    found = copy_groups([hashes("a", "b", "a", None, None, "c"), hashes("p", "q", "r", None, "q", "s")], NO_PAIRS)
    assert found.first.tolist() == [0, 1, 0, 3, 1, 5]
    assert found.is_copy.tolist() == [True, True, True, False, True, False]
    assert not found.near.any()
    near = copy_groups([hashes("a", "b", "a", None, None, "c")], np.array([[1, 2], [4, 5]]))
    assert near.first.tolist() == [0, 0, 0, 3, 4, 4]
    assert near.near.tolist() == [True, True, True, False, True, True]
    assert found.conflicting(np.array([0, 1, 1, 0, 1, 0])).tolist() == [True, False, True, False, False, False]


def test_the_label_that_is_trusted_most_wins() -> None:
    first, labels = np.array([0, 0, 0, 3, 3, 5]), np.array([1, 2, 2, 0, 1, 4])
    trust = np.array([0.9, 0.3, 0.4, 0.5, 0.5, 0.0])
    assert overruled(first, labels, trust).tolist() == [False, True, True, False, True, False]
    assert overruled(first, labels, np.array([0.6, 0.3, 0.4, 0.2, 0.5, 0.0])).tolist() == [
        True,
        *[False] * 2,
        True,
        *[False] * 2,
    ]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.floats(0, 1)), min_size=1, max_size=30))
def test_of_each_image_one_label_is_left(samples: list[tuple[int, int, float]]) -> None:
    images, labels, trust = (np.array(values) for values in zip(*samples, strict=True))
    first = np.array([images.tolist().index(image) for image in images])
    lost = overruled(first, labels, trust)
    for image in set(images.tolist()):
        kept = set(labels[(images == image) & ~lost].tolist())
        assert len(kept) == 1


@needs_faiss
@pytest.mark.parametrize("n", [2_000, EXACT_UP_TO + 5_000])
def test_near_copies_are_found_among_few_and_many(n: int) -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(n, 32)).astype(np.float32)
    vectors[n // 2 :][:50] = vectors[:50] + 0.05 * generator.normal(size=(50, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    looks = generator.integers(0, 2**63, n, dtype=np.uint64)
    looks[n // 2 :][:40] = looks[:40] ^ np.uint64(5)
    found = near_copies(vectors.astype(np.float16), looks)
    # The last ten have other looks: similar, and no copies.
    assert found.alike < 0.01
    assert found.pairs.tolist() == [[row, n // 2 + row] for row in range(40)]


@needs_faiss
def test_cells_find_what_a_comparison_with_all_finds() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(6_000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # The same vector many times: a cell that is larger than what is multiplied at once, and ties.
    vectors[:5_000] = vectors[0]
    cells = Cells(vectors)
    asked = np.concatenate(list(cells.together(vectors)))
    assert sorted(asked.tolist()) == list(range(6_000))
    rows = np.array([7, 5_500, 5_999])
    cosine, found = cells.search(vectors[rows], 9, probed=cells.n_cells)
    expected = -np.sort(-vectors[rows] @ vectors.T, axis=1)[:, :9]
    np.testing.assert_allclose(cosine, expected, atol=1e-5)
    np.testing.assert_allclose((vectors[rows, None] * vectors[found]).sum(2), expected, atol=1e-5)
    cosine, found = cells.search(vectors[[5_500]], 6_000, probed=1)
    assert (found >= 0).any()
    assert ((found == -1) == (cosine == -np.inf)).all()


@needs_faiss
def test_neighbours_in_the_nearest_cells_are_nearly_those_among_all() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(4_000) % 20
    images = torch.randn(20, 32, generator=generator)[true] + 0.7 * torch.randn(4_000, 32, generator=generator)
    vectors = InMemory(torch.nn.functional.normalize(images, dim=1))
    wrong = torch.rand(4_000, generator=generator) < 0.2
    labels = torch.where(wrong, (true + 1) % 20, true)
    voters = voters_by_cells(vectors, labels.device, 15)
    assert voters.shape == (4_000, 15)
    assert not (voters == np.arange(4_000)[:, None]).any()
    both = [Neighbours(vectors, labels, 20, 15, found) for found in (None, voters)]
    exact, by_cells = (model.log_proba(images, torch.arange(4_000)).exp() for model in both)
    torch.testing.assert_close(by_cells.sum(1), torch.ones(4_000))
    assert (exact.argmax(1) == by_cells.argmax(1)).float().mean() > 0.99
    assert (exact - by_cells).abs().mean() < 0.01


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 digits; three images are there again under another class, one of them as a BMP; two more under their own."""
    root = tmp_path_factory.mktemp("copies") / "images"
    write_class_folders(root, 400)
    files = sorted((root / "one").iterdir())
    for number in (0, 1):
        shutil.copy(files[number], root / "seven" / f"again{number}.png")
    with Image.open(files[2]) as picture:
        picture.save(root / "seven" / "again2.bmp")
    for number in (3, 4):
        shutil.copy(files[number], root / "one" / f"again{number}.png")
    return root


@pytest.fixture(scope="module")
def cache(tree: Path) -> Path:
    return clipaudit.embed(tree, cache=tree.parent / "cache", encoder=DIGITS).cache


@pytest.fixture(scope="module")
def index(cache: Path) -> clipaudit.CleanIndex:
    return clipaudit.select(cache, device="cpu")


def rows_named(index: clipaudit.CleanIndex, word: str) -> np.ndarray:
    return np.array([word in name for name in index.table["id"].to_pylist()])


def test_copies_under_two_labels_are_certain_errors(index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    copies = copies_in(index.table)
    assert copies is not None
    planted = rows_named(index, "seven/again")
    assert copies.in_conflict[planted].all()
    assert not index.is_clean[planted].any()
    assert copies.n_conflicts >= 3
    same = rows_named(index, "one/again")
    assert (copies.group[same] >= 0).all()
    assert not copies.in_conflict[same].any()
    scores = index.table["clean_score"].to_numpy()
    assert (scores[index.is_clean & ~index.table["fallback"].to_numpy(zero_copy_only=False)] >= 0.5).all()
    assert (scores[planted] < 0.5).all()
    index.write(tmp_path / "clean.parquet")
    held = clipaudit.read_index(tmp_path / "clean.parquet")
    assert held.table.equals(index.table)
    again = clipaudit.reselect(held, AuditConfig(combine="union", selectors=AuditConfig().selectors))
    assert not again.is_clean[planted].any()


def test_a_mark_counts_for_the_copies_of_its_image(index: clipaudit.CleanIndex, run_cli: Cli, tmp_path: Path) -> None:
    ids = index.table["id"].to_pylist()
    copies = copies_in(index.table)
    assert copies is not None
    again = ids.index("seven/again0.png")
    (original,) = (row for row in np.flatnonzero(copies.group == copies.group[again]) if row != again)
    twin = ids.index("one/again3.png")
    (other,) = (row for row in np.flatnonzero(copies.group == copies.group[twin]) if row != twin)
    index.write(tmp_path / "clean.parquet")
    (tmp_path / "m.csv").write_text(f"id,mark,label\n{ids[original]},right,\n{ids[twin]},drop,\n")
    done = run_cli("apply", "clean.parquet", "m.csv", "--copies")
    assert done.returncode == 0, done.stderr
    table = clipaudit.read_index(tmp_path / "reviewed.parquet").table
    assert table["reviewed"][again].as_py() == "relabel"
    assert table["label"][again].as_py() == "one"
    assert table["reviewed"][int(other)].as_py() == "drop"
    alone, _ = clipaudit.apply_marks(index, tmp_path / "m.csv")
    assert alone.table["reviewed"].null_count == len(index) - 2
    (tmp_path / "m.csv").write_text(f"id,mark,label\n{ids[original]},right,\n{ids[again]},right,\n")
    own, _ = clipaudit.apply_marks(index, tmp_path / "m.csv", copies=True)
    assert own.table["label"][again].as_py() == "seven"


def test_a_review_looks_at_one_copy_and_knows_the_others(index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    copies = copies_in(index.table)
    assert copies is not None
    readable = int(index.readable.sum())
    queue = clipaudit.review(index, budget=readable)
    labels = index.scored_labels()
    pairs = [(copies.group[row], labels[row]) for row in queue.rows if copies.group[row] >= 0]
    assert len(pairs) == len(set(pairs))
    # Of five copies, two have the label of their original.
    assert len(queue) == readable - 2
    marks = ["id,mark,label", *(f"{name},right," for name in queue.ids)]
    (tmp_path / "m.csv").write_text("\n".join(marks))
    reviewed, _ = clipaudit.apply_marks(queue.index, tmp_path / "m.csv")
    found = clipaudit.estimate(reviewed)
    assert found.marks.drawn == len(queue)
    assert found.marks.elsewhere == 0
    # A copy of what a person has seen is not drawn again.
    with pytest.raises(UsageError, match="nothing left"):
        clipaudit.review(reviewed, budget=5)
    # Marked as well, it is no further witness.
    (tmp_path / "m.csv").write_text(
        "\n".join(["id,mark,label", *(f"{name},right," for name in index.table["id"].to_pylist())])
    )
    every, _ = clipaudit.apply_marks(queue.index, tmp_path / "m.csv")
    assert clipaudit.estimate(every).marks.drawn == len(queue)
    assert clipaudit.estimate(every).marks.elsewhere == 2


def test_terminal_and_report_name_them_first(index: clipaudit.CleanIndex, run_cli: Cli, tmp_path: Path) -> None:
    index.write(tmp_path / "clean.parquet")
    lines = run_cli("show", "clean.parquet").stdout.splitlines()
    assert lines[1].startswith("  contradicting  ")
    assert any("seven/again0.png (seven)" in line for line in lines[2:6])
    clipaudit.write_report(index, tmp_path / "report.html", top=1)
    page = Page.of(tmp_path / "report.html")
    assert "at least one of these labels is wrong" in page.text
    assert "seven/again2.bmp" in page.text
    groups = page.data["copies"]
    assert len(groups) >= 3
    assert all(len({page.data["samples"][number]["given"] for number in group}) > 1 for group in groups)


def test_copies_share_a_fold(cache: Path) -> None:
    """Else the copy of a wrong label in another fold says that it is right."""
    config = clipaudit.preset("recommended", rounds=1, transition=False)
    table = clipaudit.select(cache, config=config, device="cpu").table
    by_id = dict(zip(table["id"].to_pylist(), table["joint_p_max"].to_pylist(), strict=True))
    for name, score in by_id.items():
        if "again0" in name:
            (original,) = [
                other for other, value in by_id.items() if other != name and other.startswith("one/") and value == score
            ]
            assert original.startswith("one/")


def test_leaks_are_listed_and_can_fail_a_run(cache: Path, tree: Path, run_cli: Cli, tmp_path: Path) -> None:
    test_images = tmp_path / "test"
    write_class_folders(test_images, 30, seed=9)
    originals = sorted((tree / "three").iterdir())[:2]
    shutil.copy(originals[0], test_images / "three" / "seen.png")
    shutil.copy(originals[1], test_images / "eight" / "seen.png")
    other = clipaudit.embed(test_images, cache=tmp_path / "other", encoder=DIGITS).cache
    words = ("select", cache, "--against", other, "--out", "clean.parquet")
    done = run_cli(*words)
    assert done.returncode == 0, done.stderr
    assert "Written: clean.leaks.csv" in done.stdout
    leaks = pyarrow.csv.read_csv(tmp_path / "clean.leaks.csv").to_pylist()
    found = {(leak["id"], leak["other_id"], leak["other_label"]) for leak in leaks if leak["kind"] == "exact"}
    assert (f"three/{originals[0].name}", "three/seen.png", "three") in found
    assert (f"three/{originals[1].name}", "eight/seen.png", "eight") in found
    ids = EmbeddingsCache.open(cache).read().table["id"].to_pylist()
    first = f"three/{originals[0].name}"
    rows = [f"{name},{'nine' if name == first else name.split('/')[0]}" for name in ids]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    assert run_cli(*words, "--labels", "labels.csv").returncode == 0
    audited = pyarrow.csv.read_csv(tmp_path / "clean.leaks.csv").to_pylist()
    assert {leak["label"] for leak in audited if leak["id"] == first} == {"nine"}
    assert run_cli(*words, "--fail-on-leaks").returncode == 1
    assert (tmp_path / "clean.parquet").exists()
    gone = run_cli("select", cache, "--against", tmp_path / "nowhere", "--out", "never.parquet")
    assert gone.returncode == 1
    assert "is no embeddings cache" in gone.stderr
    assert not (tmp_path / "never.parquet").exists()
    refused = run_cli("select", cache, "--out", "clean.parquet", "--fail-on-leaks")
    assert refused.returncode == 2
    assert "--against CACHE" in refused.stderr


def test_a_cache_without_hashes_is_audited_and_says_so(cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "old")
    store = EmbeddingsCache.open(tmp_path / "old")
    for name, file in store.part_files().items():
        table = pq.read_table(file).drop_columns(list(HASHES))
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        file.unlink()
        (file.parent / f"{name}.{checksum(buffer.getvalue())}.parquet").write_bytes(buffer.getvalue())
    index = clipaudit.select(tmp_path / "old", device="cpu")
    assert copies_in(index.table) is None
    assert "earlier clipaudit" in index.metadata.decided["copies"]
    with pytest.raises(CacheError, match="kept no hashes"):
        clipaudit.find_leaks(tmp_path / "old", [cache])


def test_hashes_are_kept_when_a_part_is_planned_anew(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "images")
    first = clipaudit.embed(tmp_path / "images", cache=tmp_path / "cache", encoder=DIGITS)
    next((tmp_path / "images" / "zero").iterdir()).unlink()
    second = clipaudit.embed(tmp_path / "images", cache=tmp_path / "cache", encoder=DIGITS)
    assert second.n_reused == first.n_samples - 1
    table = EmbeddingsCache.open(second.cache).read().table
    assert all(table[name].null_count == 0 for name in HASHES)
