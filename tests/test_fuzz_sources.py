"""Hostile folders and damaged Parquet files as sources: a clean error or all their images, never a hang."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing import LostError, campaign, size
from source_helpers import digit, write_parquet

from clipaudit.errors import ImageError
from clipaudit.samples import open_source
from clipaudit.samples.base import utf8
from clipaudit.samples.folder import FolderSource

NAMES = [
    *("cat", "dog", "Dog", "cat_", "cat ", "train", "test", "val2017", "fold1", "fold2", "images", "run", "0", "1"),
    *(".hidden", "@eaDir", "__MACOSX", "#recycle", "caf\u00e9", "cafe\u0301", "a b", "-x", "=1+1", "x" * 200, "\udcff"),
    *("a\nb", "x.parquet", "CON", "nan", "\u202e"),
]
FILES = [
    *("0.png", "1.png", "2.png", "3.png", "1.JPG", ".x.png", "\udcff.png"),
    *("x.txt", "run.json", "Thumbs.db", "m.csv", "\udcff.parquet"),
]


def grow(root: Path, rng: random.Random) -> Path:
    """A random tree of folders, images, links, pipes and tables."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    folders = [root]
    for _ in range(rng.randint(1, 25)):
        parent = rng.choice(folders)
        place = parent / rng.choice(NAMES if rng.random() < 0.4 else FILES)
        if os.path.lexists(place):
            continue
        kind = rng.random()
        if place.name in NAMES and kind < 0.8:
            place.mkdir()
            folders.append(place)
        elif kind < 0.1:
            place.symlink_to(rng.choice([root, root.parent, place, *folders, Path("/dev/zero"), Path("nowhere")]))
        elif kind < 0.15:
            os.mkfifo(place)
        elif kind < 0.25 and utf8(str(parent)):
            columns = {"image": [digit()]} if rng.random() < 0.5 else {"path": ["1.png"]}
            write_parquet(parent / rng.choice(["train.parquet", "a-0.parquet"]), {**columns, "label": ["cat"]})
        else:
            place.write_bytes(rng.choice([digit(), digit(), b"", b"path,label\n1.png,cat\n"]))
    return root


def real_images(root: Path) -> Iterator[str]:
    """The images that lie in visible class folders, without following links."""
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name[0] != "." and name.lower() not in ("@eadir", "__macosx", "#recycle")]
        if Path(folder).parent == root:
            names[:] = names if not (Path(folder) / "run.json").is_file() else []
            files = files if not (Path(folder) / "run.json").is_file() else []
        if Path(folder) != root:
            yield from (
                Path(folder, name).relative_to(root).as_posix()
                for name in files
                if name.lower().endswith((".png", ".jpg")) and name[0] != "."
            )


def test_random_folders(tmp_path: Path) -> None:
    def read(seed: int) -> int:
        root = grow(tmp_path / "tree" / "root", random.Random(seed))
        source = open_source(root)
        found = list(source.samples())
        ids = [sample.id for sample in found]
        if len(set(ids)) < len(ids):
            raise LostError("an id comes twice")
        for text in (*ids, *source.notes(), *source.decided().values()):
            text.encode()
        for sample in found:
            try:
                source.read(sample.id)
            except ImageError as error:
                str(error).encode()
        if isinstance(source, FolderSource):
            expected = {os.fsencode(name).decode("utf-8", "backslashreplace") for name in real_images(root)}
            if missing := expected - set(ids):
                raise LostError(f"{sorted(missing)} are not among the samples")
        return len(ids)

    campaign("random folders as sources", range(size(300)), read)


def test_damaged_parquet_files(tmp_path: Path) -> None:
    image = pa.array([{"bytes": digit(number % 9), "path": f"{number}.png"} for number in range(60)])
    columns = {"md5": [bytes(16)] * 60, "image": image, "label": [number % 2 for number in range(60)]}
    path = write_parquet(tmp_path / "whole.parquet", columns, ["cat", "dog"])
    pq.write_table(pq.read_table(path), path, row_group_size=20)
    whole = path.read_bytes()

    def read(seed: int) -> None:
        rng = random.Random(seed)
        content = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3, 30])):
            # Half of the damage goes to the metadata at the end, where all decisions are made.
            place = rng.randrange(len(content)) if rng.random() < 0.5 else len(content) - 1 - rng.randrange(2500)
            content[place] = rng.randrange(256)
        if rng.random() < 0.1:
            del content[rng.randrange(len(content)) :]
        (tmp_path / "x.parquet").write_bytes(content)
        source = open_source(tmp_path / "x.parquet")
        for sample in source.samples():
            sample.label.encode()
            try:
                source.read(sample.id)
            except ImageError as error:
                if len(str(error)) > 600:
                    raise LostError("a reason of endless length") from None

    campaign("damaged Parquet files as sources", range(size(300)), read)
