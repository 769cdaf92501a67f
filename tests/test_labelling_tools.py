"""Files of labelling tools as sources: images and boxes with their labels, and what is refused in them."""

from __future__ import annotations

import io
import json
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DIGITS, any_image, write_class_folders
from PIL import Image
from source_helpers import ids, labels, touch
from tool_files import choice, coco, cvat, fiftyone, label_studio, rectangles, task, write_json

import clipaudit
from clipaudit import SourceOptions, TrainConfig
from clipaudit.errors import ImageError, SourceError, UsageError
from clipaudit.samples import open_source, read_sample
from clipaudit.samples.reader import ImageReader

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
LABELS = {"photos/1.png": "cat", "photos/2.png": "dog", "photos/3.png": "cat"}
BOXES = {"a.png": [("cat", 1, 2, 10, 8), ("dog", 20, 5, 15, 20)], "b.png": [("cat", 0, 0, 40, 30)]}
CROPS = SourceOptions(crops=True)


def edited(path: Path, change: Callable[[Any], object]) -> Path:
    content = json.loads(path.read_text())
    change(content)
    return write_json(path, content)


def picture(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        any_image().save(root / name)
    return root


# --- Labels of images -------------------------------------------------------------------------------------------------

TOOLS = {
    "label studio": lambda root: label_studio(root / "tasks.json", LABELS),
    "cvat": lambda root: cvat(root / "annotations.xml", LABELS),
    "coco": lambda root: coco(root / "coco.json", LABELS),
    "fiftyone": lambda root: fiftyone(root / "labels.json", LABELS),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_images_and_labels_of_each_tool(tmp_path: Path, tool: str) -> None:
    source = open_source(TOOLS[tool](touch(tmp_path, *LABELS)))
    assert dict(zip(ids(source), labels(source), strict=True)) == LABELS
    assert source.notes() == []
    assert Image.open(io.BytesIO(source.read("photos/1.png"))).size == (28, 28)


def test_the_verdicts_are_those_of_the_class_folders(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "photos", 60, rate=0.2)
    found = {
        f"photos/{path.relative_to(tmp_path / 'photos').as_posix()}": path.parent.name
        for path in sorted((tmp_path / "photos").glob("*/*.png"))
    }

    def audited(place: Path) -> clipaudit.CleanIndex:
        return clipaudit.select(clipaudit.embed(place, cache=f"{place}-cache", encoder=DIGITS).cache, device="cpu")

    folders = audited(tmp_path / "photos")
    for write in (label_studio, cvat, coco, fiftyone):
        tools = audited(write(tmp_path / f"{write.__name__}.{'xml' if write is cvat else 'json'}", found))
        assert tools.table["id"].to_pylist() == [f"photos/{name}" for name in folders.table["id"].to_pylist()]
        assert tools.is_clean.tolist() == folders.is_clean.tolist()
        assert tools.table["label"].to_pylist() == folders.table["label"].to_pylist()


def test_a_source_can_be_read_again(tmp_path: Path) -> None:
    source = open_source(TOOLS["coco"](touch(tmp_path, *LABELS)))
    assert ids(source) == ids(source)
    assert source.notes() == []


# --- Where images are -------------------------------------------------------------------------------------------------

PLACES = {
    "as written": ("cats/1.png", "cats/1.png"),
    "served": ("/data/local-files/?d=cats/1.png", "cats/1.png"),
    "served from a folder above": ("/data/local-files/?d=mnt/photos/cats/1.png", "cats/1.png"),
    "served, with signs": ("/data/local-files/?d=my%20cats/1%2B2.png", "my cats/1+2.png"),
    "by a server": ("http://localhost:8080/data/local-files/?d=cats/1.png", "cats/1.png"),
    "uploaded": ("/data/upload/3/0a1b2c3d-1.png", "images/0a1b2c3d-1.png"),
    "uploaded, under its own name": ("/data/upload/3/0a1b2c3d-1.png", "1.png"),
    "uploaded, in the tool's folder": ("/data/upload/3/0a1b2c3d-1.png", "media/upload/3/0a1b2c3d-1.png"),
    "in a bucket": ("s3://bucket/cats/1.png", "cats/1.png"),
    "on another machine": ("C:\\photos\\cats\\1.png", "cats/1.png"),
}


@pytest.mark.parametrize("name", PLACES)
def test_where_label_studio_says_that_an_image_is(tmp_path: Path, name: str) -> None:
    address, place = PLACES[name]
    touch(tmp_path, place)
    source = open_source(write_json(tmp_path / "tasks.json", [task(1, address, choice("cat"))]))
    assert ids(source) == [place]
    assert source.read(place)


def test_one_missing_image_does_not_become_another(tmp_path: Path) -> None:
    touch(tmp_path, "cats/1.png", "cats/2.png", "3.png")
    source = open_source(coco(tmp_path / "coco.json", {f"cats/{n}.png": "cat" for n in (1, 2, 3)}))
    assert ids(source) == ["cats/1.png", "cats/2.png", "cats/3.png"]
    with pytest.raises(ImageError, match="cannot be opened"):
        source.read("cats/3.png")


@pytest.mark.parametrize("split", ["val2017", "images/val2017", "images"])
def test_the_usual_places_of_coco(tmp_path: Path, split: str) -> None:
    touch(tmp_path, f"{split}/1.png")
    source = open_source(coco(tmp_path / "annotations" / "instances_val2017.json", {"1.png": "cat"}))
    assert ids(source) == [f"{split}/1.png"]
    assert split in source.decided()["images"]


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "a/../../secret.png"])
def test_a_path_leads_to_nothing_outside(tmp_path: Path, path: str) -> None:
    touch(tmp_path, "secret.png", "in/ok.png")
    source = open_source(coco(tmp_path / "in" / "coco.json", {"ok.png": "cat", path: "dog"}))
    good, bad = source.samples()
    assert good.id == "ok.png"
    assert "leads out of the folder" in bad.reason  # type: ignore[attr-defined]


