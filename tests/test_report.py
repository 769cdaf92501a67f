"""The report's file: its numbers, its words, what it embeds and what it must not; the browser has tests of its own."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageCms
from report_helpers import Page, Row, index_of, three_estimates

import clipaudit
from clipaudit.calls.apply import apply_marks
from clipaudit.config import AuditConfig
from clipaudit.report.charts import Mixture, histogram
from clipaudit.report.columns import read_columns
from clipaudit.report.sections import SECTIONS
from clipaudit.report.thumbnails import thumbnails
from clipaudit.report.wording import reasons
from clipaudit.text import printable
from clipaudit.vocabulary import SELECTORS, Verdict, verdicts_of

PAIR = AuditConfig().estimates
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def truth_file(noisy_digits: tuple[Path, dict[str, str]]) -> Path:
    return noisy_digits[0].parent / "truth.csv"


@pytest.fixture(scope="module")
def page(noisy_index: clipaudit.CleanIndex, truth_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("report") / "report.html"
    clipaudit.write_report(noisy_index, path, truth=truth_file, top=40)
    return Page.of(path)


def test_first_comes_how_many_labels_are_in_doubt(page: Page, noisy_index: clipaudit.CleanIndex) -> None:
    in_doubt = int((noisy_index.readable & ~noisy_index.is_clean).sum())
    assert f"{in_doubt} of 600 labels are in doubt" in page.text
    assert f"{noisy_index.noise_rate:.1%} of the images" in page.text
    doubted = noisy_index.table.filter(pa.array(~noisy_index.is_clean))
    verdicts = [doubted[verdict.column].to_numpy(zero_copy_only=False) for verdict in verdicts_of(PAIR)]
    failed = sum((~np.asarray(clean, bool)).astype(int) for clean in verdicts)
    assert f"zero-shot and the {PAIR[1].title} name the same other class" in page.text
    assert f"{(failed == 4).sum()} fail all four" in page.text


def test_the_navigation_leads_to_every_section(page: Page, noisy_index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    clipaudit.write_report(noisy_index, tmp_path / "report.html", top=1)
    always = [section.id for section in SECTIONS if section.id not in ("truth", "unreadable", "copies", "quality")]
    known = [section.id for section in SECTIONS if section.id not in ("unreadable", "copies", "quality")]
    for shown, expected in ((Page.of(tmp_path / "report.html"), always), (page, known)):
        assert [held["id"] for tag, held in shown.tags if tag == "section"] == expected
        links = [str(held["href"]) for tag, held in shown.tags if tag == "a" and "class" not in held]
        assert links == [f"#{name}" for name in expected]


def test_the_gallery_holds_the_most_doubtful_samples_once(page: Page, noisy_index: clipaudit.CleanIndex) -> None:
    scores, ids = noisy_index.table["clean_score"].to_numpy(), noisy_index.table["id"].to_pylist()
    most_doubtful = {ids[row] for row in np.argsort(scores, kind="stable")[:40]}
    shown = [sample["id"] for sample in page.data["samples"]]
    assert len(set(shown)) == len(shown)
    assert most_doubtful <= set(shown)
    for sample in page.data["samples"]:
        picture = Image.open(io.BytesIO(b64decode(sample["image"].partition("base64,")[2])))
        assert [picture.width, picture.height] == sample["size"]
        assert max(picture.size) <= 96


def test_nothing_is_loaded_and_only_our_script_may_run(page: Page) -> None:
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on") or name in ("style", "srcset", "action")}
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    policy = next(held["content"] for tag, held in page.tags if held.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(maxsplit=1) for rule in str(policy).split("; "))
    hashes = {
        kind: {hash_of(text) for text in texts} for kind, texts in (("style", page.styles), ("script", page.scripts))
    }
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert set(rules["style-src"].split()) == hashes["style"]
    # All scripts but the data block, which is not run.
    assert set(rules["script-src"].split()) < hashes["script"]
    assert len(hashes["script"]) == len(set(rules["script-src"].split())) + 1
    assert rules["base-uri"] == rules["form-action"] == "'none'"


def hash_of(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def test_the_truth_adds_what_evaluate_says_and_the_audits_own_errors(
    page: Page, noisy_index: clipaudit.CleanIndex, truth_file: Path, noisy_digits: tuple[Path, dict[str, str]]
) -> None:
    evaluation = clipaudit.evaluate(noisy_index, truth_file)
    loss = Verdict(PAIR[1], SELECTORS["loss"])
    for name, metrics in (("combined", evaluation.overall), (loss.title, evaluation.selectors[loss.name])):
        numbers = [metrics.noisy_precision, metrics.noisy_recall, metrics.noisy_f1]
        row = " ".join(f"{value:.1%}" for value in numbers if value is not None)
        assert f"{name} {metrics.auroc:.4f} {row}" in page.text
    assert f"{evaluation.suggestion_accuracy:.1%} of the wrong labels it suggests the true one" in page.text
    truth = noisy_digits[1]
    given = dict(zip(noisy_index.table["id"].to_pylist(), noisy_index.table["label"].to_pylist(), strict=True))
    for sample in page.data["samples"]:
        assert sample["truth"] == truth[sample["id"]]
        assert sample["wrong"] == (truth[sample["id"]] != given[sample["id"]])
    accused = int(sum(truth[i] == given[i] for i, clean in zip(given, noisy_index.is_clean, strict=True) if not clean))
    assert accused > 0
    assert f"{accused} right labels called noisy" in page.text
    assert sum(not sample["clean"] and not sample["wrong"] for sample in page.data["samples"]) == min(accused, 60)


def test_every_confusion_cell_has_its_count_and_its_images(page: Page, noisy_index: clipaudit.CleanIndex) -> None:
    doubted = noisy_index.table.filter(pa.array(~noisy_index.is_clean)).select(["label", "suggested_label"]).to_pylist()
    pairs = [(row["label"], row["suggested_label"]) for row in doubted]
    labels = [str(held["aria-label"]) for tag, held in page.tags if tag == "button" and "aria-label" in held]
    expected = {f"given {a}, suggested {b}: {pairs.count((a, b))}" for a, b in pairs}
    assert set(labels) == expected
    names = page.data["classes"]
    shown = {(names[s["given"]], names[s["suggested"]]) for s in page.data["samples"] if not s["clean"]}
    assert shown == set(pairs)


def test_the_same_audit_gives_the_same_bytes(noisy_index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        clipaudit.write_report(noisy_index, tmp_path / name, top=5)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


SEEN = {"zero_shot": ("lynx", 0.81, 0.06), "induced": ("lynx", 0.77, 0.1)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "zero-shot sees lynx 0.81, cat 0.06; logistic regression agrees (lynx 0.77, cat 0.10)"),
        (
            {"induced": ("cat", 0.6, 0.6)},
            "zero-shot sees lynx 0.81, cat 0.06; logistic regression sees cat 0.60, as labelled",
        ),
        (
            {"zero_shot": ("cat", 0.3, 0.3), "posteriors": (0.1, 1.0)},
            "zero-shot sees cat 0.30, as labelled, but with a loss in the doubtful part of its class;"
            " logistic regression sees lynx 0.77, cat 0.10",
        ),
        (
            {"zero_shot": ("cat", 0.999, 0.999), "induced": ("cat", 0.4, 0.4), "posteriors": (1.0, 0.2)},
            "zero-shot sees cat >0.99, as labelled; logistic regression agrees (cat 0.40),"
            " with a loss in the doubtful part of its class",
        ),
    ],
)
def test_the_reason_in_words(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    rows = [Row("a.png", "cat", **SEEN), Row("b.png", "cat", ("cat", 0.9, 0.9), ("cat", 0.9, 0.9))]
    rows[0] = replace(rows[0], **changes)
    assert reasons(read_columns(index_of(rows, tmp_path)), np.array([0])) == [words]


def test_neighbours_and_rescued_samples_are_called_so(tmp_path: Path) -> None:
    rows = [Row("a.png", "cat", **SEEN), Row("b.png", "lynx", ("lynx", 0.9, 0.9), ("lynx", 0.9, 0.9))]
    index = index_of(rows, tmp_path, config=AuditConfig(induced="neighbours"))
    assert reasons(read_columns(index), np.array([0])) == [
        "zero-shot sees lynx 0.81, cat 0.06; neighbours agree (lynx 0.77, cat 0.10);"
        " kept because no sample of its class was selected"
    ]


def test_three_estimates_are_each_called_by_their_name(tmp_path: Path) -> None:
    index = three_estimates(tmp_path)
    assert reasons(read_columns(index), np.array([0])) == [
        "zero-shot sees lynx 0.80, cat 0.10; logistic regression sees cat 0.90, as labelled;"
        " neighbours see lynx 0.60, cat 0.30"
    ]
    (tmp_path / "truth.csv").write_text("path,label_true\na.png,lynx\nb.png,cat\nc.png,lynx\n")
    clipaudit.write_report(index, tmp_path / "report.html", truth=tmp_path / "truth.csv")
    page = Page.of(tmp_path / "report.html")
    assert "zero-shot, the logistic regression and the neighbours name the same other class" in page.text
    assert "Six selectors judge each label" in page.text
    assert "1 fail three" in page.text
    options = [str(held["value"]) for tag, held in page.tags if tag == "option"]
    assert [value for value in options if value[1:].isdigit()] == [f"f{count}" for count in range(6, -1, -1)]
    for term in index.config.estimates:
        assert f"{term.title} loss".casefold() in page.text.casefold()
    for verdict in verdicts_of(index.config.estimates):
        assert f"{verdict.title} " in page.text
    assert page.data["verdicts"] == [[v.estimate.title, v.selector.title] for v in verdicts_of(index.config.estimates)]
    failed = {sample["id"]: sample["failed"] for sample in page.data["samples"]}
    assert failed == {"a.png": [0, 4, 5], "b.png": [], "c.png": []}


def test_an_estimate_made_of_others_is_no_second_opinion(tmp_path: Path) -> None:
    index = index_of([Row("a.png", "cat", **SEEN)], tmp_path, config=AuditConfig(induced="joint"))
    clipaudit.write_report(index, tmp_path / "report.html")
    assert "name the same other class" not in Page.of(tmp_path / "report.html").text


def test_images_that_are_gone_leave_a_reason(noisy_index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    lost = clipaudit.CleanIndex(noisy_index.table, replace(noisy_index.metadata, root=str(tmp_path / "nowhere")))
    summary = clipaudit.write_report(lost, tmp_path / "report.html", top=3)
    assert summary.n_without_image == summary.n_shown > 3
    assert summary.reason is not None
    assert "No such file" in summary.reason
    sample = Page.of(tmp_path / "report.html").data["samples"][0]
    assert sample["image"] == ""
    assert "No such file" in sample["missing"]
    moved = clipaudit.write_report(lost, tmp_path / "report.html", top=3, images=noisy_index.metadata.root)
    assert moved.n_without_image == 0


def test_damaged_images_and_foreign_metadata(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "a secret"
    picture = Image.new("RGB", (400, 200), "red")
    picture.save(tmp_path / "a.jpg", icc_profile=profile, exif=exif)
    content = {"a": (tmp_path / "a.jpg").read_bytes(), "b": b"no image", "c": (tmp_path / "a.jpg").read_bytes()[:300]}
    good, unknown, cut = thumbnails(list(content), content.__getitem__)
    small = Image.open(io.BytesIO(b64decode(good.uri.partition("base64,")[2])))
    assert (small.size, small.info.get("icc_profile"), dict(small.getexif())) == ((96, 48), None, {})
    assert unknown.uri == cut.uri == ""
    assert "not an image" in unknown.reason
    assert "damaged or truncated" in cut.reason


def test_foreign_text_is_visible_text(tmp_path: Path) -> None:
    """Nothing in names, paths, reasons or warnings is markup, code, a turned direction or a line of its own."""
    names = (
        "</script><script>alert(1)</script>",
        "{{ 7 * 7 }}{% raw %}",
        "\u202egnp.exe\u2066",
        "a\nb\r\x1b[2J\x7f\x9b\u2028\u2029",
        "\"'`&lt;${1}",
        "]]><!-- \U000e0041",
    )
    seen = [(names[k], 0.9, 0.05) for k in (1, 2, 3, 4, 5, 0)]
    rows = [Row(f"{name}.png", name, best, best) for name, best in zip(names, seen, strict=True)]
    rows.append(Row(f"gone {names[3]}", names[3], seen[0], seen[0], reason=f"{names[2]} is damaged"))
    index = index_of(rows, tmp_path)
    index = replace(index, metadata=replace(index.metadata, warnings=list(names), source=f"/data/{names[3]}"))
    clipaudit.write_report(index, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert {character for character in html if not character.isprintable()} <= {"\n"}
    page = Page.of(tmp_path / "report.html")
    assert [tag for tag, _ in page.tags].count("script") == 3
    for name in names:
        assert printable(name) in page.text
    assert r"\u202egnp.exe\u2066 is damaged" in page.text
    # What is marked and exported are the names themselves.
    assert sorted(page.data["classes"]) == sorted(names)
    assert {sample["id"] for sample in page.data["samples"]} == {f"{name}.png" for name in names}


def test_unreadable_samples_are_listed_with_their_reasons(tmp_path: Path) -> None:
    fine = [Row(f"{k}.png", name, (name, 0.9, 0.9), (name, 0.9, 0.9)) for k, name in enumerate(("cat", "lynx"))]
    broken = [Row(f"x{k}.png", "cat", *SEEN.values(), reason="the file is empty") for k in range(250)]
    clipaudit.write_report(index_of(fine + broken, tmp_path), tmp_path / "report.html")
    text = Page.of(tmp_path / "report.html").text
    assert "250 images could not be read" in text
    assert "The first 200 are listed" in text
    assert "the file is empty (250)" in text
    assert "x199.png cat the file is empty" in text
    assert "x200.png" not in text
    assert "0 of 2 labels are in doubt" in text


def test_many_classes_are_collapsed_and_the_page_says_so(tmp_path: Path) -> None:
    names = [f"class {k:03}" for k in range(90)]
    rows = []
    for k, name in enumerate(names):
        other = names[(k + 1) % len(names)]
        rows += [Row(f"{k}-{i}.png", name, (other, 0.8, 0.1), (other, 0.8, 0.1)) for i in range(30)]
        rows += [Row(f"{k}-c{i}.png", name, (name, 0.9, 0.9), (name, 0.9, 0.9)) for i in range(20)]
    summary = clipaudit.write_report(index_of(rows, tmp_path), tmp_path / "report.html", top=10)
    page = Page.of(tmp_path / "report.html")
    assert re.search(r"The 60 classes with most labels in doubt [^.]*all 90\.", page.text)
    assert re.search(r"90 most frequent of 90 pairs; [^.]*up to 6 images", page.text)
    assert sum(tag == "details" and held.get("class") == "class" for tag, held in page.tags) == 60
    assert summary.n_shown <= 10 + 90 * 6 + 60 * 8
    assert all(sum(s["given"] == k and not s["clean"] for s in page.data["samples"]) >= 6 for k in range(90))
    assert page.data["cells"] == [[k, (k + 1) % 90, 30] for k in range(90)]


def test_listed_pairs_have_images_though_doubts_without_another_class_abound(tmp_path: Path) -> None:
    names = [f"class {k:03}" for k in range(120)]
    rows = []
    for k, name in enumerate(names):
        other = names[(k + 1) % len(names)]
        own, high = (name, 0.9, 0.9), (0.1, 0.1)
        rows += [Row(f"{k}-d{i}.png", name, own, own, posteriors=high) for i in range(3)]
        rows += [Row(f"{k}-{i}.png", name, (other, 0.8, 0.1), (other, 0.8, 0.1)) for i in range(2)]
    clipaudit.write_report(index_of(rows, tmp_path), tmp_path / "report.html", top=0)
    page = Page.of(tmp_path / "report.html")
    pairs = [held for _, held in page.tags if held.get("class") == "pair"]
    assert len(pairs) == 100
    shown = {(str(s["given"]), str(s["suggested"])) for s in page.data["samples"]}
    assert all((held["data-given"], held["data-suggested"]) in shown for held in pairs)


def test_the_truth_judges_the_audit_and_dropped_samples_are_settled(tmp_path: Path) -> None:
    wrong, fine = (("lynx", 0.9, 0.1),) * 2, (("cat", 0.9, 0.9),) * 2
    rows = [Row(f"{k}.png", "cat", *(wrong if k < 2 else fine)) for k in range(4)]
    index = index_of([*rows, Row("l.png", "lynx", ("lynx", 0.9, 0.9), ("lynx", 0.9, 0.9))], tmp_path)
    truth = tmp_path / "truth.csv"
    truth.write_text("path,label_true\n0.png,lynx\n1.png,lynx\n2.png,cat\n3.png,cat\nl.png,lynx\n")
    for mark in ("relabel,lynx", "drop,"):
        marks = tmp_path / "marks.csv"
        marks.write_text(f"id,mark,label\n0.png,{mark}\n1.png,{mark}\n")
        reviewed, _ = clipaudit.apply_marks(index, marks)
        summary = clipaudit.write_report(reviewed, tmp_path / "report.html", truth=str(truth))
        assert summary.n_in_doubt == 0
        page = Page.of(tmp_path / "report.html")
        assert "0 of 5 labels are in doubt" in page.text
        assert "2 of 5 labels are truly wrong" in page.text
        assert "The audit found 100.0% of them" in page.text


def test_the_threshold_lies_between_the_two_sides_of_a_histogram() -> None:
    losses = np.array([0.1, 0.2, 0.3, 2.0, 2.5, 3.1], np.float32)
    failed = np.array([False, False, False, True, True, True])
    chart = histogram(losses, failed, Mixture([0.5, 0.5], [0.2, 2.5], [0.1, 0.5]))
    assert chart.threshold is not None
    position, loss = chart.threshold
    assert loss == pytest.approx(1.15)
    assert position == pytest.approx(320 * (1.15 - 0.1) / 3.0, abs=0.1)
    assert (chart.kept.count("M"), chart.doubted.count("M"), len(chart.components)) == (3, 3, 2)
    assert chart.summary == "6 losses from 0.10 to 3.10 nats; the 3 above 1.15 are in doubt"
    overlapping = histogram(losses, ~failed[[3, 1, 2, 0, 4, 5]], None)
    assert (overlapping.threshold, overlapping.components) == (None, [])
    assert histogram(losses, np.zeros(6, bool), None).summary.endswith("all are kept")
    assert histogram(np.array([0.5], np.float32), np.array([False]), None).kept.count("M") == 1


def test_what_a_person_has_marked_is_settled(noisy_index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    worst = noisy_index.table["id"].to_pylist()[int(np.argmin(noisy_index.table["clean_score"].to_numpy()))]
    (tmp_path / "marks.csv").write_text(f"id,mark,label\n{worst},right,\n")
    reviewed, _ = apply_marks(noisy_index, tmp_path / "marks.csv")
    clipaudit.write_report(noisy_index, tmp_path / "before.html", top=1)
    clipaudit.write_report(reviewed, tmp_path / "after.html", top=1)
    before, after = Page.of(tmp_path / "before.html"), Page.of(tmp_path / "after.html")
    assert worst in {sample["id"] for sample in before.data["samples"]}
    assert worst not in {sample["id"] for sample in after.data["samples"] if not sample["clean"]}
    assert "reviewed by a person 1 " in after.text
    assert before.data["key"] == after.data["key"], "the marks of the same samples stay"


def test_the_command(noisy_index: clipaudit.CleanIndex, truth_file: Path, tmp_path: Path, run_cli: Cli) -> None:
    (tmp_path / "a b").mkdir()
    noisy_index.write(tmp_path / "a b" / "clean.parquet")
    result = run_cli("report", "a b/clean.parquet", "--top", "7", "--theme", "dark", "--truth", truth_file)
    assert result.returncode == 0, result.stderr
    assert "a b/report.html" in result.stdout
    assert "clipaudit apply 'a b/clean.parquet' marks.csv" in result.stdout
    page = Page.of(tmp_path / "a b" / "report.html")
    assert ("html", {"lang": "en", "data-theme": "dark"}) in page.tags
    assert "The 7 most doubtful samples" in page.text
    assert "Against the truth" in page.text
    shutil.copytree(noisy_index.metadata.root, tmp_path / "moved")
    result = run_cli("report", "a b/clean.parquet", "--images", "moved", "--out", "new/other.html")
    assert result.returncode == 0, result.stderr
    assert "no picture" not in result.stdout
    assert "Against the truth" not in Page.of(tmp_path / "new" / "other.html").text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("none.parquet",), 1, "does not exist"),
        (("clean.parquet", "--truth", "none.csv"), 1, "none.csv does not exist"),
        (("clean.parquet", "--truth", "foreign.csv"), 1, "no class in common"),
        (("clean.parquet", "--top", "-1"), 2, "--top"),
        (("clean.parquet", "--theme", "pink"), 2, "--theme"),
        (("clean.parquet", "--out", "clean.parquet/report.html"), 2, "clean.parquet is a file"),
    ],
)
def test_mistakes_are_explained(
    noisy_index: clipaudit.CleanIndex, tmp_path: Path, run_cli: Cli, words: tuple[str, ...], code: int, message: str
) -> None:
    noisy_index.write(tmp_path / "clean.parquet")
    (tmp_path / "foreign.csv").write_text("label\n" + "cat\n" * len(noisy_index))
    result = run_cli("report", *words)
    assert result.returncode == code
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "report.html").exists()


def test_a_wrong_call_is_refused(noisy_index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    with pytest.raises(clipaudit.ClipAuditError, match="top must be"):
        clipaudit.write_report(noisy_index, tmp_path / "a.html", top=-1)
    with pytest.raises(clipaudit.ClipAuditError, match="unknown theme 'pink'"):
        clipaudit.write_report(noisy_index, tmp_path / "a.html", theme="pink")  # type: ignore[arg-type]
