"""Vectors that were computed elsewhere, in files and as arrays: the same verdicts, or a sentence about what is wrong.

The vectors are those of the real small CLIP and of real digits, as an audit of the images has them.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import DIGITS

import clipaudit
from clipaudit import AuditConfig, CleanIndex, EmbeddingsCache, SourceOptions
from clipaudit.clip.encoders import load_encoder
from clipaudit.errors import CacheError, ClipAuditError, SourceError, UsageError

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Digits = tuple[Path, dict[str, str]]


class Given:
    """What another tool would have: ids, labels and (n, d) float16 unit rows."""

    def __init__(self, cache: Path) -> None:
        held = EmbeddingsCache.open(cache).read()
        self.ids: list[str] = held.table["id"].to_pylist()
        self.labels: list[str] = held.table["label"].to_pylist()
        self.vectors = np.asarray(held.vectors)

    def table(self, vectors: Any = None, rows: slice = slice(None), *, ids: str = "path") -> pa.Table:
        values = self.vectors if vectors is None else vectors
        column = values if isinstance(values, pa.Array) else pa.array(list(values))
        return pa.table({ids: self.ids, "label": self.labels, "embedding": column}).slice(
            rows.start or 0, rows.stop and rows.stop - (rows.start or 0)
        )


@pytest.fixture(scope="module")
def given(noisy_cache: Path) -> Given:
    return Given(noisy_cache)


def same_scores(table: pa.Table, other: pa.Table) -> None:
    """Everything that vectors and labels decide; where the images are and their copies, they cannot know."""
    apart = ["path", *(name for name in other.column_names if name.startswith("duplicate_"))]
    expected = other.drop_columns(apart)
    assert table.select(expected.column_names).equals(expected)


def fixed(folder: Path, given: Given) -> Path:
    column = pa.FixedSizeListArray.from_arrays(pa.array(given.vectors.ravel()), given.vectors.shape[1])
    pq.write_table(given.table(column, ids="id"), folder / "x.parquet")
    return folder / "x.parquet"


def lists(folder: Path, given: Given) -> Path:
    pq.write_table(given.table(given.vectors.astype(np.float32)), folder / "x.parquet", row_group_size=97)
    return folder / "x.parquet"


def large_lists_of_doubles(folder: Path, given: Given) -> Path:
    column = pa.array(list(given.vectors.astype(np.float64)), pa.large_list(pa.float64()))
    pq.write_table(given.table(column, ids="key"), folder / "x.parquet")
    return folder / "x.parquet"


def pattern(folder: Path, given: Given) -> Path:
    for number, rows in enumerate((slice(0, 250), slice(250, 600))):
        pq.write_table(given.table(rows=rows), folder / f"part-{number}.parquet")
    return folder / "part-*.parquet"


def folder_of_files(folder: Path, given: Given) -> Path:
    pattern(folder, given)
    return folder


def clip_retrieval(folder: Path, given: Given) -> Path:
    """As `clip-retrieval inference` writes it, with the labels in a column of the metadata."""
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir()
    for number in range(12):
        rows = slice(50 * number, 50 * number + 50)
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", given.vectors[rows])
        np.save(folder / "text_emb" / f"text_emb_{number}.npy", np.zeros((50, 64), np.float16))
        metadata = {"image_path": given.ids[rows], "caption": ["a text"] * 50, "label": given.labels[rows]}
        pq.write_table(pa.table(metadata), folder / "metadata" / f"metadata_{number}.parquet")
    return folder


def npy_beside_a_table(folder: Path, given: Given) -> Path:
    np.save(folder / "x.npy", given.vectors.astype(">f4"))
    pq.write_table(given.table().drop_columns(["embedding"]), folder / "x.parquet")
    return folder / "x.npy"


FORMS = [
    fixed,
    lists,
    large_lists_of_doubles,
    pattern,
    folder_of_files,
    clip_retrieval,
    npy_beside_a_table,
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_verdicts_of_the_images(
    form: Callable[[Path, Given], Path], given: Given, noisy_index: CleanIndex, tmp_path: Path
) -> None:
    (tmp_path / "vectors").mkdir()
    place = form(tmp_path / "vectors", given)
    summary = clipaudit.embed(embeddings=place, encoder=DIGITS, cache=tmp_path / "c")
    assert (summary.n_samples, summary.n_embedded, summary.n_unreadable, summary.warnings) == (600, 600, 0, ())
    index = clipaudit.select(tmp_path / "c", device="cpu")
    same_scores(index.table, noisy_index.table)
    assert index.metadata.warnings == noisy_index.metadata.warnings
    assert "computed elsewhere" in index.metadata.decided["source"]
    assert "no image was read" in index.metadata.decided["copies"]
    again = clipaudit.embed(embeddings=place, encoder=DIGITS, cache=tmp_path / "c")
    assert (again.n_embedded, again.complete) == (0, True)


def test_other_lengths_are_normalised_and_said(given: Given, noisy_index: CleanIndex, tmp_path: Path) -> None:
    scaled = given.vectors.astype(np.float64) * np.linspace(0.1, 1e200, 600)[:, None]
    pq.write_table(given.table(scaled), tmp_path / "x.parquet")
    summary = clipaudit.embed(embeddings=tmp_path / "x.parquet", encoder=DIGITS, cache=tmp_path / "c")
    assert "600 of 600 were not of length 1 and were normalised" in summary.decided["vectors"]
    index = clipaudit.select(tmp_path / "c", device="cpu")
    np.testing.assert_allclose(
        index.table["logistic_p_label"].to_numpy(), noisy_index.table["logistic_p_label"].to_numpy(), atol=0.01
    )
    assert (index.is_clean == noisy_index.is_clean).mean() > 0.98


def test_the_command_line_without_any_image(given: Given, tmp_path: Path, run_cli: Cli) -> None:
    lists(tmp_path, given)
    result = run_cli("embed", "--embeddings", "x.parquet", "--model", DIGITS.model)
    assert result.returncode == 0, result.stderr
    for words in ("600 vectors in .clipaudit/x-", "column 'embedding', 64 numbers each", "column 'path'", "600"):
        assert words in result.stdout
    assert run_cli("select", "--out", "clean.parquet").returncode == 0
    for command in (["report"], ["show", "--top", "3"], ["review", "--budget", "5"]):
        result = run_cli(command[0], "clean.parquet", *command[1:])
        assert result.returncode == 0, result.stderr
        assert "Traceback" not in result.stderr
    result = run_cli("report", "clean.parquet")
    assert "could not be read now" in result.stdout
    assert "the vectors are own" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_images_that_ids_lead_to_are_shown(given: Given, noisy_digits: Digits, tmp_path: Path) -> None:
    place = lists(tmp_path, given)
    index = clipaudit.select(clipaudit.embed(embeddings=place, encoder=DIGITS, cache=tmp_path / "c").cache)
    assert clipaudit.write_report(index, tmp_path / "r.html").n_without_image > 0
    assert clipaudit.write_report(index, tmp_path / "r.html", images=noisy_digits[0]).n_without_image == 0


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,000 vectors around ten centres, in several parts of a cache."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 5000)
    vectors = generator.normal(size=(10, 32))[labels] + generator.normal(size=(5000, 32)) / 3
    folder = tmp_path_factory.mktemp("many")
    table = {"id": [f"a/{n}.jpg" for n in range(5000)], "label": labels, "vector": list(vectors.astype(np.float32))}
    pq.write_table(pa.table(table), folder / "many.parquet")
    return folder / "many.parquet"


def files_of(cache: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted(cache.rglob("*")) if file.is_file()}


def test_an_interrupted_run_goes_on_and_a_finished_one_does_nothing(many: Path, tmp_path: Path) -> None:
    cache = clipaudit.embed(embeddings=many, zero_shot=False, cache=tmp_path / "c").cache
    before = files_of(cache)
    assert clipaudit.embed(embeddings=many, zero_shot=False, cache=cache).n_embedded == 0
    assert files_of(cache) == before
    first, second, *_ = sorted((cache / "parts").iterdir())
    n_lost = pq.read_metadata(first).num_rows + pq.read_metadata(second).num_rows
    first.unlink()
    second.write_bytes(second.read_bytes()[:-9])
    with pytest.raises(CacheError, match=r"incomplete.*clipaudit embed --embeddings .*many\.parquet"):
        clipaudit.select(cache)
    summary = clipaudit.embed(embeddings=many, zero_shot=False, cache=cache)
    assert (summary.n_embedded, summary.n_damaged_parts) == (n_lost, 1)
    assert files_of(cache) == before


def test_changed_vectors_take_the_place_of_the_old_ones(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = pq.read_table(many)
    pq.write_table(table, "x.parquet")
    cache = clipaudit.embed(embeddings="x.parquet", zero_shot=False).cache
    pq.write_table(table.slice(1000), "x.parquet")
    assert clipaudit.embed(embeddings="x.parquet", zero_shot=False).cache == cache
    held = EmbeddingsCache.open(cache).read()
    assert held.table["id"].to_pylist() == table["id"].to_pylist()[1000:]
    assert sum(pq.read_metadata(part).num_rows for part in (cache / "parts").iterdir()) == 4000
    with pytest.raises(CacheError, match="Choose another --cache"):
        clipaudit.embed(embeddings=many, zero_shot=False, cache=cache)


def test_memory_does_not_grow_with_the_vectors(tmp_path: Path) -> None:
    # What Python, numpy and Arrow hold at most; the imports alone take more than the vectors here.
    code = (
        "import clipaudit, pyarrow as pa, sys, tracemalloc; clipaudit.embed; tracemalloc.start();"
        "clipaudit.embed(embeddings=sys.argv[1], zero_shot=False, cache=sys.argv[2]);"
        "print(tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory())"
    )
    peaks = []
    for n in (12_000, 60_000):
        file = tmp_path / f"{n}.parquet"
        values = np.random.default_rng(0).standard_normal(n * 256, np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(values), 256)
        table = pa.table(
            {"id": [f"{row}.jpg" for row in range(n)], "label": ["cat", "dog"] * (n // 2), "vector": column}
        )
        pq.write_table(table, file, row_group_size=n)
        command = [sys.executable, "-c", code, file, tmp_path / f"c{n}"]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert file.stat().st_size > 60e6
    assert peaks[1] - peaks[0] < 20e6


def test_vectors_without_labels_get_them_from_select(given: Given, noisy_index: CleanIndex, tmp_path: Path) -> None:
    pq.write_table(given.table().drop_columns(["label"]), tmp_path / "x.parquet")
    summary = clipaudit.embed(embeddings=tmp_path / "x.parquet", encoder=DIGITS, cache=tmp_path / "c")
    assert summary.decided["labels"] == "none: name them with select --labels"
    assert "classes" not in summary.decided
    assert summary.warnings == ()
    with pytest.raises(SourceError, match=r"x\.parquet came without labels.*--labels FILE"):
        clipaudit.select(tmp_path / "c", device="cpu")
    order = np.random.default_rng(1).permutation(600)
    lines = [f"{given.ids[row]},{given.labels[row]}\n" for row in order]
    (tmp_path / "labels.csv").write_text("id,label\n" + "".join(lines))
    for labels in (tmp_path / "labels.csv", given.labels):
        same_scores(clipaudit.select(tmp_path / "c", labels=labels, device="cpu").table, noisy_index.table)


def test_an_array_alone_has_rows_for_ids(given: Given, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", given.vectors)
    summary = clipaudit.embed(embeddings=tmp_path / "x.npy", zero_shot=False, cache=tmp_path / "c")
    assert summary.decided["ids"] == "file and row, as there is no column of ids"
    index = clipaudit.select(tmp_path / "c", given.labels, device="cpu")
    assert index.table["id"].to_pylist()[:2] == ["x.npy#0", "x.npy#1"]


def test_class_names_of_label_numbers(given: Given, tmp_path: Path) -> None:
    names = sorted(set(given.labels))
    numbers = [names.index(label) for label in given.labels]
    table = given.table().set_column(1, "label", pa.array(numbers))
    pq.write_table(table, tmp_path / "x.parquet")
    options = SourceOptions(names=names)
    clipaudit.embed(embeddings=tmp_path / "x.parquet", zero_shot=False, options=options, cache=tmp_path / "a")
    features = json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), tmp_path / "y.parquet")
    clipaudit.embed(embeddings=tmp_path / "y.parquet", zero_shot=False, cache=tmp_path / "b")
    for cache in ("a", "b"):
        assert EmbeddingsCache.open(tmp_path / cache).read().table["label"].to_pylist() == given.labels


def test_columns_can_be_named(given: Given, tmp_path: Path, run_cli: Cli) -> None:
    other = pa.array(list(given.vectors[:, :8]))
    columns = {"a": given.ids, "b": given.labels, "c": other, "d": pa.array(list(given.vectors))}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    words = ("embed", "--embeddings", "x.parquet", "--no-zero-shot")
    result = run_cli(*words)
    assert result.returncode == 1
    assert "several columns that may hold the vectors: c, d" in result.stderr
    named = ("--path-column", "a", "--label-column", "b", "--vector-column", "d", "--cache", "c")
    result = run_cli(*words, *named)
    assert result.returncode == 0, result.stderr
    held = EmbeddingsCache.open(tmp_path / "c").read()
    assert (held.table["id"].to_pylist(), held.table["label"].to_pylist()) == (given.ids, given.labels)
    np.testing.assert_array_equal(held.vectors, given.vectors)


# The two sides.


def turned(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same vectors as another model might have them: all angles between them stay, those to texts do not."""
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(vectors.shape[1],) * 2))
    return (vectors.astype(np.float64) @ turn).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_vectors_of_another_model_are_refused(given: Given, tmp_path: Path, seed: int) -> None:
    pq.write_table(given.table(turned(given.vectors, seed)), tmp_path / "x.parquet")
    summary = clipaudit.embed(embeddings=tmp_path / "x.parquet", encoder=DIGITS, cache=tmp_path / "c")
    (warning,) = summary.warnings
    assert "do not seem to belong together: zero-shot agrees with" in warning
    with pytest.raises(SourceError, match=r"x\.parquet and the texts of .* do not belong together: zero-shot agrees"):
        clipaudit.select(tmp_path / "c", device="cpu")
    index = clipaudit.select(tmp_path / "c", config=AuditConfig(zero_shot=False), device="cpu")
    assert index.noise_rate < 0.35
    with pytest.raises(SourceError, match="do not belong together"):
        clipaudit.select(turned(given.vectors, seed), given.labels, model=DIGITS.model, device="cpu")


