"""`clipaudit prompts list, show, check and new`: prompt files checked and written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import DIGITS, any_image
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_helpers import CLASSES, features_of, run, write_photos

from clipaudit.clip.encoders import load_encoder
from clipaudit.errors import ClipAuditError, PromptError, UsageError
from clipaudit.prompts.check import TOKEN_LIMIT, check_prompts, estimate_tokens
from clipaudit.prompts.sets import load_prompts, parse_prompts, shipped_prompt_sets
from clipaudit.prompts.writing import empty_file, new_prompts, with_features, with_labels, write_prompts
from clipaudit.spelling import line_fault, normalise, tidy


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path)


def write_set(
    path: Path, classes: dict[str, Sequence[str]], template: str = "A photo of {name}, which {feature}."
) -> Path:
    entries = [f"[[classes]]\nname = {json.dumps(n)}\nfeatures = {json.dumps(list(f))}\n" for n, f in classes.items()]
    path.write_text("\n".join([f"name = 'made up'\ntemplate = '{template}'\n", *entries]))
    return path


# Checking


@pytest.mark.parametrize("name", shipped_prompt_sets())
def test_shipped_sets_are_clean(name: str) -> None:
    report = check_prompts(name)
    assert report.n_classes > 0
    assert report.errors == report.warnings == []


def test_wordnet_ids_are_aliases(data_folder: Path) -> None:
    """What the importers and the class folders of ImageNet's relatives label with."""
    sets = shipped_prompt_sets()
    sizes = {"webvision50": 50, "red-mini-imagenet": 100, "tiny-imagenet": 200}
    for name, size in sizes.items():
        entries = load_prompts(sets[name]).classes
        assert len({alias for entry in entries for alias in entry.aliases if re.fullmatch(r"n\d{8}", alias)}) == size
    labels = pq.read_table(data_folder / "tinyimagenet32" / "train.parquet", columns=["label", "label_words"])
    words = dict(zip(labels["label"].to_pylist(), labels["label_words"].to_pylist(), strict=True))
    for identifier, entry in zip(words, load_prompts(sets["tiny-imagenet"]).match(list(words)), strict=True):
        assert entry is not None, identifier
        first = words[identifier].split(",")[0]
        assert normalise(first) in {normalise(spelling) for spelling in (entry.name, *entry.aliases)}


def test_the_token_estimate_is_above_the_real_count() -> None:
    """With CLIP's own vocabulary, from a package that carries it."""
    tokenizer = pytest.importorskip("instant_clip_tokenizer").Tokenizer()
    assert tokenizer.encode("A photo of lynx") == [320, 1125, 539, 28941]
    for file in shipped_prompt_sets().values():
        prompts = load_prompts(file)
        for entry in prompts.classes:
            for text in prompts.texts(entry):
                assert len(tokenizer.encode(text)) + 2 <= estimate_tokens(text) <= TOKEN_LIMIT
    for odd in ("naïve café 北京 🐈", "x-ray, 2026!", "don't"):
        assert len(tokenizer.encode(odd)) + 2 <= estimate_tokens(odd)


def test_every_fault_is_found(tmp_path: Path) -> None:
    same = [f"has the {colour} fur" for colour in ("red", "blue", "green", "black", "white", "brown")]
    classes = {
        "cat": [*features_of("cat", 6), "Has cat0 MARKS"],
        "lynx": [*features_of("lynx", 5), "has long " + "tufted " * 40 + "ears"],
        "few": features_of("few", 5),
        "many": features_of("many", 11),
        "styled": [*features_of("styled", 6), "which has ears", "Has eyes", "has ears.", "- has feet", "has\u202eears"],
        "coyote": same,
        "wolf": [*same[:5], "has the brown fur too"],
        "blank": [],
    }
    report = check_prompts(write_set(tmp_path / "set.toml", classes))
    assert report.n_classes == 8
    errors, warnings = "\n".join(report.errors), "\n".join(report.warnings)
    assert "cat: 'has cat0 marks' stands there 2 times" in errors
    assert "up to 140 tokens, CLIP's text encoder reads 77" in errors
    assert len(report.errors) == 2
    assert "few: 5 feature(s); write 6 to 10" in warnings
    assert "many: 11 feature(s); write 6 to 10" in warnings
    assert "no features yet, so plain templates: blank" in warnings
    assert "coyote and wolf: nearly the same text" in warnings
    for fault in ("starts with 'which'", "a capital letter", "a punctuation mark", "with a word", "control characters"):
        assert fault in warnings
    assert [finding.severity for finding in report.findings] == sorted(
        (finding.severity for finding in report.findings), key=["error", "warning", "note"].index
    )
    notes = [finding.message for finding in report.findings if finding.severity == "note"]
    assert any("'has the red fur'" in note and "coyote, wolf" in note for note in notes)


