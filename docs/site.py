"""What the site does beyond Markdown: its home is the README, its reference the docstrings, its formulas are MathML.

    make docs-site

mkdocs calls these functions while it builds (`hooks` in mkdocs.yml). The pages stay as they are read on a code host.
"""

from __future__ import annotations

import re
from html import unescape
from inspect import isclass, isfunction
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import clipaudit

ROOT = Path(__file__).parents[1]
_SOURCE_LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:clipaudit|tests|benchmarks|prompts|\.ci)[^)]*\)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README, whose links lead below `docs/`, and a page of what the package exports."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](").replace('"docs/', '"')
    files.append(File.generated(config, "index.md", content=readme))
    files.append(File.generated(config, "reference.md", content=reference()))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to source files, which the site has not, are their text."""
    return _SOURCE_LINK.sub(r"\1", markdown)


def on_page_content(html: str, **_: object) -> str:
    """Formulas as MathML, which browsers show by themselves."""
    return _FORMULA.sub(
        lambda found: convert(unescape(found[2]), display="block" if found[1] == "div" else "inline"), html
    )


def reference() -> str:
    """The page of the Python functions and classes."""
    public = {name: getattr(clipaudit, name) for name in sorted(clipaudit.__all__, key=str.lower)}
    functions = [kind for kind in public.values() if isfunction(kind)]
    classes = [kind for kind in public.values() if isclass(kind)]
    lines = ["# Python", "", "Everything below is imported from `clipaudit` itself, as in `clipaudit.select`.", ""]
    for title, kinds in (("Functions", functions), ("Classes", classes)):
        lines += [f"## {title}", "", *(f"::: {kind.__module__}.{kind.__qualname__}\n" for kind in kinds)]
    return "\n".join(lines)
