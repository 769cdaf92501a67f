"""Every public call refuses what is of another type than it takes, in a sentence that names the argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clipaudit
from clipaudit import CleanIndex
from clipaudit.errors import ClipAuditError, UsageError
from clipaudit.options import Options
from clipaudit.options.arguments import _hints, typed

# Classes that calls return: nobody makes one.
RESULTS = {
    *(
        "AuditSummary",
        "Corruption",
        "Doubts",
        "EmbedProgress",
        "EmbedSummary",
        "Estimate",
        "Evaluation",
        "GenerationSummary",
    ),
    *("Interval", "Leak", "Metrics", "PromptReport", "Queue", "ReportSummary", "ReviewSummary", "Target"),
    *("TrainProgress", "TrainSummary"),
}


class Nothing:
    """What no call takes: neither a text nor a number, a list, a path or one of clipaudit's objects."""


def calls() -> Iterator[tuple[str, Callable[..., Any]]]:
    """All that a user calls, by name."""
    for name in clipaudit.__all__:
        entry = getattr(clipaudit, name)
        if inspect.isfunction(entry):
            yield name, entry
        elif inspect.isclass(entry) and name not in RESULTS and not issubclass(entry, Exception | Options):
            yield name, entry.__init__
    yield "EmbeddingsCache.open", clipaudit.EmbeddingsCache.open.__func__  # type: ignore[attr-defined]
    for name in ("check_output", "class_index", "write"):
        yield f"CleanIndex.{name}", getattr(CleanIndex, name)


CALLS = dict(calls())


def arguments(call: Callable[..., Any]) -> list[str]:
    """Those that are not whatever one likes: `clipaudit.preset(..., threshold=0.3)`."""
    named = inspect.signature(call).parameters.values()
    return [item.name for item in named if item.name not in ("self", "cls") and item.kind is not item.VAR_KEYWORD]


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_is_refused_by_name(name: str) -> None:
    call = CALLS[name]
    every = inspect.signature(call).parameters.values()
    needed = [item.name for item in every if item.default is item.empty and item.kind is not item.VAR_KEYWORD]
    for argument in arguments(call):
        for wrong in (Nothing(), b"bytes", 1j):
            given = {**dict.fromkeys(needed), argument: wrong}
            with pytest.raises(UsageError) as caught:
                call(**given)
            message = str(caught.value)
            # Of several wrong ones, the first is told.
            told = message.split(" must be ")[0]
            assert told in given
            assert told == argument or given[told] is None
            assert "\n" not in message
            assert message.endswith(".")


@pytest.mark.parametrize("name", CALLS)
def test_every_public_call_is_checked(name: str) -> None:
    assert set(_hints(CALLS[name].__wrapped__)) == set(arguments(CALLS[name]))  # type: ignore[attr-defined]


def test_a_sentence_says_what_was_given_and_what_helps(noisy_index: CleanIndex, noisy_cache: Path) -> None:
    cases: dict[str, Callable[[], object]] = {
        "cache must be the folder of a cache, or embeddings: a numpy array or torch tensor of floating point numbers of"
        " shape (n, d), not int.": lambda: clipaudit.select(123),  # type: ignore[arg-type]
        "source must be a path, a datasets.Dataset or None, not 5.": lambda: clipaudit.embed(5),  # type: ignore[arg-type]
        "index must be a clipaudit.CleanIndex, not 'i.parquet'. clipaudit.read_index(file) reads one, and"
        " clipaudit.select(cache) makes one.": lambda: clipaudit.write_report("i.parquet", "r.html"),  # type: ignore
        "truth must be a path or a list, not 5.": lambda: clipaudit.evaluate(noisy_index, 5),  # type: ignore[arg-type]
        "out must be a path, not 5.": lambda: clipaudit.write_report(noisy_index, 5),  # type: ignore[arg-type]
        "config must be a clipaudit.AuditConfig or None, not {'threshold': 0.4}. clipaudit.preset(name) and"
        " clipaudit.AuditConfig(...) make one.": lambda: clipaudit.select(noisy_cache, config={"threshold": 0.4}),  # type: ignore
        "names must be a list of texts or None, not 'names.txt'.": lambda: clipaudit.evaluate(
            noisy_index, "t.csv", names="names.txt"
        ),
        "against must be a list of paths, not 'other'.": lambda: clipaudit.find_leaks(noisy_cache, "other"),
        "progress must be a function or None, not 5.": lambda: clipaudit.select(noisy_cache, progress=5),  # type: ignore
        "workers must be a whole number or None, not 2.5.": lambda: clipaudit.embed("photos", workers=2.5),  # type: ignore
        "raw must be True or False, not 'yes'.": lambda: clipaudit.export(noisy_index, "a.csv", raw="yes"),  # type: ignore
        "top must be a whole number, not True.": lambda: clipaudit.find_doubts(noisy_index, top=True),
        "name must be a text, not 5.": lambda: noisy_index.class_index(5),  # type: ignore[arg-type]
    }
    for message, call in cases.items():
        with pytest.raises(UsageError) as caught:
            call()
        assert str(caught.value) == message


