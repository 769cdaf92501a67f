"""Options are data: what an entry says holds on the command line, in the checks, in the docs and in the metadata."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import clipaudit
from clipaudit.cli.options import taking
from clipaudit.config import ALIASES, PRESETS, AuditConfig, preset
from clipaudit.errors import UsageError
from clipaudit.options import RESEARCHERS, Option, Options, option
from clipaudit.options.kinds import Choice, Kind, Names, Numbers, Range, Switch, Text
from clipaudit.options.shared import COLUMNS, ENCODER, PIXELS, TRAIN_PRECISION, WORKERS
from clipaudit.training.config import TrainConfig, train_options
from clipaudit.training.methods import METHODS, method_of
from clipaudit.training.recipes import RECIPES, recipe

REPOSITORY = Path(__file__).parents[1]
# Each option, with what it needs beside it to have an effect.
AUDIT = [({"induced": "neighbours"} if name == "neighbours" else {}, name) for name in AuditConfig.entries()]
TRAIN = [({"method": m}, name) for m, row in METHODS.items() for name in row.config.entries() if name != "method"]


@dataclass(frozen=True)
class Toy(Options):
    """A configuration as a newcomer would write one."""

    depth: int = option(3, Range(1, 9, whole=True, unit="layers"), "Depth of the toy", panel="Toy")
    colour: str = option("red", Choice({"red": "warm", "blue": ""}), "Colour of the toy", note="red [sic] by custom")
    parts: tuple[str, ...] = option(("arm",), Names("part", {"arm": "", "leg": ""}), "Parts of the toy")
    steps: tuple[int, ...] = option((1, 2), Numbers(Range(0, 9, whole=True), most=3, example=(1, 2)), "Steps")
    name: str | None = option(None, Text("a name"), "Name of the toy", unset="the child's")
    loud: bool = option(False, Switch(), "Make it loud")


def toy_command(*words: str) -> Any:
    """What a command with the toy's options receives, or what it prints."""
    received: list[Any] = []

    @taking(Toy.entries().values(), {"wild": {"depth": 9, "loud": True}, "calm": {"depth": 1}})
    def play(where: str = "garden", *, changes: dict[str, Any]) -> None:
        received.append((where, changes))

    app = typer.Typer(rich_markup_mode="rich")
    app.command()(play)
    result = CliRunner().invoke(app, [*words], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    return received[0] if received else result.output


def test_an_entry_is_all_that_a_new_option_needs() -> None:
    shown = toy_command("--help")
    for words in (
        "Depth of the toy (1 to 9 layers). [default: 3; wild: 9; calm: 1]",
        "Colour of the toy: red (warm) or blue; red [sic] by custom. [default: red]",
        "[default: (the child's)]",
        "--loud",
        "[default: no-loud; wild: loud]",
    ):
        assert words in shown
    assert shown.index("Toy ─") < shown.index(f"{RESEARCHERS} ─")
    words = ("--depth", "4", "--parts", "arm, leg", "--steps", "1,3", "--loud", "--where", "attic")
    where, changes = toy_command(*words)
    assert where == "attic"
    assert changes == {"depth": 4, "parts": "arm, leg", "steps": (1, 3), "loud": True}
    toy = Toy().with_changes(**changes)
    assert toy == Toy(4, parts=("arm", "leg"), steps=(1, 3), loud=True)
    assert Toy.from_dict(json.loads(json.dumps(toy.to_dict()))) == toy
    with pytest.raises(UsageError, match="depth must be a whole number from 1 to 9, not 'x'"):
        Toy().with_changes(**toy_command("--depth", "x")[1])
    with pytest.raises(UsageError, match="no option 'size'"):
        Toy().with_changes(size=1)
    sys.path.insert(0, str(REPOSITORY / "docs"))
    try:
        table = import_module("options").table(Toy.entries().values(), {})
    finally:
        sys.path.pop(0)
    assert "| `--depth` | `depth` | 3 | Toy | Depth of the toy (1 to 9 layers). |" in table


def entries() -> Iterator[Option]:
    """The options of every call."""
    yield from AuditConfig.entries().values()
    yield from train_options().values()
    yield from (*ENCODER, *COLUMNS, TRAIN_PRECISION, PIXELS, WORKERS)


@pytest.mark.parametrize("entry", list(entries()), ids=lambda entry: entry.name)
def test_every_option_says_all_about_itself(entry: Option) -> None:
    assert isinstance(entry.kind, Kind)
    assert entry.name
    assert entry.panel
    assert entry.help[0].isupper()
    assert not entry.help.endswith(".")
    assert entry.sentence.endswith(".")
    assert entry.spelling.startswith("--")
    assert (entry.default is None) == bool(entry.unset)
    assert entry.take(entry.default) == entry.default
    assert entry.invalid_values()


@pytest.mark.parametrize("kind", [AuditConfig, *(row.config for row in METHODS.values())])
def test_every_field_of_a_configuration_is_an_option(kind: type[Options]) -> None:
    assert [field.name for field in fields(kind)] == list(kind.entries())


@pytest.mark.parametrize(("beside", "name"), [*AUDIT, *TRAIN])
def test_a_value_without_a_meaning_is_refused_by_name(beside: dict[str, str], name: str) -> None:
    kind: Any = TrainConfig if "method" in beside else AuditConfig
    entry = (train_options() if "method" in beside else AuditConfig.entries())[name]
    for value in entry.invalid_values():
        # "selectors" and "combine" are called "selector" and "combination" in messages.
        with pytest.raises(UsageError, match=name[:6]):
            kind(**{**beside, name: value})


def test_the_page_of_options_is_up_to_date() -> None:
    subprocess.run([sys.executable, REPOSITORY / "docs" / "options.py", "--check"], check=True)


def test_help_shows_the_true_defaults() -> None:
    audit, train = AuditConfig.entries(), train_options()
    assert audit["theta_consistency"].defaults(PRESETS) == "1.0; cifar: 0.8"
    assert audit["temperature"].defaults(PRESETS) == "0.07; recommended: model"
    assert train["batch_size"].defaults(RECIPES) == "128; red-mini-imagenet, webvision: 64; fast, probe: 256"
    assert train["milestones"].defaults(RECIPES) == "200,250; webvision: 80,120; probe: 12,17"
    assert audit["c"].sentence.endswith("(1e-06 to 10000); only for logistic and joint.")
    assert train["warm_up"].sentence.endswith("; only for dividemix.")


def test_three_presets_and_their_other_names() -> None:
    assert list(PRESETS) == ["paper", "recommended", "cifar"]
    for name, same in ALIASES.items():
        assert preset(name) == preset(same)
    assert preset() == AuditConfig()
    assert preset("cifar", theta_consistency=0.9).theta_consistency == 0.9
    base = preset("cifar", theta_loss=0.7)
    assert preset("paper", base) == AuditConfig()
    assert preset(None, base, combine="union") == base.with_changes(combine="union")


def test_each_method_has_its_own_options() -> None:
    assert recipe(method="dividemix", warm_up=3).to_dict()["warm_up"] == 3
    assert TrainConfig(method="dividemix", warm_up=3) == recipe(method="dividemix", warm_up=3)
    for method, row in METHODS.items():
        config = recipe("animal10n", method=method)
        assert type(config) is row.config
        assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        others = [name for name in train_options() if name not in row.config.entries()]
        assert not set(others) & config.to_dict().keys()
        for name in others:
            with pytest.raises(UsageError, match=f"{name} belongs to .*, not to {method}"):
                recipe("cifar", method=method, **{name: train_options()[name].default})
    with pytest.raises(UsageError, match=r"unknown method 'magic'\. Choose one of: mixfix, ce, ce-all, dividemix"):
        recipe(method="magic")


def test_a_configuration_with_the_options_of_all_methods_is_read() -> None:
    """As an earlier clipaudit wrote it into run.json."""
    every = {name: entry.default for name, entry in train_options().items()}
    for method in METHODS:
        assert TrainConfig.from_dict({**every, "method": method}) == recipe(method=method)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_has_a_home(method: str) -> None:
    import numpy as np

    from clipaudit.training.methods.base import Subsets

    clean = np.array([True, False])
    made = method_of(Subsets(np.array([0, 1]), clean, ~clean, 2), recipe(method=method))
    assert made.beta > 0


def test_configurations_need_no_heavy_import() -> None:
    code = (
        "import clipaudit.config, clipaudit.training.recipes, clipaudit.training.methods, sys;"
        "print({'typer', 'numpy', 'pyarrow', 'torch'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_library_has_presets_and_recipes_alike() -> None:
    assert clipaudit.preset("recommended").induced == "joint"
    assert clipaudit.recipe("cifar", theta_r=0.75).theta_r == 0.75
    assert TrainConfig(theta_r=0.75).theta_r == 0.75
