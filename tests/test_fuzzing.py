"""The harness of the fuzzers sees what it is there to see."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from fuzzing import LostError, campaign

from clipaudit.errors import ClipAuditError


def behave(case: str) -> None:
    if case == "clean":
        raise ClipAuditError("a sentence")
    if case == "traceback":
        raise KeyError(case)
    if case == "lost":
        raise LostError("half of it")
    if case == "memory":
        bytearray(1 << 40)
    while case == "hang":
        time.sleep(0.01)


def test_counts_and_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPAUDIT_FUZZ_REPORT", str(tmp_path / "counts.jsonl"))
    counts = campaign("good", ["clean", "fine", "fine"], behave)
    assert (counts.tried, counts.results, counts.clean_errors) == (3, 2, 1)
    (line,) = (tmp_path / "counts.jsonl").read_text().splitlines()
    assert json.loads(line)["clean_errors"] == 1


@pytest.mark.parametrize("case", ["traceback", "lost", "hang", "memory"])
def test_faults_fail(case: str) -> None:
    with pytest.raises(AssertionError, match=f"case 2.*{case}"):
        campaign("bad", ["fine", case], behave, seconds=0.2)
