"""What `select` decides by itself is said aloud; what has no effect or cannot be right is refused."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import DIGITS

import clipaudit
from clipaudit import AuditConfig, CleanIndex
from clipaudit.auditing.method import decide, score
from clipaudit.auditing.metrics import metrics
from clipaudit.cache.embeddings import EmbeddingsCache
from clipaudit.calls.apply import apply_marks
from clipaudit.config import PRESETS
from clipaudit.demo.digits import CLASS_NAMES
from clipaudit.errors import SourceError, UsageError
from clipaudit.estimates import InMemory
from clipaudit.index.building import deciding_column

Digits = tuple[Path, dict[str, str]]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]
NAMES = list(CLASS_NAMES)


def numbered(index: CleanIndex) -> list[int]:
    """The labels as class indices."""
    return [NAMES.index(label) for label in index.table["label"].to_pylist()]


@pytest.fixture(scope="module")
def numbered_cache(noisy_digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The noisy digits with integer labels and no names (FAULTS 2 and 3)."""
    folder, (root, truth) = tmp_path_factory.mktemp("numbered"), noisy_digits
    with (folder / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "label"), *((root / name, NAMES.index(name.split("/")[0])) for name in truth)]
        )
    return clipaudit.embed(folder / "m.csv", cache=folder / "cache", encoder=DIGITS).cache


def test_numbers_choose_no_prompts_and_are_told_of(numbered_cache: Path) -> None:
    index = clipaudit.select(numbered_cache, device="cpu")
    assert index.metadata.prompts.source == "plain templates"
    assert "numbers" in index.metadata.decided["prompts"]
    assert any("all 10 class names are numbers" in warning for warning in index.metadata.warnings)


def test_names_are_given_to_integer_labels_of_a_cache(
    numbered_cache: Path, noisy_index: CleanIndex, run_cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    result = run_cli("select", numbered_cache, "--names", "names.txt")
    assert result.returncode == 0, result.stderr
    index = clipaudit.read_index(tmp_path / "clean.parquet")
    assert index.class_names == NAMES
    by_id = dict(zip(index.table["path"].to_pylist(), index.table["is_clean"].to_pylist(), strict=True))
    for path, label in zip(noisy_index.table["path"].to_pylist(), noisy_index.is_clean, strict=True):
        assert by_id[path] == label
    # What was decided is printed, kept and shown.
    for line in ("classes        10: zero, one, two, ...", "prompts        digits, ", "temperature    0.07"):
        assert line in result.stdout
    assert index.metadata.decided["cache"] == str(numbered_cache)
    assert "prompts        digits, " in run_cli("show", "clean.parquet").stdout
    with pytest.raises(SourceError, match=r"m\.csv, .*out of range|class index"):
        clipaudit.select(numbered_cache, names=NAMES[:5], device="cpu")


@pytest.mark.parametrize(
    "as_given",
    [
        list,
        np.array,
        torch.tensor,
        lambda labels: [float(label) for label in labels],
        lambda labels: [np.uint8(label) for label in labels],
        lambda labels: [f"{label}" for label in labels],
        lambda labels: [NAMES[label] for label in labels],
    ],
)
def test_names_are_given_to_listed_labels(
    noisy_cache: Path, noisy_index: CleanIndex, as_given: Callable[[list[int]], Any]
) -> None:
    index = clipaudit.select(noisy_cache, labels=as_given(numbered(noisy_index)), names=NAMES, device="cpu")
    assert index.class_names == NAMES
    assert index.table["label"].to_pylist() == noisy_index.table["label"].to_pylist()
    np.testing.assert_array_equal(index.is_clean, noisy_index.is_clean)


@pytest.mark.parametrize("wrong", [None, float("nan"), "", " ", 10, -1, "owl", [1], {"a": 1}, b"\xff", 1.5])
def test_a_wrong_label_of_a_list_is_named(noisy_cache: Path, noisy_index: CleanIndex, wrong: object) -> None:
    labels: list[Any] = numbered(noisy_index)
    labels[7] = wrong
    with pytest.raises(SourceError, match="label 7 of the list"):
        clipaudit.select(noisy_cache, labels=labels, names=NAMES, device="cpu")


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (b"zero", None, "labels must be a path, a list or None"),
        ({"zero", "one"}, None, "labels must be a table"),
        (7, None, "labels must be a path, a list or None"),
        (["zero"], "zero", "names must be a list of texts"),
        (["zero"], ["zero", "zero"], "class 1: the class name 'zero' stands at 0 already"),
        (["zero"], ["zero", 1], "class 1: the class name is no text"),
        (["zero"], [], "there are no class names"),
    ],
)
def test_labels_and_names_of_other_kinds_are_refused(
    noisy_cache: Path, labels: Any, names: Sequence[str], message: str
) -> None:
    with pytest.raises((UsageError, SourceError), match=message):
        clipaudit.select(noisy_cache, labels=labels, names=names, device="cpu")


