"""Options of every kind and none: a result, or an error that names the option; no traceback and no work without end.

CLIPAUDIT_FUZZ=2000 tries 2,000 cases in each campaign.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from conftest import DIGITS, write_class_folders
from fuzzing import LostError, campaign, size
from typer._click.exceptions import ClickException

import clipaudit
from clipaudit import AuditConfig, CleanIndex
from clipaudit.calls.doubts import find_doubts
from clipaudit.cli.app import app
from clipaudit.demo.digits import CLASS_NAMES
from clipaudit.errors import UsageError
from clipaudit.options.kinds import Range

# What anyone may type, and what a program may pass.
NUMBERS = ["0", "1", "2", "5", "-1", "0.5", "1e-4", "1e6", "1e300", "nan", "inf", "-inf", "1_0", "\u0663", "9" * 5000]
WORDS = ["", " ", "x", "None", "auto", "model", "reviewed", "joint", "neighbours", "2-of-4", "induced_loss"]
OBJECTS: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, 50, 90, -1, 2**63, 2**64, 10**5000, 0.0, 0.5, 1.0, 1e-5, 1e6),
    *(float("nan"), float("inf"), "", "1", "model", b"1", [], ["induced_loss"], {}, (), {"a"}, object(), 1j),
    *(np.int64(3), np.float16(1), np.array([1, 2]), np.array(5), np.bool_(True), AuditConfig, range(3)),
    *("joint", "neighbours", "majority", "\0"),
]
GOOD: dict[str, list[Any]] = {
    **{"temperature": ["model", 1, 1e-4, 1e4], "induced": ["joint"], "c": [1e-6, 1e4, 1], "folds": [0, 2, 20]},
    **{"rounds": [1, 3], "neighbours": [1, 89], "seed": [0, 2**63 - 1], "combine": ["union", "majority", "3-of-4"]},
    **{"theta_consistency": [0, 0.5], "theta_loss": [0, 0.5], "threshold": [0, 0.7], "ranking": ["probability"]},
}
ENTRIES = AuditConfig.entries()
OPTIONS = [spelling for entry in ENTRIES.values() for spelling in entry.spelling.split("/")]
OTHERS = ["--preset", "--prompts", "--labels", "--names", "--from", "--device", "--model", "--export"]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CleanIndex]:
    """An audit of few images: the cache, and the index as a file."""
    root = tmp_path_factory.mktemp("options")
    write_class_folders(root / "images", 90, rate=0.2)
    cache = clipaudit.embed(root / "images", cache=root / "cache", encoder=DIGITS).cache
    index = clipaudit.select(cache, device="cpu")
    index.write(root / "clean.parquet")
    return cache, index


def random_fields(n: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    names = list(ENTRIES)
    for _ in range(n):
        chosen = rng.choice(names, rng.integers(1, 4), replace=False)
        pools = [
            GOOD.get(name, [True]) if rng.random() < 0.7 else [*OBJECTS, *ENTRIES[name].invalid_values()]
            for name in chosen
        ]
        yield {str(name): pool[rng.integers(len(pool))] for name, pool in zip(chosen, pools, strict=True)}


def test_configurations_from_python(audited: tuple[Path, CleanIndex]) -> None:
    cache, _ = audited

    def call(changes: dict[str, Any]) -> None:
        config = AuditConfig(**changes)
        if AuditConfig.from_dict(config.to_dict()) != config:
            raise LostError("it does not survive a round trip")
        found = clipaudit.select(cache, config=config, device="cpu")
        clipaudit.reselect(found, config)

    campaign("options: configurations", random_fields(size(60)), call)


def test_other_arguments_from_python(audited: tuple[Path, CleanIndex], tmp_path: Path) -> None:
    cache, index = audited
    given = [*index.table["label"].to_pylist()]

    def with_one(value: Any) -> list[Any]:
        return [*given[:5], value, *given[6:]]

    calls = [
        lambda value: clipaudit.select(cache, labels=value, device="cpu"),
        lambda value: clipaudit.select(cache, names=value, device="cpu"),
        lambda value: clipaudit.select(cache, labels=with_one(value), names=list(CLASS_NAMES), device="cpu"),
        lambda value: find_doubts(index, top=value),
        lambda value: clipaudit.write_report(index, tmp_path / "report.html", top=value),
        lambda value: clipaudit.corrupt(cache.parent / "images", tmp_path / "m.csv", kind="symmetric", rate=value),
        lambda value: clipaudit.corrupt(
            cache.parent / "images", tmp_path / "m.csv", kind="symmetric", rate=0.5, seed=value
        ),
    ]
    rng = np.random.default_rng(1)
    cases = [(rng.integers(len(calls)), rng.integers(len(OBJECTS))) for _ in range(size(60))]
    campaign("options: arguments", cases, lambda case: calls[case[0]](OBJECTS[case[1]]))


def test_options_of_the_command_line(
    audited: tuple[Path, CleanIndex], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, _ = audited
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)

    def words() -> list[str]:
        start = [str(cache)] if rng.random() < 0.7 else ["--from", str(cache.parent / "clean.parquet")]
        for _ in range(rng.integers(1, 4)):
            pool = NUMBERS if rng.random() < 0.6 else WORDS
            start += [str(rng.choice(OPTIONS if rng.random() < 0.7 else OTHERS)), pool[rng.integers(len(pool))]]
        return start

    def call(case: list[str]) -> None:
        try:
            typer.main.get_command(app).main(["select", *case], "clipaudit", standalone_mode=False)
        except ClickException as error:  # What typer itself refuses: `--folds x`.
            raise UsageError(error.format_message()) from None

    campaign("options: command line", (words() for _ in range(size(60))), call)


def test_a_range_takes_a_number_inside_and_refuses_all_else() -> None:
    numbers, refused = Range(1, 50, whole=True, apart=("auto",)), 0
    assert [numbers.take("--n", value) for value in (1, 50, np.int8(3), "auto")] == [1, 50, 3, "auto"]
    for value in OBJECTS:
        if isinstance(value, int | np.integer) and not isinstance(value, bool) and 1 <= value <= 50:
            assert type(numbers.take("--n", value)) is int
            continue
        with pytest.raises(UsageError, match=r"^--n must be 'auto' or a whole number from 1 to 50, not .{1,90}$"):
            numbers.take("--n", value)
        refused += 1
    assert refused > 30
