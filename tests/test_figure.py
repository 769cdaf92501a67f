"""The static picture of an audit."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from report_helpers import three_estimates

from clipaudit import CleanIndex
from clipaudit.calls.apply import apply_marks
from clipaudit.errors import SourceError, UsageError
from clipaudit.report.figure import write_figure

Digits = tuple[Path, dict[str, str]]


@pytest.fixture
def svg_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SVG hold texts as texts, so that a test can read them."""
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParamsDefault, "svg.fonttype", "none")


def texts(path: Path) -> list[str]:
    """The texts of an SVG file, unescaped."""
    from xml.etree import ElementTree

    return ["".join(element.itertext()) for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_same_input_same_bytes(noisy_index: CleanIndex, tmp_path: Path, suffix: str) -> None:
    write_figure(noisy_index, tmp_path / f"a.{suffix}")
    first = (tmp_path / f"a.{suffix}").read_bytes()
    # Another process, another style of the user, another hash seed.
    noisy_index.write(tmp_path / "i.parquet")
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 5\naxes.facecolor: red\n")
    code = (
        "import clipaudit, sys; from clipaudit.report.figure import write_figure;"
        f"write_figure(clipaudit.read_index('i.parquet'), 'b.{suffix}'); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / f"b.{suffix}").read_bytes() == first
    assert not re.search(rb"CreationDate|<dc:date>|tEXt", first)


def test_the_users_matplotlib_is_left_alone(noisy_index: CleanIndex, tmp_path: Path) -> None:
    with matplotlib.rc_context({"font.size": 31, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        write_figure(noisy_index, tmp_path / "a.PNG")
        assert dict(matplotlib.rcParams) == before
    with Image.open(tmp_path / "a.PNG") as image:
        assert image.size == (1800, 1150)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 100


@pytest.mark.usefixtures("svg_text")
def test_its_numbers_are_those_of_the_audit(noisy_index: CleanIndex, noisy_digits: Digits, tmp_path: Path) -> None:
    write_figure(noisy_index, tmp_path / "a.svg")
    shown = texts(tmp_path / "a.svg")
    n_clean = int(noisy_index.is_clean.sum())
    for words in (f"called clean ({n_clean})", f"called noisy ({600 - n_clean})", "given label", "suggested label"):
        assert words in shown
    rows = noisy_index.table.filter(pa.array(~noisy_index.is_clean))
    pairs = list(zip(rows["label"].to_pylist(), rows["suggested_label"].to_pylist(), strict=True))
    cells = sorted(str(pairs.count(pair)) for pair in set(pairs))
    assert f"Samples called noisy ({len(pairs)})" in shown
    # The cells are written after the names of the axes.
    inside = shown[shown.index("given label") + 1 :][: len(cells)]
    assert sorted(inside) == cells
    write_figure(noisy_index, tmp_path / "t.svg", truth=f"{noisy_digits[0].parent / 'truth.csv'}:label_true")
    given, truth = noisy_index.table["label"].to_pylist(), list(noisy_digits[1].values())
    n_right = sum(label == true for label, true in zip(given, truth, strict=True))
    assert {f"right label ({n_right})", f"wrong label ({600 - n_right})"} <= set(texts(tmp_path / "t.svg"))


def test_a_review_does_not_change_what_the_audit_said(
    noisy_index: CleanIndex, noisy_digits: Digits, tmp_path: Path
) -> None:
    ids, truth = noisy_index.table["id"].to_pylist(), noisy_digits[1]
    marks = "".join(f"{name},relabel,{truth[name]}\n" for name in ids[:50]) + f"{ids[70]},drop,\n"
    (tmp_path / "m.csv").write_text("id,mark,label\n" + marks)
    reviewed, _ = apply_marks(noisy_index, tmp_path / "m.csv")
    assert not reviewed.table["label"].equals(noisy_index.table["label"])
    for known in (None, noisy_digits[0].parent / "truth.csv"):
        write_figure(noisy_index, tmp_path / "a.svg", truth=known)
        write_figure(reviewed, tmp_path / "b.svg", truth=known)
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def many_classes(index: CleanIndex, names: list[str]) -> CleanIndex:
    """The same scores under many classes, the first ones the largest."""
    generator, table = np.random.default_rng(0), index.table
    draws = generator.integers(0, len(names), (2, 600)).min(axis=0)
    for column in ("label", "suggested_label", *(term.column("label") for term in index.config.estimates)):
        values = pa.DictionaryArray.from_arrays(pa.array(generator.permuted(draws).astype(np.int32)), pa.array(names))
        table = table.set_column(table.column_names.index(column), column, values)
    return CleanIndex(table, replace(index.metadata, class_names=names))


@pytest.mark.usefixtures("svg_text")
def test_many_classes_are_cut_and_the_figure_says_so(noisy_index: CleanIndex, tmp_path: Path) -> None:
    index = many_classes(noisy_index, [f"class {k:03}" for k in range(1000)])
    write_figure(index, tmp_path / "a.svg")
    shown = texts(tmp_path / "a.svg")
    labels = index.labels()
    largest = sorted(range(1000), key=lambda k: (-(labels == k).sum(), k))[:20]
    assert [name for name in shown if name.startswith("class ")] == [f"class {k:03}" for k in sorted(largest)] * 2
    noisy = index.table.filter(pa.array(~index.is_clean))
    inside = {f"class {k:03}" for k in largest}
    pairs = zip(noisy["label"].to_pylist(), noisy["suggested_label"].to_pylist(), strict=True)
    n_inside = sum({given, suggested} <= inside for given, suggested in pairs)
    assert f"the 20 largest of 1,000 classes, with {n_inside} of these samples" in shown


@pytest.mark.usefixtures("svg_text")
def test_hostile_class_names_are_drawn_as_text(noisy_index: CleanIndex, tmp_path: Path) -> None:
    names = [
        "$\\frac{1}$",
        "$x^",
        "<script>alert(1)</script>",
        "a\nb\x1b[2J",
        "猫",
        "{",
        "\u202e_",
        "",
        "%s",
        "x" * 300,
    ]
    index = many_classes(noisy_index, names)
    for suffix in ("svg", "png", "pdf"):
        write_figure(index, tmp_path / f"a.{suffix}")
    shown = texts(tmp_path / "a.svg")
    for name in ("$\\frac{1}$", "$x^", "<script>alert(1)</s…", "a\\nb\\x1b[2J", "\\u202e_", "猫", "x" * 19 + "…"):
        assert name in shown
    assert "<script>" not in (tmp_path / "a.svg").read_text()


def test_nothing_noisy_and_nothing_readable(noisy_index: CleanIndex, tmp_path: Path) -> None:
    scores = pa.array(np.ones(600))
    table = noisy_index.table
    table = table.set_column(table.column_names.index("clean_score"), "clean_score", scores)
    write_figure(CleanIndex(table, noisy_index.metadata), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    status = pa.array(["unreadable"] * 600)
    table = table.set_column(table.column_names.index("status"), "status", status)
    with pytest.raises(SourceError, match="no readable sample"):
        write_figure(CleanIndex(table, noisy_index.metadata), tmp_path / "b.png")


@pytest.mark.usefixtures("svg_text")
def test_every_estimate_has_its_losses(noisy_index: CleanIndex, tmp_path: Path) -> None:
    for index in (noisy_index, three_estimates(tmp_path)):
        write_figure(index, tmp_path / "a.svg")
        losses = [text for text in texts(tmp_path / "a.svg") if text.startswith("loss, ")]
        assert losses == [f"loss, {term.title} (nats)" for term in index.config.estimates]


def test_mistakes_are_explained(noisy_index: CleanIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "a", "a.png.gz"):
        with pytest.raises(UsageError, match=r"figures end in \.pdf, \.png, \.svg"):
            write_figure(noisy_index, tmp_path / name)
    with pytest.raises(SourceError, match="does not exist"):
        write_figure(noisy_index, tmp_path / "a.png", truth="nowhere.csv")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'clipaudit\[figure\]'"):
        write_figure(noisy_index, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_importing_it_does_not_import_matplotlib() -> None:
    code = "import clipaudit.report.figure, sys; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