def test_one_class_is_refused_though_more_are_declared(noisy_cache: Path) -> None:
    with pytest.raises(SourceError, match="all images have the label 'zero'"):
        clipaudit.select(noisy_cache, labels=[0] * 600, names=NAMES, device="cpu")


def test_labels_by_row_order_are_told_of(noisy_cache: Path, noisy_index: CleanIndex, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("label\n" + "".join(f"{label}\n" for label in noisy_index.table["label"].to_pylist()))
    index = clipaudit.select(noisy_cache, labels=table, device="cpu")
    assert "matched by row order" in index.metadata.decided["labels"]
    (warning,) = index.metadata.warnings
    assert "matched by row order" in warning
    evaluation = clipaudit.evaluate(index, table)
    assert evaluation.to_dict()["warnings"] == [warning, warning.replace("the labels", "the true labels")]


def test_labels_in_another_order_are_noticed_everywhere(
    noisy_cache: Path, noisy_index: CleanIndex, run_cli: Cli, tmp_path: Path
) -> None:
    shuffled = np.random.default_rng(0).permutation(noisy_index.table["label"].to_pylist())
    index = clipaudit.select(noisy_cache, labels=shuffled, device="cpu")
    expected = ("by chance) of the given labels", "more than half of the labels are in doubt")
    index.write(tmp_path / "clean.parquet")
    shown = " ".join(run_cli("show", "clean.parquet").stdout.split())
    again = clipaudit.reselect(index, index.config)
    clipaudit.write_report(index, tmp_path / "report.html")
    said = json.dumps(clipaudit.evaluate(index, list(shuffled)).to_dict())
    for words in expected:
        assert any(words in warning for warning in index.metadata.warnings)
        assert words in shown
        assert words in (tmp_path / "report.html").read_text()
        assert words in said
    assert again.metadata == index.metadata
    with pytest.raises(SourceError, match="an audit would be a guess"):
        clipaudit.select(noisy_cache, labels=shuffled, config=AuditConfig(folds=3), device="cpu")


def test_a_good_audit_raises_no_warning(noisy_cache: Path, noisy_index: CleanIndex) -> None:
    assert noisy_index.metadata.warnings == []
    index = clipaudit.select(noisy_cache, config=AuditConfig(**PRESETS["recommended"]), device="cpu")
    assert index.metadata.warnings == []


def test_a_preset_fits_the_index_that_it_made(noisy_cache: Path, run_cli: Cli, tmp_path: Path) -> None:
    config = AuditConfig(**PRESETS["recommended"])
    index = clipaudit.select(noisy_cache, config=config, device="cpu")
    assert clipaudit.reselect(index, config).table.equals(index.table)
    index.write(tmp_path / "clean.parquet")
    again = run_cli("select", "--from", "clean.parquet", "--preset", "recommended", "--out", "again.parquet")
    assert again.returncode == 0, again.stderr
    # An index of an earlier clipaudit does not say what the model's own temperature is.
    old = replace(index, metadata=replace(index.metadata, model_temperature=None))
    with pytest.raises(UsageError, match="does not say which temperature"):
        clipaudit.reselect(old, config)
    with pytest.raises(UsageError, match=r"temperature, induced, c, folds, .* decided about the scores"):
        clipaudit.reselect(clipaudit.select(noisy_cache, device="cpu"), config)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--from", "x", "--prompts", "nonsense.toml", "--device", "abacus"),
            "--prompts, --device would have no effect",
        ),
        (("cache", "--from", "x"), "cache would have no effect"),
        (("--induced", "neighbours", "--c", "1"), "c would have no effect"),
        (("--neighbours", "9"), "neighbours would have no effect"),
        (("--folds", "100000"), "folds must be 0 or a whole number from 2 to 20"),
        (("--selectors", ""), "unknown selector ''"),
        (("--preset", ""), "unknown preset ''"),
        (("--seed", "-1"), "seed must be a whole number from 0"),
        (("--theta-loss", "nan"), "theta_loss must be a number from 0 to 1"),
    ],
)
def test_options_without_effect_or_meaning_are_refused(run_cli: Cli, words: tuple[str, ...], message: str) -> None:
    result = run_cli("select", *words)
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())


def test_more_folds_or_neighbours_than_images_are_refused(noisy_cache: Path) -> None:
    with pytest.raises(UsageError, match=r"neighbours .* 599 .*600 readable images, not 600"):
        clipaudit.select(noisy_cache, config=AuditConfig(induced="neighbours", neighbours=600), device="cpu")


def test_in_doubt_means_the_same_everywhere(noisy_index: CleanIndex, run_cli: Cli, tmp_path: Path) -> None:
    doubtful = noisy_index.table.filter(noisy_index.in_doubt)["id"].to_pylist()
    marks = "".join(f"{sample},drop,\n" for sample in doubtful[:50])
    (tmp_path / "marks.csv").write_text(f"id,mark,label\n{marks}")
    reviewed, _ = apply_marks(noisy_index, tmp_path / "marks.csv")
    reviewed.write(tmp_path / "reviewed.parquet")
    n = len(doubtful) - 50
    again = run_cli("select", "--from", "reviewed.parquet", "--out", "again.parquet").stdout
    shown = run_cli("show", "reviewed.parquet").stdout
    assert f"in doubt       {n}, {n / 600:.1%}" in again
    assert f"in doubt       {n}, {n / 600:.1%}" in shown
    assert clipaudit.write_report(reviewed, tmp_path / "r.html").n_in_doubt == n


