"""Images that show none of the classes: how likely each is one, and what follows for advice, report and training."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from conftest import DIGITS, write_class_folders
from PIL import Image
from report_helpers import Page, Row, index_of
from sklearn.metrics import roc_auc_score
from torch.nn.functional import normalize

import clipaudit
from clipaudit import ClipAuditError
from clipaudit.calls.apply import apply_marks
from clipaudit.calls.doubts import find_doubts
from clipaudit.estimates import InMemory
from clipaudit.estimates.off_topic import MIN_SAMPLES, off_topic
from clipaudit.index.check import LOOKS_LIKE, OFF_TOPIC_SCORE
from clipaudit.prompts.nouns import everyday_nouns
from clipaudit.training.config import TrainConfig
from clipaudit.training.data import training_set
from clipaudit.vocabulary import OFF_TOPIC

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
N_STRANGERS = 80


def made_up(n: int, rate: float, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """(n, 32) images, which of them are strangers, (5, 32) prompts, (40, 32) nouns, which labels are confirmed."""
    generator = torch.Generator().manual_seed(seed)
    prompts = normalize(torch.randn(5, 32, generator=generator))
    nouns = normalize(torch.randn(32, generator=generator) + torch.randn(40, 32, generator=generator))
    stranger = torch.rand(n, generator=generator) < rate
    shown = torch.where(
        stranger[:, None], nouns[torch.randint(40, (n,), generator=generator)], prompts[torch.arange(n) % 5]
    )
    vectors = normalize(shown + 0.12 * torch.randn(n, 32, generator=generator))
    confirmed = ~stranger & (torch.rand(n, generator=generator) < 0.7)
    return vectors, stranger, prompts, nouns, confirmed | (torch.rand(n, generator=generator) < 0.1)


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_strangers_are_told_and_their_number_is_about_right(rate: float) -> None:
    vectors, stranger, prompts, nouns, confirmed = made_up(3000, rate)
    found = off_topic(InMemory(vectors), prompts, range(5), nouns, 0.1, confirmed.numpy())
    assert found is not None
    assert roc_auc_score(stranger, found.score) > 0.98
    called = found.score > OFF_TOPIC
    assert called.mean() == pytest.approx(float(stranger.float().mean()), abs=0.05)
    assert stranger.numpy()[called].mean() > 0.8


@pytest.mark.parametrize("n_strangers", [2, 10])
def test_a_few_strangers_among_many_images_come_first(n_strangers: int) -> None:
    vectors, stranger, prompts, nouns, confirmed = made_up(3000, 0.3)
    few = torch.cat([(~stranger).nonzero().squeeze(1), stranger.nonzero().squeeze(1)[:n_strangers]])
    found = off_topic(InMemory(vectors[few]), prompts, range(5), nouns, 0.1, confirmed[few].numpy())
    assert found is not None
    first = np.argsort(-found.score)[: 2 * n_strangers]
    assert stranger[few].numpy()[first].sum() >= 0.8 * n_strangers


def test_where_there_are_none_none_is_called_one() -> None:
    vectors, _, prompts, nouns, confirmed = made_up(3000, 0.0)
    found = off_topic(InMemory(vectors), prompts, range(5), nouns, 0.1, confirmed.numpy())
    assert found is not None
    assert not (found.score > OFF_TOPIC).any()


def test_neither_order_nor_copies_matter() -> None:
    vectors, _, prompts, nouns, confirmed = made_up(400, 0.2)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    here = off_topic(InMemory(vectors), prompts, range(5), nouns, 0.1, confirmed.numpy())
    there = off_topic(InMemory(vectors[order]), prompts, range(5), nouns, 0.1, confirmed[order].numpy())
    assert here is not None
    assert there is not None
    np.testing.assert_allclose(there.score, here.score[order], atol=1e-3)
    assert np.array_equal(there.noun, here.noun[order])


def test_a_handful_of_images_is_no_ground_to_tell() -> None:
    vectors, _, prompts, nouns, confirmed = made_up(MIN_SAMPLES - 1, 0.2)
    assert off_topic(InMemory(vectors), prompts, range(5), nouns, 0.1, confirmed.numpy()) is None
    vectors, _, prompts, nouns, confirmed = made_up(200, 0.2)
    assert off_topic(InMemory(vectors), prompts, range(5), nouns[:0], 0.1, confirmed.numpy()) is None
    assert off_topic(InMemory(vectors), prompts, range(5), nouns, 0.1, np.zeros(200, bool)) is None


def test_the_nouns_are_many_in_order_and_each_once() -> None:
    nouns = everyday_nouns([])
    assert len(nouns) > 1000
    assert nouns == sorted(set(nouns))


def test_nouns_that_mean_or_contain_a_class_are_left_out() -> None:
    left_out = set(everyday_nouns([])) - set(everyday_nouns(["Dogs", "bus", "hot_air-balloon"]))
    assert {"dog", "hot dog", "dog collar", "bus", "school bus", "bus stop", "hot air balloon"} <= left_out
    assert not {"hot chocolate", "balloon", "cat"} & left_out


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits in class folders, and among them pictures that show no digit; embedded."""
    root = tmp_path_factory.mktemp("mixed") / "images"
    write_class_folders(root, 500)
    generator = np.random.default_rng(0)
    classes = sorted(folder for folder in root.iterdir())
    for number in range(N_STRANGERS):
        coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((32, 32), Image.Resampling.NEAREST)
        picture.save(classes[number % 10] / f"stranger{number:03}.png")
    return clipaudit.embed(root, cache=root.parent / "cache", encoder=DIGITS).cache


