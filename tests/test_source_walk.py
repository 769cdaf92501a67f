"""The walk through folders: links, odd files, closed folders, times and sizes that lie."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import DIGITS, without_rights
from source_helpers import digit, ids, touch

import clipaudit
from clipaudit.errors import ImageError, SourceError
from clipaudit.samples import FaultySample, open_source

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def test_what_systems_leave_between_the_files_is_passed_over_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "dog/2.png", "dog/.AppleDouble/2.png")
    touch(tmp_path, "@eaDir/x.jpg", "__MACOSX/cat/._1.png", "$RECYCLE.BIN/1.png", "lost+found/#1.png", "#recycle/1.png")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "desktop.ini").write_bytes(b"x")
    source = open_source(tmp_path)
    assert ids(source) == ["cat/1.png", "dog/2.png"]
    notes = source.notes()
    assert any(note.startswith("2 ") and "'@eaDir'" in note and "passed over" in note for note in notes)
    assert len(notes) == 7


def test_links_are_followed_once(tmp_path: Path) -> None:
    names = [f"class{letter}" for letter in "abcdefghi"]
    touch(tmp_path, *(f"photos/{name}/1.png" for name in names), "store/deep/1.png")
    photos = tmp_path / "photos"
    for name in names:
        for other in names:
            (photos / name / f"to_{other}").symlink_to(photos / other)
    (photos / "alias").symlink_to(photos / "classa")
    (photos / "classa" / "up").symlink_to(tmp_path)
    (photos / "classb" / "store").symlink_to(tmp_path / "store")
    (photos / "classc" / "store").symlink_to(tmp_path / "store" / "deep")
    (photos / "self").symlink_to("self")
    (photos / "classd" / "self.png").symlink_to("self.png")
    (tmp_path / "store" / "back").symlink_to(photos / "classb")
    source = open_source(photos)
    found = list(source.samples())
    expected = [f"{name}/1.png" for name in names]
    expected[2:2] = ["classb/store/deep/1.png"]
    expected[5:5] = ["classd/self.png"]
    assert [sample.id for sample in found] == expected
    (faulty,) = (sample for sample in found if isinstance(sample, FaultySample))
    assert "symbolic links" in faulty.reason
    notes = " ".join(source.notes())
    assert re.search(r"\b84 link.* read in its own place", notes)
    assert re.search(r"\b1 link\S* to a folder that another link", notes)


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "store/x/1.png", "photos/.hidden/2.png", "photos/dog/3.png")
    (tmp_path / "photos" / "cat").symlink_to(tmp_path / "store" / "x")
    (tmp_path / "photos" / "bird").symlink_to(".hidden")
    (tmp_path / "shortcut").symlink_to("photos")
    assert ids(open_source(tmp_path / "shortcut")) == ["bird/2.png", "cat/1.png", "dog/3.png"]


def test_a_thousand_nested_folders_end(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/2.png")
    folder = tmp_path / "cat"
    for _ in range(1000):
        folder /= "d"
        folder.mkdir()
    try:
        (folder / "deep.png").write_bytes(digit())
        assert [len(name.split("/")) for name in ids(open_source(tmp_path))] == [2, 1002, 2]
    finally:
        # Python's own way to remove a tree gives up at this depth.
        subprocess.run(["rm", "-rf", tmp_path / "cat"], check=True)


@pytest.fixture
def odd_files(tmp_path: Path) -> Path:
    """Class folders with a named pipe, a socket's place, a device and links to them among the images."""
    root = touch(tmp_path / "odd", "cat/1.png", "dog/2.png")
    os.mkfifo(root / "cat" / "pipe.png")
    (root / "cat" / "link.png").symlink_to("pipe.png")
    (root / "dog" / "folder.png").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe")
    os.mkfifo(root / "x.parquet")
    return root


