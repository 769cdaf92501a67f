"""The cache: resumed, repaired, shared and refused, through the public call and the real command line."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import DIGITS, any_image, write_class_folders

import clipaudit
from clipaudit import EmbeddingsCache, EncoderOptions
from clipaudit.clip.encoders import Encoder, load_encoder
from clipaudit.errors import CacheError, ModelError, PromptError, UsageError

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def read(cache: Path) -> clipaudit.cache.embeddings.Embeddings:
    return EmbeddingsCache.open(cache).read()


@pytest.fixture(scope="module")
def many_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough images for several parts."""
    root = tmp_path_factory.mktemp("many") / "images"
    write_class_folders(root, 7000)
    return root


@pytest.fixture(scope="module")
def many_embedded(many_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clipaudit.embed(many_images, cache=tmp_path_factory.mktemp("done") / "c", encoder=DIGITS).cache


def test_a_cache_holds_every_sample_in_order(small_images: Path, tmp_path: Path) -> None:
    summary = clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS)
    embeddings = read(tmp_path / "c")
    ids = embeddings.table["id"].to_pylist()
    assert ids == sorted(ids, key=lambda name: name.split("/"))
    assert (summary.n_samples, summary.n_embedded, summary.complete) == (24, 24, True)
    assert embeddings.vectors.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(embeddings.vectors.astype(np.float32), axis=1), 1, atol=2e-3)
    model = load_encoder(DIGITS)
    pixels = np.stack([model.prepare((small_images / name).read_bytes()) for name in ids])
    np.testing.assert_allclose(model.encode_images(pixels).numpy(), embeddings.vectors, atol=2e-3)


def test_a_finished_run_does_nothing_again(small_images: Path, tmp_path: Path) -> None:
    clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS)
    before = {file: file.read_bytes() for file in (tmp_path / "c").rglob("*") if file.is_file()}
    summary = clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS)
    assert summary.n_embedded == 0
    assert {file: file.read_bytes() for file in (tmp_path / "c").rglob("*") if file.is_file()} == before


def test_added_changed_and_removed_files_are_noticed(small_images: Path, tmp_path: Path) -> None:
    clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS)
    files = sorted(small_images.rglob("*.png"))
    files[0].unlink()
    any_image((32, 32)).save(files[1])
    any_image((20, 20)).save(small_images / "zero" / "new.png")
    summary = clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS)
    assert (summary.n_samples, summary.n_embedded, summary.n_reused) == (24, 2, 22)
    fresh = clipaudit.embed(small_images, cache=tmp_path / "fresh", encoder=DIGITS)
    assert read(tmp_path / "c").table.equals(read(fresh.cache).table)
    np.testing.assert_allclose(read(tmp_path / "c").vectors, read(fresh.cache).vectors, atol=2e-3)
    assert len(list((tmp_path / "c" / "parts").iterdir())) == 1


