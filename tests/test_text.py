"""Text that is safe in a spreadsheet, and comes back unchanged."""

from __future__ import annotations

import pyarrow as pa
import pytest

from clipaudit.text import escape_formulas, excerpt, unescape_formula


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-", "'-"),
        ("@x", "'@x"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("'=x", "''=x"),
        ("''=x", "'''=x"),
        ("'s-Hertogenbosch", "'s-Hertogenbosch"),
        ("'", "'"),
        ("cat", "cat"),
        ("", ""),
    ],
)
def test_formulas_are_escaped_and_come_back(text: str, escaped: str) -> None:
    assert escape_formulas(pa.chunked_array([[text]])).to_pylist() == [escaped]
    assert unescape_formula(escaped) == text


def test_excerpts_are_short_whatever_the_value() -> None:
    for value in ("x" * 10**6, b"\xff" * 10**6, list(range(10**5)), 10**5000, {"a": ["b" * 10**5]}):
        assert len(excerpt(value)) < 250


def test_excerpts_of_short_values_are_their_repr() -> None:
    assert (excerpt("a\n"), excerpt(7), excerpt([1])) == ("'a\\n'", "7", "[1]")
