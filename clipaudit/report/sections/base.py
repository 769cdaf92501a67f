"""What a section of the page is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clipaudit.report.choice import Choice
from clipaudit.report.columns import Columns, Truth


@dataclass(frozen=True)
class Material:
    """What the sections are made from.

    Attributes:
        columns: All samples.
        choice: Those that the page shows.
        truth: None where nobody knows it, or no sample is readable that it could judge.
    """

    columns: Columns
    choice: Choice
    truth: Truth | None


@dataclass(frozen=True)
class Section:
    """A part of the page, with its place in the navigation.

    Attributes:
        id: Its anchor. Its template is templates/sections/ID.html.j2, and knows the content by this name.
        heading: In the navigation.
        content: What the template shows, as plain data; None where the page has no such section.
    """

    id: str
    heading: str
    content: Callable[[Material], Any]
