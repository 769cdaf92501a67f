"""`select`, `evaluate`, the clean index and its exports, on real digits with wrong labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DIGITS, write_class_folders
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

import clipaudit
from clipaudit import AuditConfig, CleanIndex
from clipaudit.auditing.labels import audited_labels
from clipaudit.cache.embeddings import Embeddings, EmbeddingsCache
from clipaudit.cache.info import CacheInfo, Fingerprint
from clipaudit.errors import CacheError, ClipAuditError, IndexFileError, PromptError, SourceError, UsageError

Digits = tuple[Path, dict[str, str]]
Cli = Callable[..., object]


def test_the_audit_finds_wrong_digits(noisy_index: CleanIndex, noisy_digits: Digits) -> None:
    truth = list(noisy_digits[1].values())
    assert noisy_index.table["id"].to_pylist() == list(noisy_digits[1])
    evaluation = clipaudit.evaluate(noisy_index, truth)
    overall = evaluation.overall
    assert min(overall.auroc or 0, overall.clean_precision or 0) > 0.95
    assert min(overall.noisy_recall or 0, evaluation.suggestion_accuracy or 0) > 0.9


def test_the_index_is_complete_and_agrees_with_itself(noisy_index: CleanIndex, noisy_digits: Digits) -> None:
    table = noisy_index.table
    assert len(noisy_index) == 600
    assert all(Path(path).is_file() for path in table["path"].to_pylist())
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names if name != "reason"}
    flags = [columns[f"{e}_{s}_clean"] for e in ("zero_shot", "logistic") for s in ("consistency", "loss")]
    assert ((np.logical_and.reduce(flags) | columns["fallback"]) == columns["is_clean"]).all()
    assert ((columns["clean_score"] >= 0.5) == np.logical_and.reduce(flags)).all()
    for name in ("zero_shot", "logistic"):
        np.testing.assert_allclose(columns[f"{name}_loss"], -np.log(columns[f"{name}_p_label"]), rtol=1e-4, atol=1e-6)
        ratio = columns[f"{name}_p_label"] / columns[f"{name}_p_max"]
        np.testing.assert_allclose(columns[f"{name}_consistency"], ratio, rtol=1e-4)
        own = columns[f"{name}_label"] == columns["label"]
        assert ((columns[f"{name}_consistency"] == 1) >= own).all()
    assert noisy_index.config == AuditConfig()
    assert noisy_index.metadata.model.weights
    assert noisy_index.metadata.prompts.source == "digits"


def test_same_input_same_bytes(noisy_cache: Path, noisy_index: CleanIndex, tmp_path: Path) -> None:
    noisy_index.write(tmp_path / "a.parquet")
    clipaudit.select(noisy_cache, device="cpu").write(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert clipaudit.read_index(tmp_path / "a.parquet").table.equals(noisy_index.table)


def test_folder_manifest_and_parquet_give_the_same_index(
    noisy_digits: Digits, noisy_index: CleanIndex, tmp_path: Path
) -> None:
    root, _ = noisy_digits
    rows = list(zip(noisy_index.table["id"].to_pylist(), noisy_index.table["label"].to_pylist(), strict=True))
    (root / "m.csv").write_text("path,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
    manifest = clipaudit.embed(root / "m.csv", cache=tmp_path / "m", encoder=DIGITS)
    assert clipaudit.select(manifest.cache, device="cpu").table.equals(noisy_index.table)
    images = [{"bytes": (root / name).read_bytes(), "path": name} for name, _ in rows]
    pq.write_table(pa.table({"image": images, "label": [label for _, label in rows]}), tmp_path / "t.parquet")
    parquet = clipaudit.embed(tmp_path / "t.parquet", cache=tmp_path / "p", encoder=DIGITS)
    found = clipaudit.select(parquet.cache, device="cpu").table
    assert found.drop_columns(["id", "path"]).equals(noisy_index.table.drop_columns(["id", "path"]))


def test_thresholds_can_be_changed_without_computing_again(noisy_cache: Path, noisy_index: CleanIndex) -> None:
    changed = AuditConfig(theta_loss=0.9, theta_consistency=0.8, combine="3-of-4")
    again = clipaudit.reselect(noisy_index, changed)
    fresh = clipaudit.select(noisy_cache, config=changed, device="cpu")
    assert again.table.equals(fresh.table)
    assert again.metadata == fresh.metadata
    assert not again.table.equals(noisy_index.table)
    with pytest.raises(UsageError, match="temperature decided about the scores"):
        clipaudit.reselect(noisy_index, AuditConfig(temperature=0.01))


@pytest.mark.parametrize(
    "config",
    [
        AuditConfig(temperature="model"),
        AuditConfig(folds=3),
        AuditConfig(induced="neighbours"),
        AuditConfig(induced="joint", folds=5),
        AuditConfig(rounds=2),
        AuditConfig(induced="neighbours", transition=True),
        AuditConfig(raw_posterior=True, balanced=False, c=10.0),
        AuditConfig(selectors=("induced_loss",), combine="union"),
        AuditConfig(**clipaudit.PRESETS["recommended"]),
    ],
)
def test_options_beyond_the_defaults_still_find_wrong_digits(
    noisy_cache: Path, noisy_digits: Digits, config: AuditConfig
) -> None:
    index = clipaudit.select(noisy_cache, config=config, device="cpu")
    overall = clipaudit.evaluate(index, list(noisy_digits[1].values())).overall
    assert (overall.auroc or 0) > 0.85


def test_other_labels_on_the_same_embeddings(noisy_cache: Path, noisy_digits: Digits, noisy_index: CleanIndex) -> None:
    truth = noisy_digits[0].parent / "truth.csv"
    index = clipaudit.select(noisy_cache, labels=f"{truth}:label_true", device="cpu")
    assert index.table["label"].to_pylist() == list(noisy_digits[1].values())
    assert index.noise_rate < noisy_index.noise_rate - 0.1
    with pytest.raises(SourceError, match="Give one a sample"):
        clipaudit.select(noisy_cache, labels=["zero"] * 7, device="cpu")
    with pytest.raises(SourceError, match="at least two classes"):
        clipaudit.select(noisy_cache, labels=["zero"] * 600, device="cpu")


@pytest.mark.parametrize("names", [None, ("no", "yes")])
def test_labels_may_be_longer_together_than_one_array_of_text(names: tuple[str, str] | None) -> None:
    long = [f"{text:>4000}" for text in ("0", "1")] if names else [letter * 4000 for letter in "ny"]
    # The same thousand rows again and again: 2.4 GB to whoever makes one array of them, some megabytes here.
    chunk, times = pa.array(long * 500), 600
    ids, ok = pa.array(f"{row:06}" for row in range(1000 * times)), pa.array(["ok"] * 1000)
    table = pa.table({"id": ids, "label": pa.chunked_array([chunk] * times), "status": pa.chunked_array([ok] * times)})
    info = CacheInfo(Fingerprint("made-up", "", "made-up", {}, "float32", 4), 100.0, "source", "/", class_names=None)
    found = audited_labels(Embeddings(table, np.zeros((0, 4), np.float16), info), None, names)
    assert found.class_names == (["no", "yes"] if names else long)
    assert found.indices.tolist() == [0, 1] * 300_000


def test_an_unreadable_image_changes_nothing_about_the_others(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_class_folders(root, 80)
    bad = sorted(root.rglob("*.png"))[5]
    config = AuditConfig(folds=3, rounds=2, induced="logistic,neighbours", neighbours=5)
    content, audits = bad.read_bytes(), []
    for name, broken in (("broken", True), ("gone", False)):
        bad.write_bytes(content[:20]) if broken else bad.unlink()
        cache = clipaudit.embed(root, cache=tmp_path / name, encoder=DIGITS).cache
        audits.append(clipaudit.select(cache, config=config, device="cpu"))
    broken, gone = audits
    assert len(broken) == len(gone) + 1
    readable = broken.table.filter(pa.array(broken.readable))
    for name in readable.column_names:
        here, there = readable[name], gone.table[name]
        if pa.types.is_floating(here.type):
            np.testing.assert_allclose(here.to_numpy(), there.to_numpy(), atol=1e-4)
        else:
            assert here.to_pylist() == there.to_pylist(), name


def test_unreadable_samples_keep_their_row(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_class_folders(root, 80)
    bad = sorted(root.rglob("*.png"))[5]
    bad.write_text("no image")
    cache = clipaudit.embed(root, cache=tmp_path / "c", encoder=DIGITS).cache
    index = clipaudit.select(cache, device="cpu")
    row = index.table.filter(pa.compute.equal(index.table["id"], bad.relative_to(root).as_posix())).to_pylist()[0]
    assert (row["status"], row["is_clean"], row["clean_score"], row["suggested_label"]) == (
        "unreadable",
        False,
        None,
        None,
    )
    assert row["reason"] == "not an image of a known format"
    index.write(tmp_path / "i.parquet")
    again = clipaudit.reselect(clipaudit.read_index(tmp_path / "i.parquet"), AuditConfig())
    assert again.table.equals(index.table)


def test_no_readable_image_at_all(small_images: Path, tmp_path: Path) -> None:
    for file in small_images.rglob("*.png"):
        file.write_text("no image")
    with pytest.raises(SourceError, match=r"24 of 24 images of .* cannot be read"):
        clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS)
    with pytest.raises(SourceError, match=r"no image of .* could be read"):
        clipaudit.select(tmp_path / "c", device="cpu")


def test_prompts_are_found_cached_and_checked(noisy_cache: Path, tmp_path: Path) -> None:
    shutil.copytree(noisy_cache, tmp_path / "c")
    plain = clipaudit.select(tmp_path / "c", prompts="none", device="cpu")
    assert any("no prompt set" in warning for warning in plain.metadata["warnings"])
    with pytest.raises(UsageError, match="no prompt set 'digitz'"):
        clipaudit.select(tmp_path / "c", prompts="digitz", device="cpu")
    own = tmp_path / "own.toml"
    own.write_text('template = "{name} that {feature}"\n[[classes]]\nname = "zero"\nfeatures = ["is round"]\n')
    index = clipaudit.select(tmp_path / "c", prompts=own, device="cpu")
    assert index.metadata.prompts.texts[-1] == "zero that is round"
    assert any("no features for 'eight'" in warning for warning in index.metadata.warnings)
    own.write_text(
        'template = "{name} that {feature}"\n[[classes]]\nname = "zero"\nfeatures = ["is %s"]\n' % ("very " * 99)
    )
    with pytest.raises(PromptError, match="77"):
        clipaudit.select(tmp_path / "c", prompts=own, device="cpu")
    # Texts that were embedded before need no model.
    info = EmbeddingsCache.open(tmp_path / "c").info
    moved = replace(info, fingerprint=replace(info.fingerprint, model="/nowhere"))
    EmbeddingsCache(tmp_path / "c", moved).save()
    assert clipaudit.select(tmp_path / "c", prompts="none", device="cpu").table.equals(plain.table)
    for damaged in (tmp_path / "c" / "text").iterdir():
        damaged.write_bytes(b"\x93NUMPY" + b"\0" * 20)
    again = clipaudit.select(tmp_path / "c", prompts="none", model=DIGITS.model, device="cpu")
    assert again.table.equals(plain.table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not toml", "not valid TOML"),
        ('template = "{name} {feature}"', "no \\[\\[classes\\]\\]"),
        ('template = "{name}"\n[[classes]]\nname = "a"', "must contain"),
        ('template = "{name} {feature} {other}"\n[[classes]]\nname = "a"', "no other braces"),
        ('template = "{name} {feature}"\n[[classes]]\nfeatures = ["x"]', "class 1: 'name' must be a text"),
        ('template = "{name} {feature}"\n[[classes]]\nname = "a"\nfeatures = "x"', "'features' must be a list"),
        (
            'template = "{name} {feature}"\n[[classes]]\nname = "A b"\n[[classes]]\nname = "c"\naliases = ["a_B"]',
            "share the name 'a b'",
        ),
    ],
)
def test_malformed_prompt_files_are_explained(noisy_cache: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "p.toml").write_text(content)
    with pytest.raises(PromptError, match=message):
        clipaudit.select(noisy_cache, prompts=tmp_path / "p.toml", device="cpu")


def test_tiny_classes_are_kept_and_named(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_class_folders(root, 250)
    lonely = root / "unheard of" / "a.png"
    lonely.parent.mkdir()
    shutil.copy(next(root.rglob("*.png")), lonely)
    index = clipaudit.select(clipaudit.embed(root, cache=tmp_path / "c", encoder=DIGITS).cache, device="cpu")
    row = next(row for row in index.table.to_pylist() if row["label"] == "unheard of")
    assert row["is_clean"]
    assert any("'unheard of'" in warning for warning in index.metadata.warnings)


def test_exports(noisy_index: CleanIndex, tmp_path: Path) -> None:
    for name in ("e.csv", "e.jsonl", "e.txt", "e.npy", "links"):
        clipaudit.export(noisy_index, tmp_path / name)
    clean = noisy_index.table.filter(noisy_index.table["is_clean"])
    assert pa.csv.read_csv(tmp_path / "e.csv")["id"].to_pylist() == noisy_index.table["id"].to_pylist()
    rows = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert rows == noisy_index.table.to_pylist()
    assert (tmp_path / "e.txt").read_text().splitlines() == clean["path"].to_pylist()
    np.testing.assert_array_equal(np.load(tmp_path / "e.npy"), np.flatnonzero(noisy_index.is_clean))
    links = sorted(path for path in (tmp_path / "links").rglob("*") if path.is_symlink())
    assert sorted(str(path.resolve()) for path in links) == sorted(clean["path"].to_pylist())
    with pytest.raises(ClipAuditError, match="exists already"):
        clipaudit.export(noisy_index, tmp_path / "links")
    with pytest.raises(UsageError, match=r"exports end in"):
        clipaudit.export(noisy_index, tmp_path / "e.xlsx")


def test_labels_cannot_lead_out_of_a_folder_of_links(noisy_index: CleanIndex, tmp_path: Path) -> None:
    column = noisy_index.table.column_names.index("label")
    hostile = noisy_index.table.set_column(column, "label", pa.array(["../../evil"] * 600))
    clipaudit.export(replace(noisy_index, table=hostile), tmp_path / "deep" / "links")
    assert {path.parent.parent for path in (tmp_path / "deep").rglob("*.png")} == {tmp_path / "deep" / "links"}


def test_evaluation_equals_scikit_learn(noisy_index: CleanIndex, noisy_digits: Digits) -> None:
    evaluation = clipaudit.evaluate(noisy_index, noisy_digits[0].parent / "truth.csv")
    assert evaluation.matched_by == "path"
    right = np.array(noisy_index.table["label"].to_pylist()) == np.array(list(noisy_digits[1].values()))
    precision, recall, f1, _ = precision_recall_fscore_support(right, noisy_index.is_clean, labels=[True, False])
    overall = evaluation.overall
    assert overall.auroc == pytest.approx(roc_auc_score(right, noisy_index.table["clean_score"].to_numpy()))
    assert [overall.clean_precision, overall.noisy_precision] == pytest.approx(precision)
    assert [overall.clean_recall, overall.noisy_recall] == pytest.approx(recall)
    assert [overall.clean_f1, overall.noisy_f1] == pytest.approx(f1)
    assert sum(metrics.n for metrics in evaluation.classes.values()) == 600
    with pytest.raises(SourceError, match="no class in common"):
        clipaudit.evaluate(noisy_index, ["x"] * 600)
    with pytest.raises(SourceError, match="Give one a sample"):
        clipaudit.evaluate(noisy_index, ["zero"])


@pytest.mark.parametrize("metadata", [None, "", "{", "{}", "[]", '{"format": 99}'])
def test_files_that_are_no_clean_index_are_refused(tmp_path: Path, metadata: str | None) -> None:
    path = tmp_path / "i.parquet"
    with pytest.raises(IndexFileError, match="does not exist"):
        clipaudit.read_index(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(IndexFileError, match="not a readable Parquet file"):
        clipaudit.read_index(path)
    table = pa.table({"a": [1]})
    pq.write_table(table if metadata is None else table.replace_schema_metadata({"clipaudit": metadata}), path)
    with pytest.raises(IndexFileError, match=r"i\.parquet"):
        clipaudit.read_index(path)


def test_the_cache_that_embed_made_is_found(
    small_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CacheError, match="clipaudit embed IMAGES"):
        clipaudit.select()
    clipaudit.embed(small_images, encoder=DIGITS)
    assert len(clipaudit.select(device="cpu")) == 24
    write_class_folders(tmp_path / "more", 5)
    clipaudit.embed(tmp_path / "more", encoder=DIGITS)
    with pytest.raises(UsageError, match="several embeddings caches"):
        clipaudit.select()
