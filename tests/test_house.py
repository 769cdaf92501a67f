"""The plan of the house: rooms without circles, a root that stays small, and one table of public names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import clipaudit

PACKAGE = Path(clipaudit.__file__).parent
MOST_MODULES_IN_THE_ROOT = 12


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a file takes from the package."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clipaudit."):
            yield from ((str(node.module), alias.asname or alias.name) for alias in node.names)


def rooms() -> dict[str, set[str]]:
    """The rooms, and those that each one imports from."""
    found: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        # The table of public names leads everywhere, and is imported for its version alone.
        if room != "__init__":
            found.setdefault(room, set()).update(module.split(".")[1] for module, _ in imports(file))
    return {room: others - {room} for room, others in found.items()}


def test_no_room_leads_back_to_itself() -> None:
    left = rooms()
    while done := [room for room, others in left.items() if not others & left.keys()]:
        left = {room: others for room, others in left.items() if room not in done}
    assert not left, f"these rooms import each other: {sorted(left)}"


def test_the_root_stays_small_and_no_room_hides_a_call() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_MODULES_IN_THE_ROOT
    assert not rooms().keys() & set(clipaudit.__all__)


def test_every_public_name_is_where_the_table_says() -> None:
    said = {name: module.removeprefix("clipaudit.") for module, name in imports(PACKAGE / "__init__.py")}
    assert said == clipaudit._HOMES
    for name, module in said.items():
        assert getattr(clipaudit, name) is getattr(import_module(f"clipaudit.{module}"), name)


def test_benchmarks_and_docs_take_only_what_is_there() -> None:
    """Nothing in CI runs them all: a name that has moved would break them unseen."""
    folders = [PACKAGE.parent / name for name in ("benchmarks", "docs")]
    if not all(folder.is_dir() for folder in folders):
        pytest.skip("an installed package has no benchmarks")
    for file in (file for folder in folders for file in folder.glob("*.py")):
        for module, name in imports(file):
            assert hasattr(import_module(module), name), f"{file.name} takes {name} from {module}"
