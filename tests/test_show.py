"""`show`: what a terminal and a pipe get to see of a clean index."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import DIGITS, any_image, write_class_folders
from PIL import Image
from report_helpers import three_estimates

import clipaudit
from clipaudit import CleanIndex
from clipaudit.calls.apply import apply_marks
from clipaudit.calls.doubts import find_doubts
from clipaudit.cli.pictures import EDGE, half_blocks
from clipaudit.errors import UsageError

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
HALF_BLOCK = "▀"


@pytest.fixture
def index_file(noisy_index: CleanIndex, tmp_path: Path) -> Path:
    noisy_index.write(tmp_path / "clean.parquet")
    return tmp_path / "clean.parquet"


def in_a_terminal(*words: object, width: int = 100, **environment: str) -> str:
    """What the command line writes to a terminal of its own."""
    pty = pytest.importorskip("pty", reason="pseudo-terminals are a thing of Unix")
    import fcntl
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    held = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    settings = {**held, "TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONUTF8": "1", **environment}
    command = [sys.executable, "-m", "clipaudit", *map(str, words)]
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=settings) as process:
        os.close(follower)
        parts = []
        # Linux reports the other side's end as an error, others as an empty read.
        try:
            while part := os.read(leader, 65536):
                parts.append(part)
        except OSError:
            pass
    os.close(leader)
    assert process.returncode == 0, b"".join(parts)
    return b"".join(parts).decode()


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_the_most_doubtful_come_first(noisy_index: CleanIndex) -> None:
    doubts = find_doubts(noisy_index, top=7)
    scores = noisy_index.table["clean_score"].to_numpy()
    noisy = np.flatnonzero(~noisy_index.is_clean)
    lowest = noisy[np.argsort(scores[noisy], kind="stable")[:7]]
    ids, labels = (noisy_index.table[name].to_pylist() for name in ("id", "label"))
    assert [doubt.id for doubt in doubts.samples] == [ids[row] for row in lowest]
    assert [doubt.given for doubt in doubts.samples] == [labels[row] for row in lowest]
    assert doubts.counts.n == 600
    assert doubts.counts.n_in_doubt == len(noisy) == sum(entry.n_in_doubt for entry in doubts.classes)
    shares = [entry.n_in_doubt / entry.n for entry in doubts.classes]
    assert shares == sorted(shares, reverse=True)
    assert doubts.samples[0].reason.startswith(f"zero-shot sees {doubts.samples[0].suggested}")


def test_one_class_in_any_spelling(noisy_index: CleanIndex) -> None:
    doubts = find_doubts(noisy_index, class_name=" NINE", top=1000)
    labels = np.array(noisy_index.table["label"].to_pylist())
    assert doubts.class_name == "nine"
    assert doubts.counts.n == (labels == "nine").sum()
    assert len(doubts.samples) == ((labels == "nine") & ~noisy_index.is_clean).sum()
    assert {doubt.given for doubt in doubts.samples} == {"nine"}
    with pytest.raises(UsageError, match=r"no class 'lynx'\. Its classes: eight, five"):
        find_doubts(noisy_index, class_name="lynx")


def test_what_a_person_marked_is_settled(noisy_index: CleanIndex, tmp_path: Path) -> None:
    first, second = find_doubts(noisy_index, top=2).samples
    marks = tmp_path / "m.csv"
    marks.write_text(f"id,mark,label\n{first.id},drop,\n")
    doubts = find_doubts(apply_marks(noisy_index, marks)[0], top=1)
    assert doubts.samples == [second]
    before = find_doubts(noisy_index).counts.n_in_doubt
    assert (doubts.counts.n_reviewed, before - doubts.counts.n_in_doubt) == (1, 1)
    assert doubts.counts.n_in_doubt == sum(entry.n_in_doubt for entry in doubts.classes)


def test_a_pipe_gets_a_plain_line_for_each_sample(noisy_index: CleanIndex, index_file: Path, run_cli: Cli) -> None:
    result = run_cli("show", index_file, "--top", "5", "--class", "nine", env={**os.environ, "COLORTERM": "truecolor"})
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout
    for doubt in find_doubts(noisy_index, class_name="nine", top=5).samples:
        line = next(line for line in result.stdout.splitlines() if doubt.path in line)
        assert line.split() == ["nine", doubt.suggested, *line.split()[2:]]
        assert doubt.reason in line
    forced = run_cli("show", index_file, env={**os.environ, "FORCE_COLOR": "1", "COLORTERM": "truecolor"})
    assert HALF_BLOCK not in forced.stdout


def test_three_estimates_are_each_called_by_their_name(tmp_path: Path, run_cli: Cli) -> None:
    index = three_estimates(tmp_path)
    index.write(tmp_path / "clean.parquet")
    result = run_cli("show", "clean.parquet")
    assert result.returncode == 0, result.stderr
    (line,) = (line for line in result.stdout.splitlines() if "a.png" in line)
    assert [term.title for term in index.config.estimates if f"{term.title} see" in line] == [
        "zero-shot",
        "logistic regression",
        "neighbours",
    ]


def test_a_terminal_gets_pictures_where_it_has_the_colours(noisy_index: CleanIndex, index_file: Path) -> None:
    doubt = find_doubts(noisy_index, top=1).samples[0]
    shown = in_a_terminal("show", index_file, "--top", "1")
    style = half_blocks(Image.open(doubt.path).convert("RGB")).spans[EDGE * 4 + EDGE // 2].style
    upper, lower = style.color.triplet, style.bgcolor.triplet
    assert f"\x1b[38;2;{';'.join(map(str, upper))};48;2;{';'.join(map(str, lower))}m{HALF_BLOCK}" in shown
    assert shown.count(HALF_BLOCK) == EDGE * EDGE // 2
    assert f"{doubt.suggested} {doubt.probability:.2f}" in without_colours(shown)
    assert HALF_BLOCK not in in_a_terminal("show", index_file, "--top", "1", COLORTERM="")
    assert HALF_BLOCK not in in_a_terminal("show", index_file, "--top", "1", NO_COLOR="1")


def test_half_blocks_are_the_pixels(tmp_path: Path) -> None:
    image = any_image((EDGE, EDGE - 1))
    text = half_blocks(image)
    lines = text.plain.split("\n")
    assert [len(line) for line in lines] == [EDGE] * (EDGE // 2)
    assert set(text.plain) == {HALF_BLOCK, "\n"}
    for row in range(EDGE // 2):
        for column in (0, 7, EDGE - 1):
            style = text.spans[row * EDGE + column].style
            assert tuple(style.color.triplet) == image.getpixel((column, 2 * row))
            below = image.getpixel((column, 2 * row + 1)) if 2 * row + 1 < EDGE - 1 else None
            assert (tuple(style.bgcolor.triplet) if style.bgcolor else None) == below
    assert half_blocks(any_image((900, 3))).plain == HALF_BLOCK * EDGE


def test_images_that_are_gone_leave_a_reason(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "images", 120, rate=0.3)
    cache = clipaudit.embed(tmp_path / "images", cache=tmp_path / "c", encoder=DIGITS).cache
    index = clipaudit.select(cache, device="cpu")
    index.write(tmp_path / "clean.parquet")
    first, second = find_doubts(index, top=2).samples
    Path(first.path).unlink()
    Path(second.path).write_text("no image")
    shown = without_colours(in_a_terminal("show", tmp_path / "clean.parquet", "--top", "2"))
    assert HALF_BLOCK not in shown
    assert "cannot be opened" in shown
    assert "not an image" in shown


def test_hostile_names_stay_text(noisy_index: CleanIndex, tmp_path: Path, run_cli: Cli) -> None:
    hostile = "[red]:cat:\x1b[2J\nnine"
    names = [hostile if name == "nine" else name for name in noisy_index.class_names]
    table = noisy_index.table
    for number, name in enumerate(table.column_names):
        if pa.types.is_dictionary(table.schema.types[number]):
            renamed = [hostile if value == "nine" else value for value in table[name].to_pylist()]
            column = pa.array(renamed).dictionary_encode()
        elif name == "path":
            column = pa.array([path.replace("/nine/", f"/{hostile}/") for path in table[name].to_pylist()])
        else:
            continue
        table = table.set_column(number, name, column)
    CleanIndex(table, replace(noisy_index.metadata, class_names=names)).write(tmp_path / "clean.parquet")
    result = run_cli("show", "clean.parquet", "--top", "500")
    assert result.returncode == 0, result.stderr
    shown = r"[red]:cat:\x1b[2J\nnine"
    assert f"/{shown}/" in result.stdout
    assert f"zero-shot sees {shown} " in result.stdout
    assert "\x1b" not in result.stdout
    one = run_cli("show", "clean.parquet", "--class", hostile)
    assert one.returncode == 0, one.stderr
    assert "\x1b" not in one.stdout
    # In a terminal rich itself writes codes, but not this one.
    assert "\x1b[2J" not in in_a_terminal("show", tmp_path / "clean.parquet", "--class", hostile)


def test_nothing_in_doubt(noisy_index: CleanIndex, tmp_path: Path, run_cli: Cli) -> None:
    position = noisy_index.table.column_names.index("is_clean")
    table = noisy_index.table.set_column(position, "is_clean", pa.array([True] * 600))
    CleanIndex(table, noisy_index.metadata).write(tmp_path / "clean.parquet")
    result = run_cli("show", "clean.parquet")
    assert result.returncode == 0, result.stderr
    assert "in doubt       0, 0.0%" in result.stdout
    assert "Most doubtful" not in result.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("show", "none.parquet"), 1, "does not exist"),
        (("show", "clean.parquet", "--class", "lynx"), 2, "no class 'lynx'"),
        (("show", "clean.parquet", "--top", "-1"), 2, "--top"),
    ],
)
def test_mistakes_are_explained(
    index_file: Path, run_cli: Cli, words: tuple[str, ...], code: int, message: str
) -> None:
    result = run_cli(*words)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