def test_vectors_of_another_dimension_are_refused(given: Given, tmp_path: Path) -> None:
    pq.write_table(given.table(given.vectors[:, :32]), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match=r"have 32 numbers, the texts of .* 64: they do not belong together"):
        clipaudit.embed(embeddings=tmp_path / "x.parquet", encoder=DIGITS, cache=tmp_path / "c")
    with pytest.raises(UsageError, match=r"have 32 numbers, the texts of .* 64: they do not belong together"):
        clipaudit.select(given.vectors[:, :32], given.labels, model=DIGITS.model, device="cpu")


def test_without_zero_shot_only_the_induced_estimate_speaks(
    given: Given, noisy_digits: Digits, tmp_path: Path, run_cli: Cli
) -> None:
    pq.write_table(given.table(turned(given.vectors)), tmp_path / "x.parquet")
    result = run_cli("embed", "--embeddings", "x.parquet", "--no-zero-shot", "--cache", "c")
    assert result.returncode == 0, result.stderr
    assert "none, so that only the induced estimate will speak" in result.stdout
    result = run_cli("select", "c", "--folds", "5", "--out", "clean.parquet")
    assert result.returncode == 0, result.stderr
    assert "zero-shot does not speak" in result.stdout
    index = clipaudit.read_index(tmp_path / "clean.parquet")
    assert not [name for name in index.table.column_names if "zero_shot" in name or name.startswith("off_topic")]
    assert index.config.selectors == ("induced_consistency", "induced_loss")
    assert index.metadata.prompts.texts == []
    assert any("only logistic regression decides" in warning for warning in index.metadata.warnings)
    overall = clipaudit.evaluate(index, list(noisy_digits[1].values())).overall
    assert min(overall.auroc or 0, overall.noisy_recall or 0) > 0.95
    assert run_cli("report", "clean.parquet", "--figure", "f.svg").returncode == 0
    assert run_cli("report", "clean.parquet").returncode == 0
    assert "zero-shot does not speak" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "zero-shot does not speak" in run_cli("show", "clean.parquet").stdout
    again = clipaudit.reselect(index, index.config.with_changes(theta_loss=0.9))
    assert again.noise_rate > index.noise_rate
    for words in (("--prompts", "digits"), ("--background", "zero"), ("--model", DIGITS.model)):
        result = run_cli("select", "c", *words)
        assert result.returncode == 2
        assert f"{words[0][2:]} would have no effect: zero-shot does not speak" in result.stderr
    result = run_cli("select", "c", "--preset", "recommended")
    assert result.returncode == 2
    assert "Leave out --preset recommended" in result.stderr


