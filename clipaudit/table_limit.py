"""How much memory a table may take: a kilobyte may stand for gigabytes of run lengths, a large file for itself."""

from __future__ import annotations

import os
from pathlib import Path

from clipaudit.errors import UsageError

VARIABLE = "CLIPAUDIT_MAX_TABLE_GB"
GIGABYTE = 1 << 30
# Paths and labels, decoded, take up to some dozen times the bytes of their compressed file.
_EXPANSION = 100


def table_limit(path: Path, least: int) -> int:
    """Bytes that the decoded columns of a file may take: what VARIABLE says, else `least` or a hundred times the file.

    Raises:
        UsageError: VARIABLE is no number.
        OSError: the file cannot be looked at.
    """
    given = given_limit()
    return max(least, _EXPANSION * path.stat().st_size) if given is None else given


def given_limit() -> int | None:
    """Bytes by VARIABLE; None where it is not set, and UsageError where it is no number."""
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        return int(float(text) * GIGABYTE)
    except (ValueError, OverflowError):
        raise UsageError(f"{VARIABLE}={text!r} is not a number of gigabytes.") from None


def how_to_lift(needed: int) -> str:
    """What to do about a table that needs more bytes than the limit."""
    return f"To read it all the same, set the environment variable {VARIABLE}={needed // GIGABYTE + 1}"
