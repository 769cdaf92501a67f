"""Prompt sets: which one is taken, what a file may hold, and that a stranger's file is only data."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from prompt_helpers import run

from clipaudit.demo.digits import CLASS_NAMES
from clipaudit.errors import PromptError, UsageError
from clipaudit.prompts.check import check_prompts
from clipaudit.prompts.sets import (
    PromptClass,
    PromptSet,
    class_prompts,
    find_prompts,
    load_prompts,
    parse_prompts,
    shipped_prompt_sets,
)
from clipaudit.prompts.writing import empty_file, with_features, with_labels, write_prompts

TEMPLATE = "A photo of {name}, which {feature}."


def toml(classes: str = '[[classes]]\nname = "cat"\nfeatures = ["has ears"]\n', template: str = TEMPLATE) -> str:
    return f"template = {json.dumps(template)}\n{classes}"


def entry(name: str, features: Sequence[str] = (), aliases: Sequence[str] = ()) -> str:
    texts = {"name": name, "features": list(features), "aliases": list(aliases)}
    return "[[classes]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in texts.items())


def read(text: str) -> PromptSet:
    return parse_prompts(text, Path("p.toml"))


@pytest.mark.parametrize(
    ("names", "chosen", "reason"),
    [
        (CLASS_NAMES, "digits", "the only shipped set that knows all 10 classes"),
        (["lion", "Bee"], "CIFAR-100", "the smallest shipped set that knows all 2 classes"),
        (["cat", "Dog", "ship"], "CIFAR-10", "the only shipped set that knows all 3 classes"),
        (["cat", "abacus", "zyzzyva"], None, "no shipped set knows all 3 classes"),
        ([*map(str, range(10))], None, "class names are numbers ('0'), by which no prompt set is chosen"),
        (["-1", "1"], None, "class names are numbers ('-1'), by which no prompt set is chosen"),
        (["\uff11", "\u00b2"], None, "class names are numbers ('\uff11'), by which no prompt set is chosen"),
        (["zero", "1"], None, "1 class name(s) are numbers ('1'), by which no prompt set is chosen"),
    ],
)
def test_auto_says_what_it_takes_and_why(names: list[str], chosen: str | None, reason: str) -> None:
    prompts, why = find_prompts("auto", names)
    assert (prompts.name if prompts else None) == chosen
    assert why == reason


def test_a_named_set_is_taken_for_numbers_too() -> None:
    prompts, why = find_prompts("digits", ["0", "1"])
    assert prompts == load_prompts(shipped_prompt_sets()["digits"])
    assert [entry.name for entry in prompts.match(["0", "1"]) if entry] == ["zero", "one"]
    assert why == "as asked for"
    assert find_prompts("none", ["zero", "one"]) == (None, "as asked for")


# Templates


@pytest.mark.parametrize(
    "field",
    [
        "{name.__class__}",
        "{name[0]}",
        "{name:>1000000000}",
        "{name!r}",
        "{feature.__init__.__globals__}",
        "{feature:{name}}",
        "{0}",
        "{}",
        "{ name }",
        "{Name}",
        "{other}",
        "{{name}}",
        "{{",
        "}}",
        "{",
        "}",
    ],
)
def test_a_template_knows_two_fields_and_no_other_braces(field: str) -> None:
    with pytest.raises(PromptError, match=r"may contain \{name\} and \{feature\}, no other braces"):
        read(toml(template=f"{TEMPLATE} {field}"))


@pytest.mark.parametrize("template", ["A photo.", "A {name}.", "It {feature}.", "", "\n"])
def test_a_template_has_both_fields(template: str) -> None:
    with pytest.raises(PromptError, match="template"):
        read(toml(template=template))


HOSTILE = (
    "{feature}",
    "{name}",
    "{name.__class__}",
    "{0:>1000000000}",
    "{",
    "{{x}}",
    "%s",
    "\\1",
    "\\g<name>",
    "$name",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_braces_in_names_and_features_are_text(text: str) -> None:
    prompts = PromptSet("s", "", "{name} {feature} {name}", (PromptClass(text, (), (f"has {text}",)),))
    assert prompts.texts(prompts.classes[0]) == (f"{text} has {text} {text}",)
    plain = class_prompts([text], None)
    assert plain.texts[0] == f"A photo of a {text}.".replace("_", " ").replace("  ", " ")
    written, held = with_labels(*empty_file("photos", Path("p.toml")), [f"a{text}"])
    written, held = with_features(written, held, held.classes[0].name, [f"has {text}"])
    assert read(written) == held
    assert held.classes[0].features == (f"has {text}",)


# Files


def nested(opening: str, closing: str) -> str:
    return toml(f"classes = {opening * 50_000}{closing * 50_000}")


NASTY = {
    "deep lists": (lambda: nested("[", "]"), "nested too deeply"),
    "deep tables": (lambda: nested("{a=", "}"), "nested too deeply"),
    "number": (lambda: toml(f"classes = {'9' * 10_000}"), "not valid TOML"),
    "dotted key": (lambda: ".".join(["a"] * 2_000_000) + " = 1", "dotted key of more than 16 parts"),
    "dotted table": (lambda: f"[{' . '.join(list(QUOTED) * 300_000)}]", "dotted key of more than 16 parts"),
    "classes": (lambda: toml(f"classes = [{','.join(['{}'] * 1_000_000)}]"), "1,000,000 classes, more than 100,000"),
    "features": (lambda: toml(entry("cat", ["x"] * 1_001)), "'features' has 1,001 texts, more than 1,000"),
    "aliases": (lambda: toml(entry("cat", (), ["x"] * 1_001)), "'aliases' has 1,001 texts, more than 1,000"),
    "long name": (lambda: toml(entry("c" * 5_000_000)), "'name' has 5,000,000 characters, more than 1,000"),
    "long template": (lambda: toml(template=TEMPLATE * 1_000), "'template' has 35,000 characters"),
    "many prompts": (
        lambda: toml("".join(entry(f"{k}{'c' * 900}", ["x"] * 500) for k in range(99)), "{name}" * 9 + "{feature}"),
        "its prompts have 401,",
    ),
    "NUL": (lambda: toml(entry("a\0b")), r"'name' contains the control character '\x00'"),
    "escape": (lambda: toml(entry("cat", (), ["\x1b[2J"])), r"the control character '\x1b'"),
    "line break": (lambda: toml(entry("cat", ["has\nears"])), "text 1 of 'features' contains the control"),
    "line separator": (lambda: toml(entry("cat", ["has \u2028ears"])), r"the control character '\u2028'"),
    "surrogate": (lambda: toml(entry("\ud800")), "not valid TOML"),
    "no letters": (lambda: toml(entry("_-")), "'_-' is no name that can be read"),
    "invisible": (lambda: toml(entry("\u200b")), "is empty"),
    "empty alias": (lambda: toml(entry("cat", (), ["-"])), "'-' is no name that can be read"),
    "key twice": (lambda: toml(entry("cat") + "name = 'dog'"), "not valid TOML"),
    "alias of another": (lambda: toml(entry("cat") + entry("dog", (), ["CAT"])), "share the name 'cat'"),
    "spelling": (lambda: toml(entry("sea cow") + entry("Sea_Cow")), "share the name 'sea cow'"),
    "form": (lambda: toml(entry("caf\u00e9") + entry("cafe\u0301")), "share the name 'caf\u00e9'"),
    "name is a list": (lambda: toml("[[classes]]\nname = ['cat']"), "class 1: 'name' must be a text"),
    "feature is a list": (lambda: toml("[[classes]]\nname = 'cat'\nfeatures = [['x']]"), "must be a list of texts"),
    "features are a text": (lambda: toml("[[classes]]\nname = 'cat'\nfeatures = 'x'"), "must be a list of texts"),
    "classes are a table": (lambda: toml("[classes]\nname = 'cat'"), "no [[classes]]"),
    "classes are numbers": (lambda: toml("classes = [1]"), "no [[classes]]"),
    "set's name": (lambda: "name = 7\n" + toml(), "'name' must be a text"),
    "description": (lambda: "description = []\n" + toml(), "'description' must be a text"),
    "long key": (lambda: f"{'k' * 1_000_000} = 1\n" + toml(), "unknown key 'kkk"),
    "date": (lambda: "d = 2026-99-99\n" + toml(), "not valid TOML"),
    "binary": (lambda: "\0\1\2", "not valid TOML"),
}
QUOTED = ('"a"', "b", "'c'")


@pytest.mark.parametrize("kind", NASTY)
def test_what_a_prompt_file_may_not_hold(tmp_path: Path, kind: str) -> None:
    text, message = NASTY[kind]
    (tmp_path / "p.toml").write_text(text(), encoding="utf-8")
    report = check_prompts(tmp_path / "p.toml")
    assert len(report.errors) == 1
    assert message in report.errors[0]
    assert len(report.errors[0]) < 600


def test_only_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "large.toml").write_bytes(b"#" * ((8 << 20) + 1))
    (tmp_path / "utf-16.toml").write_text(toml(), encoding="utf-16")
    for name, message in (
        ("pipe", "is a named pipe, not a file"),
        ("link", "is a device, not a file"),
        (".", "is a folder, not a file"),
        ("large.toml", "is larger than 8,388,608 bytes"),
        ("utf-16.toml", "which is always UTF-8"),
        ("x" * 300, "File name too long"),
        ("a\0b", "null"),
    ):
        with pytest.raises(PromptError, match=message):
            find_prompts(tmp_path / name, ["cat"])
        assert run("check", tmp_path / name).exit_code == 1
        assert isinstance(run("show", tmp_path / name).exception, PromptError)
    with pytest.raises(UsageError, match="there is no prompt set"):
        find_prompts(tmp_path / "nothing.toml", ["cat"])


def test_a_file_from_another_system_reads_and_keeps_its_line_ends(tmp_path: Path) -> None:
    text = "\ufeff# mine\r\n" + toml().replace("\n", "\r\n") + '\r\n[[classes]]\r\nname = "cafe\u0301 "\r\n'
    (tmp_path / "p.toml").write_bytes(text.encode())
    prompts = load_prompts(tmp_path / "p.toml")
    assert [entry.name for entry in prompts.classes] == ["cat", "caf\u00e9"]
    assert unicodedata.is_normalized("NFC", prompts.classes[1].name)
    added, _ = with_labels(text.removeprefix("\ufeff"), prompts, ["dog"])
    assert added.startswith(text.removeprefix("\ufeff").rstrip("\n"))


def test_a_spelling_that_several_classes_could_mean_is_none() -> None:
    prompts = PromptSet(
        "s", "", TEMPLATE, (PromptClass("Turkey"), PromptClass("turkey", ("bird",)), PromptClass("cat"))
    )
    assert prompts.match(["Turkey", "turkey", "TURKEY", "Bird", "CAT", "dog"]) == [
        prompts.classes[0],
        prompts.classes[1],
        None,
        prompts.classes[1],
        prompts.classes[2],
        None,
    ]


# Size and time


def test_thousands_of_classes_are_compared(tmp_path: Path) -> None:
    words = ["red", "blue", "green", "small", "large", "round"]
    lines = "".join(
        entry(f"class {k}", [f"has the {word}{k} mark of its {word}" for word in words]) for k in range(3_000)
    )
    (tmp_path / "p.toml").write_text(toml(lines))
    report = check_prompts(tmp_path / "p.toml", labels=[f"Class_{k}" for k in range(3_000)])
    assert report.findings == ()


def test_a_thousand_classes_with_one_text_are_a_short_report(tmp_path: Path) -> None:
    features = [f"has {number} legs" for number in range(6)]
    lines = "".join(entry(f"class {k}", features) for k in range(1_000))
    (tmp_path / "p.toml").write_text(toml(lines))
    report = check_prompts(tmp_path / "p.toml", labels=["dog"])
    assert any("more than 100 pairs" in warning for warning in report.warnings)
    assert len(report.findings) < 120
    assert all(len(finding.message) < 500 for finding in report.findings)
    assert "class 19 and 980 more" in report.findings[-1].message


def test_comments_in_an_empty_list_do_not_cost_time() -> None:
    text = toml("[[classes]]\nname = 'cat'\nfeatures = [ " + "# a " * 5_000 + "\n 'has ears']\n")
    prompts = read(text)
    with_features(text, prompts, "cat", ["has ears"])


# Names of classes that nobody would choose


@pytest.mark.parametrize(
    "label",
    ["a\nb", 'a"b', 'a"""b', "a'''b", "a\\b", "{name}", "a\u202eb", "\u200fa", "=1+1", "#", "[[classes]]", "c" * 1_000],
)
def test_a_hostile_class_name_is_written_and_read(label: str) -> None:
    text, prompts = with_labels(*empty_file("photos", Path("p.toml")), ["cat", label])
    read_again = read(text)
    assert read_again == prompts
    assert read_again.match([label]) == [read_again.classes[1]]


@pytest.mark.parametrize("label", ["c" * 1_001, "a\0b", "a\x1b[2J", "\udcff", "_", " ", "\u200b"])
def test_a_class_name_that_cannot_be_written_is_named(label: str) -> None:
    with pytest.raises(PromptError, match=r"the class '.*Rename it, then run again"):
        with_labels(*empty_file("photos", Path("p.toml")), ["cat", label])


def test_a_file_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    labels = [f"{number:05}{'x' * 900}" for number in range(10_000)]
    with pytest.raises(PromptError, match=r"p\.toml would be larger than 8,388,608 bytes"):
        write_prompts(tmp_path / "p.toml", *with_labels(*empty_file("photos", Path("p.toml")), labels))
    assert list(tmp_path.iterdir()) == []


def test_the_files_own_name_may_be_anything() -> None:
    text, prompts = empty_file(os.fsdecode(b"\xff\n{name}"), Path(os.fsdecode(b"\xfe{file}\n.toml")))
    assert read(text + "[[classes]]\nname = 'cat'").template == prompts.template
    assert text.encode()