def test_zero_shot_can_be_left_out_of_any_cache(noisy_cache: Path) -> None:
    config = AuditConfig(zero_shot=False)
    index = clipaudit.select(noisy_cache, config=config, device="cpu")
    assert index.config == AuditConfig.from_dict(json.loads(json.dumps(index.config.to_dict()))) == config
    assert "as asked for" in index.metadata.warnings[0]
    with pytest.raises(UsageError, match="temperature would have no effect"):
        AuditConfig(zero_shot=False, temperature=0.01)
    with pytest.raises(UsageError, match="unknown selector 'zero_shot_loss'"):
        AuditConfig(zero_shot=False, selectors=("zero_shot_loss",))
    with pytest.raises(UsageError, match="'joint' is made of zero-shot"):
        AuditConfig(zero_shot=False, induced="joint")


# Arrays.


def test_arrays_give_the_verdicts_of_the_cache(given: Given, noisy_index: CleanIndex) -> None:
    forms: list[Any] = [
        given.vectors,
        given.vectors.astype(np.float64),
        torch.from_numpy(given.vectors.astype(np.float32)).requires_grad_(),
    ]
    for vectors in forms:
        index = clipaudit.select(vectors, given.labels, ids=given.ids, model=DIGITS.model, device="cpu")
        same_scores(index.table, noisy_index.table)
    names = sorted(set(given.labels))
    numbers = np.array([names.index(label) for label in given.labels])
    index = clipaudit.select(given.vectors, numbers, names=names, ids=given.ids, model=DIGITS.model, device="cpu")
    same_scores(index.table, noisy_index.table)