def test_an_address_is_said_to_be_one(tmp_path: Path) -> None:
    source = open_source(write_json(tmp_path / "t.json", [task(1, "https://x.org/1.png", choice("cat"))]))
    (sample,) = source.samples()
    assert "Download it" in sample.reason  # type: ignore[attr-defined]


# --- Label Studio -----------------------------------------------------------------------------------------------------


def test_the_most_recent_annotation_that_was_not_skipped(tmp_path: Path) -> None:
    touch(tmp_path, *LABELS)
    annotations = [
        choice("cat", updated_at="2026-01-03T00:00:00.5Z"),
        choice("dog", updated_at="2026-01-04T00:00:00Z"),
        choice("cat", updated_at="2026-01-02T00:00:00Z"),
        choice("cow", updated_at="2026-01-05T00:00:00Z", was_cancelled=True),
    ]
    tasks = [task(1, "photos/1.png", *annotations), task(2, "photos/2.png", choice("dog", created_at="never"))]
    source = open_source(write_json(tmp_path / "t.json", tasks))
    assert labels(source) == ["dog", "dog"]
    assert "1 task(s) with annotations that disagree" in " ".join(source.notes())


def test_tasks_without_a_label_are_counted(tmp_path: Path, run_cli: Cli) -> None:
    write_class_folders(tmp_path / "i", 24)
    found = {path.relative_to(tmp_path).as_posix(): path.parent.name for path in sorted(tmp_path.glob("i/*/*.png"))}
    file = label_studio(tmp_path / "t.json", found)
    edited(file, lambda tasks: [tasks[3].update(annotations=[]), tasks[4]["annotations"][0].update(was_cancelled=True)])
    done = run_cli("embed", "t.json", "--model", DIGITS.model, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "22 images" in done.stdout
    said = " ".join(done.stdout.split())
    assert "2 task(s) without a label passed over, the first being" in said
    assert "task 4" in said


def test_two_questions_and_another_field(tmp_path: Path) -> None:
    touch(tmp_path, "1.png")
    quality = {"from_name": "quality", "type": "choices", "value": {"choices": ["sharp"]}}
    one = choice("cat")
    one["result"].insert(0, quality)
    content = [{"data": {"photo": "1.png", "other": "1.png"}, "annotations": [one]}]
    file = write_json(tmp_path / "t.json", content)
    with pytest.raises(SourceError, match="--path-column"):
        open_source(file)
    with pytest.raises(SourceError, match=r"'class' here and for 'quality'.*--label-column"):
        labels(open_source(file, SourceOptions(path_column="photo")))
    options = SourceOptions(path_column="photo", label_column="class")
    assert labels(open_source(file, options)) == ["cat"]


def test_several_choices_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.png")
    with pytest.raises(SourceError, match=r"t\.json, task 7.*'cat', 'dog'.*Keep one label an image"):
        labels(open_source(write_json(tmp_path / "t.json", [task(7, "1.png", choice("cat", "dog"))])))


def test_predictions_are_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "1.png")
    with pytest.raises(SourceError, match=r"no task with a label \(1 task\(s\) without a label"):
        labels(open_source(write_json(tmp_path / "t.json", [task(7, "1.png")])))


