"""Content to one HTML file: templates, the data block for the script, and the Content-Security-Policy."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clipaudit.report import charts
from clipaudit.report.sections.base import Section
from clipaudit.report.wording import capital, number, percent
from clipaudit.text import printable

# What all pages share, and what each has for itself.
SHARED_SCRIPTS, SHARED_STYLE = ("data.js", "store.js", "switch.js"), "base.css"
_TEMPLATES = Path(__file__).parent / "templates"
# Characters that could end a script element; inside JSON strings their escapes mean the same.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\x7f"}


@dataclass(frozen=True)
class _Part:
    """A section as the page has it."""

    id: str
    heading: str
    html: Markup


def render(title: str, theme: str, contents: Sequence[tuple[Section, Any]], data: Mapping[str, Any]) -> str:
    """The page.

    Args:
        title: Name of what was audited.
        theme: "light", "dark" or "auto".
        contents: The sections in their order, and what each one shows.
        data: What the script reads: samples, class names, counts; put into the page as one JSON block.
    """
    environment = _environment()
    sections = [_part(environment, section, content) for section, content in contents]
    return render_page("page", ("marks.js", "gallery.js", "page.js"), title, theme, data, sections=sections)


def render_page(
    name: str, scripts: Sequence[str], title: str, theme: str, data: Mapping[str, Any], **values: Any
) -> str:
    """One self-contained page: its template NAME.html.j2 and style NAME.css, and a policy that admits nothing else.

    Args:
        name: Of the page.
        scripts: Its own files of the script, which follow the shared ones.
        title: Name of what was audited.
        theme: "light", "dark" or "auto".
        data: What the script reads; put into the page as one JSON block.
        values: What else the template takes.
    """
    style, theme_script = _asset(SHARED_STYLE) + _asset(f"{name}.css"), _asset("theme.js")
    script = _script((*SHARED_SCRIPTS, *scripts))
    policy = (
        "default-src 'none'; img-src data:; "
        f"style-src {_hash(style)}; script-src {_hash(theme_script)} {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template(f"{name}.html.j2")
        .render(
            title=title,
            theme=theme,
            policy=Markup(policy),
            style=style,
            theme_script=theme_script,
            script=script,
            data=json_block(data),
            **values,
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("clipaudit.report"),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "count": lambda value: f"{value:,}"}
    environment.filters |= {"capital": capital, "number": number}
    environment.globals["chart"] = {"width": charts.WIDTH, "height": charts.HEIGHT, "roc": charts.ROC_EDGE}
    return environment


def _part(environment: Environment, section: Section, content: Any) -> _Part:
    # Its template sees its own content and no other's.
    template = environment.get_template(f"sections/{section.id}.html.j2")
    return _Part(section.id, section.heading, Markup(template.render({section.id: content})))


def json_block(data: Mapping[str, Any]) -> Markup:
    """JSON in visible ASCII that is safe inside a script element, whatever names and paths it holds."""
    return Markup(json.dumps(data, allow_nan=False, separators=(",", ":")).translate(_ESCAPES))


def _visible(value: Any) -> Any:
    """What a template shows: foreign text with escapes for control and direction characters."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> Markup:
    # Ours, not the user's: it goes into the page as it is, which its hash in the policy relies on.
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _script(files: Sequence[str]) -> Markup:
    """A script's files as one function, which leaves no names in the page's global scope."""
    parts = Markup("\n").join(_asset(name) for name in files)
    return Markup('(function () {\n"use strict";\n%s})();\n') % parts


def _hash(content: str) -> str:
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
