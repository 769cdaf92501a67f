"""Damaged run folders: `predict` and a resumed `train` give the right result or a clear error, never another result."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fuzzing import LostError, campaign, size
from safetensors import safe_open
from safetensors.torch import save_file
from training_digits import TINY, Digits, content, train

import clipaudit

CONFIG = replace(TINY, epochs=2, milestones=(1,), val_share=0.3)
VALUES = (None, True, -1, 0, 1, 10**9, 10**400, 1e308, float("nan"), "", "x", "\0", "é" * 300, [], [[]], {}, {"x": 1})
FILES = ("run.json", "state.safetensors", "best.safetensors", "last.safetensors")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits(tmp_path_factory.mktemp("digits"), n=40, rate=0.3)


@pytest.fixture(scope="module")
def finished(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(digits, tmp_path_factory.mktemp("runs") / "run", CONFIG).folder


def mutate_json(value: object, dice: random.Random) -> object:
    """One part of a JSON document replaced, removed, doubled or renamed."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        name, kind = dice.choice(list(value)), dice.random()
        changed = dict(value)
        if kind < 0.15:
            del changed[name]
        elif kind < 0.25:
            changed[dice.choice(["", "x", name + "s"])] = changed.pop(name)
        else:
            changed[name] = mutate_json(value[name], dice)
        return changed
    if isinstance(value, list) and value and dice.random() < 0.7:
        place = dice.randrange(len(value))
        kept = [] if dice.random() < 0.3 else [mutate_json(value[place], dice)] * dice.choice([1, 1, 2])
        return value[:place] + kept + value[place + 1 :]
    if isinstance(value, int) and dice.random() < 0.3:
        return value + dice.choice([-1, 1])
    return dice.choice(VALUES)


def mutate_bytes(data: bytes, dice: random.Random) -> bytes:
    """A file with flipped, lost, doubled or foreign bytes; the header is hit as often as the rest."""
    reach = dice.choice([16, 3000, len(data)])
    place, kind = dice.randrange(min(reach, len(data))), dice.random()
    if kind < 0.6:
        return data[:place] + bytes([data[place] ^ (1 << dice.randrange(8))]) + data[place + 1 :]
    if kind < 0.75:
        return data[:place]
    if kind < 0.9:
        return data[:place] + dice.randbytes(dice.randrange(1, 64)) + data[place:]
    return dice.choice([b"", b"{}", b"[" * 100_000, b"\xff" * 8 + data, dice.randbytes(len(data) // 8)])


def mutate_header(path: Path, dice: random.Random) -> None:
    """A safetensors file written again, by its own library, with other facts in its header or other tensors."""
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["clipaudit"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if dice.random() < 0.7:
        facts = mutate_json(facts, dice)
    else:
        name = dice.choice(list(tensors))
        tensor = tensors.pop(name)
        if dice.random() < 0.7:
            tensors[name] = dice.choice(
                [tensor.flatten()[:0].clone(), tensor.double(), (tensor * 0.5).to(tensor.dtype)]
            )
    save_file(tensors, path, {"clipaudit": json.dumps(facts)})


def test_damaged_run_folders(digits: Digits, finished: Path, tmp_path: Path) -> None:
    right = content(finished)
    tables = {kind: clipaudit.predict(finished, digits.test, device="cpu", weights=kind) for kind in ("best", "last")}

    def call(seed: int) -> None:
        dice, run = random.Random(seed), tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(finished, run)
        name = dice.choice(FILES)
        for _ in range(dice.choice([1, 1, 2])):
            if dice.random() < 0.5:
                (run / name).write_bytes(mutate_bytes((run / name).read_bytes() or b"\0", dice))
            elif name == "run.json":
                (run / name).write_text(json.dumps(mutate_json(json.loads(right[name]), dice)))
            else:
                (run / name).write_bytes(right[name])
                mutate_header(run / name, dice)
        if dice.random() < 0.6 and name != "state.safetensors":
            kind = dice.choice(["best", "last"])
            if not clipaudit.predict(run, digits.test, device="cpu", weights=kind).equals(tables[kind]):
                raise LostError(f"{name}: other predictions")
        else:
            train(digits, run, CONFIG)
            changed = [file for file, data in content(run).items() if data != right[file] and file != "run.json"]
            if changed:
                raise LostError(f"{name}: other {', '.join(changed)}")

    campaign("run folders", range(size(60)), call)
