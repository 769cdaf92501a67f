"""The command line: one file a command; each parses, makes one library call and shows the result."""

from __future__ import annotations

import sys
import warnings
from typing import NoReturn

from clipaudit.errors import ClipAuditError, StoppedError


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 a fault that the message explains, 2 wrong usage."""
    from clipaudit.cli.streams import guard_streams, output_fault

    guard_streams()
    # Pillow warns about metadata that do not matter here; what does is the sample's reason.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        try:
            from clipaudit.cli.app import app

            app(prog_name="clipaudit")
        finally:
            fault = output_fault()
    except ClipAuditError as error:
        _end(error)
    except KeyboardInterrupt:
        _end(StoppedError("interrupted."))
    except SystemExit as ended:
        if fault is None or ended.code:
            raise
        _end(ClipAuditError(f"standard output is incomplete: {fault.strerror}. Files that were written are whole."))
    except Exception as error:
        _end(_explained(error))


def _end(error: ClipAuditError) -> NoReturn:
    from clipaudit.text import printable

    first, *others = map(printable, map(str, error.args or (type(error).__name__,)))
    print("\n  ".join([f"clipaudit: {first}", *others]), file=sys.stderr)
    sys.exit(error.exit_code)


def _explained(error: Exception) -> ClipAuditError:
    """What the machine refused, where no command has said more about it; anything else is a fault of ours."""
    if isinstance(error, MemoryError):
        return ClipAuditError("there is too little memory. Close other programs, or try with less data at once.")
    if isinstance(error, OSError):
        return ClipAuditError(f"{error}. Check the file, its permissions and its disk, then run again.")
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return ClipAuditError(f"{error.object!r} is not valid UTF-8. Rename it, then run again.")
    _show_traceback()
    return ClipAuditError("this is a fault of clipaudit. Please report it, with the lines above.")


def _show_traceback() -> None:
    """Show a fault of ours whole; foreign text in it stays text."""
    import traceback

    from clipaudit.text import printable

    for line in traceback.format_exc().rstrip().split("\n"):
        print(printable(line), file=sys.stderr)