# --- Boxes ------------------------------------------------------------------------------------------------------------

BOXED = {
    "label studio": lambda root: write_json(
        root / "t.json", [task(n, name, rectangles(found, (40, 30))) for n, (name, found) in enumerate(BOXES.items())]
    ),
    "cvat": lambda root: cvat(root / "t.xml", boxes=BOXES),
    "coco": lambda root: coco(root / "t.json", boxes=BOXES),
}
CROP_IDS = ["a.png#1,2,10,8", "a.png#20,5,15,20", "b.png#0,0,40,30"]


@pytest.mark.parametrize("tool", BOXED)
def test_a_sample_a_box(tmp_path: Path, tool: str) -> None:
    source = open_source(BOXED[tool](picture(tmp_path, *BOXES)), CROPS)
    assert ids(source) == CROP_IDS
    assert labels(source) == ["cat", "dog", "cat"]
    crop = np.asarray(Image.open(io.BytesIO(source.read("a.png#20,5,15,20"))))
    assert (crop == np.asarray(Image.open(tmp_path / "a.png"))[5:25, 20:35]).all()
    assert "boxes" in source.decided()["images"]


@pytest.mark.parametrize("tool", BOXED)
def test_boxes_without_crops_name_the_option(tmp_path: Path, tool: str) -> None:
    file = BOXED[tool](picture(tmp_path, *BOXES))
    with pytest.raises(SourceError, match=r"t\.(json|xml).*--crops"):
        labels(open_source(file))


def test_several_categories_in_an_image_are_refused_with_the_remedy(tmp_path: Path, run_cli: Cli) -> None:
    coco(picture(tmp_path, *BOXES) / "t.json", boxes=BOXES)
    done = run_cli("embed", "t.json", "--model", DIGITS.model, "--device", "cpu")
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    for words in ("t.json, image 0", "'a.png'", "'cat', 'dog'", "--crops"):
        assert words in said
    # All boxes of this image say the same, and so they label it.
    same = coco(tmp_path / "s.json", boxes={"b.png": [("cat", 0, 0, 4, 4), ("cat", 8, 8, 4, 4)]})
    assert labels(open_source(same)) == ["cat"]


def test_crowds_and_empty_images_are_passed_over_and_counted(tmp_path: Path) -> None:
    file = coco(picture(tmp_path, *BOXES) / "t.json", boxes=BOXES)
    edited(file, lambda content: [content["annotations"][n].update(iscrowd=1) for n in (1, 2)])
    source = open_source(file, CROPS)
    assert ids(source) == CROP_IDS[:1]
    said = " ".join(source.notes())
    assert "2 annotation(s) of crowds (iscrowd) passed over" in said
    assert "1 image(s) without boxes passed over" in said
    assert source.class_names == ["cat"]
    source = open_source(file)
    assert ids(source) == ["a.png"]
    assert "1 image(s) without a label passed over, the first being" in " ".join(source.notes())