def test_labels_and_classes_are_compared(tmp_path: Path) -> None:
    file = write_set(tmp_path / "set.toml", {name: features_of(name) for name in ("red fox", "lynx", "unicorn")})
    report = check_prompts(file, labels=["Red_Fox", "red-fox", "LYNX", "wolf", "sea cow"])
    assert report.errors == ["classes of the data that are missing here: wolf, sea cow"]
    assert report.warnings == [
        "several classes of the data are 'red fox' here: Red_Fox, red-fox",
        "classes that the data do not have: unicorn",
    ]


def test_an_encoder_counts_and_compares(tmp_path: Path) -> None:
    encoder = load_encoder(DIGITS)
    long = ["has " + "q7" * 60]
    shared = [f"has {count} corners" for count in ("no", "two", "three", "four", "five", "six")]
    file = write_set(
        tmp_path / "set.toml",
        {"zero": [*features_of("zero", 6), *long], "seven": shared, "Seven.": [*shared[1:], shared[0]]},
    )
    report = check_prompts(file, encoder=encoder)
    assert report.most_tokens is None
    assert len(report.errors) == 1
    for fact in ("reads 77", "Shorten", "'A photo of zero, which has q7q7"):
        assert fact in report.errors[0]
    assert any("seven and Seven.: nearly the same to this text encoder" in warning for warning in report.warnings)
    assert check_prompts("digits", encoder=encoder).warnings == []


def test_a_malformed_file_is_an_error_of_its_report(tmp_path: Path) -> None:
    file = tmp_path / "set.toml"
    for text, message in (
        ("name = ", "not valid TOML"),
        ("template = 'A {name}, which {feature}.'\n[[classes]]\nname = 'a'\nfeature = ['x']", "unknown key 'feature'"),
    ):
        file.write_text(text)
        report = check_prompts(file)
        assert report.n_classes == 0
        assert message in report.errors[0]
    with pytest.raises(UsageError, match="no prompt set 'nothing'"):
        check_prompts("nothing")


# Writing


def test_from_a_folder_to_a_checked_file(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "photos.toml"
    result = run("new", photos, "--out", file)
    assert result.exit_code == 0, result.output
    assert [entry.name for entry in load_prompts(file).classes] == [name.replace("_", " ") for name in CLASSES]
    empty = run("check", file, "--labels", photos)
    assert empty.exit_code == 0
    assert "no features yet" in empty.stdout
    text = file.read_text()
    for name in CLASSES:
        text = text.replace("features = []", f"features = {features_of(name)}", 1)
    file.write_text(text)
    checked = run("check", file, "--labels", photos)
    assert checked.exit_code == 0
    assert "5 classes, 40 prompts" in checked.stdout
    assert checked.stdout.endswith("clean\n")
    refused = run("new", photos, "--out", file)
    assert isinstance(refused.exception, PromptError)
    assert file.read_text() == text


def test_new_takes_any_source(tmp_path: Path) -> None:
    any_image().save(tmp_path / "1.png")
    (tmp_path / "labels.csv").write_text("file,kind\n1.png,1\n1.png,0\n")
    (tmp_path / "names.txt").write_text("sea cow\nSea_Cow\nlynx\n")
    words = ("--names", tmp_path / "names.txt", "--label-column", "kind", "--path-column", "file")
    result = run("new", tmp_path / "labels.csv", "--out", tmp_path / "deep" / "p.toml", *words)
    assert result.exit_code == 0, result.output
    assert [entry.name for entry in load_prompts(tmp_path / "deep" / "p.toml").classes] == ["sea cow", "lynx"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=4),
    st.lists(st.text(min_size=1).filter(lambda text: text.strip() and not line_fault(text)), min_size=1, max_size=8),
)
def test_any_text_survives_being_written(labels: list[str], features: list[str]) -> None:
    if not all(map(normalise, labels)) or any(line_fault(tidy(label)) for label in labels):
        with pytest.raises(PromptError, match="Rename it, then run again"):
            with_labels(*empty_file("photos", Path("p.toml")), labels)
        return
    text, prompts = with_labels(*empty_file("photos", Path("p.toml")), labels)
    assert parse_prompts(text, Path("p.toml")) == prompts
    for entry in prompts.classes:
        text, prompts = with_features(text, prompts, entry.name, features)
    read = parse_prompts(text, Path("p.toml"))
    assert read == prompts
    assert {entry.features for entry in read.classes} == {tuple(features)}
    assert None not in read.match(labels)
    assert text.replace("\n", "").isprintable()