def test_a_relabelled_manifest_needs_no_new_embeddings(small_images: Path, tmp_path: Path) -> None:
    names = sorted(path.relative_to(small_images).as_posix() for path in small_images.rglob("*.png"))
    manifest = small_images / "m.csv"
    manifest.write_text("path,label\n" + "".join(f"{name},a\n" for name in names))
    clipaudit.embed(manifest, cache=tmp_path / "c", encoder=DIGITS)
    manifest.write_text("path,label\n" + "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names)))
    summary = clipaudit.embed(manifest, cache=tmp_path / "c", encoder=DIGITS)
    assert (summary.n_embedded, summary.n_reused) == (0, 24)
    assert read(tmp_path / "c").table["label"].to_pylist() == ["a", "b"] * 12


def test_unreadable_images_stay_with_their_reason(small_images: Path, tmp_path: Path, run_cli: Cli) -> None:
    files = sorted(small_images.rglob("*.png"))
    files[3].write_bytes(files[3].read_bytes()[:60])
    files[7].write_text("no image")
    files[9].write_bytes(b"")
    result = run_cli("embed", small_images, "--model", DIGITS.model, "--cache", tmp_path / "c")
    assert result.returncode == 0, result.stderr
    assert "unreadable     3" in result.stdout
    for number in (3, 7, 9):
        assert files[number].name in result.stdout
    table = read(tmp_path / "c").table
    assert table.num_rows == 24
    bad = table.filter(pa.compute.equal(table["status"], "unreadable"))
    assert sorted(bad["id"].to_pylist()) == sorted(str(files[i].relative_to(small_images)) for i in (3, 7, 9))
    assert all(bad["reason"].to_pylist())
    assert not np.any(read(tmp_path / "c").vectors[~read(tmp_path / "c").readable])


def test_kill_9_costs_at_most_the_part_in_progress(many_images: Path, many_embedded: Path, tmp_path: Path) -> None:
    cache = tmp_path / "c"
    command = [sys.executable, "-m", "clipaudit", "embed", many_images, "--model", DIGITS.model, "--cache", cache]
    command += ["--device", "cpu", "--precision", "float32", "--batch-size", "16", "--workers", "1"]
    kept: set[str] = set()
    for kills in (1, 2):
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(cache.glob("parts/*.parquet"))) < kills:
            time.sleep(0.005)
        assert process.poll() is None, "the run was over before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = {file.name for file in cache.glob("parts/*.parquet")}
        assert kept < now, "a finished part was lost"
        kept = now
        with pytest.raises(CacheError, match="incomplete"):
            read(cache)
    summary = clipaudit.embed(many_images, cache=cache, encoder=DIGITS)
    assert 0 < summary.n_embedded < 7000
    assert kept < {file.name for file in cache.glob("parts/*.parquet")}
    assert not list(cache.rglob("*.tmp"))
    assert read(cache).table.equals(read(many_embedded).table)
    np.testing.assert_allclose(read(cache).vectors, read(many_embedded).vectors, atol=2e-3)


def test_ctrl_c_is_explained_and_resumed(many_images: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clipaudit", "embed", str(many_images), "--model", DIGITS.model, "--cache", "c"]
    # Slow enough that the run is not over when the signal comes.
    command += ["--device", "cpu", "--precision", "float32", "--batch-size", "16", "--workers", "1"]
    # Where the tests run in a shell's background, SIGINT is ignored, and a child would inherit that.
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not list((tmp_path / "c").glob("parts/*.parquet")):
        time.sleep(0.005)
    assert process.poll() is None, "the run was over before it could be interrupted"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert clipaudit.embed(many_images, cache=tmp_path / "c", encoder=DIGITS).n_embedded < 7000


def test_damaged_parts_are_found_and_rebuilt(many_images: Path, many_embedded: Path, tmp_path: Path) -> None:
    cache = tmp_path / "c"
    (cache / "parts").mkdir(parents=True)
    for file in many_embedded.rglob("*.*"):
        (cache / file.relative_to(many_embedded)).write_bytes(file.read_bytes())
    victim = sorted((cache / "parts").iterdir())[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(CacheError, match=r"1 of them damaged.* --verify"):
        read(cache)
    # Names are trusted unless somebody asks.
    assert clipaudit.embed(many_images, cache=cache, encoder=DIGITS).n_embedded == 0
    summary = clipaudit.embed(many_images, cache=cache, encoder=DIGITS, verify=True)
    assert summary.n_damaged_parts == 1
    assert 0 < summary.n_embedded < 7000
    np.testing.assert_allclose(read(cache).vectors, read(many_embedded).vectors, atol=2e-3)


def test_shards_fill_one_cache(many_images: Path, many_embedded: Path, tmp_path: Path) -> None:
    cache, embedded = tmp_path / "c", 0
    for number in (2, 1, 3):
        assert not cache.exists() or embedded
        if embedded:
            with pytest.raises(CacheError, match="other shards"):
                read(cache)
        summary = clipaudit.embed(many_images, cache=cache, encoder=DIGITS, shard=(number, 3))
        embedded += summary.n_embedded
        assert summary.complete == (number == 3)
    assert embedded == 7000
    assert read(cache).table.equals(read(many_embedded).table)
    with pytest.raises(UsageError, match="shard 4/3 does not exist"):
        clipaudit.embed(many_images, cache=cache, encoder=DIGITS, shard=(4, 3))


def test_a_cache_of_another_model_or_source_is_refused(small_images: Path, tmp_path: Path) -> None:
    clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS)
    with pytest.raises(CacheError, match="precision: float32 there, bfloat16 now"):
        clipaudit.embed(small_images, cache=tmp_path / "c", encoder=replace(DIGITS, precision="bfloat16"))
    write_class_folders(tmp_path / "others", 5, seed=9)
    with pytest.raises(CacheError, match="Choose another --cache"):
        clipaudit.embed(tmp_path / "others", cache=tmp_path / "c", encoder=DIGITS)
    small_images.rename(tmp_path / "moved")
    assert clipaudit.embed(tmp_path / "moved", cache=tmp_path / "c", encoder=DIGITS).n_embedded == 0


def test_caches_that_are_none_are_explained(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no embeddings cache"):
        EmbeddingsCache.open(tmp_path)
    (tmp_path / "cache.json").write_text('{"format": 1}')
    with pytest.raises(CacheError, match="damaged"):
        EmbeddingsCache.open(tmp_path)
    (tmp_path / "cache.json").write_text('{"format": 99}')
    with pytest.raises(CacheError, match="format 99"):
        EmbeddingsCache.open(tmp_path)


def test_a_full_disk_is_explained_and_leaves_nothing_half(small_images: Path, tmp_path: Path, run_cli: Cli) -> None:
    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    arguments = ("embed", small_images, "--model", DIGITS.model, "--cache", "c")
    result = run_cli(*arguments, preexec_fn=small_disk)
    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr
    assert not [file for file in (tmp_path / "c").rglob("*") if file.suffix in (".tmp", ".parquet")]
    assert run_cli(*arguments).returncode == 0


def test_the_batch_shrinks_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(replace(DIGITS, batch_size=32))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    expected = encoder.encode_images(pixels)
    features = encoder._model.get_image_features

    def small_device(pixel_values: torch.Tensor) -> object:
        if len(pixel_values) > 8:
            raise torch.OutOfMemoryError("out of memory")
        return features(pixel_values=pixel_values)

    monkeypatch.setattr(encoder._model, "get_image_features", small_device)
    torch.testing.assert_close(encoder.encode_images(pixels), expected, atol=1e-5, rtol=0)
    assert encoder.batch_size == 8
    monkeypatch.setattr(
        encoder._model, "get_image_features", lambda pixel_values: small_device(pixel_values.repeat(9, 1, 1, 1))
    )
    with pytest.raises(ModelError, match="too little memory for one image"):
        encoder.encode_images(pixels)


def test_models_that_cannot_be_used_are_explained(tmp_path: Path, run_cli: Cli, small_images: Path) -> None:
    result = run_cli("embed", small_images, "--cache", "c")
    assert result.returncode == 1
    assert "--model FOLDER" in result.stderr
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="save_pretrained"):
        load_encoder(EncoderOptions(str(tmp_path / "empty")))
    from transformers import ViTConfig, ViTModel

    tiny = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=32)
    ViTModel(tiny).save_pretrained(tmp_path / "vit")
    with pytest.raises(ModelError):
        load_encoder(EncoderOptions(str(tmp_path / "vit")))
    with pytest.raises(UsageError, match="unknown precision"):
        load_encoder(replace(DIGITS, precision="int4"))
    with pytest.raises(UsageError, match="device 'cuda:99'"):
        load_encoder(replace(DIGITS, device="cuda:99"))


def test_a_model_with_code_of_its_own_is_not_run(tmp_path: Path) -> None:
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    marker = tmp_path / "it-ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    with pytest.raises(ModelError):
        load_encoder(EncoderOptions(str(tmp_path)))
    assert not marker.exists()


def test_texts_that_are_too_long_are_refused_not_cut() -> None:
    with pytest.raises(PromptError, match="the text encoder reads 77"):
        load_encoder(DIGITS).encode_texts(["fine", "zero " * 100])


def test_an_embedding_that_is_not_finite_becomes_a_reason(
    small_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Encoder.encode_images

    def spoil(self: Encoder, pixels: np.ndarray) -> torch.Tensor:
        features = encode(self, pixels).clone()
        features[2] = torch.nan
        return features

    monkeypatch.setattr(Encoder, "encode_images", spoil)
    summary = clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS)
    assert summary.n_unreadable == 1
    assert "finite" in summary.unreadable[0][1]


def test_progress_reaches_the_total(small_images: Path, tmp_path: Path) -> None:
    seen = []
    clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS, progress=seen.append)
    assert (seen[-1].stage, seen[-1].done, seen[-1].total) == ("embedding", 24, 24)
    os.utime(next(small_images.rglob("*.png")), (1, 1))
    clipaudit.embed(small_images, cache=tmp_path / "c", encoder=DIGITS, progress=seen.append)
    assert (seen[-1].done, seen[-1].total) == (24, 24)
