"""Exports for labelling tools, the way back through `apply`, and the same file as a source again."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import DIGITS, write_class_folders
from source_helpers import ids, labels, write_parquet
from test_labelling_tools import digits_with_boxes
from tool_files import choice, coco, cvat, label_studio, write_json

import clipaudit
from clipaudit import SourceOptions
from clipaudit.errors import SourceError, UsageError
from clipaudit.exports.formats import FORMATS
from clipaudit.options.shared import EXPORT_FORMAT
from clipaudit.samples import open_source

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
TOOLS = {"label-studio": ".json", "cvat": ".xml", "coco": ".json", "fiftyone": ".json"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits in class folders, a fifth in a wrong one."""
    folder = tmp_path_factory.mktemp("tools") / "digits"
    write_class_folders(folder, 60, rate=0.2)
    return folder


@pytest.fixture(scope="module")
def index(root: Path) -> clipaudit.CleanIndex:
    return clipaudit.select(clipaudit.embed(root, cache=root.parent / "cache", encoder=DIGITS).cache, device="cpu")


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> clipaudit.CleanIndex:
    """Digits that are boxes in sheets."""
    folder = tmp_path_factory.mktemp("boxes")
    file = digits_with_boxes(folder, 48)
    cache = clipaudit.embed(file, cache=folder / "cache", encoder=DIGITS, options=SourceOptions(crops=True)).cache
    return clipaudit.select(cache, device="cpu")


@pytest.fixture(scope="module")
def in_rows(tmp_path_factory: pytest.TempPathFactory, root: Path) -> clipaudit.CleanIndex:
    """Digits in the rows of a Parquet file."""
    folder = tmp_path_factory.mktemp("rows")
    files = sorted(root.glob("*/*.png"))
    columns = {"image": [file.read_bytes() for file in files], "label": [file.parent.name for file in files]}
    file = write_parquet(folder / "digits.parquet", columns)
    return clipaudit.select(clipaudit.embed(file, cache=folder / "cache", encoder=DIGITS).cache, device="cpu")


def given(index: clipaudit.CleanIndex) -> dict[str, str]:
    return dict(zip(index.table["id"].to_pylist(), index.table["label"].to_pylist(), strict=True))


def another(index: clipaudit.CleanIndex, sample_id: str) -> str:
    return next(name for name in index.class_names if name != given(index)[sample_id])


def written(index: clipaudit.CleanIndex, path: Path, tool: str) -> Any:
    clipaudit.export(index, path, format=tool)
    return ElementTree.parse(path).getroot() if tool == "cvat" else json.loads(path.read_text(encoding="utf-8"))


# --- Out --------------------------------------------------------------------------------------------------------------


