"""What a file and a row add: kinds of source, data sets to import, commands. What lists them is complete."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from conftest import DIGITS, write_class_folders

import clipaudit
from clipaudit.calls.import_ import IMPORTERS
from clipaudit.cli.app import COMMANDS, app
from clipaudit.errors import SourceError, UsageError
from clipaudit.samples import Sample, open_source
from clipaudit.samples.base import FILES, read_file, stat_sample
from clipaudit.samples.kinds import KINDS, any_kind
from clipaudit.samples.place import Kind, Place

REPOSITORY = Path(__file__).parents[1]


class NamedFiles:
    """A toy: images directly in a folder, as CLASS-NUMBER.png."""

    class_names = image_column = None
    access = FILES

    def __init__(self, place: Place) -> None:
        self.location = self.root = place.path.resolve()

    def samples(self) -> Iterator[Sample]:
        for file in sorted(self.root.glob("*-*.png")):
            yield stat_sample(self.root, file.name, file.name.split("-")[0])

    def read(self, sample_id: str) -> bytes:
        return read_file(self.root / sample_id)

    def decided(self) -> dict[str, str]:
        return {"source": f"named files in {self.location}"}

    def notes(self) -> list[str]:
        return []


NAMED_FILES = Kind(
    name="a folder of named files",
    words="a folder of files named CLASS-NUMBER.png",
    found=lambda place: "named files" if place.form == "folder" and any(place.path.glob("*-*.png")) else None,
    open=NamedFiles,
    missed=lambda place: None,
    instead=lambda place: "move the named files elsewhere",
)


@pytest.fixture
def named_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipaudit.samples.opening.KINDS", (*KINDS, NAMED_FILES))


def folder_of_named_files(root: Path) -> Path:
    write_class_folders(root, 24)
    for file in list(root.glob("*/*.png")):
        file.rename(root / f"{file.parent.name}-{file.name}")
    return root


@pytest.mark.usefixtures("named_files")
def test_a_kind_of_source_is_a_row(tmp_path: Path) -> None:
    folder = folder_of_named_files(tmp_path / "photos")
    summary = clipaudit.embed(folder, cache=tmp_path / "c", encoder=DIGITS)
    assert summary.n_embedded == 24
    assert summary.decided["source"] == f"named files in {folder}"
    index = clipaudit.select(tmp_path / "c", device="cpu")
    assert clipaudit.write_report(index, tmp_path / "r.html").n_without_image == 0


@pytest.mark.usefixtures("named_files")
def test_messages_name_the_kinds_of_source(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"column.* or a folder of files named CLASS-NUMBER\.png\."):
        open_source(tmp_path / "notes.txt")
    with pytest.raises(SourceError, match=r"a Parquet file.* or a folder of named files\."):
        open_source(tmp_path / "nowhere")


@pytest.mark.usefixtures("named_files")
def test_a_place_of_two_kinds_is_refused(tmp_path: Path) -> None:
    write_class_folders(folder_of_named_files(tmp_path / "photos"), 3)
    with pytest.raises(SourceError, match=r"class folders with images \(.+\) and named files.*move the named files"):
        open_source(tmp_path / "photos")


def parameter(command: str, name: str) -> str:
    """The help of one argument or option."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return next(found.help for found in commands[command].params if found.name == name)


def test_help_and_docs_name_every_kind_of_source() -> None:
    names = any_kind(kind.name for kind in KINDS)
    assert names in " ".join((REPOSITORY / "docs" / "sources.md").read_text(encoding="utf-8").split())
    said = parameter("embed", "source").lower()
    assert [kind.name for kind in KINDS if kind.name.removeprefix("a ").lower() not in said] == []


def test_help_names_every_data_set_to_import() -> None:
    assert any_kind(IMPORTERS) in parameter("import", "name")


CLI = REPOSITORY / "clipaudit" / "cli"


def commands_of(file: Path) -> Iterator[str]:
    """The public functions of a command's file, as the table calls them."""
    module = ast.parse(file.read_text(encoding="utf-8"))
    if (ast.get_docstring(module) or "").startswith("`clipaudit "):
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{'.'.join(file.relative_to(CLI).with_suffix('').parts)}:{node.name}"


def test_the_table_has_every_command_of_the_files() -> None:
    files = CLI.rglob("*.py")
    assert sorted(home for file in files for home in commands_of(file)) == sorted(COMMANDS.values())


def test_every_command_has_its_help_page_and_a_place_in_the_docs() -> None:
    pages = {page.name: page.read_text(encoding="utf-8") for page in (REPOSITORY / "docs").glob("*.md")}
    help_pages = pages.pop("commands.md").splitlines()
    told = (REPOSITORY / "README.md").read_text(encoding="utf-8") + "".join(pages.values())
    assert [name for name in COMMANDS if f"## clipaudit {name}" not in help_pages] == []
    assert [name for name in COMMANDS if f"clipaudit {name}" not in told] == []