def test_arrays_give_the_verdicts_of_the_cache_out_of_fold(given: Given, noisy_cache: Path) -> None:
    config = clipaudit.preset("recommended")
    of_cache = clipaudit.select(noisy_cache, config=config, device="cpu")
    index = clipaudit.select(
        given.vectors, given.labels, ids=given.ids, model=DIGITS.model, config=config, device="cpu"
    )
    same_scores(index.table, of_cache.table)
    assert index.metadata.model_temperature == of_cache.metadata.model_temperature


def test_class_embeddings_in_place_of_texts(given: Given, noisy_cache: Path, tmp_path: Path) -> None:
    plain = clipaudit.select(noisy_cache, prompts="none", device="cpu")
    encoder = load_encoder(DIGITS)
    prompts, owners = plain.metadata.prompts.texts, np.array(plain.metadata.prompts.owners)
    names = plain.class_names
    texts = encoder.encode_texts(list(prompts))
    classes = np.stack([texts[owners == k].mean(axis=0) for k in range(10)])
    index = clipaudit.select(
        given.vectors, given.labels, names=names, ids=given.ids, class_embeddings=7 * classes, device="cpu"
    )
    agreement = index.table["zero_shot_label"].cast(pa.string()).to_numpy(zero_copy_only=False) == plain.table[
        "zero_shot_label"
    ].cast(pa.string()).to_numpy(zero_copy_only=False)
    assert agreement.mean() > 0.95
    assert "off_topic_score" not in index.table.column_names
    assert any("class embeddings know no other words" in warning for warning in index.metadata.warnings)
    index.write(tmp_path / "i.parquet")
    assert clipaudit.read_index(tmp_path / "i.parquet").metadata == index.metadata
    numbers = [names.index(label) for label in given.labels]
    of_numbers = clipaudit.select(given.vectors, numbers, ids=given.ids, class_embeddings=classes, device="cpu")
    assert (of_numbers.is_clean == index.is_clean).all()
    with pytest.raises(SourceError, match="arrays in memory and the class_embeddings do not belong together"):
        clipaudit.select(given.vectors, given.labels, names=names, class_embeddings=turned(classes), device="cpu")