def test_a_list_of_something_else_is_refused(noisy_index: CleanIndex, noisy_cache: Path, tmp_path: Path) -> None:
    cases: dict[str, Callable[[], object]] = {
        "marks must be a path or a list of paths, not [5].": lambda: clipaudit.apply_marks(noisy_index, [5]),  # type: ignore
        "against must be a list of paths, not [5].": lambda: clipaudit.find_leaks(noisy_cache, [5]),  # type: ignore
        "leaks must be a list of clipaudit.Leak objects, not ['a'].": lambda: clipaudit.write_leaks(
            ["a"],  # type: ignore[list-item]
            tmp_path / "leaks.csv",
        ),
        "shard must be a list of whole numbers, not ('a', 2).": lambda: clipaudit.embed("photos", shard=("a", 2)),  # type: ignore
        "label 1: the label": lambda: clipaudit.check_prompts("digits", labels=["one", [2]]),  # type: ignore[list-item]
        "names, class 0: the class name is no text.": lambda: clipaudit.SourceOptions(names=[5]),  # type: ignore[list-item]
    }
    for message, call in cases.items():
        with pytest.raises(ClipAuditError) as caught:
            call()
        assert str(caught.value).startswith(message)
    for names in ([5], [None]):
        with pytest.raises(ClipAuditError, match="names, class 0"):
            clipaudit.evaluate(noisy_index, [0] * 600, names=names)  # type: ignore[arg-type]


def test_what_is_as_good_as_the_type_is_taken(noisy_index: CleanIndex, noisy_digits: Any, tmp_path: Path) -> None:
    truth = list(noisy_digits[1].values())
    plain = clipaudit.evaluate(noisy_index, truth)
    for other in (tuple(truth), np.array(truth), np.array(truth, object)):
        assert clipaudit.evaluate(noisy_index, other).overall == plain.overall
    assert len(clipaudit.review(noisy_index, budget=np.int64(5)).rows) == 5  # type: ignore[arg-type]
    assert clipaudit.export(noisy_index, tmp_path / "a.csv", raw=np.True_) == []  # type: ignore[arg-type]
    noisy_index.write(str(tmp_path / "clean.parquet"))
    assert clipaudit.read_index(str(tmp_path / "clean.parquet")).table.equals(noisy_index.table)


def test_python_says_itself_what_is_missing_or_unknown() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'out'"):
        clipaudit.write_report(None)  # type: ignore
    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        clipaudit.select(foo=1)  # type: ignore


def test_a_call_stays_what_it_was() -> None:
    @typed
    def call(number: int, *rest: str, text: str = "a", **more: Any) -> tuple[object, ...]:
        """Says something."""
        return number, rest, text, more

    assert call(1, "b", text="c", d=2) == (1, ("b",), "c", {"d": 2})
    assert call.__doc__ == "Says something."
    assert list(inspect.signature(call).parameters) == ["number", "rest", "text", "more"]
