"""The report in a real browser: Chromium, headless, from a file on the disk."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import any_image
from report_helpers import Row, index_of

import clipaudit
from clipaudit.calls.apply import apply_marks
from clipaudit.text import printable

pytest.importorskip("selenium.webdriver", reason="no selenium: pip install 'clipaudit[test]'")
from browser_helpers import CONTRASTS, DARK, LIGHT, Report
from selenium.webdriver.common.keys import Keys

HOSTILE = (
    '<img src=x onerror="document.title=1">',
    "</script><script>document.title=2</script>",
    "\"quotes' & &amp; \u2028 <b>bold</b>",
    '=HYPERLINK(1),"two"',
    "'=already escaped",
    "line\nbreak, \x1b[2J and \u202ereversed",
)


@pytest.fixture(scope="module")
def digits(
    noisy_index: clipaudit.CleanIndex, noisy_digits: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("digits") / "report.html"
    clipaudit.write_report(noisy_index, path, truth=noisy_digits[0].parent / "truth.csv", top=60)
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[clipaudit.CleanIndex, Path]:
    """Class names and paths that are markup, script, quotes and a formula; one image is unreadable."""
    root = tmp_path_factory.mktemp("hostile")
    rows = []
    for number, name in enumerate(HOSTILE):
        other = HOSTILE[(number + 1) % len(HOSTILE)]
        for copy in range(3):
            sample_id = f"{name.replace('/', '|')}, {copy}.png"
            any_image().save(root / sample_id)
            seen = (other, 0.8, 0.1) if copy else (name, 0.9, 0.9)
            rows.append(Row(sample_id, name, seen, seen))
    rows.append(Row("<i>gone</i>.png", HOSTILE[0], *[(HOSTILE[0], 0.9, 0.9)] * 2, reason="<script>empty</script>"))
    index = index_of(rows, root)
    clipaudit.write_report(index, root / "report.html")
    return index, root / "report.html"


def test_it_opens_without_errors_or_requests(report: Report, digits: Path) -> None:
    report.open(digits)
    assert len(report.all(".card")) == 24
    assert report.text("h1").endswith("of 600 labels are in doubt")
    loaded = report.script("return [...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert loaded
    report.click("#more")
    report.click("#theme")
    assert report.faults() == []


def test_filters_and_order(report: Report, digits: Path) -> None:
    report.open(digits)
    data = json.loads(report.script("return document.getElementById('data').textContent"))
    samples, names = data["samples"], data["classes"]

    def shown() -> list[str]:
        while report.find("#more").is_displayed():
            report.click("#more")
        return report.ids()

    doubted = [s for s in samples if not s["clean"]]
    assert shown() == [s["id"] for s in sorted(doubted, key=lambda s: s["score"])]
    report.click("#reset")
    assert len(shown()) == len(samples)
    report.choose("#filter-given", str(names.index("three")))
    assert set(shown()) == {s["id"] for s in samples if names[s["given"]] == "three"}
    report.choose("#filter-verdict", "clean")
    assert set(shown()) == {s["id"] for s in samples if names[s["given"]] == "three" and s["clean"]}
    report.click("#reset")
    report.choose("#filter-low", "0.2")
    report.choose("#filter-high", "0.7")
    report.choose("#sort", "score-down")
    between = [s for s in samples if 0.2 <= s["score"] <= 0.7]
    assert shown() == [s["id"] for s in sorted(between, key=lambda s: -s["score"])]
    report.click("#reset")
    report.find("#filter-text").send_keys("SEVEN/0")
    assert set(shown()) == {s["id"] for s in samples if s["id"].startswith("seven/0")}
    report.choose("#filter-text", "nothing like it")
    assert shown() == []
    assert report.text("#status") == "No image in this file fits."
    report.choose("#filter-text", "")
    report.choose("#filter-verdict", "accused")
    assert set(shown()) == {s["id"] for s in doubted if not s["wrong"]}


def test_numbers_open_their_images(report: Report, digits: Path) -> None:
    report.open(digits)
    cell = report.find(".matrix td:not(.diagonal) button")
    given, suggested = cell.get_attribute("aria-label").split(":")[0].removeprefix("given ").split(", suggested ")
    count = cell.text
    report.click(cell)
    titles = [" ".join(card.text.split()) for card in report.all(".card .title")]
    assert titles
    assert all(title.startswith(f"{given} → suggested {suggested} ") for title in titles)
    assert f"the data set has {count} such labels in doubt" in report.text("#status")
    assert report.script("return document.activeElement.id") == "cards"
    report.click("#truth button[data-verdict]")
    assert report.find("#filter-verdict").get_attribute("value") == "accused"
    assert report.all(".card")
    assert all("label is true" in card.text for card in report.all(".card"))


def test_the_keyboard_walks_and_marks(report: Report, digits: Path, tmp_path: Path) -> None:
    report.open(digits)
    ids = report.ids()
    report.press("j")
    assert report.current() == ids[0]
    report.press("j", "j", "k")
    assert report.current() == ids[1]
    report.press(Keys.ARROW_RIGHT)
    assert report.current() == ids[2]
    row = report.script(
        "const tops = [...document.querySelectorAll('.card')].map((card) => card.offsetTop);"
        "return tops.filter((top) => top === tops[0]).length"
    )
    report.press(Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert report.current() == ids[1]
    report.press(Keys.ARROW_DOWN)
    assert report.current() == ids[1 + row]
    for _ in range(30):
        report.press("j")
    assert len(report.ids()) > 24, "walking past the end shows more"
    report.script("document.activeElement.blur(); window.scrollTo(0, 0)")
    report.open(digits)
    report.press("j", "1", "2", "3", "1")
    assert report.current() == ids[4], "a mark moves on"
    report.press("k", "u", "k", "u", "d")
    assert report.text("#marks-status") == "3 marks: 1 right, 1 relabel, 1 drop."
    report.press("r")
    report.until(lambda: report.find("#choose").is_displayed())
    report.press("no such class", Keys.ENTER)
    assert "There is no class" in report.text("#choose-error")
    report.press(Keys.CONTROL + "a", "four", Keys.ENTER)
    report.until(lambda: not report.find("#choose").is_displayed())
    with report.export().open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    suggested = report.script("return document.querySelectorAll('.card .title b')[1].textContent")
    assert rows == [
        ["id", "mark", "label"],
        [ids[0], "right", ""],
        [ids[1], "relabel", suggested],
        [ids[2], "drop", ""],
        [ids[3], "relabel", "four"],
    ]
    report.press("?")
    assert report.until(lambda: report.find("#help").is_displayed())
    report.press(Keys.ESCAPE)
    report.until(lambda: not report.find("#help").is_displayed())
    assert report.faults() == []


def test_marks_survive_a_reload_and_belong_to_their_report(
    report: Report, digits: Path, hostile: tuple[clipaudit.CleanIndex, Path], noisy_index: clipaudit.CleanIndex
) -> None:
    report.open(digits)
    report.click('.card [data-mark="relabel"]')
    report.click('.card:nth-child(2) [data-mark="drop"]')
    ids = report.ids()
    report.driver.refresh()
    assert report.text("#marks-status") == "2 marks: 0 right, 1 relabel, 1 drop."
    assert report.find('.card [data-mark="relabel"]').get_attribute("aria-pressed") == "true"
    report.choose("#filter-mark", "drop")
    assert report.ids() == [ids[1]]
    report.click('.card [data-mark="drop"]')
    assert report.text("#marks-status").startswith("1 mark:"), "a second press takes the mark back"
    report.open(hostile[1])
    assert report.text("#marks-status") == "No marks yet."
    # Other thresholds on the same samples: the marks are still about them.
    stricter = digits.with_name("stricter.html")
    clipaudit.write_report(clipaudit.reselect(noisy_index, noisy_index.config.with_changes(theta_loss=0.9)), stricter)
    report.open(stricter)
    assert report.text("#marks-status").startswith("1 mark:")


def test_a_browser_without_storage_still_marks(report: Report, digits: Path) -> None:
    refuse = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
    added = report.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": refuse})
    try:
        report.open(digits)
        report.click('.card [data-mark="drop"]')
        assert "1 mark: 0 right, 0 relabel, 1 drop." in report.text("#marks-status")
        assert "This browser keeps no marks" in report.text("#marks-status")
        assert len(report.export().read_text().splitlines()) == 2
        assert report.faults() == []
    finally:
        report.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
        report.open(digits)


def test_hostile_names_are_text_and_survive_the_round_trip(
    report: Report, hostile: tuple[clipaudit.CleanIndex, Path], tmp_path: Path
) -> None:
    index, path = hostile
    report.open(path)
    assert report.driver.title == f"{path.parent.name}: label audit"
    assert report.script("return document.querySelectorAll('.card img').length") == 2 * len(HOSTILE)
    assert (
        report.script(
            "return document.querySelectorAll('main b i, main script, img:not([src^=\"data:image/webp\"])').length"
        )
        == 0
    )
    names = report.script("return [...document.querySelectorAll('.class .name')].map((name) => name.textContent)")
    assert sorted(names) == sorted(map(printable, HOSTILE))
    shown = report.script("return document.body.innerText")
    assert not {character for character in shown if not character.isprintable()} - {"\n", "\t"}
    gone = report.script(
        "return [...document.querySelectorAll('#unreadable td, #unreadable tbody th')].map((c) => c.textContent)"
    )
    assert gone == ["<i>gone</i>.png", HOSTILE[0], "<script>empty</script>"]
    for button in report.all('.card [data-mark="relabel"]'):
        report.click(button)
    marks = report.export()
    reviewed, summary = apply_marks(index, marks)
    assert summary.relabel == 2 * len(HOSTILE)
    with marks.open(newline="") as file:
        assert not [cell for row in csv.reader(file) for cell in row if cell.startswith(("=", "\t", "+", "-", "@"))]
    rows = np.flatnonzero([mark == "relabel" for mark in reviewed.table["reviewed"].to_pylist()])
    given = [index.table["label"][row].as_py() for row in rows]
    assert [reviewed.table["label"][row].as_py() for row in rows] == [
        HOSTILE[(HOSTILE.index(name) + 1) % len(HOSTILE)] for name in given
    ]
    shutil.copy(marks, tmp_path / "kept.csv")
    report.script("localStorage.clear()")
    report.driver.refresh()
    report.find("#import-file").send_keys(str(tmp_path / "kept.csv"))
    report.until(lambda: report.text("#marks-status").startswith("12 marks: 0 right, 12 relabel, 0 drop. Imported 12."))
    assert report.export().read_bytes() == (tmp_path / "kept.csv").read_bytes()
    (tmp_path / "bad.csv").write_text("id,mark,label\nx.png,perhaps,\n")
    report.find("#import-file").send_keys(str(tmp_path / "bad.csv"))
    report.until(lambda: 'row 2: the mark is "perhaps"' in report.text("#marks-status"))
    (tmp_path / "elsewhere.csv").write_text("\ufeffid,mark,label\nx.png,drop,\n", encoding="utf-8")
    report.find("#import-file").send_keys(str(tmp_path / "elsewhere.csv"))
    report.until(lambda: "1 of them belong to images that are not in this file" in report.text("#marks-status"))
    assert report.faults() == []


def test_the_policy_stops_foreign_script_and_pictures(report: Report, digits: Path) -> None:
    report.open(digits)
    report.script(
        'const picture = \'<img src="https://example.org/a.png" onerror="window.ran = 1">\';'
        "document.body.insertAdjacentHTML('beforeend', picture);"
        "const own = document.createElement('script'); own.textContent = 'window.ran = 2'; document.body.append(own)"
    )
    refusals = report.until(lambda: [e["message"] for e in report.driver.get_log("browser")])
    assert any("Content Security Policy" in message for message in refusals)
    assert report.script("return window.ran") is None


@pytest.mark.parametrize("media", [LIGHT, DARK])
def test_text_stands_out_in_both_themes(report: Report, digits: Path, media: dict[str, str]) -> None:
    features = [{"name": name, "value": value} for name, value in media.items()]
    report.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    report.open(digits)
    report.press("j", "1", "2")
    background = report.script("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (media is LIGHT)
    assert report.script(CONTRASTS) == []
    report.click("#theme")
    assert report.script("return getComputedStyle(document.body).backgroundColor") != background
    report.driver.refresh()
    assert report.script("return getComputedStyle(document.body).backgroundColor") != background, "the choice is kept"
    assert report.script(CONTRASTS) == []


def test_a_phone_needs_no_sideways_scrolling(report: Report, digits: Path) -> None:
    screen = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    report.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    report.open(digits)
    report.press("j", "1")
    report.script("for (const part of document.querySelectorAll('details')) part.open = true")
    width = report.script("return [document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
    assert width == [375, 375, 375]
    report.press("?")
    assert report.script("return document.getElementById('help').getBoundingClientRect().right") <= 375
    assert report.faults() == []


def test_names_and_structure_for_who_cannot_see(report: Report, digits: Path) -> None:
    report.open(digits)
    unnamed = report.script(
        "return [...document.querySelectorAll('button, input, select, a')].filter((node) => node.checkVisibility()"
        " && !(node.getAttribute('aria-label') || node.textContent.trim() || node.labels?.length))"
        ".map((node) => node.outerHTML)"
    )
    assert unnamed == []
    pictures = "return [...document.images].filter((image) => !image.alt || !image.getAttribute('width')).length"
    assert report.script(pictures) == 0
    charts = report.script(
        "return [...document.querySelectorAll('svg[role=img]')].map((c) => c.getAttribute('aria-label'))"
    )
    assert len(charts) == 21
    assert all("nats" in label or "ROC" in label for label in charts)
    levels = report.script(
        "return [...document.querySelectorAll('main h1, main h2, main h3')].map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_jumps_while_it_opens(report: Report, digits: Path, width: int) -> None:
    screen = {"width": width, "height": 1600, "deviceScaleFactor": 1, "mobile": False}
    report.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    report.open(digits)
    watch = (
        "const [push, done] = arguments; let sum = 0;"
        "new PerformanceObserver((list) => { for (const entry of list.getEntries()) sum += entry.value; })"
        ".observe({type: 'layout-shift', buffered: true});"
        "if (push) document.querySelector('h1').style.marginTop = '300px';"
        "setTimeout(() => done(sum), 500)"
    )
    assert report.driver.execute_async_script(watch, False) == 0
    assert report.driver.execute_async_script(watch, True) > 0, "the browser measures it"
