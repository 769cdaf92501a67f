"""Image quality: measured by `embed --quality`, judged by `select`, told by the report, and never part of a verdict."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DIGITS, write_class_folders
from PIL import Image, ImageEnhance, ImageFilter
from report_helpers import Page

import clipaudit
from clipaudit.cache.parts import checksum
from clipaudit.errors import UsageError
from clipaudit.images.quality import ISSUES, MAX_MEASURED_PIXELS, flag_column, has_cleanvision, measurer, score_column

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = pytest.mark.skipif(not has_cleanvision(), reason="no cleanvision: pip install 'clipaudit[quality]'")


def spoil(path: Path, how: str) -> None:
    """Make an image odd."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    changed = {
        "dark": lambda: ImageEnhance.Brightness(picture).enhance(0.2),
        "light": lambda: Image.blend(picture, Image.new("RGB", picture.size, "white"), 0.97),
        "blurry": lambda: picture.resize((256, 256)).filter(ImageFilter.GaussianBlur(30)),
        "low_information": lambda: Image.new("RGB", picture.size, (90, 90, 90)),
        "odd_size": lambda: picture.resize((400, 400)),
        "odd_aspect_ratio": lambda: picture.resize((90, 9)),
        "fine": lambda: picture,
    }[how]()
    changed.save(path)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 digits as colour pictures; of 10 each, one is spoiled in each way, and one file is no image."""
    root = tmp_path_factory.mktemp("quality") / "images"
    write_class_folders(root, 300)
    files = sorted(root.rglob("*.png"))
    for number, file in enumerate(files):
        how = ISSUES[number % len(ISSUES)] if number % 50 < len(ISSUES) else "fine"
        spoil(file, how)
    files[20].write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def index(tree: Path) -> clipaudit.CleanIndex:
    cache = clipaudit.embed(tree, cache=tree.parent / "cache", encoder=DIGITS, quality=True).cache
    return clipaudit.select(cache, device="cpu")


def test_the_findings_are_cleanvisions(index: clipaudit.CleanIndex, tree: Path) -> None:
    from cleanvision import Imagelab

    files = [tree / name for name, ok in zip(index.table["id"].to_pylist(), index.readable, strict=True) if ok]
    lab = Imagelab(filepaths=[str(file) for file in files])
    lab.find_issues({name: {} for name in ISSUES}, n_jobs=1, verbose=False)
    mine = index.table.filter(pa.array(index.readable))
    theirs = lab.issues.loc[[str(file) for file in files]]
    for issue in ISSUES:
        flags = mine[flag_column(issue)].to_numpy()
        assert flags.any()
        np.testing.assert_array_equal(flags, theirs[flag_column(issue)].to_numpy())
        np.testing.assert_allclose(
            mine[score_column(issue)].to_numpy(), theirs[score_column(issue)].to_numpy(), atol=1e-6
        )


def test_they_decide_nothing_and_are_kept(index: clipaudit.CleanIndex, tree: Path, tmp_path: Path) -> None:
    plain = clipaudit.select(clipaudit.embed(tree, cache=tmp_path / "plain", encoder=DIGITS).cache, device="cpu")
    extra = {*map(flag_column, ISSUES), *map(score_column, ISSUES)}
    assert set(index.table.column_names) - set(plain.table.column_names) == extra
    assert index.table.drop_columns(sorted(extra)).equals(plain.table)
    assert "quality" not in plain.metadata.decided
    assert "decide nothing" in index.metadata.decided["quality"]
    assert index.table[flag_column("dark")].is_null().to_pylist() == (~index.readable).tolist()
    index.write(tmp_path / "clean.parquet")
    held = clipaudit.read_index(tmp_path / "clean.parquet")
    assert held.table.equals(index.table)
    again = clipaudit.reselect(held, held.config.with_changes(threshold=0.6))
    assert again.table.select(sorted(extra)).equals(index.table.select(sorted(extra)))


def test_the_report_shows_them(index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    clipaudit.write_report(index, tmp_path / "report.html", top=1)
    page = Page.of(tmp_path / "report.html")
    assert "Odd aspect ratio" in page.text
    ids = np.array(index.table["id"].to_pylist())
    for issue in ISSUES:
        flags = np.array(index.table[flag_column(issue)].fill_null(False).to_pylist())
        shown = [page.data["samples"][number]["id"] for number in page.data["odd"][issue]]
        assert len(shown) == min(flags.sum(), 12)
        assert set(shown) <= set(ids[flags])


def test_images_that_were_embedded_without_are_measured_when_asked(tree: Path, run_cli: Cli, tmp_path: Path) -> None:
    root, cache = tmp_path / "images", tmp_path / "cache"
    shutil.copytree(tree, root)
    model = str(DIGITS.model)
    assert run_cli("embed", root, "--cache", cache, "--model", model).returncode == 0
    done = run_cli("embed", root, "--cache", cache, "--model", model, "--quality")
    assert done.returncode == 0, done.stderr
    assert "embedded now   299 " in done.stdout
    assert "embedded now   0 " in run_cli("embed", root, "--cache", cache, "--model", model, "--quality").stdout
    # Images that come without being measured are told from those without an issue.
    shutil.copy(next((root / "one").iterdir()), root / "one" / "new.png")
    assert run_cli("embed", root, "--cache", cache, "--model", model).returncode == 0
    done = run_cli("select", cache, "--out", "clean.parquet", "--export", "clean.csv")
    assert "of 299 images that were measured" in " ".join(done.stdout.split())
    table = clipaudit.read_index(tmp_path / "clean.parquet").table
    row = table["id"].to_pylist().index("one/new.png")
    assert table[flag_column("dark")][row].as_py() is None
    assert table["status"][row].as_py() == "ok"


def test_numbers_that_are_none_are_not_measured(tree: Path, tmp_path: Path) -> None:
    cache = clipaudit.embed(tree, cache=tmp_path / "cache", encoder=DIGITS, quality=True).cache
    for file in (cache / "parts").iterdir():
        table = pq.read_table(file)
        rows = table["quality"].to_pylist()
        rows[0] = {**rows[0], "size": float("nan")}
        rows[1] = {**rows[1], "entropy": None}
        column = pa.array(rows, table.schema.field("quality").type)
        table = table.set_column(table.column_names.index("quality"), "quality", column)
        file.unlink()
        pq.write_table(table, file)
        file.rename(file.with_name(f"{file.name.split('.')[0]}.{checksum(file.read_bytes())}.parquet"))
    index = clipaudit.select(cache, device="cpu")
    assert index.table[flag_column("odd_size")].to_pylist()[:2] == [None, None]


def test_without_cleanvision_it_says_what_to_install(
    tree: Path, index: clipaudit.CleanIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipaudit.images import quality

    quality._manager.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "cleanvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cleanvision", None)
    with pytest.raises(UsageError, match=r"pip install 'clipaudit\[quality\]'"):
        clipaudit.embed(tree, cache=tree.parent / "other", encoder=DIGITS, quality=True)
    assert not (tree.parent / "other").exists()
    held = clipaudit.select(tree.parent / "cache", device="cpu")
    assert "pip install 'clipaudit[quality]'" in held.metadata.decided["quality"]
    assert flag_column("dark") not in held.table.column_names
    quality._manager.cache_clear()


def test_a_large_picture_is_measured_small_but_by_its_own_size() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1500, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((3000, 1800), Image.Resampling.BICUBIC)
    assert picture.width * picture.height > 16 * MAX_MEASURED_PIXELS
    picture.save(file := io.BytesIO(), "JPEG")
    found = measurer()(file.getvalue(), picture.resize((750, 450)))
    assert found["size"] == pytest.approx((3000 * 1800) ** 0.5)
    assert found["aspect_ratio"] == pytest.approx(0.6)