def test_evaluation_and_report_judge_the_posterior_that_decided(noisy_cache: Path, noisy_digits: Digits) -> None:
    truth = list(noisy_digits[1].values())
    index = clipaudit.select(noisy_cache, config=AuditConfig(raw_posterior=True), device="cpu")
    decides = {verdict.name: deciding_column(verdict, index.config) for verdict in index.config.voting}
    assert decides["logistic_loss"] == "logistic_raw_posterior"
    assert decides["logistic_consistency"] == "logistic_consistency"
    right = np.array(index.table["label"].to_pylist()) == truth
    expected = metrics(
        right,
        index.table["logistic_loss_clean"].to_numpy(zero_copy_only=False),
        index.table["logistic_raw_posterior"].to_numpy(),
    )
    assert clipaudit.evaluate(index, truth).selectors["logistic_loss"] == expected


@pytest.mark.parametrize("preset", ["paper", "recommended"])
def test_the_order_of_the_rows_does_not_matter(noisy_cache: Path, noisy_index: CleanIndex, preset: str) -> None:
    """Sums in another order differ in their last bits; no verdict does (FAULTS 40)."""
    cache = EmbeddingsCache.open(noisy_cache)
    vectors, labels = torch.from_numpy(cache.read().vectors), torch.from_numpy(noisy_index.labels())
    prompts, owners = noisy_index.metadata.prompts.texts, noisy_index.metadata.prompts.owners
    held = cache.read_texts(prompts)
    assert held is not None
    texts = torch.from_numpy(held)
    config = AuditConfig(**{**PRESETS[preset], "temperature": 0.09})
    keys = torch.randperm(600, generator=torch.Generator().manual_seed(1))

    def audited(rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        scores = score(InMemory(vectors[rows]), labels[rows], 10, texts, owners, config, keys=keys[rows])
        decision = decide(scores.estimates, labels[rows].numpy(), 10, config)
        return decision.is_clean, scores.estimates[config.estimates[-1].name]["p_label"]

    is_clean, p_label = audited(torch.arange(600))
    for order in (torch.arange(600).flip(0), torch.randperm(600, generator=torch.Generator().manual_seed(2))):
        again, p_again = audited(order)
        np.testing.assert_array_equal(again, is_clean[order])
        np.testing.assert_allclose(p_again, p_label[order], atol=1e-4)


def test_folds_follow_ids(noisy_digits: Digits, noisy_cache: Path, tmp_path: Path) -> None:
    root, truth = noisy_digits
    backwards = tmp_path / "backwards.csv"
    backwards.write_text("path,label\n" + "".join(f"{root / name},{name.split('/')[0]}\n" for name in [*truth][::-1]))
    (tmp_path / "forwards.csv").write_text(
        "path,label\n" + "".join(f"{root / name},{name.split('/')[0]}\n" for name in truth)
    )
    config = AuditConfig(**PRESETS["recommended"])
    verdicts = []
    for name in ("forwards", "backwards"):
        cache = clipaudit.embed(tmp_path / f"{name}.csv", cache=tmp_path / name, encoder=DIGITS).cache
        table = clipaudit.select(cache, config=config, device="cpu").table
        verdicts.append(dict(zip(table["id"].to_pylist(), table["is_clean"].to_pylist(), strict=True)))
    assert verdicts[0] == verdicts[1]


def test_several_estimates_are_audited_together(noisy_cache: Path, run_cli: Cli, tmp_path: Path) -> None:
    audited = run_cli(
        "select",
        noisy_cache,
        "--induced",
        "logistic,neighbours",
        "--combine",
        "4-of-6",
        "--out",
        "i.parquet",
        "--device",
        "cpu",
    )
    assert audited.returncode == 0, audited.stderr
    index = clipaudit.read_index(tmp_path / "i.parquet")
    names = [term.name for term in index.config.estimates]
    assert names == ["zero_shot", "logistic", "neighbours"]
    flags = [index.table[verdict.column].to_numpy(zero_copy_only=False) for verdict in index.config.voting]
    assert len(flags) == 6
    rescued = index.table["fallback"].to_numpy(zero_copy_only=False)
    assert np.array_equal(index.is_clean, (np.sum(flags, axis=0) >= 4) | rescued)
    alone = clipaudit.select(noisy_cache, config=AuditConfig(induced="neighbours"), device="cpu")
    assert index.table["neighbours_loss"].equals(alone.table["neighbours_loss"])
    one = clipaudit.reselect(index, index.config.with_changes(selectors="neighbours_consistency", combine="union"))
    assert np.array_equal(one.is_clean, alone.table["neighbours_consistency_clean"].to_numpy(zero_copy_only=False))