@pytest.fixture(scope="module")
def index(mixed: Path) -> clipaudit.CleanIndex:
    return clipaudit.select(mixed, device="cpu")


def test_pictures_that_show_no_digit_get_no_suggestion_but_a_noun(index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    stranger = np.array(["stranger" in name for name in index.table["id"].to_pylist()])
    assert roc_auc_score(stranger, index.table[OFF_TOPIC_SCORE].to_numpy()) > 0.9
    assert (index.off_topic & stranger).sum() > 0.2 * N_STRANGERS
    assert (index.off_topic & ~stranger).sum() < 0.05 * (~stranger).sum()
    called = index.table.filter(index.off_topic)
    assert called["suggested_label"].null_count == called["suggested_probability"].null_count == len(called)
    assert set(called[LOOKS_LIKE].to_pylist()) <= set(everyday_nouns(index.class_names))
    others = index.table.filter(~index.off_topic)
    assert others["suggested_label"].null_count == 0
    assert others[LOOKS_LIKE].null_count == len(others)
    index.write(tmp_path / "clean.parquet")
    assert clipaudit.read_index(tmp_path / "clean.parquet").table.equals(index.table)
    again = clipaudit.reselect(index, index.config.with_changes(theta_consistency=0.8))
    assert again.table[OFF_TOPIC_SCORE].equals(index.table[OFF_TOPIC_SCORE])


def test_terminal_and_report_say_so(index: clipaudit.CleanIndex, run_cli: Cli, tmp_path: Path) -> None:
    index.write(tmp_path / "clean.parquet")
    shown = run_cli("show", "clean.parquet", "--top", 500)
    n = int(index.off_topic.sum())
    assert f"off topic      {n} seem to show none of the classes" in shown.stdout, shown.stderr
    assert "none of the classes 0." in shown.stdout
    assert "shows none of the classes; looks like: " in shown.stdout
    clipaudit.write_report(index, tmp_path / "report.html", top=1)
    page = Page.of(tmp_path / "report.html")
    assert f"none of the classes {n}" in page.text
    strangers = [sample for sample in page.data["samples"] if sample["stranger"]]
    assert strangers
    assert all(sample["suggested"] == -1 for sample in strangers)
    assert "looks like: " in strangers[0]["why"]


def test_what_shows_none_is_kept_from_training_unless_asked_for(index: clipaudit.CleanIndex) -> None:
    held_out = {"images": None, "truth": None, "has_test": True}
    strict = training_set(index, TrainConfig(), **held_out)
    free = training_set(index, TrainConfig(off_topic=True), **held_out)
    assert np.array_equal(free.usable & ~strict.usable, index.off_topic & ~index.is_clean)
    assert np.array_equal(free.clean, strict.clean)


def test_a_background_class_is_where_they_belong(mixed: Path, run_cli: Cli, tmp_path: Path) -> None:
    wanted = clipaudit.select(mixed, background="Zero", device="cpu")
    named = wanted.table.filter(wanted.off_topic)["suggested_label"]
    assert set(named.to_pylist()) == {"zero"}
    assert wanted.metadata.background == "zero"
    refused = run_cli("select", mixed, "--background", "nothing", "--out", tmp_path / "clean.parquet")
    assert refused.returncode == 2
    assert "there is no class 'nothing' for the images of no class" in refused.stderr


@pytest.mark.usefixtures("index")  # The audit that has embedded the prompts.
def test_a_noun_list_that_cannot_be_embedded_is_said_aloud(mixed: Path, tmp_path: Path) -> None:
    shutil.copytree(mixed, tmp_path / "cache")
    texts = sorted((tmp_path / "cache" / "text").iterdir(), key=lambda file: file.stat().st_size)
    texts[-1].unlink()
    found = clipaudit.select(tmp_path / "cache", model=str(tmp_path / "gone"), device="cpu")
    assert OFF_TOPIC_SCORE not in found.table.column_names
    assert any("no noun was embedded" in warning for warning in found.metadata.warnings)


ROWS = [
    Row("a", "cat", ("cat", 0.9, 0.9), ("cat", 0.9, 0.9)),
    Row("b", "cat", ("lynx", 0.8, 0.1), ("lynx", 0.8, 0.1), off_topic=0.9),
    Row("c", "lynx", ("lynx", 0.9, 0.9), ("lynx", 0.9, 0.9), off_topic=0.1),
    Row("d", "lynx", ("cat", 0.9, 0.1), ("cat", 0.9, 0.1)),
]


def test_no_class_is_a_place_in_no_table(tmp_path: Path) -> None:
    index = index_of(ROWS, tmp_path)
    doubts = find_doubts(index, top=5)
    assert doubts.confusions == [("lynx", "cat", 1)]
    assert {doubt.id: doubt.suggested for doubt in doubts.samples} == {"b": None, "d": "cat"}
    (tmp_path / "truth.csv").write_text("id,label\na,cat\nb,dog\nc,lynx\nd,cat\n")
    clipaudit.write_report(index, tmp_path / "report.html", truth=f"{tmp_path / 'truth.csv'}:label")
    data = Page.of(tmp_path / "report.html").data
    assert data["cells"] == [[1, 0, 1]]
    evaluation = clipaudit.evaluate(index, f"{tmp_path / 'truth.csv'}:label")
    assert evaluation.suggestion_accuracy == 0.5


def test_the_suggestion_cannot_be_taken_where_there_is_none(tmp_path: Path) -> None:
    index = index_of(ROWS, tmp_path)
    (tmp_path / "marks.csv").write_text("id,mark,label\nb,suggested,\n")
    with pytest.raises(ClipAuditError, match="b has no suggested label, because its image shows none of the"):
        apply_marks(index, [tmp_path / "marks.csv"])
    (tmp_path / "marks.csv").write_text("id,mark,label\nb,drop,\n")
    applied, *_ = apply_marks(index, [tmp_path / "marks.csv"])
    assert pc.equal(applied.table["reviewed"], "drop").to_pylist()[1]
