"""docs/extending.md is true: its additions, made in a copy of the package, work from the command line.

The copy is a package like the real one, with all blocks of the page in it; the page's commands run as printed, but for
the model that comes with clipaudit and a short training.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from math import log
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import any_image, write_class_folders
from test_docs import commands_of

from clipaudit.demo import MODEL
from clipaudit.errors import SourceError
from clipaudit.estimates import InMemory
from clipaudit.samples import SourceOptions
from clipaudit.samples.place import Place

REPOSITORY = Path(__file__).parents[1]
PAGE = "docs/extending.md"
# The file, what the block is, its text.
BLOCKS = re.findall(
    r"^`(clipaudit/\S+)`:\n\n```(python|diff)\n(.*?)^```$",
    (REPOSITORY / PAGE).read_text(encoding="utf-8"),
    re.DOTALL | re.MULTILINE,
)
ADDED = {
    "embed": ["--model", MODEL, "--device", "cpu"],
    "select": ["--device", "cpu"],
    "train": [
        "--device",
        "cpu",
        "--policy",
        "none",
        "--epochs",
        "6",
        "--width",
        "8",
        "--image-size",
        "16",
        "--batch-size",
        "32",
    ],
}


def changed(text: str, diff: str) -> str:
    """A text with the changes of a diff without line numbers; what it shows of the text must be there once."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] != "+")
        assert text.count(before) == 1, f"{PAGE} changes lines that are not there, or more than once:\n{before}"
        text = text.replace(before, "".join(line[1:] for line in lines if line[0] != "-"))
    return text


@dataclass
class Extended:
    """A folder with the copy and images of the new kind, and what the page's commands printed in it."""

    folder: Path
    printed: dict[str, str]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command with the copy of the package."""
        words = shlex.split(command)[1:]
        return subprocess.run(
            [sys.executable, "-m", "clipaudit", *words, *map(str, ADDED.get(words[0], []))],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder / "copy"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def module(self, name: str) -> ModuleType:
        """A new file of the copy as a module here, where the file needs no other addition."""
        spec = importlib.util.spec_from_file_location(Path(name).stem, self.folder / "copy" / name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def write_copy(root: Path) -> None:
    """The package with the page's additions."""
    shutil.copytree(REPOSITORY / "clipaudit", root / "clipaudit")
    shutil.copytree(REPOSITORY / "prompts", root / "prompts")
    for name, form, text in BLOCKS:
        file = root / name
        assert file.exists() == (form == "diff"), f"{PAGE}: {name}"
        file.write_text(changed(file.read_text(encoding="utf-8"), text) if form == "diff" else text, encoding="utf-8")


def write_images(folder: Path) -> None:
    """Digits beside JSON files, a fifth of them with a wrong label, and t.csv with the true ones."""
    photos = folder / "photos"
    photos.mkdir()
    rows = ["path,label"]
    for path, true in write_class_folders(folder / "classes", 400, rate=0.2).items():
        given, name = path.split("/")
        (folder / "classes" / path).rename(photos / name)
        (photos / name).with_suffix(".json").write_text(json.dumps({"label": given}))
        rows.append(f"photos/{name},{true}")
    (folder / "t.csv").write_text("\n".join(rows))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Extended:
    """All commands of the page, in the order in which they need each other."""
    done = Extended(tmp_path_factory.mktemp("extended"), {})
    write_copy(done.folder / "copy")
    write_images(done.folder)
    for command in sorted(commands_of(PAGE), key=lambda command: not command.startswith("clipaudit embed")):
        result = done.run(command)
        assert result.returncode == 0, f"{command}\n{result.stderr}"
        done.printed[command.split()[1]] = result.stdout
    return done


def test_the_page_shows_three_files_and_their_rows() -> None:
    assert sorted(Path(name).parent.name for name, form, _ in BLOCKS if form == "python") == [
        "estimates",
        "methods",
        "samples",
    ]
    assert len(re.findall(r"^```(?:python|diff)$", (REPOSITORY / PAGE).read_text(), re.MULTILINE)) == len(BLOCKS)


