"""`python -m benchmarks.scale` on small sizes: every command is measured once, kept, and not measured again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.scale import COMMANDS, FAR, Row, read_rows, tables

ROOT = Path(__file__).parents[1]


def test_a_dry_run_measures_every_command_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def measure(*sizes: int) -> str:
        words = [sys.executable, "-m", "benchmarks.scale", "--samples", *map(str, sizes), "--classes", "3"]
        words += ["--json", str(tmp_path / "scale.json"), "--work", str(tmp_path)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    measure(300)
    first = read_rows(tmp_path / "scale.json")
    assert [(row.command, row.n, row.n_classes) for row in first] == [(command, 300, 3) for command in COMMANDS]
    assert all(row.seconds > 0 and row.peak_mb > 0 for row in first)
    # As if it had been killed before the last command of the second size.
    kept = [*first, *(Row(command, 400, 3, 1.0, 7.0) for command in list(COMMANDS)[:-1])]
    (tmp_path / "scale.json").write_text(json.dumps([vars(row) for row in kept]))
    said = measure(300, 400)
    again = read_rows(tmp_path / "scale.json")
    assert again[:-1] == kept
    assert (again[-1].command, again[-1].n) == (list(COMMANDS)[-1], 400)
    assert said.count("s per million") == 1
    assert not list(tmp_path.glob("tmp*"))


def test_lines_through_the_sizes_say_what_many_more_take() -> None:
    rows = [Row("show", n, 10, n / 1e6 * 36, 100 + n / 2**20 * 64) for n in (250_000, 500_000, 1_000_000)]
    assert tables(rows).splitlines()[-1] == "| show | 10 | 36 | 64 | 0.1 h, 0.7 GB | 1.0 h, 6.1 GB |"
    assert FAR == (10_000_000, 100_000_000)