def test_only_regular_files_are_opened(odd_files: Path, run_cli: Cli) -> None:
    result = run_cli("embed", odd_files, "--model", DIGITS.model, "--device", "cpu", timeout=100)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("the path leads to a named pipe, not to a file") == 2
    assert re.search("dog/folder.png: .*a device, not", result.stdout)
    for path in ("pipe", "x.parquet", "cat/pipe.png"):
        named = run_cli("embed", odd_files / path, "--model", DIGITS.model, timeout=100)
        assert (named.returncode, "a named pipe, not a file" in named.stderr) == (1, True), named.stderr
    assert run_cli("embed", "/dev/zero", "--model", DIGITS.model, timeout=100).returncode == 1


def test_a_size_that_lies_does_not_matter(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "cat" / "status.png").symlink_to("/proc/self/status")
    source = open_source(tmp_path)
    assert b"VmPeak" in source.read("cat/status.png")
    os.truncate(tmp_path / "cat" / "1.png", (1 << 30) + 1)
    with pytest.raises(ImageError, match="over 1,073,741,824 bytes"):
        source.read("cat/1.png")


@pytest.mark.parametrize("time", [10**19, -(10**18), 2**63])
def test_times_beyond_64_bits_are_kept_within(tmp_path: Path, time: int) -> None:
    touch(tmp_path, "cat/1.png", "dog/2.png")
    try:
        os.utime(tmp_path / "cat" / "1.png", ns=(time, time))
    except OSError:
        pytest.skip("this file system has no such times")
    summary = clipaudit.embed(tmp_path, cache=tmp_path / ".c", encoder=DIGITS)
    assert (summary.n_samples, summary.n_unreadable) == (2, 0)
    assert clipaudit.embed(tmp_path, cache=tmp_path / ".c", encoder=DIGITS).n_embedded == 0


@pytest.mark.parametrize("place", ["cat\udcff/1.png", "photos\udcff/cat/1.png"])
def test_a_folder_that_is_no_utf8_is_named(tmp_path: Path, run_cli: Cli, place: str) -> None:
    touch(tmp_path / "p", place, "dog/1.png", "bird/2.png")
    source = Path(place).parts[0] if place.startswith("photos") else "."
    result = run_cli("embed", tmp_path / "p" / source, "--model", DIGITS.model)
    assert result.returncode == 1
    assert "not valid UTF-8" in result.stderr
    assert f"{source[:6] if source != '.' else 'cat'}\\" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_closed_folders_are_named(open_folder: Path) -> None:
    touch(open_folder, "photos/cat/1.png", "photos/dog/2.png", "photos/dog/closed/3.png")
    (open_folder / "photos" / "dog" / "closed").chmod(0)
    with without_rights(), pytest.raises(SourceError, match=r"dog/closed cannot be listed: Permission denied"):
        ids(open_source(open_folder / "photos"))
    (open_folder / "photos" / "cat").chmod(0)
    with without_rights(), pytest.raises(SourceError, match=r"photos/cat cannot be listed: Permission denied"):
        open_source(open_folder / "photos")
    (open_folder / "photos").chmod(0)
    for source in ("photos", "photos/cat", "photos/m.csv", "photos/*.parquet"):
        with without_rights(), pytest.raises(SourceError, match="Permission denied"):
            open_source(open_folder / source)


def test_an_image_that_may_be_read_again_is_tried_again(open_folder: Path) -> None:
    touch(open_folder, "photos/cat/1.png", "photos/dog/2.png")
    (open_folder / "photos" / "cat" / "1.png").chmod(0)
    with without_rights():
        summary = clipaudit.embed(open_folder / "photos", cache=open_folder / "c", encoder=DIGITS)
    assert (summary.n_embedded, summary.unreadable) == (1, (("cat/1.png", "cannot be opened: Permission denied"),))
    (open_folder / "photos" / "cat" / "1.png").chmod(0o644)
    with without_rights():
        summary = clipaudit.embed(open_folder / "photos", cache=open_folder / "c", encoder=DIGITS)
    assert (summary.n_embedded, summary.n_reused, summary.n_unreadable) == (1, 1, 0)
    assert len(list((open_folder / "c" / "parts").iterdir())) == 1
