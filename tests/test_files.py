"""Where outputs may be written, and what stays of what was there."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipaudit.errors import ClipAuditError, UsageError
from clipaudit.files import check_folder, check_output, new_folder, temporary, write_atomically


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def make_irregular(kind: str, path: Path) -> None:
    """A device like /dev/null, a named pipe, a socket, a folder or a link to one of them."""
    if kind == "a device":
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("a device cannot be made here")
    elif kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.mkdir()


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("kind", ["a device", "a named pipe", "a socket", "a folder"])
def test_only_regular_files_are_replaced(kind: str, linked: bool, tmp_path: Path) -> None:
    place = tmp_path / "x"
    make_irregular(kind, place)
    before = place.lstat()
    named = tmp_path / "link" if linked else place
    if linked:
        named.symlink_to(place)
    for attempt in (check_output, lambda path: write_atomically(path, b"new")):
        with pytest.raises(UsageError, match=kind):
            attempt(named)
    assert place.lstat() == before
    assert named.is_symlink() == linked


@pytest.mark.parametrize("name", ["", ".", "/", "..", "a/..", "n" * 256, "ä" * 128, "nul\0byte", "\ud800"])
def test_names_that_no_file_can_have(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for attempt in (check_output, check_folder, lambda path: write_atomically(Path(path), b"new")):
        with pytest.raises(UsageError):
            attempt(name)
    assert list(tmp_path.iterdir()) == []


def test_places_that_no_file_can_have(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    for name, message in (("file/x", "file is a file"), ("file/a/x", "file is a file"), ("loop", "leads to itself")):
        with pytest.raises(UsageError, match=message):
            check_output(tmp_path / name)
    with pytest.raises(UsageError, match="too long"):
        check_output(tmp_path / "/".join(["n" * 250] * 20) / "x")
    with pytest.raises(ClipAuditError, match="exists already"):
        check_folder(tmp_path / "file")
    with pytest.raises(UsageError, match="not a folder"):
        check_folder(tmp_path / "file", new=False)
    check_folder(tmp_path, new=False)


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/sys").is_dir(), reason="root may write everywhere here")
def test_folders_that_may_not_be_written(tmp_path: Path) -> None:
    closed = Path("/proc/sys") if os.geteuid() == 0 else tmp_path / "closed"
    if os.geteuid():
        closed.mkdir(mode=0o500)
    for attempt in (check_output, check_folder, lambda path: write_atomically(path, b"new")):
        with pytest.raises(ClipAuditError, match="written"):
            attempt(closed / "x")


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for target in (tmp_path / "deep" / "there", tmp_path / "deep" / "not yet"):
        link = tmp_path / f"to {target.name}"
        link.symlink_to(target)
        if target.name == "there":
            target.write_text("old")
        check_output(link)
        write_atomically(link, b"new")
        assert link.is_symlink()
        assert target.read_bytes() == b"new"
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"there", "not yet"}


def test_modes(tmp_path: Path) -> None:
    held, modes = tmp_path / "private", []
    for mode in (0o600, 0o640, 0o755):
        held.write_text("old")
        held.chmod(mode)
        write_atomically(held, lambda file: modes.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode)))
        assert stat.S_IMODE(held.stat().st_mode) == mode
    # While it was written, nobody else could read it.
    assert modes == [0o600] * 3
    umask = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", b"")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_is_kept(tmp_path: Path) -> None:
    held = tmp_path / "theirs"
    held.write_text("old")
    os.chown(held, 1234, 4321)
    write_atomically(held, b"new")
    assert (held.stat().st_uid, held.stat().st_gid) == (1234, 4321)


def test_an_output_is_no_input(tmp_path: Path) -> None:
    table, link, hard = tmp_path / "t.csv", tmp_path / "link.csv", tmp_path / "hard.csv"
    table.write_text("a,b\n")
    link.symlink_to(table)
    hard.hardlink_to(table)
    for out in (table, link, hard, tmp_path / "." / "t.csv", tmp_path / "x" / ".." / "t.csv"):
        for given in (table, str(link), f"{table}:label", f"{hard}:b"):
            with pytest.raises(UsageError, match="same file"):
                check_output(out, [None, tmp_path / "none", given])
    # Neither is there yet: two outputs of one call.
    with pytest.raises(UsageError, match="same file"):
        check_output(tmp_path / "new.csv", [tmp_path / "x" / ".." / "new.csv"])
    check_output(tmp_path / "new.csv", [table, f"{table}:label", tmp_path])


def test_outputs_stay_out_of_caches_and_off_the_files_of_runs(tmp_path: Path) -> None:
    cache, run = tmp_path / "cache", tmp_path / "run"
    (cache / "parts").mkdir(parents=True)
    (cache / "cache.json").write_text("{}")
    run.mkdir()
    (run / "run.json").write_text("{}")
    (tmp_path / "link").symlink_to(cache / "parts")
    for name in ("cache/cache.json", "cache/x.parquet", "cache/parts/x", "cache/deep/x", "link/x"):
        for check in (check_output, check_folder):
            with pytest.raises(ClipAuditError, match=r"embeddings cache|exists"):
                check(tmp_path / name)
    for name in ("run.json", "best.safetensors", "labels.parquet", "README.md"):
        with pytest.raises(UsageError, match="of the run"):
            check_output(run / name)
    check_output(run / "predictions.parquet")
    check_output(tmp_path / "cache.parquet")


def test_names_of_temporary_files_fit(tmp_path: Path) -> None:
    for name in ("x", "n" * 255, "ä" * 127):
        write_atomically(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"
    assert temporary(tmp_path / "x").name.endswith(f".{os.getpid()}.tmp")


def test_a_full_disk_leaves_nothing(small_disk: Path) -> None:
    write_atomically(small_disk / "held", b"old")
    for name in ("held", "new"):
        with pytest.raises(ClipAuditError, match="Free some space"):
            write_atomically(small_disk / name, bytes(200_000))
    with pytest.raises(ClipAuditError, match="Free some space"), new_folder(small_disk / "folder") as beside:
        (beside / "x").write_bytes(bytes(200_000))
    assert [(path.name, path.read_bytes()) for path in small_disk.iterdir()] == [("held", b"old")]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ClipAuditError, match="cannot be written"), new_folder(tmp_path / "deep" / "a") as beside:
        (beside / "none" / "x").touch()
    with new_folder(tmp_path / "deep" / "a") as beside:
        (beside / "x").touch()
        assert not (tmp_path / "deep" / "a").exists()
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["a", "x"]