def test_arrays_alone_leave_it_to_the_induced_estimate(given: Given, tmp_path: Path) -> None:
    index = clipaudit.select(given.vectors, given.labels, device="cpu")
    assert index.table["id"].to_pylist()[:3] == ["0", "1", "2"]
    assert "neither model nor class_embeddings were given" in index.metadata.warnings[0]
    assert not index.config.zero_shot
    index.write(tmp_path / "i.parquet")
    read = clipaudit.read_index(tmp_path / "i.parquet")
    assert read.table.equals(index.table)
    assert clipaudit.write_report(read, tmp_path / "r.html").n_without_image > 0


TWO = np.eye(4, dtype=np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cache": [[1.0, 2.0]]}, "or embeddings: a numpy array or torch tensor .* not list"),
        ({"cache": 3}, "not int"),
        ({"cache": TWO[0]}, r"not of shape \(4,\)"),
        ({"cache": TWO[None]}, r"not of shape \(1, 4, 4\)"),
        ({"cache": TWO[:0]}, r"not of shape \(0, 4\)"),
        ({"cache": TWO[:, :1]}, "have 1 number"),
        ({"cache": TWO.astype(int)}, "not of int64"),
        ({"cache": TWO.astype(complex)}, "not of complex128"),
        ({"cache": TWO.astype(object)}, "not of object"),
        ({"cache": torch.eye(4, dtype=torch.int32)}, "not of int32"),
        ({"cache": TWO * np.nan}, "row 0: the vector has a number that is not finite"),
        ({"cache": TWO * np.array([[1], [1], [0], [1]], np.float32)}, "row 2: the vector is all zeros"),
        ({"labels": None}, "labels"),
        ({"labels": 3}, "labels must be"),
        ({"labels": ["a"] * 3}, "3 labels for 4 samples"),
        ({"labels": ["a", "b", None, "a"]}, "label 2 of the list: the label is missing"),
        ({"labels": [0, 1, 2, 0], "names": ["a", "b"]}, "class index 2 is out of range"),
        ({"ids": "abcd"}, "ids must be a list"),
        ({"ids": 4}, "ids must be a list"),
        ({"ids": ["a", "b"]}, "2 ids for 4 embeddings"),
        ({"ids": ["a", "b", "c", "a"]}, "place 3: 'a' stands at 0 already"),
        ({"ids": ["a", "b", None, "d"]}, "place 2: None is no id"),
        ({"ids": ["a", "b", "", "d"]}, "place 2: '' is no id"),
        ({"ids": ["a", "b", [1], "d"]}, "place 2: "),
        ({"model": 3}, "model must be a text or None, not 3"),
        ({"model": DIGITS.model, "class_embeddings": TWO}, "either model or class_embeddings"),
        ({"class_embeddings": TWO[:2]}, "class_embeddings need names"),
        ({"class_embeddings": TWO[:2, :3], "names": ["a", "b"]}, "do not belong together"),
        ({"class_embeddings": TWO[:3], "names": ["a", "b"]}, "3 class_embeddings for 2 classes"),
        ({"class_embeddings": "x", "names": ["a", "b"]}, "class_embeddings must be a numpy array"),
        ({"class_embeddings": TWO[:2], "names": ["a", "b"], "prompts": "digits"}, "prompts would have no effect"),
        ({"class_embeddings": TWO[:2], "names": ["a", "b"], "config": AuditConfig(temperature="model")}, "temperature"),
        ({"background": "a"}, "background would have no effect"),
        ({"config": AuditConfig(induced="joint")}, "made of zero-shot"),
    ],
)
def test_arrays_that_are_wrong_get_a_sentence(arguments: dict[str, Any], message: str) -> None:
    whole = {"cache": TWO, "labels": ["a", "b", "a", "b"], **arguments}
    with pytest.raises(ClipAuditError, match=message):
        clipaudit.select(whole.pop("cache"), whole.pop("labels"), device="cpu", **whole)


