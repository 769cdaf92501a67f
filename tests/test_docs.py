"""Every command and every Python block of the README and the docs runs as printed, in an order, from top to bottom.

`docs/commands.md` is what `--help` prints and has a test of its own. The blocks of `docs/extending.md` are files of the
package; `tests/test_extending.py` adds them to a copy and runs the commands there. `tests/test_pipelines.py` runs
`docs/pipelines.md`, where the libraries are installed, and `tests/test_remote.py` runs `docs/remote.md`. `.ci/run` runs
the README's two commands that make virtual environments. Two things differ from what a reader sees, because no model
hub is reachable here and the tests are to be quick: the model is the one that comes with clipaudit, and training is
short.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from conftest import DIGITS, write_class_folders
from tool_files import coco, cvat, fiftyone, label_studio
from typer.core import TyperCommand

import clipaudit
from clipaudit.cli.app import app
from clipaudit.demo import MODEL
from clipaudit.prompts.sets import shipped_prompt_sets

REPOSITORY = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in (REPOSITORY / "docs").glob("*.md"))]
PAGES.remove("docs/commands.md")
PAGES.remove("docs/extending.md")
PAGES.remove("docs/pipelines.md")
PAGES.remove("docs/remote.md")

RAW = "the raw data set is not here; tests/test_importers.py imports tiny ones of the same shape"
SHARED = "it takes the real images of ../shared/data, which do not belong to the repository"
GPU = "it takes a CUDA device; tests/test_devices.py runs there"
CLUSTER = "it takes a cluster; tests/test_ray.py has one, and tests/test_embed.py runs shards"
HUB = "it takes a model of the hub, which is not within reach; tests/test_hub.py has one of its cache"
FAILS = "it ends with exit code 1 where so many labels are wrong; tests/test_machine_readable.py runs it"
# Commands that are parsed but cannot run here, by their beginning, and why.
SKIPPED = {
    "clipaudit audit photos/ --model siglip2-base": HUB,
    "clipaudit audit photos/ --fail-over": FAILS,
    "clipaudit import ": RAW,
    "clipaudit embed cifar10.parquet": RAW,
    "clipaudit corrupt cifar10.parquet": RAW,
    "clipaudit select cifar10 ": RAW,
    "clipaudit evaluate clean.parquet --truth noisy.parquet:label_true": RAW,
    "clipaudit embed animal10n.parquet": RAW,
    "clipaudit select animal10n": RAW,
    "clipaudit embed webvision.parquet": RAW,
    "clipaudit select webvision": RAW,
    "clipaudit embed red.parquet": RAW,
    "clipaudit select red ": RAW,
    "clipaudit train --index clean.parquet --recipe red-mini-imagenet": RAW,
    "clipaudit embed clothing1m.parquet": RAW,
    "clipaudit select clothing1m": RAW,
    "clipaudit embed ../shared/data/": SHARED,
    "clipaudit select cifar10-train": SHARED,
    "clipaudit embed cifar.parquet": GPU,
    "clipaudit embed photos/ --device cuda": GPU,
    "clipaudit embed photos/ --engine ray": CLUSTER,
    "clipaudit embed /shared/photos": CLUSTER,
    "clipaudit select --prompts cifar10 --device cuda": GPU,
    "clipaudit select --device cuda --data-parallel": GPU,
    "clipaudit train --index clean.parquet --device cuda": GPU,
}
# What is added so that a command runs here: the model instead of the hub's, and a short training of a small network.
ADDED = {"audit": ["--model", str(MODEL)], "embed": ["--model", str(MODEL)], "train": ["--epochs", "1", "--width", "4"]}
_COMMAND = re.compile(r"(?:    )?((?:\.venv/bin/)?clipaudit|python -m clipaudit) (?P<words>[^#]*)")


def commands_of(page: str) -> list[str]:
    """The commands of a page's code blocks, without comments, in their order; `$EDITOR FILE` is one, too."""
    found, fenced = [], False
    for line in (REPOSITORY / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = line == "```sh"
        command = _COMMAND.match(line) if fenced or line.startswith("    ") else None
        # Brackets are a synopsis, not a command.
        if command and "[" not in line:
            found.append(f"clipaudit {command['words'].strip()}")
        elif line.strip().startswith("$EDITOR"):
            found.append(line.split("#")[0].strip())
    return found


def python_of(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(
        r"^```python\n(.*?)^```$", (REPOSITORY / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


ALL_COMMANDS = [(page, command) for page in PAGES for command in commands_of(page)]


def is_skipped(command: str) -> bool:
    return any(command.startswith(beginning) for beginning in SKIPPED)


def write_vectors(folder: Path, photos: Path) -> None:
    """Vectors that somebody has already, with the folder of their model."""
    held = clipaudit.EmbeddingsCache.open(clipaudit.embed(photos, cache=folder / "made", encoder=DIGITS).cache).read()
    shutil.rmtree(folder / "made")
    (folder / "vectors").mkdir()
    table = {"path": held.table["id"], "label": held.table["label"], "embedding": list(held.vectors)}
    pq.write_table(pa.table(table), folder / "vectors" / "part-0.parquet")
    np.save(folder / "dinov2.npy", held.vectors)
    pq.write_table(
        pa.table({"path": [f"photos/{name.as_py()}" for name in held.table["id"]]}), folder / "dinov2.parquet"
    )
    (folder / "my-clip").symlink_to(MODEL)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the docs take for granted: images, a test set, true labels, an audit, and marks of a review."""
    folder = tmp_path_factory.mktemp("docs")
    truth = write_class_folders(folder / "photos", 150, rate=0.2)
    write_class_folders(folder / "test", 30, seed=1)
    (folder / "t.csv").write_text("path,label\n" + "".join(f"photos/{name},{label}\n" for name, label in truth.items()))
    write_vectors(folder, folder / "photos")
    # Of most images, but not of all: there is something left to review.
    marks = [
        f"{name},right," if name.split("/")[0] == label else f"{name},relabel,{label}" for name, label in truth.items()
    ]
    for name in ("marks.csv", "MARKS.csv", "anna.csv", "ben.csv"):
        (folder / name).write_text("\n".join(["id,mark,label", *marks[:120]]) + "\n")
    cache = clipaudit.embed(folder / "photos", cache=folder / ".clipaudit" / "photos", encoder=DIGITS).cache
    clipaudit.select(cache, device="cpu").write(folder / "clean.parquet")
    found = {f"photos/{name}": label for name, label in truth.items()}
    for write, file in ((label_studio, "tasks.json"), (cvat, "annotations.xml"), (coco, "instances.json")):
        write(folder / file, found)
    fiftyone(folder / "labels.json", found)
    coco(folder / "boxes.json", boxes={name: [(label, 2, 2, 20, 24)] for name, label in found.items()})
    return folder


@pytest.fixture
def sandbox(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(prepared, tmp_path / "docs", symlinks=True)
    monkeypatch.chdir(tmp_path / "docs")
    return tmp_path / "docs"


def run(command: str) -> None:
    """One command, in this process: a process for each would take minutes."""
    program, *words = shlex.split(command)
    if program == "$EDITOR":  # Somebody writes what the classes look like.
        shutil.copy(shipped_prompt_sets()["digits"], words[0])
        return
    added = [] if {"--model", "--no-zero-shot"} & set(words) else ADDED.get(words[0], [])
    try:
        typer.main.get_command(app).main([*words, *added], "clipaudit", standalone_mode=False)
    except Exception as error:
        raise AssertionError(f"{command}: {error}") from error


def readers_python(code: str) -> str:
    """The code with the model that is here."""
    return re.sub(r"clipaudit\.(embed|audit)\((\w+|\"\w+\")([,)])", r"clipaudit.\1(\2, encoder=DIGITS\3", code)


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_python_blocks_run(page: str, sandbox: Path) -> None:
    if page == "README.md":  # It makes the cache itself.
        shutil.rmtree(".clipaudit")
    for command in commands_of(page):
        if not is_skipped(command):
            run(command)
    for code in python_of(page):
        exec(compile(readers_python(code), page, "exec"), {"DIGITS": DIGITS})


@pytest.mark.parametrize(("page", "command"), ALL_COMMANDS)
def test_every_command_has_the_options_that_it_names(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TyperCommand, "invoke", lambda *_: None)
    if not command.startswith("$EDITOR"):
        typer.main.get_command(app).main(shlex.split(command)[1:], "clipaudit", standalone_mode=False)


def test_the_docs_hold_commands_and_nothing_is_skipped_that_is_gone() -> None:
    commands = [command for _, command in ALL_COMMANDS]
    assert sum(not is_skipped(command) for command in commands) >= 15
    assert sum(len(python_of(page)) for page in PAGES) >= 2
    for beginning in SKIPPED:
        assert any(command.startswith(beginning) for command in commands), beginning
