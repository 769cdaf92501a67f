"""`--names`: files with class names by class index."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

import clipaudit
from clipaudit.errors import SourceError, UsageError
from clipaudit.samples import SourceOptions, read_names

NAMES = ["cat", "sea cow", "caf\u00e9"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("n.txt", "cat\nsea cow\ncaf\u00e9".encode()),
        ("n.txt", "cat\r\nsea cow\r\ncaf\u00e9\r\n\r\n \r\n".encode()),
        ("n.txt", "\ufeffcat\rsea cow\rcafe\u0301\r".encode()),
        ("n.txt", "cat\nsea cow\ncaf\u00e9\n".encode("utf-16")),
        ("n", b" cat \nsea\tcow\nCAF\xc3\x89".lower().replace(b"\xc3\x89", b"\xc3\xa9")),
        ("n.json", json.dumps(NAMES).encode()),
        ("n.JSON", json.dumps({str(index): name for index, name in enumerate(NAMES)}).encode()),
        ("n.json", b'{"2": "caf\\u00e9", "0": " cat", "1": "sea  cow"}'),
        # The lines of JSON would be wrong names.
        ("n.txt", b'\xef\xbb\xbf[\n  "cat",\n  "sea cow",\n  "caf\\u00e9"\n]\n'),
    ],
)
def test_every_way_to_write_names_down(tmp_path: Path, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    assert read_names(tmp_path / file) == NAMES


def test_names_that_may_be_one_stay_apart_and_odd_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_text("Dog\ndog\n_\n{name}\n=1+1\na\u200cb")
    assert read_names(tmp_path / "n.txt") == ["Dog", "dog", "_", "{name}", "=1+1", "a\u200cb"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("n.txt", b"", "holds no class names"),
        ("n.txt", b" \n\n", "holds no class names"),
        ("n.txt", b"cat\n\ndog\n", "line 2: the class name is empty"),
        ("n.txt", "cat\n\u200b\n".encode(), "line 2: the class name is empty"),
        (
            "n.txt",
            "cat\ncaf\u00e9\ncafe\u0301 \n".encode(),
            "line 3: the class name 'caf\u00e9' stands at 2 already",
        ),
        ("n.txt", b"cat\nd\0og\n", r"line 2: the class name contains the control character '\x00'"),
        ("n.txt", "cat\ndog".encode("utf-16")[2:], "control character"),
        ("n.txt", b"caf\xe9\n", "Save it as UTF-8"),
        ("n.txt", b"cat\n" + b"d" * 2000, "line 2: the class name has 2,000 characters, more than 1,000"),
        (
            "n.txt",
            b"\n".join(b"%d" % number for number in range(100_001)),
            "holds 100,001 class names",
        ),
        ("n.txt", b"c" * ((16 << 20) + 1), "larger than"),
        ("n.json", b"[]", "holds no class names"),
        ("n.json", b"cat", "is not a list of class names"),
        ("n.txt", b'["cat", "dog",]', "is not a list of class names"),
        ("n.json", b'"cat"', "is not a list of class names"),
        ("n.json", b"7", "is not a list of class names"),
        ("n.json", b"1" * 5000, "is not a list of class names"),
        ("n.json", b"[" * 200_000, "nested too deeply"),
        ("n.json", b'{"0":' * 200_000, "nested too deeply"),
        ("n.json", b'["cat", null]', "class 1: the class name is no text"),
        ("n.json", b'["cat", ["dog"]]', "class 1: the class name is no text"),
        ("n.json", b'["cat", {"name": "dog"}]', "class 1: the class name is no text"),
        ("n.json", b'["cat", NaN]', "class 1: the class name is no text"),
        ("n.json", b"[1, 2]", "class 0: the class name is no text"),
        ("n.json", b'["cat", "\\ud800"]', "class 1: the class name contains '\\ud800'"),
        ("n.json", b'["cat", "a\\u0000b"]', "control character"),
        ("n.json", b'{"0": "cat", "2": "dog"}', "no class name for index 1"),
        ("n.json", b'{"0": "cat", "-1": "dog"}', "no class name for index 1"),
        ("n.json", b'{"0": "cat", "01": "dog"}', "no class name for index 1"),
        ("n.json", b'{"0": "cat", "0": "dog"}', "no class name for index 1 among 2 entries"),
        ("n.json", b'{"cat": 0, "dog": 1}', "no class name for index 0"),
        ("n.json", b'{"0": "cat", "1": {}}', "class 1: the class name is no text"),
    ],
)
def test_a_file_that_is_no_list_of_names_is_explained(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(SourceError) as raised:
        read_names(tmp_path / file)
    assert message in str(raised.value)
    assert str(tmp_path / file) in str(raised.value)
    assert len(str(raised.value)) < 500


def test_only_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, message in (
        ("pipe", "is a named pipe, not a file"),
        ("link", "is a device, not a file"),
        (".", "is a folder, not a file"),
        ("nothing.txt", "does not exist. Give the file with the class names"),
        ("x" * 300, "File name too long"),
        ("a\0b", "null"),
    ):
        with pytest.raises(SourceError, match=message):
            read_names(tmp_path / name)


def test_many_names_are_read_in_one_pass(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_text("\n".join(f"class number {number}" for number in range(100_000)))
    assert len(read_names(tmp_path / "n.txt")) == 100_000


@pytest.mark.parametrize(
    "names", [["cat", "cat "], ["cat", ""], ["cat", None], [0, 1], ["a\0b"], ["\udcff"], [], [b"cat"]]
)
def test_names_that_a_caller_gives_are_checked_alike(names: Sequence[str], noisy_cache: Path) -> None:
    for call in (lambda: SourceOptions(names=names), lambda: clipaudit.select(noisy_cache, labels=[0, 1], names=names)):
        with pytest.raises(SourceError, match=r"names, class|no class names"):
            call()
    with pytest.raises(UsageError, match="names must be a list of texts or None, not 'abc'"):
        SourceOptions(names="abc")
    assert SourceOptions(names=(" sea  cow", "cat")).names == ["sea cow", "cat"]
