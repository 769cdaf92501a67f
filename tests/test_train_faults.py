"""`train` and `predict` where something is wrong: one thread, kills, full disks, damaged runs, numbers out of range."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from training_digits import TINY, Digits, content, train

import clipaudit
from clipaudit.errors import ClipAuditError, RunError, SourceError, UsageError
from clipaudit.files import temporary
from clipaudit.training.checkpoints import load_state
from clipaudit.training.pixels import load_pixels

SHORT = replace(TINY, epochs=3, milestones=(2,))
# Trains in a child for each kill: it is forked before torch has started a thread, and starts at once.
KILLED = """
import os, pickle, random, sys, threading, time
import clipaudit, clipaudit.files, clipaudit.calls.train
with open(sys.argv[1], "rb") as file:
    call, kills = pickle.load(file)

def attempt(kill):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    flush, flushed = os.fsync, []
    def counted(handle):
        flushed.append(handle)
        if len(flushed) == kill:
            os.kill(os.getpid(), 9)
        flush(handle)
    os.fsync = counted
    if kill and kill < 1:
        threading.Timer(2 * kill, os.kill, (os.getpid(), 9)).start()
    clipaudit.train(**call)
    os._exit(0)

print([attempt(kill) for kill in [*kills, None]])
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits(tmp_path_factory.mktemp("digits"), n=60, rate=0.3)


