"""The review page in a real browser, used with the keyboard alone."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import any_image
from report_helpers import Row, index_of

import clipaudit
from clipaudit.calls.apply import apply_marks
from clipaudit.report.review_page import write_review_page
from clipaudit.text import printable

pytest.importorskip("selenium.webdriver", reason="no selenium: pip install 'clipaudit[test]'")
from browser_helpers import CONTRASTS, DARK, LIGHT, Report
from selenium.webdriver.common.keys import Keys

CLASSES = ("zebra <b>", "lynx", "=cat", "dog", "dogfish")
# Everything that a person, or who reads the page to them, can find on it.
EXPOSED = """
const shown = [...document.querySelectorAll("body *")].filter((node) => node.checkVisibility());
const attributes = shown.flatMap((node) => [...node.attributes].map((attribute) => attribute.value));
const texts = shown.flatMap((node) => [...node.childNodes].filter((child) => child.nodeType === 3));
return [...attributes.filter((value) => !value.startsWith("data:")), ...texts.map((text) => text.data)].join("\\n");
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> clipaudit.CleanIndex:
    """Six samples: a suggestion, none, one for each kind of mark; the image of the last one is gone."""
    root = tmp_path_factory.mktemp("review")
    rows = []
    for number in range(6):
        label, other = CLASSES[number % 3], "lynx" if number % 3 != 1 else "dog"
        name = f"{number}, {'<i>' if number == 2 else ''}.png"
        if number < 5:
            any_image((400, 300) if number == 4 else (40, 30)).save(root / name)
        seen = (other, 0.8, 0.1) if number != 3 else (label, 0.9, 0.9)
        rows.append(Row(name, label, seen, seen))
    return index_of(rows, root, names=CLASSES)


def page(index: clipaudit.CleanIndex, folder: Path, *, show_suggestions: bool = False) -> Path:
    return write_review_page(index, np.arange(6), folder / "review.html", show_suggestions=show_suggestions).path


def exported(report: Report) -> list[list[str]]:
    with report.export().open(newline="") as file:
        return list(csv.reader(file))


def test_a_review_with_the_keyboard_alone(report: Report, index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    report.open(page(index, tmp_path))
    assert report.text("#progress") == "1 of 6, 0 marked"
    assert report.text("#label") == "Labelled zebra <b>"
    report.press("2")
    assert report.text("#suggestion").startswith("Suggested: lynx. 2 or Enter: yes")
    report.press("2")
    assert report.text("#progress") == "2 of 6, 1 marked"
    report.press("1", "r")
    report.press("d", "o", "g", "f")
    assert [item.text for item in report.all("#matches li")] == ["dogfish"]
    report.press(Keys.ENTER)
    assert report.text("#progress") == "4 of 6, 3 marked"
    report.press("3", "?")
    assert report.text("#picture").startswith("no image: cannot be opened")
    report.press(Keys.ARROW_LEFT)
    assert report.text("#mark") == "Marked: cannot tell"
    report.press("u")
    assert report.text("#progress") == "5 of 6, 4 marked"
    report.press("?", "2", Keys.ESCAPE)
    assert report.text("#suggestion") == "", "who goes back has not judged, and sees no suggestion"
    report.press("2", "3")
    assert report.text("#finished h2") == "Every sample has a mark"
    ids = index.table["id"].to_pylist()
    report.press("e")
    report.until(lambda: list(report.downloads.glob("marks*.csv")))
    assert exported(report) == [
        ["id", "mark", "label"],
        [ids[0], "relabel", "lynx"],
        [ids[1], "right", ""],
        [ids[2], "relabel", "dogfish"],
        [ids[3], "drop", ""],
        [ids[4], "unsure", ""],
        [ids[5], "drop", ""],
    ]
    _, summary = apply_marks(index, report.downloads / "marks.csv")
    assert (summary.right, summary.relabel, summary.drop, summary.unsure) == (1, 2, 2, 1)
    assert report.faults() == []


def test_the_suggestion_and_the_verdict_are_nowhere_before_the_judgement(
    report: Report, index: clipaudit.CleanIndex, tmp_path: Path
) -> None:
    report.open(page(index, tmp_path))
    text = report.script(EXPOSED)
    assert "zebra" in text
    for hidden in ("lynx", "0.8", "doubt", "clean_score", "noisy"):
        assert hidden not in text.replace("clipaudit apply clean.parquet", "")
    report.press("2")
    assert "lynx" in report.script(EXPOSED)
    report.press("1", Keys.ARROW_LEFT)
    assert report.text("#suggestion") == "Suggested: lynx", "after the judgement it may be compared"
    report.press("u")
    assert "lynx" not in report.script(EXPOSED)


def test_suggestions_can_be_shown_at_once(report: Report, index: clipaudit.CleanIndex, tmp_path: Path) -> None:
    report.open(page(index, tmp_path, show_suggestions=True))
    assert report.text("#suggestion") == "Suggested: lynx"
    report.press("2")
    assert report.text("#progress") == "2 of 6, 1 marked"
    report.press("n", "n")
    assert report.text("#suggestion") == "No other class is suggested."
    report.press("2")
    assert report.find("#other").is_displayed(), "there is no suggestion to take"


def test_marks_outlive_a_reload_and_it_goes_on_where_it_stopped(
    report: Report, index: clipaudit.CleanIndex, tmp_path: Path
) -> None:
    file = page(index, tmp_path)
    report.open(file)
    report.press("1", "3")
    report.driver.refresh()
    assert report.text("#progress") == "3 of 6, 2 marked"
    report.press("p")
    assert report.text("#mark") == "Marked: drop the sample"
    assert report.find('[data-key="3"]').get_attribute("aria-pressed") == "true"
    # The same page made again is the same review; other samples are another one.
    report.open(page(index, tmp_path))
    assert report.text("#progress") == "3 of 6, 2 marked"
    report.open(write_review_page(index, np.arange(5, -1, -1), tmp_path / "other.html").path)
    assert report.text("#progress") == "1 of 6, 0 marked"


def test_a_queue_that_is_partly_filled_in_is_imported(
    report: Report, index: clipaudit.CleanIndex, tmp_path: Path
) -> None:
    ids = index.table["id"].to_pylist()
    queue = tmp_path / "queue.csv"
    with queue.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("id", "mark", "label"), (ids[0], "unsure", ""), (ids[1], "", ""), (ids[2], "relabel", "'=cat")]
        )
    report.open(page(index, tmp_path))
    report.find("#import-file").send_keys(str(queue))
    report.until(lambda: report.text("#marks-status") == "Imported 2 marks.")
    assert report.text("#progress") == "2 of 6, 2 marked"
    assert exported(report)[1:] == [[ids[0], "unsure", ""], [ids[2], "relabel", "'=cat"]]
    queue.write_text(f"id,mark,label\n{ids[0]},perhaps,\n".replace(f"{ids[0]}", f'"{ids[0]}"'))
    report.find("#import-file").send_keys(str(queue))
    report.until(lambda: "was not imported: row 2" in report.text("#marks-status"))