def test_the_blocks_are_written_as_the_house_is(extended: Extended) -> None:
    shutil.copy(REPOSITORY / "pyproject.toml", extended.folder / "copy")
    for check in (["check"], ["format", "--check"]):
        files = [name for name, *_ in BLOCKS]
        command = [sys.executable, "-m", "ruff", *check, "--no-cache", *files]
        result = subprocess.run(command, cwd=extended.folder / "copy", capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


def test_the_new_kind_of_source_is_read(extended: Extended) -> None:
    photos = extended.folder / "photos"
    assert "400 images" in extended.printed["embed"]
    assert f"images with JSON files in {photos}" in extended.printed["embed"]
    table = pq.read_table(extended.folder / "clean.parquet")
    assert table["label"].to_pylist() == [
        json.loads((photos / name).with_suffix(".json").read_text())["label"] for name in table["id"].to_pylist()
    ]


def test_the_new_kind_of_source_says_what_is_wrong(extended: Extended, tmp_path: Path) -> None:
    kind = extended.module("clipaudit/samples/sidecars.py").SIDECARS
    any_image().save(tmp_path / "a.png")
    place = Place(tmp_path, SourceOptions(), "folder")
    assert kind.found(place) is None
    for content, fault in {
        None: r"a\.json does not exist\. Write one",
        "lynx": r'a\.json is not JSON\. Write {"label": "CLASS"} into it',
        '{"class": "lynx"}': r"a\.json: the label is missing",
    }.items():
        if content:
            (tmp_path / "a.json").write_text(content)
        with pytest.raises(SourceError, match=fault):
            list(kind.open(place).samples())
    named = Place(tmp_path, SourceOptions(label_column="class"), "folder")
    assert kind.found(named)
    assert [(sample.id, sample.label) for sample in kind.open(named).samples()] == [("a.png", "lynx")]


def test_the_new_estimate_votes_and_is_good(extended: Extended) -> None:
    table = pq.read_table(extended.folder / "clean.parquet")
    assert {"class_mean_loss", "class_mean_consistency_clean", "class_mean_loss_clean"} <= set(table.column_names)
    assert "class mean agrees" in extended.printed["show"]
    assert "class mean" in (extended.folder / "report.html").read_text(encoding="utf-8")
    scores = {line.split()[0]: line.split()[1:] for line in extended.printed["evaluate"].splitlines() if line.strip()}
    for verdict in ("class_mean_consistency", "class_mean_loss", "combined"):
        assert float(scores[verdict][0]) > 0.95, verdict


def test_the_new_estimate_is_the_mean_of_the_others_of_a_class(extended: Extended) -> None:
    module = extended.module("clipaudit/estimates/class_mean.py")
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(30, 8, generator=generator), dim=1)
    labels = torch.arange(30) % 3
    problem = SimpleNamespace(
        vectors=InMemory(x), labels=labels, n_classes=3, config=SimpleNamespace(mean_temperature=0.1)
    )
    p = module.fit(problem).log_proba(x, torch.arange(30)).exp().numpy()
    for row in range(30):
        others = [x[(labels == k) & (torch.arange(30) != row)].mean(0) for k in range(3)]
        cosines = np.array([float(x[row] @ mean / mean.norm()) for mean in others])
        expected = np.exp(cosines / 0.1)
        np.testing.assert_allclose(p[row], expected / expected.sum(), atol=1e-5)


def test_the_new_method_trains_with_its_own_option(extended: Extended) -> None:
    run = extended.folder / "run"
    assert json.loads((run / "run.json").read_text())["config"]["smoothing"] == 0.3
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert history[-1]["val_accuracy"] > 0.5
    # The entropy of a smoothed label: no prediction has a lower loss.
    wrong = 0.3 / 10
    right = 1 - 9 * wrong
    assert min(epoch["loss"] for epoch in history) > -right * log(right) - 9 * wrong * log(wrong)


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("clipaudit select --mean-temperature 0.1 --out x.parquet", "mean_temperature would have no effect"),
        ("clipaudit embed nowhere", "a folder of images with JSON files"),
    ],
)
def test_what_is_new_is_named_where_it_does_not_fit(extended: Extended, command: str, fault: str) -> None:
    result = extended.run(command)
    assert result.returncode in (1, 2)
    assert fault in " ".join(result.stderr.split())