def test_boxes_at_the_edge_twice_and_outside(tmp_path: Path) -> None:
    found = [("cat", -4.4, 2.6, 10, 8), ("cat", -4.4, 2.6, 10, 8), ("cat", 35, 25, 10, 10), ("dog", 50, 1, 5, 5)]
    source = open_source(coco(picture(tmp_path, "a.png") / "t.json", boxes={"a.png": found}), CROPS)
    assert ids(source) == ["a.png#0,3,6,8", "a.png#35,25,10,10", "a.png#50,1,5,5"]
    assert "1 box(es) that are there twice" in " ".join(source.notes())
    assert Image.open(io.BytesIO(source.read("a.png#35,25,10,10"))).size == (5, 5)
    with pytest.raises(ImageError, match="encloses nothing of the image, which has 40 x 30"):
        source.read("a.png#50,1,5,5")
    both = {"a.png": [("cat", 1, 1, 5, 5), ("dog", 1, 1, 5, 5)]}
    with pytest.raises(SourceError, match=r"'cat' and 'dog'\. Keep one"):
        ids(open_source(coco(tmp_path / "u.json", boxes=both), CROPS))


def test_turned_boxes_are_read_with_what_is_around_them(tmp_path: Path) -> None:
    picture(tmp_path, "a.png")
    file = cvat(tmp_path / "t.xml", boxes={"a.png": [("cat", 10, 10, 8, 4)]})
    file.write_text(file.read_text().replace("<box ", '<box rotation="90" '))
    assert ids(open_source(file, CROPS)) == ["a.png#12,8,4,8"]
    turned = rectangles([("cat", 10, 10, 8, 4)], (40, 30))
    turned["result"][0]["value"]["rotation"] = 90
    assert ids(open_source(write_json(tmp_path / "t.json", [task(1, "a.png", turned)]), CROPS)) == ["a.png#6,10,4,8"]


