"""The command line: one file a command; each parses, makes one library call and shows the result."""

from __future__ import annotations

import sys
import warnings

from clipaudit.errors import ClipAuditError


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 a fault that the message explains, 2 wrong usage."""
    from clipaudit.cli.app import app
    from clipaudit.text import printable

    # Pillow warns about metadata that do not matter here; what does is the sample's reason.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        app(prog_name="clipaudit")
    except ClipAuditError as error:
        print(f"clipaudit: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