def test_a_cache_has_its_own_ids(noisy_cache: Path) -> None:
    with pytest.raises(UsageError, match="ids would have no effect"):
        clipaudit.select(noisy_cache, ids=["a"])


# What is no file of vectors.


def bad_table(**changes: Any) -> pa.Table:
    columns = {"id": ["a", "b", "c"], "label": ["x", "y", "x"], "vector": pa.array([[1.0, 0], [0, 1.0], [1.0, 1.0]])}
    return pa.table({name: value for name, value in {**columns, **changes}.items() if value is not None})


TABLES: list[tuple[dict[str, Any], str]] = [
    ({"vector": pa.array([[1.0, 0], [0, float("nan")], [1, 1]])}, "row 1: the vector has a number that is not finite"),
    ({"vector": pa.array([[1.0, 0], [0, 1], [float("inf"), 1]])}, "row 2: the vector has a number that is not finite"),
    ({"vector": pa.array([[1.0, 0], [0, 0], [1, 1]])}, "row 1: the vector is all zeros"),
    ({"vector": pa.array([[1.0, 0], None, [1, 1]])}, "row 1: there is no vector"),
    ({"vector": pa.array([None, [1.0, 0], [1, 1]])}, "row 0: there is no vector"),
    ({"vector": pa.array([[1.0, 0], [None, 1], [1, 1]])}, "row 1: the vector has an empty number"),
    ({"vector": pa.array([[1.0, 0], [1, 1, 1], [1, 1]])}, "row 1: the vector has 3 numbers, those before it have 2"),
    ({"vector": pa.array([[1.0], [1.0], [1.0]])}, "row 0: the vectors have 1 number"),
    ({"vector": pa.array([[], [], []], pa.list_(pa.float32()))}, "row 0: the vectors have 0 number"),
    ({"vector": pa.array([[1, 0], [0, 1], [1, 1]])}, "no column of vectors"),
    ({"vector": pa.array(["[1, 0]", "[0, 1]", "[1, 1]"])}, "no column of vectors"),
    ({"vector": None}, "no column of vectors"),
    ({"id": ["a", "b", "a"]}, r"row 2: the id 'a' stands in .*row 0 already"),
    ({"id": ["a", None, "c"]}, "row 1: the id is missing"),
    ({"id": ["a", "\0", "c"]}, "row 1: the id holds the character NUL"),
    ({"id": ["a", "x" * 5000, "c"]}, "row 1: the id has 5,000 characters"),
    ({"label": ["x", None, "y"]}, "row 1: the label is missing"),
    ({"label": ["x", "", "y"]}, "row 1: the label is missing"),
]