def digits_with_boxes(root: Path, n: int) -> Path:
    """Pictures of four digits each, with a box around each digit."""
    write_class_folders(root / "single", n)
    files, boxes = sorted((root / "single").glob("*/*.png")), {}
    for number in range(0, n, 4):
        sheet = Image.new("RGB", (56, 56))
        name = f"sheets/{number:03}.png"
        boxes[name] = []
        for place, file in enumerate(files[number : number + 4]):
            corner = (28 * (place % 2), 28 * (place // 2))
            sheet.paste(Image.open(file), corner)
            boxes[name].append((file.parent.name, *corner, 28, 28))
        (root / "sheets").mkdir(exist_ok=True)
        sheet.save(root / name)
    return coco(root / "boxes.json", boxes=boxes)


def test_crops_from_the_command_line_to_report_review_and_training(tmp_path: Path, run_cli: Cli) -> None:
    digits_with_boxes(tmp_path, 48)
    done = run_cli("embed", "boxes.json", "--crops", "--model", DIGITS.model, "--device", "cpu", "--cache", "c")
    assert done.returncode == 0, done.stderr
    assert "48 images" in done.stdout
    index = clipaudit.select(tmp_path / "c", device="cpu")
    index.write(tmp_path / "clean.parquet")
    # What follows knows the index alone.
    index = clipaudit.read_index(tmp_path / "clean.parquet")
    assert index.metadata.access == "crops"
    assert index.readable.all()
    first = index.table["id"][0].as_py()
    assert first == "sheets/000.png#0,0,28,28"
    assert Image.open(io.BytesIO(ImageReader(index.metadata).read(first))).size == (28, 28)
    assert clipaudit.write_report(index, tmp_path / "report.html").n_without_image == 0
    assert run_cli("review", "clean.parquet", "--budget", "8").returncode == 0
    settings = TrainConfig(method="ce", policy="none", epochs=1, width=4, image_size=16, batch_size=16)
    clipaudit.train(index, out=tmp_path / "run", config=settings, device="cpu")
    clipaudit.export(index, tmp_path / "clean.txt")
    assert set((tmp_path / "clean.txt").read_text().splitlines()) <= set(index.table["id"].to_pylist())


def test_crops_are_for_sources_with_boxes(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png")
    with pytest.raises(UsageError, match="have no boxes: --crops is for a Label Studio export, a CVAT file or a COCO"):
        open_source(tmp_path, CROPS)


# --- FiftyOne, and trees that are class folders -----------------------------------------------------------------------


def test_a_fiftyone_folder_is_recognised_by_its_labels(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.png", "data/deep/b.jpg", "data/c.png")
    content = {"classes": ["1", "0"], "labels": {"a": 0, "deep/b": {"label": 1, "confidence": 0.5}, "c": None}}
    write_json(tmp_path / "labels.json", content)
    source = open_source(tmp_path)
    assert dict(zip(ids(source), labels(source), strict=True)) == {"data/a.png": "1", "data/deep/b.jpg": "0"}
    assert source.class_names == ["1", "0"]
    assert "1 image(s) without a label" in " ".join(source.notes())


def test_names_that_mean_two_files_need_their_endings(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.png", "data/a.jpg")
    with pytest.raises(SourceError, match=r"'a': it may be a\.jpg or a\.png"):
        ids(open_source(write_json(tmp_path / "labels.json", {"labels": {"a": "cat"}})))
    assert ids(open_source(write_json(tmp_path / "labels.json", {"labels": {"a.png": "cat"}}))) == ["data/a.png"]


def test_fiftyone_names_lead_nowhere_else(tmp_path: Path) -> None:
    touch(tmp_path, "x.png", "in/data/a.png")
    write_json(tmp_path / "in" / "labels.json", {"labels": {"a": "cat", "../../x": "dog", str(tmp_path / "x"): "dog"}})
    good, *bad = open_source(tmp_path / "in").samples()
    assert good.id == "data/a.png"
    assert [("leads out of" in sample.reason) for sample in bad] == [True, True]  # type: ignore[attr-defined]


@pytest.mark.parametrize("named", ["yolo/train", "tree"])
def test_yolo_and_fiftyone_trees_are_class_folders(tmp_path: Path, named: str) -> None:
    for place in ("yolo/train", "yolo/val", "tree"):
        touch(tmp_path / place, "cat/1.png", "dog/2.png")
    assert labels(open_source(tmp_path / named)) == ["cat", "dog"]


# --- Bad input --------------------------------------------------------------------------------------------------------


def good(tool: str, root: Path) -> Path:
    return TOOLS[tool](touch(root, *LABELS))


def json_fault(tool: str, change: Callable[[Any], object]) -> Callable[[Path], Path]:
    return lambda root: edited(good(tool, root), change)


def xml_fault(old: str, new: str) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        file = good("cvat", root)
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))
        return file

    return write


def raw(name: str, data: bytes) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        (root / name).write_bytes(data)
        return root / name

    return write


LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotations><image name="&b;"/></annotations>"""

BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "cut": (raw("t.json", b'[{"data": {"image": "1.p'), r"t\.json: not valid JSON"),
    "no text": (raw("t.json", b"\xff\xfe\x00"), "not valid JSON"),
    "deep": (raw("t.json", b"[" * 200_000), "not valid JSON"),
    "long number": (raw("t.json", b"[" + b"1" * 10_000 + b"]"), "not valid JSON"),
    "JSON-MIN": (raw("t.json", b'[{"image": "1.png", "choice": "cat"}]'), "not as JSON-MIN"),
    "no tasks": (raw("t.json", b"[]"), "Label Studio"),
    "other JSON": (raw("t.json", b'{"a": 1}'), "not a kind of source"),
    "a number": (raw("t.json", b"3"), "not a kind of source"),
    "a task is none": (json_fault("label studio", lambda tasks: tasks.append(3)), "task 4: 3 is no JSON object"),
    "no data": (json_fault("label studio", lambda tasks: tasks[1].pop("data")), "task 2: the field 'data' is missing"),
    "no image": (json_fault("label studio", lambda tasks: tasks[1].update(data={})), "task 2: it is not clear"),
    "image is a list": (
        json_fault("label studio", lambda tasks: tasks[1]["data"].update(image=["1.png"])),
        r"task 2: the path of the image is \['1.png'\]",
    ),
    "image in the file": (
        json_fault("label studio", lambda tasks: tasks[1]["data"].update(image="data:image/png;base64,AAAA")),
        "task 2: the image lies in the JSON itself",
    ),
    "NUL": (json_fault("label studio", lambda tasks: tasks[1]["data"].update(image="a\0b")), "task 2: the path"),
    "NUL in an address": (
        json_fault("label studio", lambda tasks: tasks[1]["data"].update(image="/data/local-files/?d=a%00b")),
        "task 2: the path",
    ),
    "annotations by number": (
        json_fault("label studio", lambda tasks: tasks[1].update(annotations=[1])),
        "task 2, annotation 1: 1 is no JSON object",
    ),
    "annotations are none": (
        json_fault("label studio", lambda tasks: tasks[1].update(annotations=1)),
        "task 2: its annotations are no list",
    ),
    "no result": (
        json_fault("label studio", lambda tasks: tasks[1]["annotations"][0].pop("result")),
        "task 2: the field 'result' is missing",
    ),
    "no choices": (
        json_fault("label studio", lambda tasks: tasks[1]["annotations"][0]["result"][0].update(value={})),
        "task 2: the field 'choices' is missing",
    ),
    "a choice is none": (
        json_fault("label studio", lambda tasks: tasks[1]["annotations"][0]["result"][0]["value"].update(choices=[{}])),
        "task 2: a choice is {}",
    ),
    "twice": (json_fault("label studio", lambda tasks: tasks.append(tasks[0] | {"id": 9})), "task 9: .*in .*task 1"),
    "no category name": (
        json_fault("coco", lambda content: content["categories"][0].pop("name")),
        "category 1: the field 'name' is missing",
    ),
    "no such category": (
        json_fault("coco", lambda content: content["annotations"][1].update(category_id=77)),
        "annotation 1: there is no category 77",
    ),
    "category is a list": (
        json_fault("coco", lambda content: content["annotations"][1].update(category_id=[])),
        "annotation 1: the field 'category_id'",
    ),
    "no image id": (
        json_fault("coco", lambda content: content["annotations"][1].pop("image_id")),
        "annotation 1: the field 'image_id' is missing",
    ),
    "no file name": (json_fault("coco", lambda content: content["images"][1].pop("file_name")), "image 1: the path"),
    "an id twice": (json_fault("coco", lambda content: content["images"][1].update(id=0)), "image 0: another image"),
    "a box is none": (
        json_fault("coco", lambda content: content["annotations"][1].update(bbox=[1, 2, 3])),
        "annotation 1: the field 'bbox'",
    ),
    "a box without numbers": (
        json_fault("coco", lambda content: content["annotations"][1].update(bbox=[1, 2, "x", float("nan")])),
        "annotation 1: width of a box is 'x'",
    ),
    "no annotations": (json_fault("coco", lambda content: content.pop("annotations")), "no list 'annotations'"),
    "a category is none": (json_fault("coco", lambda content: content["categories"].append(1)), "category 3: 1 is no"),
    "classes are none": (json_fault("fiftyone", lambda content: content.update(classes="cat")), "'classes' is 'cat'"),
    "a class is none": (json_fault("fiftyone", lambda content: content.update(classes=[{}])), "the name is {}"),
    "no such class": (
        json_fault("fiftyone", lambda content: content["labels"].update({"photos/1": 5})),
        "'photos/1': the label is 5, but there are 2",
    ),
    "several classes": (
        json_fault("fiftyone", lambda content: content["labels"].update({"photos/1": [0, 1]})),
        "'photos/1': the label is",
    ),
    "a negative class": (
        json_fault("fiftyone", lambda content: content["labels"].update({"photos/1": -1})),
        "'photos/1': the label is -1",
    ),
    "laughs": (raw("t.xml", LAUGHS), r"t\.xml, line 1: the XML declares a document type"),
    "another file": (
        raw("t.xml", b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotations>&x;</annotations>'),
        "declares a document type",
    ),
    "no XML": (raw("t.xml", b"cat"), "not valid XML"),
    "cut XML": (raw("t.xml", b'<annotations><image name="1.png">'), "not valid XML"),
    "an unknown encoding": (raw("t.xml", b'<?xml version="1.0" encoding="x-cat"?><annotations/>'), "not valid XML"),
    "deep XML": (raw("t.xml", b"<annotations>" + b"<a>" * 100_000), "nested deeper"),
    "empty XML": (raw("t.xml", b""), "not valid XML"),
    "no images": (raw("t.xml", b"<annotations/>"), "no image with a label"),
    "other XML": (raw("t.xml", b"<annotation/>"), "begins with <annotation>"),
    "video": (raw("t.xml", b'<annotations><track label="cat"/></annotations>'), "CVAT for video"),
    "no name": (xml_fault('name="photos/2.png"', ""), "line 7: the path of the image is None"),
    "no tag": (xml_fault('label="dog"', ""), "line 8: a tag has no label"),
    "two tags": (xml_fault("<tag", '<tag label="cow"/><tag'), "2 different labels"),
    "an edge is none": (
        xml_fault("<tag", '<box label="cow" xtl="inf" ytl="1" xbr="2" ybr="3"/><tag'),
        "line 5: xtl of a box is 'inf'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, name: str) -> None:
    write, words = BAD[name]
    file = write(tmp_path)
    with pytest.raises((SourceError, UsageError), match=words) as caught:
        ids(open_source(file))
    assert str(caught.value).startswith(str(file))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["t.json", "t.xml"])
def test_size_is_bounded(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPAUDIT_MAX_TABLE_GB", "0.000001")
    (tmp_path / name).write_bytes(b"<annotations>" + b" " * 5000 + b"</annotations>")
    with pytest.raises(SourceError, match=r"larger than 1,073 bytes"):
        open_source(tmp_path / name)


def test_the_command_line_shows_no_traceback(tmp_path: Path, run_cli: Cli) -> None:
    for name in ("laughs", "no data"):
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        done = run_cli("embed", BAD[name][0](folder), "--model", DIGITS.model, "--device", "cpu")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert folder.name in "".join(done.stderr.split())


# What no field should hold; "\ud800" is half a character.
STRANGE: list[Any] = [None, True, -1, 1e308, float("nan"), 10**30, "", "x", "\0", "\ud800", "../../x", "/etc/passwd"]
STRANGE += ["a" * 5000, [], {}, [[]], {"a": 1}, [1, 2, 3, 4], "http://[", "data:x", "/data/local-files/?d=%00", "nan"]


def damaged(content: Any, rng: random.Random) -> Any:
    """A JSON document with one value deleted, doubled or replaced."""
    places = [(parent, key) for parent in nested(content) for key in keys_of(parent)]
    parent, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.2:
        del parent[key]
    elif kind < 0.4 and isinstance(parent, list):
        parent.append(json.loads(json.dumps(parent[key])))
    else:
        parent[key] = json.loads(json.dumps(rng.choice(STRANGE)))
    return content


def nested(content: Any) -> Iterator[Any]:
    if isinstance(content, dict | list):
        yield content
        for key in keys_of(content):
            yield from nested(content[key])


def keys_of(parent: Any) -> list[Any]:
    return list(parent) if isinstance(parent, dict) else list(range(len(parent)))


def test_random_damage_is_a_sentence_or_a_sample(tmp_path: Path) -> None:
    root = touch(tmp_path, *LABELS)
    boxes = {name: [("cat", 1, 2, 10, 8), ("dog", 5, 5, 8, 8)] for name in LABELS}
    tasks = [task(number, name, rectangles(found, (28, 28))) for number, (name, found) in enumerate(boxes.items())]
    files = [TOOLS[tool](root) for tool in TOOLS]
    files += [coco(root / "boxes.json", boxes=boxes), write_json(root / "rectangles.json", tasks)]
    n_read = 0
    for seed in range(600):
        rng = random.Random(seed)
        whole = rng.choice(files)
        file = root / f"damaged{whole.suffix}"
        if whole.suffix == ".json":
            write_json(file, damaged(json.loads(whole.read_text()), rng))
        else:
            data = bytearray(whole.read_bytes())
            data[rng.randrange(len(data))] = rng.randrange(256)
            file.write_bytes(data)
        try:
            source = open_source(file, SourceOptions(crops=rng.random() < 0.5))
            for sample in source.samples():
                assert not sample.id.startswith("..")
                sample.id.encode()
                with suppress(ImageError):
                    read_sample(source, sample)
                n_read += 1
            said = [*source.notes(), *source.decided().values()]
        except (SourceError, UsageError) as error:
            said = [str(error)]
        for text in said:
            text.encode()
            assert len(text) < 1500
    assert n_read > 100
