"""Put what `make fuzz` counted into the table of docs/reliability.md: `python docs/reliability.py COUNTS`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("reliability.md")
BEGIN, END = "<!-- campaigns -->\n", "<!-- end of campaigns -->\n"
HEADER = """\
| campaign | tried | results | clean errors | tracebacks | hangs | lost | seconds |
|---|---:|---:|---:|---:|---:|---:|---:|
"""
COUNTS = ("tried", "results", "clean_errors", "tracebacks", "hangs", "lost")


def table(lines: list[str]) -> str:
    """A row a campaign, in the order of their names, and their sums."""
    campaigns = sorted(map(json.loads, lines), key=lambda campaign: campaign["name"])
    total = {"name": "**all**", **{key: sum(campaign[key] for campaign in campaigns) for key in (*COUNTS, "seconds")}}
    rows = (
        f"| {campaign['name']} | "
        + " | ".join(f"{campaign[key]:,}" for key in COUNTS)
        + f" | {campaign['seconds']:.0f} |"
        for campaign in (*campaigns, total)
    )
    return HEADER + "\n".join(rows) + "\n"


def main() -> None:
    """Put the table where the markers are."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    counts = table(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines())
    PAGE.write_text(f"{before}{BEGIN}{counts}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