def test_other_classes_are_found_by_typing_and_wrong_words_are_refused(
    report: Report, index: clipaudit.CleanIndex, tmp_path: Path
) -> None:
    report.open(page(index, tmp_path))
    report.press("r")
    assert len(report.all("#matches li")) == len(CLASSES)
    report.press("q", "q", Keys.ENTER)
    assert report.text("#other-error") == 'There is no class "qq".'
    report.press(Keys.ESCAPE)
    assert not report.find("#other").is_displayed()
    report.press("r", "d", "o", "g", Keys.ARROW_DOWN, Keys.ENTER)
    report.press("r", *"zebra", Keys.ENTER)
    rows = exported(report)[1:]
    assert [row[1:] for row in rows] == [["relabel", "dogfish"], ["relabel", "zebra <b>"]]


def test_the_given_class_as_the_other_class_means_right(
    report: Report, index: clipaudit.CleanIndex, tmp_path: Path
) -> None:
    report.open(page(index, tmp_path))
    report.press("r", *"zebra", Keys.ENTER)
    assert exported(report)[1][1:] == ["right", ""]


@pytest.mark.parametrize("media", [LIGHT, DARK])
def test_text_stands_out_in_both_themes(
    report: Report, index: clipaudit.CleanIndex, tmp_path: Path, media: dict[str, str]
) -> None:
    features = [{"name": name, "value": value} for name, value in media.items()]
    report.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    report.open(page(index, tmp_path))
    report.press("2")
    assert report.script(CONTRASTS) == []
    report.press("2", "p", "r")
    assert report.script(CONTRASTS) == []


def test_a_phone_needs_no_sideways_scrolling_and_the_mouse_works(
    report: Report, index: clipaudit.CleanIndex, tmp_path: Path
) -> None:
    screen = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    report.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    report.open(page(index, tmp_path))
    edges = "return [arguments[0].getBoundingClientRect().bottom, arguments[1].getBoundingClientRect().top]"
    picture_ends, label_begins = report.script(edges, report.find("#picture img"), report.find("#label"))
    assert picture_ends <= label_begins
    report.click('[data-key="2"]')
    report.click('[data-key="2"]')
    assert report.text("#progress") == "2 of 6, 1 marked"
    assert report.script("return [document.documentElement.scrollWidth, innerWidth]") == [360, 360]


def test_names_of_a_thousand_classes_stay_few_on_the_screen(report: Report, tmp_path: Path) -> None:
    names = [f"class {number:04}" for number in range(1000)]
    any_image().save(tmp_path / "a.png")
    any_image().save(tmp_path / "b.png")
    rows = [Row("a.png", names[0], (names[1], 0.9, 0.1), (names[1], 0.9, 0.1))]
    rows.append(Row("b.png", names[5], (names[5], 0.9, 0.9), (names[5], 0.9, 0.9)))
    made = write_review_page(index_of(rows, tmp_path, names=names), np.arange(2), tmp_path / "review.html")
    report.open(made.path)
    report.press("r")
    assert len(report.all("#matches li")) == 12
    report.press(*"0777")
    assert [item.text for item in report.all("#matches li")] == ["class 0777"]


def test_hostile_names_are_text(report: Report, tmp_path: Path) -> None:
    names = ['<img src=x onerror="document.title=1">', "</script><script>document.title=2</script>"]
    hostile = "line\nbreak \u202e<b>.png"
    any_image().save(tmp_path / hostile)
    rows = [Row(hostile, names[0], (names[1], 0.9, 0.1), (names[1], 0.9, 0.1))]
    rows.append(Row("gone.png", names[1], (names[1], 0.9, 0.9), (names[1], 0.9, 0.9), reason="lost"))
    made = write_review_page(index_of(rows, tmp_path, names=names), np.arange(1), tmp_path / "review.html")
    report.open(made.path)
    report.press("2")
    assert report.text("#label") == f"Labelled {names[0]}"
    assert names[1] in report.text("#suggestion")
    assert report.text("#path") == printable(hostile)
    report.press("2")
    assert exported(report)[1] == [hostile, "relabel", names[1]]
    assert report.driver.title.endswith("label review")
    assert report.faults() == []
