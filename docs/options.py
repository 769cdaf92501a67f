"""Write docs/options.md from the entries of all options: `python docs/options.py` (`--check` only compares)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clipaudit.config import PRESETS, AuditConfig
from clipaudit.options import Option
from clipaudit.options.shared import COLUMNS, ENCODER
from clipaudit.training.config import train_options
from clipaudit.training.recipes import RECIPES

PAGE = Path(__file__).with_name("options.md")
BEGINNING = """# Options

The options that decide what `embed`, `select` and `train` compute, with their defaults, also under presets and recipes.
`make docs` writes this page from the entries that the command line, the checks and the files' metadata follow, and CI
checks it. `--help` shows them beside the options of the call itself ([commands](commands.md)).
"""
_FIELDS = "Fields of `clipaudit.{}`; `clipaudit.{}(name, **changes)` makes one, and each option overrides the {}."
_EMBED = "Fields of `clipaudit.EncoderOptions`, and, in the panel Source, of `clipaudit.SourceOptions`."
SECTIONS = (
    ("clipaudit embed", _EMBED, {entry.name: entry for entry in (*ENCODER, *COLUMNS)}, {}),
    ("clipaudit select", _FIELDS.format("AuditConfig", "preset", "preset"), AuditConfig.entries(), PRESETS),
    ("clipaudit train", _FIELDS.format("TrainConfig", "recipe", "recipe"), train_options(), RECIPES),
)


def table(entries: Iterable[Option], variants: Mapping[str, Mapping[str, Any]]) -> str:
    """One row an option."""
    rows = [
        (f"`{entry.spelling}`", f"`{entry.name}`", entry.defaults(variants), entry.panel, entry.sentence)
        for entry in entries
    ]
    head = [("option", "in Python", "default", "panel", "meaning"), ("---",) * 5]
    lines = (" | ".join(cell.replace("|", r"\|") for cell in row) for row in [*head, *rows])
    return "".join(f"| {line} |\n" for line in lines)


def main() -> int:
    """Write the page, or say whether it is up to date."""
    sections = (
        f"## {command}\n\n{words}\n\n{table(entries.values(), variants)}"
        for command, words, entries, variants in SECTIONS
    )
    page = "\n".join([BEGINNING, *sections])
    if "--check" not in sys.argv:
        PAGE.write_text(page, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page:
        print(f"{PAGE} is not what the options say. Run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
