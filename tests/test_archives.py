"""Archives and shards that are damaged, hostile or packed in an unusual way."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from source_helpers import digit, ids, labels

from clipaudit.demo import MODEL
from clipaudit.errors import ImageError, SourceError, UsageError
from clipaudit.samples import FaultySample, SourceOptions, open_source
from clipaudit.samples.place import expanded

Members = dict[str, bytes]


def zip_of(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tar_of(path: Path, members: Members, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


PACKERS = {"photos.zip": zip_of, "photos.tar": tar_of, "photos.tgz": lambda path, held: tar_of(path, held, "w:gz")}
PHOTOS = {"cat/1.png": digit(1), "cat/more/2.png": digit(2), "dog/3.png": digit(3)}


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("around", ["", "photos/", "a/b/"])
def test_class_folders_in_an_archive(name: str, around: str, tmp_path: Path) -> None:
    junk = {"__MACOSX/cat/._1.png": b"x", ".DS_Store": b"x", "cat/notes.txt": b"x"}
    held = {f"{around}{path}": data for path, data in (PHOTOS | junk).items()}
    source = open_source(PACKERS[name](tmp_path / name, held))
    assert labels(source) == ["cat", "cat", "dog"]
    assert [source.read(sample_id) for sample_id in ids(source)] == list(PHOTOS.values())
    assert "1 file(s) with the ending '.txt' passed over" in source.notes()
    assert source.location == source.root == tmp_path / name


def test_members_may_be_read_in_any_order_from_a_compressed_tar(tmp_path: Path) -> None:
    held = {f"{'ab'[number % 2]}/{number}.png": bytes([number]) * 3_000_000 for number in range(60)}
    source = open_source(tar_of(tmp_path / "t.tar.xz", held, "w:xz"))
    for name in [*held, *reversed(held), "a/30.png"]:
        assert source.read(name) == held[name]


@pytest.mark.parametrize("name", ["../evil/1.png", "/etc/1.png", "cat/../../1.png", "C:\\cat\\1.png", "..\\cat\\1.png"])
@pytest.mark.parametrize("packer", PACKERS)
def test_a_member_that_leads_out_of_the_archive_is_refused(packer: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="leads out of it"):
        open_source(PACKERS[packer](tmp_path / packer, {**PHOTOS, name: digit()}))


def test_splits_in_an_archive_are_no_classes(tmp_path: Path) -> None:
    held = {f"{split}/{path}": data for split in ("train", "val") for path, data in PHOTOS.items()}
    with pytest.raises(SourceError, match=r"named like splits \(train, val\)"):
        open_source(zip_of(tmp_path / "photos.zip", held))


def test_a_bomb_a_locked_member_and_a_link_stay_with_their_reasons(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "photos.zip", {**PHOTOS, "dog/bomb.png": bytes(200_000_000), "dog/locked.png": digit()})
    data = bytearray(path.read_bytes())
    for sign, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        places = [match.start() for match in re.finditer(re.escape(sign), data)]
        data[places[-1] + flags] |= 1
    path.write_bytes(data)
    source = open_source(path)
    faults = {sample.id: sample.reason for sample in source.samples() if isinstance(sample, FaultySample)}
    assert "500 times" in faults["dog/bomb.png"]
    assert "encrypted" in faults["dog/locked.png"]
    with pytest.raises(ImageError, match="500 times"):
        source.read("dog/bomb.png")
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for name in ("cat/1.png", "dog/2.png"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    found = list(open_source(tmp_path / "photos.tar").samples())
    assert all(isinstance(sample, FaultySample) and "link" in sample.reason for sample in found)


def test_an_archive_that_holds_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "t.tar", PHOTOS)
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("cat/1.png")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(SourceError, match=r"holds cat/1\.png twice"):
        list(open_source(path).samples())


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"junk" * 999, lambda data: data[:40]])
def test_what_is_no_archive_is_refused(name: str, damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = PACKERS[name](tmp_path / name, PHOTOS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError, match=re.escape(name)):
        list(open_source(path).samples())


def shard(path: Path, keys: range, ending: str = "cls") -> Path:
    held: Members = {}
    for key in keys:
        held |= {f"{key:04}.png": digit(key % 20), f"{key:04}.{ending}": b"cat" if key % 2 else b"dog"}
    return tar_of(path, held)


def test_a_shard_that_was_cut_loses_its_members_and_no_other_shard_does(
    run_cli: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    first = shard(tmp_path / "0.tar", range(100))
    shard(tmp_path / "1.tar", range(100, 200))
    data = first.read_bytes()
    first.write_bytes(data[: len(data) // 2 + 700])
    source = open_source(tmp_path)
    found = ids(source)
    assert found[-100:] == [f"1.tar#{key:04}" for key in range(100, 200)]
    assert 40 < len(found) - 100 < 60
    assert any(note.startswith("0.tar is damaged") and "lost" in note for note in source.notes())
    done = run_cli("embed", tmp_path / "*.tar", "--model", MODEL)
    assert done.returncode == 0, done.stderr
    assert "0.tar is damaged" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"1.png": digit(), "2.png": digit(), "2.cls": b"cat"}, "there is no label"),
        ({"1.png": digit(), "1.json": b"{"}, "JSON is damaged"),
        ({"1.png": digit(), "1.json": b'{"width": 3}'}, "no field"),
        ({"1.png": digit(), "1.cls": b"\xff\xfe\xfd"}, "no text"),
        ({"1.png": digit(), "1.cls": b"  "}, "the label is missing"),
        ({"1.png": digit(), "1.cls": b"nan"}, "the label is missing"),
    ],
)
def test_a_sample_without_a_label_is_named(held: Members, said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=rf"(?s)1\.tar.*{said}|{said}"):
        list(open_source(tar_of(tmp_path / "1.tar", held)).samples())


def test_a_key_without_an_image_stays_with_its_reason(tmp_path: Path) -> None:
    held = {"a/b.1.png": digit(), "a/b.cls": b"cat", "c.cls": b"dog", "d#.png": digit(), "d#.cls": b"dog"}
    source = open_source(tar_of(tmp_path / "x.tar", held), SourceOptions(label_column="cls"))
    samples = list(source.samples())
    assert [sample.id for sample in samples] == ["x.tar#a/b", "x.tar#c", "x.tar#d#"]
    assert isinstance(samples[1], FaultySample)
    assert "no image of this key" in samples[1].reason
    assert source.read("x.tar#d#") == digit()


def test_the_label_may_be_any_member_or_field(tmp_path: Path) -> None:
    held = {"1.png": digit(), "1.cls": b"0", "1.json": b'{"kind": "cat"}', "1.caption": b"dog"}
    tar_of(tmp_path / "1.tar", held)
    for column, label in (("json:kind", "cat"), ("caption", "dog"), (None, "0")):
        assert labels(open_source(tmp_path / "1.tar", SourceOptions(label_column=column))) == [label]


def test_braces_name_every_file(tmp_path: Path) -> None:
    assert expanded("{a,b}/{08..10}.tar") == [f"{x}/{n}.tar" for x in "ab" for n in ("08", "09", "10")]
    for part in "ab":
        (tmp_path / part).mkdir()
        shard(tmp_path / part / "0.tar", range(3))
    assert ids(open_source(f"{tmp_path}/{{a,b}}/0.tar"))[::3] == ["a/0.tar#0000", "b/0.tar#0000"]
    shard(tmp_path / "a" / "1.tar", range(3))
    with pytest.raises(SourceError, match=r"b/1\.tar does not exist"):
        open_source(f"{tmp_path}/{{a,b}}/{{0..1}}.tar")
    with pytest.raises(UsageError, match="more than"):
        expanded("{0..999}{0..999}{0..999}.tar")
