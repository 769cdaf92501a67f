"""Models of the hub: short names, and what happens where no hub can be reached."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import DIGITS

import clipaudit
from clipaudit import EncoderOptions
from clipaudit.demo import MODEL
from clipaudit.options.shared import MODELS

REPOSITORY = Path(__file__).parents[1]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@contextmanager
def hanging_up() -> Iterator[tuple[str, list[str]]]:
    """A server that answers nothing, its address, and what it was asked about models."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        made: list[str] = []

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked = connection.recv(1000).decode("ascii", "replace").split("\r\n")[0]
                # The client's own questions, which are about no model, are its own matter.
                made.extend([asked] if "/resolve/" in asked else [])

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", made


def online(endpoint: str, home: Path) -> dict[str, str]:
    """The environment of who is online, with a hub at this address and a cache of its own."""
    proxies = {"NO_PROXY": "127.0.0.1"}
    held = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**held, **proxies, "HF_ENDPOINT": endpoint, "HF_HOME": str(home)}


def test_a_hub_that_does_not_answer_is_asked_once(small_images: Path, tmp_path: Path, run_cli: Cli) -> None:
    with hanging_up() as (endpoint, made):
        done = run_cli("embed", small_images, "--model", "vit-b-32", env=online(endpoint, tmp_path / "home"))
    assert done.returncode == 1
    assert len(made) == 1
    assert "Retry" not in done.stderr
    for words in (MODELS["vit-b-32"], endpoint, "--model FOLDER", "HF_ENDPOINT=", "HF_HOME=", str(tmp_path / "home")):
        assert words in done.stderr, words


def test_a_network_of_the_hub_is_asked_for_once(
    noisy_index: clipaudit.CleanIndex, tmp_path: Path, run_cli: Cli
) -> None:
    noisy_index.write(tmp_path / "clean.parquet")
    with hanging_up() as (endpoint, made):
        words = ("train", "--index", "clean.parquet", "--model", "some/network", "--device", "cpu")
        done = run_cli(*words, env=online(endpoint, tmp_path / "home"))
    assert done.returncode == 1
    assert len(made) == 1
    assert "some/network cannot be loaded" in done.stderr
    assert "timm:NAME" in done.stderr


def test_no_password_of_a_mirror_is_told(small_images: Path, tmp_path: Path, run_cli: Cli) -> None:
    done = run_cli("embed", small_images, env=online("http://me:hunter2@127.0.0.1:9", tmp_path / "home"))
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_model_in_the_cache_needs_no_hub(small_images: Path, tmp_path: Path, run_cli: Cli) -> None:
    commit = "0" * 40
    held = tmp_path / "home" / "hub" / "models--some--digits"
    shutil.copytree(MODEL, held / "snapshots" / commit)
    (held / "refs").mkdir()
    (held / "refs" / "main").write_text(commit)
    with hanging_up() as (endpoint, made):
        settings = online(endpoint, tmp_path / "home")
        done = run_cli("embed", small_images, "--model", "some/digits", "--cache", "c", env=settings)
    assert done.returncode == 0, done.stderr
    assert len(made) == 1
    assert clipaudit.EmbeddingsCache.open(tmp_path / "c").info.fingerprint.model == "some/digits"


def test_short_names_are_hub_ids_and_folders_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, address in MODELS.items():
        assert EncoderOptions(model=name).model == address
    assert EncoderOptions().model == MODELS["vit-b-32"]
    assert EncoderOptions(model="some/other").model == "some/other"
    (tmp_path / "vit-b-32").mkdir()
    monkeypatch.chdir(tmp_path)
    assert EncoderOptions(model="vit-b-32").model == "vit-b-32"
    assert DIGITS.model == str(MODEL)


def test_the_docs_have_every_short_name() -> None:
    page = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `([\w-]+)` \| `([\w/-]+)` \|", page, re.MULTILINE)) == MODELS
