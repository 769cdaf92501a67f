"""`clipaudit prompts list`."""

from __future__ import annotations

import typer


def list_sets() -> None:
    """List the prompt sets that come with clipaudit: clipaudit prompts list"""
    from rich.table import Table

    from clipaudit.cli.console import out, print_table, safe
    from clipaudit.prompts.sets import load_prompts, shipped_prompt_sets

    table = Table("name", "classes", "features a class", "description")
    for name, file in shipped_prompt_sets().items():
        prompts = load_prompts(file)
        counts = sorted({len(entry.features) for entry in prompts.classes})
        features = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        row = (name, f"{len(prompts.classes)}", features, prompts.description)
        if not out.is_terminal:
            typer.echo("\t".join(row))
        table.add_row(*map(safe, row))
    if out.is_terminal:
        print_table(table)