def test_a_layout_that_cannot_be_added_to_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    text = 'template = "{name}, which {feature}."\nclasses = [{name = "lynx"}]\n'
    file.write_text(text)
    with pytest.raises(PromptError, match="without changing it"):
        write_prompts(file, *with_features(text, load_prompts(file), "lynx", ["has ears"]))
    assert file.read_text() == text


# Showing


def test_list_and_show() -> None:
    listed = run("list")
    assert listed.exit_code == 0
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in listed.stdout.splitlines()}
    assert list(rows) == list(shipped_prompt_sets())
    assert rows["cifar10"][:2] == ["10", "8"]
    shown = run("show", "animal10n").stdout
    assert "lynx (also bobcat)\n  has long black tufts on the tips of its ears\n" in shown
    full = run("show", "animal10n", "--prompts").stdout
    assert "  A photo of lynx, which has long black tufts on the tips of its ears.\n" in full
    assert isinstance(run("show", "nothing").exception, UsageError)


def test_check_exit_codes(tmp_path: Path, photos: Path) -> None:
    assert run("check").exit_code == 0
    good = write_set(tmp_path / "good.toml", {name: features_of(name) for name in CLASSES})
    assert run("check", good, "--labels", photos, "--model", DIGITS.model, "--device", "cpu").exit_code == 0
    bad = run("check", good, "digits", "--labels", photos)
    assert bad.exit_code == 1
    assert re.search("missing.*: fluffy_dragon", bad.stdout)
    hostile = write_set(tmp_path / "hostile.toml", {"[red]\x1b[2J": ["has \x1b[2J"]})
    assert "\x1b" not in run("check", hostile).stdout
    assert "\x1b" not in run("show", hostile).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--names", "n.txt", "--label-column", "kind"), "--names and --label-column are only for --labels"),
        (("--device", "cpu"), "--device is only for --model"),
    ],
)
def test_options_without_effect_are_refused(words: tuple[str, ...], message: str) -> None:
    result = run("check", "digits", *words)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


@pytest.mark.parametrize("command", ["new", "generate"])
@pytest.mark.parametrize("out", ["pipe", "zero", "file/p.toml", "loop", "nowhere", ".", "", "x" * 300])
def test_only_a_file_is_written(photos: Path, tmp_path: Path, command: str, out: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing" / "p.toml")
    words = ("--llm", "m", "--endpoint", "http://127.0.0.1:1/v1") if command == "generate" else ()
    before = sorted(tmp_path.rglob("*"))
    result = run(command, photos, "--out", tmp_path / out if out else "", *words)
    assert isinstance(result.exception, ClipAuditError)
    assert sorted(tmp_path.rglob("*")) == before


def test_new_refuses_a_name_without_letters(tmp_path: Path) -> None:
    (tmp_path / "photos" / "_").mkdir(parents=True)
    any_image().save(tmp_path / "photos" / "_" / "1.png")
    with pytest.raises(PromptError, match="no name that can be read"):
        new_prompts(tmp_path / "photos", tmp_path / "p.toml")