def test_label_studio_gets_the_suggestions_most_doubtful_first(index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    tasks = written(index, tmp_path / "tasks.json", "label-studio")
    assert len(tasks) == len(index)
    n_doubts = int(index.in_doubt.sum())
    assert n_doubts > 3
    assert [task["data"]["is_clean"] for task in tasks] == [False] * n_doubts + [True] * (len(index) - n_doubts)
    scores = [task["data"]["clean_score"] for task in tasks[:n_doubts]]
    assert scores == sorted(scores)
    suggested = dict(zip(given(index), index.table["suggested_label"].to_pylist(), strict=True))
    probability = dict(zip(given(index), index.table["suggested_probability"].to_pylist(), strict=True))
    for task in tasks:
        key = task["data"]["clipaudit_id"]
        (prediction,) = task["predictions"]
        (result,) = prediction["result"]
        assert result["value"]["choices"] == [suggested[key]]
        assert result["type"] == "choices"
        assert prediction["score"] == pytest.approx(probability[key], abs=1e-5)
        assert task["data"]["label"] == given(index)[key]
    assert tasks[0]["data"]["image"].startswith("/data/local-files/?d=")


def test_cvat_coco_and_fiftyone_get_the_labels(index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    found = written(index, tmp_path / "a.xml", "cvat")
    assert {image.get("name"): image.find("tag").get("label") for image in found.iter("image")} == given(index)
    found = written(index, tmp_path / "a.json", "coco")
    names = {category["id"]: category["name"] for category in found["categories"]}
    files = {image["id"]: image["file_name"] for image in found["images"]}
    said = {files[one["image_id"]]: names[one["category_id"]] for one in found["annotations"]}
    assert said == given(index)
    assert found["annotations"][0]["attributes"].keys() >= {"is_clean", "suggested_label"}
    found = written(index, tmp_path / "b.json", "fiftyone")
    assert found["classes"] == index.class_names
    said = {f"{name}.png": index.class_names[target["label"]] for name, target in found["labels"].items()}
    assert said == given(index)


@pytest.mark.parametrize("tool", ["cvat", "coco", "fiftyone"])
def test_an_export_is_a_source_again(index: clipaudit.CleanIndex, root: Path, tool: str) -> None:
    file = root / f"again-{tool}{TOOLS[tool]}"
    clipaudit.export(index, file, format=tool)
    source = open_source(file)
    assert dict(zip(ids(source), labels(source), strict=True)) == given(index)
    assert source.notes() == []


@pytest.mark.parametrize("tool", ["cvat", "coco"])
def test_boxes_come_back_as_boxes(boxed: clipaudit.CleanIndex, tool: str) -> None:
    file = Path(boxed.metadata.root) / f"again{TOOLS[tool]}"
    clipaudit.export(boxed, file, format=tool)
    source = open_source(file, SourceOptions(crops=True))
    assert dict(zip(ids(source), labels(source), strict=True)) == given(boxed)


def test_a_coco_file_goes_round(tmp_path: Path, root: Path, run_cli: Cli) -> None:
    (tmp_path / "digits").symlink_to(root)
    found = {f"digits/{path.relative_to(root)}": path.parent.name for path in sorted(root.glob("*/*.png"))}
    coco(tmp_path / "in.json", found)
    done = run_cli("embed", "in.json", "--model", DIGITS.model, "--device", "cpu", "--cache", "c")
    assert done.returncode == 0, done.stderr
    words = ("--export", "out.json", "--export-format", "coco", "--export", "clean.txt", "--export", "out.xml")
    done = run_cli("select", "c", "--device", "cpu", *words)
    assert done.returncode == 0, done.stderr
    for name in ("out.json", "out.xml"):
        source = open_source(tmp_path / name)
        assert dict(zip(ids(source), labels(source), strict=True)) == found
    index = clipaudit.read_index(tmp_path / "clean.parquet")
    assert len((tmp_path / "clean.txt").read_text().splitlines()) == int(index.is_clean.sum())


def test_names_that_differ_in_their_endings_alone(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "d", 24)
    first = sorted((tmp_path / "d").glob("*/*.png"))[0]
    first.with_suffix(".bmp").write_bytes(first.read_bytes())
    index = clipaudit.select(clipaudit.embed(tmp_path / "d", cache=tmp_path / "c", encoder=DIGITS).cache, device="cpu")
    clipaudit.export(index, tmp_path / "d" / "labels.json", format="fiftyone")
    source = open_source(tmp_path / "d" / "labels.json")
    assert dict(zip(ids(source), labels(source), strict=True)) == given(index)


def test_rows_of_a_file_are_exported_by_their_ids(in_rows: clipaudit.CleanIndex, tmp_path: Path) -> None:
    clipaudit.export(in_rows, tmp_path / "clean.txt")
    names = (tmp_path / "clean.txt").read_text().splitlines()
    assert names == [f"digits.parquet#{row}" for row in in_rows.clean_indices]
    for tool, ending in TOOLS.items():
        with pytest.raises(UsageError, match="no files of their own"):
            clipaudit.export(in_rows, tmp_path / f"x{ending}", format=tool)
        assert not (tmp_path / f"x{ending}").exists()


@pytest.mark.parametrize("tool", ["label-studio", "fiftyone"])
def test_boxes_are_for_tools_that_can_say_them(boxed: clipaudit.CleanIndex, tmp_path: Path, tool: str) -> None:
    with pytest.raises(UsageError, match="boxes as coco or cvat"):
        clipaudit.export(boxed, tmp_path / "x.json", format=tool)


def test_formats_and_endings(index: clipaudit.CleanIndex, tmp_path: Path, run_cli: Cli) -> None:
    tools = {form.name: form.ending for form in FORMATS if form.name in EXPORT_FORMAT.kind.meanings}  # type: ignore[attr-defined]
    assert tools == TOOLS | {"huggingface": ""}
    for name, form, words in (
        ("x.json", None, "label-studio or coco or fiftyone. Say which one: --export-format"),
        ("x.xml", "coco", "coco is written into a file with the ending .json"),
        ("x.json", "yolo", "unknown export_format 'yolo'"),
        ("x.tiff", None, "exports end in .csv (all rows), .jsonl"),
    ):
        with pytest.raises(UsageError, match=re.escape(words)):
            clipaudit.export(index, tmp_path / name, format=form)
    clipaudit.export(index, tmp_path / "x.xml")
    index.write(tmp_path / "i.parquet")
    done = run_cli("select", "--from", "i.parquet", "--export", "x.txt", "--export-format", "coco")
    assert done.returncode == 2
    assert "--export FILE.json" in " ".join(done.stderr.replace("│", " ").split())


def test_what_xml_cannot_hold(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "d", 24)
    file = sorted((tmp_path / "d").glob("*/*.png"))[0]
    file.rename(file.with_name("a&<\"'\n.png"))
    index = clipaudit.select(clipaudit.embed(tmp_path / "d", cache=tmp_path / "c", encoder=DIGITS).cache, device="cpu")
    clipaudit.export(index, tmp_path / "d" / "x.xml")
    assert ids(open_source(tmp_path / "d" / "x.xml")) == list(given(index))
    file.with_name("a&<\"'\n.png").rename(file.with_name("a\1.png"))
    index = clipaudit.select(clipaudit.embed(tmp_path / "d", cache=tmp_path / "e", encoder=DIGITS).cache, device="cpu")
    with pytest.raises(UsageError, match="XML cannot hold"):
        clipaudit.export(index, tmp_path / "d" / "y.xml")


# --- Back -------------------------------------------------------------------------------------------------------------


def corrected(index: clipaudit.CleanIndex, path: Path, answers: Mapping[str, str | None]) -> Path:
    """What Label Studio exports after some tasks were annotated; None is a skipped one."""
    clipaudit.export(index, path, format="label-studio")
    tasks = json.loads(path.read_text(encoding="utf-8"))
    for number, task in enumerate(tasks, 1):
        task["id"] = number
        label = answers.get(task["data"]["clipaudit_id"], "")
        if label != "":
            task["annotations"] = [choice(label) if label else choice("", was_cancelled=True)]
    return write_json(path, tasks)


def test_label_studio_gives_marks_back(index: clipaudit.CleanIndex, tmp_path: Path, run_cli: Cli) -> None:
    changed, kept, skipped, *_ = given(index)
    new = another(index, changed)
    corrected(index, tmp_path / "tasks.json", {changed: new, kept: given(index)[kept], skipped: None})
    index.write(tmp_path / "clean.parquet")
    done = run_cli("apply", "clean.parquet", "tasks.json")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "2 of 60 samples reviewed" in said
    assert "label right 1" in said
    assert "relabelled 1" in said
    assert "58 image(s) without a label passed over" in said
    table = clipaudit.read_index(tmp_path / "reviewed.parquet").table
    marks = dict(zip(table["id"].to_pylist(), table["reviewed"].to_pylist(), strict=True))
    assert {name: mark for name, mark in marks.items() if mark} == {changed: "relabel", kept: "right"}
    assert table["label"].to_pylist()[list(marks).index(changed)] == new


def test_cvat_gives_marks_back_and_confirms_nothing(index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    changed, *_ = given(index)
    new = another(index, changed)
    file = cvat(tmp_path / "annotations.xml", {**given(index), changed: new, "elsewhere/x.png": new})
    reviewed, summary = clipaudit.apply_marks(index, file)
    assert (summary.relabel, summary.right) == (1, 0)
    assert given(reviewed) == {**given(index), changed: new}
    said = " ".join(summary.notes)
    assert "59 label(s) as they were, which nobody confirmed and get no mark" in said
    assert "1 label(s) of images that the index does not have passed over" in said


def test_boxes_that_were_relabelled_in_cvat(boxed: clipaudit.CleanIndex, tmp_path: Path) -> None:
    clipaudit.export(boxed, tmp_path / "x.xml")
    changed = next(iter(given(boxed)))
    old, new = f'label="{given(boxed)[changed]}"', f'label="{another(boxed, changed)}"'
    (tmp_path / "x.xml").write_text((tmp_path / "x.xml").read_text().replace(old, new, 1))
    reviewed, _ = clipaudit.apply_marks(boxed, tmp_path / "x.xml")
    assert given(reviewed) == {**given(boxed), changed: another(boxed, changed)}


def test_annotations_from_before_the_audit_confirm_nothing(root: Path) -> None:
    found = {str(path.relative_to(root)): path.parent.name for path in sorted(root.glob("*/*.png"))}
    file = label_studio(root / "ls.json", found)
    index = clipaudit.select(clipaudit.embed(file, cache=root.parent / "ls", encoder=DIGITS).cache, device="cpu")
    with pytest.raises(SourceError, match="no label was changed or confirmed"):
        clipaudit.apply_marks(index, file)
    tasks = json.loads(file.read_text())
    name = tasks[5]["data"]["image"].partition("=")[2]
    tasks[5]["annotations"] = [choice(another(index, name))]
    reviewed, summary = clipaudit.apply_marks(index, write_json(root / "ls2.json", tasks))
    assert (summary.relabel, summary.right) == (1, 0)
    assert given(reviewed)[name] == another(index, name)


def test_what_apply_refuses(index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    first, second, *_ = given(index)
    file = tmp_path / "t.json"

    def refused(words: str) -> None:
        with pytest.raises(SourceError, match=words) as caught:
            clipaudit.apply_marks(index, file)
        assert str(caught.value).startswith(str(file))

    corrected(index, file, {first: "no such class"})
    refused(r"task \d+: the index has no class 'no such class'")
    corrected(index, file, {})
    refused("holds no marks")
    coco(file, given(index))
    refused("no export of Label Studio")
    label_studio(file, {"x/1.png": "1"})
    refused("the index has no sample 'x/1.png'")
    file.write_text("{")
    refused("not valid JSON")
    label_studio(file, {first: another(index, first)})
    tasks = json.loads(file.read_text())
    tasks.append(json.loads(json.dumps(tasks[0])) | {"id": 2})
    tasks[1]["annotations"] = [choice(given(index)[first])]
    write_json(file, tasks)
    refused("task 2: .* has another label in .*task 1")
    tasks[1]["annotations"] = [choice(*index.class_names[:2])]
    write_json(file, tasks)
    refused("has 2 labels.*Keep one label an image")
    file = cvat(tmp_path / "t.xml", {first: given(index)[first], second: given(index)[second]})
    refused("no label was changed or confirmed")
