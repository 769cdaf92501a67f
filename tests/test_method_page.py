"""docs/method.md speaks about this code: its names, options, defaults and published thresholds exist as it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from clipaudit import AuditConfig, TrainConfig, preset, recipe
from clipaudit.cli.app import app

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "method.md").read_text(encoding="utf-8")
CODE_LINKS = sorted(set(re.findall(r"\[`(\w+)`\]\((\S+\.py)\)", PAGE)))
# Modules that compute the equations; a page that loses one of them has lost an equation.
MODULES = ("zero_shot", "logistic", "induced", "consistency", "mixture", "rule", "joint", "transition", "neighbours")
LINK = r"\[[^\]]*\]\(([^)#\s]+)[^)\s]*\)"


def tables(header: str) -> list[list[str]]:
    """The rows of the table with this first header cell."""
    lines = PAGE.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {header} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line[1:-1].split("|")])
    return rows


def options_of(command: str) -> dict[str, str]:
    """The options of a command, and the parameter that each one sets."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return {
        option: str(parameter.name)
        for parameter in group.commands[command].params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


@pytest.mark.parametrize(("name", "file"), CODE_LINKS)
def test_the_code_that_computes_an_equation_is_there(name: str, file: str) -> None:
    tree = ast.parse((DOCS / file).read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert name in defined, f"docs/method.md names {name}, which {file} does not define"


def test_every_equation_has_its_code() -> None:
    linked = {Path(file).stem for _, file in CODE_LINKS}
    assert linked.issuperset(MODULES)
    assert [number for number in range(3, 9) if rf"\tag{{{number}}}" not in PAGE] == []


@pytest.mark.parametrize("page", sorted(page.name for page in DOCS.glob("*.md")))
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for target in re.findall(LINK, text):
        assert target.startswith("https://") or (DOCS / target).exists(), f"docs/{page} links to {target}"


@pytest.mark.parametrize("picture", ["consistency", "method"])
def test_pictures_are_there_and_described(picture: str) -> None:
    assert "<svg" in (DOCS / f"{picture}.svg").read_text(encoding="utf-8")
    assert re.search(rf"!\[\w[^\]]+\]\({picture}\.svg\)", PAGE)
    assert f"`docs/{picture}.py` draws it" in PAGE


def test_every_option_on_the_page_exists() -> None:
    known = options_of("select").keys() | options_of("train").keys() | options_of("embed").keys()
    assert set(re.findall(r"`(?:\w+ )?(--[a-z0-9-]+)", PAGE)) <= known


def test_the_symbols_have_the_defaults_that_the_table_says() -> None:
    configurations = {"select": AuditConfig(), "train": TrainConfig()}
    checked = 0
    for _, _, options, default in tables("symbol"):
        commands = re.findall(r"`(\w+) (--[a-z-]+)`", options)
        for (command, option), value in zip(commands, default.split(", ") if default else [], strict=False):
            field = options_of(command)[option]
            assert float(value) == getattr(configurations[command], field), option
            checked += 1
    assert checked >= 10


@pytest.mark.parametrize("row", tables("name"), ids=lambda row: row[0].strip("`"))
def test_the_published_thresholds_are_those_of_presets_and_recipes(row: list[str]) -> None:
    name = row[0].strip("`")
    named = None if name == "default" else name
    audit, train = preset(named), recipe(named)
    held = [audit.theta_consistency, audit.theta_loss, train.theta_r, train.theta_r_prime, train.beta]
    assert [float(cell) for cell in row[1:]] == held