@pytest.mark.parametrize(("changes", "message"), TABLES)
def test_bad_rows_of_parquet_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    pq.write_table(bad_table(**changes), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match=r"x\.parquet.*" + message):
        clipaudit.embed(embeddings=tmp_path / "x.parquet", zero_shot=False, cache=tmp_path / "c")
    assert not (tmp_path / "c" / "parts").exists()


def said_of(file: Path, cache: Path) -> str:
    """What `embed` says of a file: what is wrong with it, or where the vectors come from."""
    try:
        return clipaudit.embed(embeddings=file, zero_shot=False, cache=cache).decided["source"]
    except SourceError as error:
        return str(error)


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    good = tmp_path / "good.parquet"
    values = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    pq.write_table(
        pa.table({"id": range(3000), "label": ["ab"[n % 2] for n in range(3000)], "vector": list(values)}), good
    )
    data = bytearray(good.read_bytes())
    for number, place in enumerate(range(0, len(data), 20_011)):
        bad = bytearray(data)
        bad[place : place + 400] = bytes(400)
        file = tmp_path / f"bad{number}.parquet"
        file.write_bytes(bad)
        assert file.name in said_of(file, tmp_path / f"c{number}")
    for name, content in (("cut", data[:-1000]), ("empty", b""), ("text", b"no parquet")):
        (tmp_path / f"{name}.parquet").write_bytes(content)
        with pytest.raises(SourceError, match=rf"{name}\.parquet is not a readable Parquet file"):
            clipaudit.embed(embeddings=tmp_path / f"{name}.parquet", zero_shot=False)
    pq.write_table(bad_table().slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(SourceError, match=r"none\.parquet has no rows"):
        clipaudit.embed(embeddings=tmp_path / "none.parquet", zero_shot=False)


def test_a_few_bytes_that_stand_for_gigabytes_are_refused(tmp_path: Path) -> None:
    long = pa.ListArray.from_arrays(pa.array([0, 20_000_000]), pa.array(np.ones(20_000_000, np.float32)))
    pq.write_table(pa.table({"id": ["a"], "vector": long}), tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 100_000
    with pytest.raises(SourceError, match=r"x\.parquet: .*20,000,000 numbers on average"):
        clipaudit.embed(embeddings=tmp_path / "x.parquet", zero_shot=False)


class Harmful:
    """What unpickling would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("unpickled"),))


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def header(shape: str, kind: str = "'<f4'", by_columns: bool = False) -> str:
    return f"{{'descr': {kind}, 'fortran_order': {by_columns}, 'shape': {shape}, }}"


ARRAYS: list[tuple[bytes, str]] = [
    (npy(header("(3, 2)"), bytes(20)), "row 2: the file ends here, though it should have 3 rows"),
    (npy(header("(99999999999999, 2)"), bytes(24)), "row 3: the file ends here"),
    (npy(header("(3, 2)", "'|O'"), pickle.dumps(Harmful())), "holds object"),
    (npy(header("(3, 2)", "'<i4'"), bytes(24)), "holds int32, not float16"),
    (npy(header("(3, 2)", "[('a', '<f4')]"), bytes(24)), "not float16"),
    (npy(header("(6,)"), bytes(24)), r"the shape \(6,\)"),
    (npy(header("(1, 3, 2)"), bytes(24)), r"the shape \(1, 3, 2\)"),
    (npy(header("(3, 2)", by_columns=True), bytes(24)), "stored column by column"),
    (npy(header("(3, 99999999)"), bytes(24)), "99,999,999 number"),
    (npy(header("(3, -2)"), bytes(24)), r"the shape \(3, -2\)"),
    (npy(header("(-3, 2)"), bytes(24)), r"the shape \(-3, 2\)"),
    (npy(header("(0, 2)")), "holds no vectors"),
    (npy("{'descr': __import__('os').system('touch unpickled')"), "not a readable .npy file"),
    (npy("(" * 100), "not a readable .npy file"),
    (npy(header("(3, 2)", "'<f4'") + "x"), "not a readable .npy file"),
    (b"\x93NUMPY\x09\x00" + bytes(200), "not a readable .npy file"),
    (pickle.dumps(Harmful()), "not a readable .npy file"),
    (b"", "not a readable .npy file"),
    (npy(header("(3, 2)"), bytes(24)), "row 0: the vector is all zeros"),
    (npy(header("(3, 2)"), np.array([1, 1, 1, np.nan, 1, 1], "<f4").tobytes()), "row 1: .* not finite"),
]


@pytest.mark.parametrize(("content", "message"), ARRAYS)
def test_bad_arrays_are_named_and_nothing_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.npy").write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.npy.*" + message):
        clipaudit.embed(embeddings="x.npy", zero_shot=False)
    assert not Path("unpickled").exists()


def test_files_that_do_not_fit_each_other_are_refused(given: Given, tmp_path: Path) -> None:
    def refused(place: Path, message: str) -> None:
        with pytest.raises(SourceError, match=message):
            clipaudit.embed(embeddings=place, zero_shot=False, cache=tmp_path / "c")

    folder = clip_retrieval(tmp_path, given)
    np.save(folder / "img_emb" / "img_emb_3.npy", given.vectors[:49])
    refused(folder, r"img_emb_3\.npy holds 49 vectors, and metadata_3\.parquet, .* has 50 rows")
    (folder / "img_emb" / "img_emb_3.npy").unlink()
    refused(folder, r"metadata_3\.parquet has no array img_emb_3\.npy")
    (folder / "metadata" / "metadata_3.parquet").unlink()
    (folder / "metadata" / "metadata_4.parquet").unlink()
    refused(folder, r"img_emb_4\.npy has no metadata_4\.parquet")
    shards = tmp_path / "shards"
    shards.mkdir()
    pq.write_table(bad_table(), shards / "a.parquet")
    pq.write_table(bad_table(vector=pa.array([[1.0, 0, 0]] * 3), id=["d", "e", "f"]), shards / "b.parquet")
    refused(shards, r"b\.parquet, row 0: the vector has 3 numbers, those of a\.parquet have 2")
    pq.write_table(bad_table(label=None, id=["d", "e", "f"]), shards / "b.parquet")
    refused(shards, r"b\.parquet has no column of labels, a\.parquet has column 'label'")
    pq.write_table(bad_table(id=["d", "b", "f"]), shards / "b.parquet")
    refused(shards, r"b\.parquet, row 1: the id 'b' stands in .*a\.parquet, row 1 already")


def test_places_without_vectors_are_refused(noisy_cache: Path, tmp_path: Path) -> None:
    def refused(place: Path, error: type[ClipAuditError], message: str) -> None:
        with pytest.raises(error, match=message):
            clipaudit.embed(embeddings=place, zero_shot=False)

    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "nowhere", SourceError, "nowhere does not exist. Name a Parquet file")
    refused(tmp_path / "*.parquet", SourceError, "no file of vectors has a name like")
    refused(tmp_path / "empty", SourceError, "no file of vectors")
    refused(tmp_path / "notes.txt", UsageError, r"notes\.txt is no file of vectors")
    refused(Path("/dev/zero"), SourceError, "is a device")
    refused(noisy_cache, SourceError, "is an embeddings cache")
    refused(next((noisy_cache / "parts").iterdir()), SourceError, "is a part of an embeddings cache")


def test_what_has_no_effect_on_vectors_is_refused(given: Given, noisy_digits: Digits, tmp_path: Path) -> None:
    place = lists(tmp_path, given)
    for arguments, message in (
        ({}, "embeddings need the model that made them.*--no-zero-shot"),
        ({"encoder": DIGITS, "zero_shot": False}, "a model would have no effect without zero-shot"),
        ({"zero_shot": False, "source": noisy_digits[0]}, "either images or embeddings"),
        ({"zero_shot": False, "shard": (1, 2)}, "shard would have no effect"),
        ({"zero_shot": False, "quality": True}, "quality would have no effect"),
        ({"zero_shot": False, "workers": 2}, "workers would have no effect"),
        ({"zero_shot": "no"}, "zero_shot must be True or False"),
        ({"zero_shot": False, "options": SourceOptions(image_column="x")}, "image_column would have no effect"),
    ):
        with pytest.raises(UsageError, match=message):
            clipaudit.embed(embeddings=place, **arguments)
    with pytest.raises(UsageError, match="name the images to embed"):
        clipaudit.embed()
    with pytest.raises(UsageError, match="for embeddings only"):
        clipaudit.embed(noisy_digits[0], zero_shot=False)


def test_copies_and_leaks_need_images(given: Given, noisy_cache: Path, tmp_path: Path) -> None:
    cache = clipaudit.embed(embeddings=lists(tmp_path, given), encoder=DIGITS, cache=tmp_path / "c").cache
    with pytest.raises(CacheError, match="computed elsewhere, without images to find copies by"):
        clipaudit.find_leaks(noisy_cache, [cache])
