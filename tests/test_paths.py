"""What paths that lead nowhere have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipaudit.samples.paths import other_spelling, path_pattern


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["C:\\data\\cat\\1.jpg", "C:\\data\\dog\\3.png"], "all 2 paths start with 'C:\\\\data\\\\': was this table"),
        (
            ["/data/upload/cat/1.jpg", "/data/upload/dog/3.png"],
            "all 2 paths start with '/data/upload/': was this table",
        ),
        (["cat\\1.jpg", "dog\\3.png"], "all 2 paths have backslashes"),
        (["cat/1.jpg ", "dog/3.png "], "all 2 paths have blanks at their ends"),
        (["cat/1", "cat/2"], "all 2 paths have no ending such as .jpg"),
        (["photos/cat/1.jpg", "photos/dog/3.png"], "all 2 paths start with 'photos/', a folder that does not exist"),
        (["https://host/cat/1.jpg", "https://host/cat/2.jpg"], "are they addresses, not files?"),
        (["~/cat/1.jpg"], "1 path(s) start with '~/cat/': was this table made on another machine?"),
        (["'cat/1.jpg'", "'cat/2.jpg'"], "all 2 paths start with a quotation mark"),
        (["C:\\a\\cat\\1.jpg", "D:\\b\\cat\\2.jpg"], "all 2 paths are absolute"),
    ],
)
def test_patterns_are_named_with_the_file_that_is_meant(root: Path, paths: list[str], words: str) -> None:
    pattern = path_pattern(paths, root)
    assert pattern is not None
    assert words in pattern
    assert f"may mean {root / 'cat' / '1.jpg'}, which exists" in pattern


@pytest.mark.parametrize(
    "paths", [[], ["x.jpg", "y.jpg"], ["cat/8.jpg", "cat/9.jpg"], ["\0.jpg"], ["a" * 5000 + ".jpg"]]
)
def test_no_pattern_where_there_is_none(root: Path, paths: list[str]) -> None:
    assert path_pattern(paths, root) is None


def test_a_pattern_needs_no_folder_and_most_paths() -> None:
    windows = [f"C:\\photos\\{number}.jpg" for number in range(1021)]
    assert str(path_pattern(windows)).startswith("all 1,021 paths start with 'C:\\\\photos\\\\'")
    assert str(path_pattern([*windows, "a.jpg"])).startswith("1,021 of 1,022 paths are absolute")


def test_other_spellings_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "cafe\u0301").mkdir()
    (tmp_path / "cafe\u0301" / "1.jpg").write_bytes(b"x")
    for path in ("cafe\u0301\\1.jpg", "caf\u00e9/1.jpg", " cafe\u0301/1.jpg\t", "caf\u00e9\\1.jpg "):
        assert other_spelling(tmp_path, path) == "cafe\u0301/1.jpg"
    assert other_spelling(tmp_path, "cafe/1.jpg") is None
    assert other_spelling(tmp_path, "\0 ") is None
