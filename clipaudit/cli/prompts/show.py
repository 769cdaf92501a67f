"""`clipaudit prompts show`."""

from __future__ import annotations

from typing import Annotated

import typer


def show(
    name: Annotated[str, typer.Argument(help="Name of a shipped set, or a file.", show_default=False)],
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Show the whole prompts that the text encoder reads.")
    ] = False,
) -> None:
    """Show the classes of a prompt set: clipaudit prompts show cifar10"""
    from clipaudit.cli.console import print_line, safe
    from clipaudit.prompts.sets import load_prompts, prompt_file

    held = load_prompts(prompt_file(name))
    print_line(f"[bold]{safe(held.name)}[/bold]: {safe(held.description)}")
    print_line(f"template: {safe(held.template)}")
    for entry in held.classes:
        aliases = f" (also {safe(', '.join(entry.aliases))})" if entry.aliases else ""
        print_line(f"\n[bold]{safe(entry.name)}[/bold]{aliases}")
        for text in held.texts(entry) if prompts else entry.features:
            print_line(f"  {safe(text)}")
