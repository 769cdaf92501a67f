"""Write docs/commands.md from the commands' real --help: `python docs/commands.py` (`--check` only compares)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from clipaudit.cli.app import COMMANDS

PAGE = Path(__file__).with_name("commands.md")


def help_of(command: str) -> str:
    """What `clipaudit COMMAND --help` prints, 100 columns wide and without colours."""
    words = [sys.executable, "-m", "clipaudit", *command.split(), "--help"]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    shown = subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout
    return "\n".join(line.rstrip() for line in shown.strip("\n").splitlines())


def main() -> int:
    """Write the page, or say whether it is up to date."""
    # clipaudit itself, then each command after the group that it belongs to.
    commands = dict.fromkeys(words for name in COMMANDS for words in ("", name.rpartition(" ")[0], name))
    sections = (f"## {f'clipaudit {command}'.strip()}\n\n```text\n{help_of(command)}\n```\n" for command in commands)
    page = "# Commands\n\nThe commands' own help, written by `make docs` and checked in CI.\n\n" + "\n".join(sections)
    if "--check" not in sys.argv:
        PAGE.write_text(page, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page:
        print(f"{PAGE} is not what --help says. Run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