@pytest.fixture(scope="module")
def finished(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose best epoch need not be its last."""
    return train(digits, tmp_path_factory.mktemp("runs") / "run", replace(SHORT, val_share=0.3)).folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize("isa", [None, "AVX2"])
def test_training_on_one_thread_survives_narrow_networks(digits: Digits, tmp_path: Path, isa: str | None) -> None:
    """Channels-last convolutions of few channels ended the process here, with oneDNN's AVX2 kernels on one thread."""
    from transformers import ResNetConfig

    settings = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}
    ResNetConfig(**settings).save_pretrained(tmp_path / "model")
    digits.index.write(tmp_path / "clean.parquet")
    script = (
        "import sys, clipaudit\n"
        "for name, changes in eval(sys.argv[2]).items():\n"
        "    config = clipaudit.recipe('cifar', epochs=1, batch_size=16, image_size=16, policy='none', **changes)\n"
        "    folder = sys.argv[1]\n"
        "    clipaudit.train(f'{folder}/clean.parquet', out=f'{folder}/{name}', config=config, device='cpu')\n"
    )
    runs = {f"width-{width}": {"width": width} for width in (4, 8, 16, 64)}
    runs["transformers"] = {"model": str(tmp_path / "model")}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_CHECK_": "3"} | (
        {"ONEDNN_MAX_CPU_ISA": isa} if isa else {}
    )
    command = [sys.executable, "-c", script, str(tmp_path), repr(runs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for name in runs:
        weights = load_file(tmp_path / name / "last.safetensors")
        assert all(np.isfinite(value).all() for value in weights.values())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no kill -9")
def test_a_run_killed_at_any_time_ends_as_if_it_had_not_been(digits: Digits, tmp_path: Path) -> None:
    """Twelve kills with -9: at flushes of files (the first is in the middle of run.json) and at random times."""
    import pickle

    digits.index.write(tmp_path / "clean.parquet")
    config = replace(SHORT, val_share=0.3)
    call = {"index": tmp_path / "clean.parquet", "config": config, "test": digits.test, "device": "cpu"}
    times = np.random.default_rng(14).random(4).tolist()
    kills = {"whole": [], "killed": [1, 2, 3, 7, times[0], 5, times[1], 9, times[2], 4, 16, times[3]]}
    for name, at in kills.items():
        (tmp_path / "call").write_bytes(pickle.dumps(({**call, "out": tmp_path / name}, at)))
        command = [sys.executable, "-c", KILLED, str(tmp_path / "call")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        codes = json.loads(done.stdout)
        assert codes[-1] == 0, done.stderr
        assert set(codes) <= {0, -9}
        assert name == "whole" or codes.count(-9) >= 5
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_folder_with_nothing_but_our_temporary_files_is_new(digits: Digits, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    name = temporary(tmp_path / "run" / "run.json").name
    (tmp_path / "run" / name.replace(str(os.getpid()), str(gone.pid))).write_text('{"for')
    living = temporary(tmp_path / "run" / "run.json")
    living = living.with_name(living.name.replace(str(os.getpid()), str(os.getppid())))
    living.write_text("of a living process")
    summary = train(digits, tmp_path / "run", replace(SHORT, epochs=1))
    assert [path.name for path in summary.folder.glob("*.tmp")] == [living.name]


@pytest.mark.parametrize("lost", [["best", "last"], ["best"], ["last"]])
def test_lost_or_damaged_weights_are_written_again_from_the_state(
    digits: Digits, finished: Path, run: Path, lost: list[str]
) -> None:
    (run / f"{lost[0]}.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"damaged.*train command again"):
        clipaudit.predict(run, digits.test, weights=lost[0], device="cpu")
    for name in lost:
        (run / f"{name}.safetensors").unlink()
    with pytest.raises(RunError, match="no weights in"):
        clipaudit.predict(run, digits.test, weights=lost[0], device="cpu")
    assert train(digits, run, replace(SHORT, val_share=0.3)).n_done == 0
    assert content(run) == content(finished)


@pytest.mark.parametrize("name", ["run.json", "state.safetensors", "best.safetensors", "last.safetensors"])
def test_a_flipped_byte_never_changes_a_result_silently(digits: Digits, finished: Path, run: Path, name: str) -> None:
    generator, file = np.random.default_rng(30), run / name
    right = file.read_bytes()
    config = replace(SHORT, val_share=0.3)
    table = {kind: clipaudit.predict(finished, digits.test, device="cpu", weights=kind) for kind in ("best", "last")}
    noticed, header = 0, min(len(right), 4000)
    places = [*generator.integers(0, header, 12), *generator.integers(0, len(right), 12)]
    for place in places:
        damaged = bytearray(right)
        damaged[place] ^= 1 << generator.integers(8)
        file.write_bytes(damaged)
        try:
            if name == "state.safetensors":
                train(digits, run, config)
                assert content(run) == content(finished)
            else:
                kind = name.split(".")[0].replace("run", "best")
                assert clipaudit.predict(run, digits.test, device="cpu", weights=kind).equals(table[kind])
        except RunError:
            noticed += 1
    assert noticed >= len(places) / 2


def test_files_of_another_run_are_not_taken_for_this_one(digits: Digits, run: Path, tmp_path: Path) -> None:
    other = train(digits, tmp_path / "other", replace(SHORT, seed=1)).folder
    for name in ("state", "best"):
        shutil.copy(other / f"{name}.safetensors", run)
    with pytest.raises(RunError, match="belongs to another run"):
        clipaudit.predict(run, digits.test, device="cpu")
    with pytest.raises(RunError, match="belongs to another run"):
        train(digits, run, replace(SHORT, val_share=0.3))


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": None},
        {"class_names": []},
        {"class_names": ["one"] * 10},
        {"config": {"width": 10**9}},
        {"format": 1},
        {"digest": None},
    ],
)
def test_a_changed_run_json_is_refused(digits: Digits, run: Path, change: dict[str, object]) -> None:
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(RunError, match=r"run.json is damaged|another version"):
        clipaudit.predict(run, digits.test, device="cpu")
    with pytest.raises(RunError, match=r"run.json is damaged|another version"):
        train(digits, run, replace(SHORT, val_share=0.3))


@pytest.mark.parametrize(
    "change",
    [
        ("architecture", "image_size", 10**9),
        ("architecture", "width", 10**9),
        ("architecture", "std", [0, 1, 1]),
        ("architecture", "classes", 11),
        ("config", "seed", "one"),
    ],
)
def test_facts_out_of_range_are_refused_before_memory_is_taken(run: Path, change: tuple[str, str, object]) -> None:
    write_facts(run, change[0], {change[1]: change[2]})
    with pytest.raises(RunError, match=r"run.json is damaged: .*(must be|classes)"):
        clipaudit.predict(run, run)


def write_facts(run: Path, part: str, changes: dict[str, object]) -> None:
    """Change run.json as if clipaudit itself had written it, checksum included."""
    from clipaudit.training.run_check import digest_of

    facts = json.loads((run / "run.json").read_text())
    del facts["digest"]
    (facts[part] if part else facts).update(changes)
    (run / "run.json").write_text(json.dumps({**facts, "digest": digest_of(facts)}))


@pytest.mark.parametrize("part", ["", "config", "architecture"])
def test_facts_of_a_newer_version_are_refused_by_name(digits: Digits, run: Path, part: str) -> None:
    write_facts(run, part, {"mixture_of_experts": 2})
    for call in (
        lambda: clipaudit.predict(run, digits.test, device="cpu"),
        lambda: train(digits, run, replace(SHORT, val_share=0.3)),
    ):
        with pytest.raises(RunError, match=rf"'{part}{'.' * bool(part)}mixture_of_experts'.*newer version"):
            call()


def test_a_run_of_an_earlier_version_is_read_and_resumed(digits: Digits, finished: Path, run: Path) -> None:
    """It wrote down the options of all methods, and its own version."""
    write_facts(run, "config", {"warm_up": 10, "alpha": 4.0, "sharpening": 0.5, "lambda_u": 25.0, "ramp_up": 16})
    write_facts(run, "", {"clipaudit": "0.9.0"})
    for name in ("best", "last", "state"):
        (run / f"{name}.safetensors").unlink()
    written = (run / "run.json").read_bytes()
    train(digits, run, replace(SHORT, val_share=0.3))
    assert (run / "run.json").read_bytes() == written
    assert (run / "labels.parquet").read_bytes() == (finished / "labels.parquet").read_bytes()
    tables = [clipaudit.predict(folder, digits.test, device="cpu") for folder in (run, finished)]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("mistake", ["shorter", "best", "gap", "missing", "accuracy"])
def test_a_history_that_does_not_fit_is_refused(mistake: str) -> None:
    from clipaudit.training.run_check import check_history

    rows = [
        {"epoch": n, "learning_rate": 0.1, "loss": 1.0, "n_samples": 9, "val_accuracy": 0.5, "test_accuracy": None}
        for n in (1, 2, 3)
    ]
    check_history(rows, 2, 3)
    best = 2
    if mistake == "shorter":
        rows, best = rows[:1], 2
    elif mistake == "best":
        best = 4
    elif mistake == "gap":
        del rows[1]
    elif mistake == "missing":
        del rows[1]["loss"]
    else:
        rows[1]["val_accuracy"] = math.nan
    with pytest.raises(ValueError, match=r"epoch|history"):
        check_history(rows, best, 3)


def test_weights_that_may_not_be_read_are_not_called_missing(digits: Digits, run: Path, monkeypatch) -> None:
    def closed(path: Path, *words, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", closed)
    for name in ("best.safetensors", "state.safetensors"):
        with pytest.raises(RunError, match="cannot be opened: Permission denied"):
            load_state(run / name, None, [], [], [], 60)


def test_places_that_are_no_run_folder_are_refused(digits: Digits, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ClipAuditError, match="not a folder"):
        train(digits, tmp_path / "file")
    with pytest.raises(ClipAuditError):
        train(digits, tmp_path / "file" / "run")
    (tmp_path / "folder" / "run.json").mkdir(parents=True)
    with pytest.raises(RunError, match="a folder, not a file"):
        train(digits, tmp_path / "folder")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a folder"):
        train(digits, tmp_path / "pipe")
    assert (tmp_path / "file").read_text() == "precious"


def test_a_disk_that_is_too_small_for_the_pixels_is_an_error(digits: Digits, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small tmpfs")
    try:
        config = replace(SHORT, image_size=128)
        for filler in (0, 1 << 20):
            (disk / "filler").write_bytes(bytes(filler))
            with pytest.raises(ClipAuditError, match=r"more than is free.*Free some space"):
                train(digits, disk / "run", config, pixels="disk")
        (disk / "filler").unlink()
        (disk / "run" / "run.json").unlink()
        # The space is taken when the file is made: a disk that fills up afterwards does no harm.
        options = {"place": "disk", "folder": disk / "run", "workers": 1, "report": lambda done, total: None}
        samples = _Filling(digits, disk / "filler")
        pixels, _ = load_pixels(samples, np.arange(60), _preprocessing(64), _cpu(), **options)
        assert samples.is_full
        assert next(iter(pixels.blocks([np.arange(60)]))).shape == (60, 3, 64, 64)
        del pixels
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


class _Filling:
    """Images, the first of which is read only after the disk was filled."""

    def __init__(self, digits: Digits, filler: Path) -> None:
        self.ids, self._root, self._filler, self.is_full = digits.ids, digits.root, filler, False

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, name: str) -> bytes:
        if not self.is_full:
            with self._filler.open("wb", buffering=0) as file:
                while not self.is_full:
                    try:
                        file.write(bytes(1 << 16))
                    except OSError as error:
                        self.is_full = error.errno == errno.ENOSPC
        return (self._root / name).read_bytes()


def _preprocessing(size: int):
    from clipaudit.training.models import Architecture

    return Architecture("preact-resnet18", 4, 10, size, (0.5,) * 3, (0.5,) * 3).preprocessing


def _cpu():
    import torch

    return torch.device("cpu")


def test_options_without_a_meaning_are_refused_before_anything_is_made(digits: Digits, tmp_path: Path) -> None:
    for option in ({"workers": -1}, {"workers": 0}, {"workers": 10**6}, {"pixels": "cloud"}, {"precision": "float8"}):
        with pytest.raises(UsageError):
            train(digits, tmp_path / "run", **option)
    with pytest.raises(UsageError, match="crop_padding must not exceed"):
        train(digits, tmp_path / "run", replace(SHORT, crop_padding=17))
    assert not (tmp_path / "run").exists()


def test_predict_fails_where_nothing_can_be_read(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "images" / "cat" / f"{number}.png").write_text("no image")
    with pytest.raises(SourceError, match=r"not one of 3 images .* The first is cat/0.png: "):
        clipaudit.predict(finished, tmp_path / "images", device="cpu")
    for workers in (0, -1, 10**6):
        with pytest.raises(UsageError, match="workers must be a whole number from 1 to 256"):
            clipaudit.predict(finished, tmp_path / "images", workers=workers)


def test_without_kornia_training_says_what_to_install(
    noisy_index: clipaudit.CleanIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    with pytest.raises(UsageError, match=r"training needs kornia: pip install 'clipaudit\[train\]'"):
        clipaudit.train(noisy_index, out=tmp_path / "run", config=TINY, device="cpu")
