"""`clipaudit prompts generate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipaudit.cli import options
from clipaudit.cli.prompts.sources import Source, refuse_without_effect
from clipaudit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipaudit.prompts.generation import GenerationProgress, GenerationSummary
    from clipaudit.prompts.language_models import LanguageModel, Message


def generate(
    source: Source,
    out: Annotated[
        Path,
        typer.Option(
            help="Prompt file to write or to continue; classes that have features keep them.", show_default=False
        ),
    ],
    llm: Annotated[
        str | None,
        typer.Option(
            help="Language model: its name at the endpoint, or, without an endpoint, the folder of a text-generation"
            " model.",
            show_default=False,
            rich_help_panel="Language model",
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="URL of an OpenAI-compatible server, such as http://localhost:8000/v1. The key is read from the"
            " environment: CLIPAUDIT_API_KEY, else OPENAI_API_KEY.",
            show_default=False,
            rich_help_panel="Language model",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Time limit for a whole answer of the endpoint, in seconds (above 0, at most 86,400).",
            show_default="120",
            rich_help_panel="Language model",
        ),
    ] = None,
    device: options.Device = "auto",
    features: Annotated[int, typer.Option(help="Number of features to ask for in each class (6 to 10).")] = 8,
    show_instruction: Annotated[
        bool, typer.Option("--show-instruction", help="Print what would be sent for the first class, and send nothing.")
    ] = False,
    names: options.Names = None,
    label_column: options.LabelColumn = None,
    path_column: options.PathColumn = None,
) -> None:
    """Let a language model write the features: clipaudit prompts generate photos/ --out photos.toml --llm FOLDER

    Asks for one class at a time and writes the file after each. Read the features before you rely on them.
    """
    from clipaudit.cli.console import print_line, safe
    from clipaudit.files import check_output
    from clipaudit.prompts.generation import first_instruction, generate_prompts
    from clipaudit.prompts.language_models import Endpoint, LocalModel

    how = options.source_options(names, label_column=label_column, path_column=path_column)
    if show_instruction:
        _show_instruction(first_instruction(source, out, n_features=features, options=how))
        return
    if not llm:
        raise UsageError("name a language model: --llm FOLDER, or --endpoint URL --llm NAME.")
    check_output(out, [source, names])  # Before a model is loaded.
    model: LanguageModel
    if endpoint is not None:
        refuse_without_effect("a local model, not for --endpoint", {"--device": device != "auto"})
        model = Endpoint(endpoint, llm, timeout=120.0 if timeout is None else timeout)
    else:
        refuse_without_effect("an --endpoint", {"--timeout": timeout is not None})
        model = LocalModel(Path(llm), device=device)
    summary = generate_prompts(source, out, model, n_features=features, options=how, progress=_show_generation_progress)
    _show_generation(summary)
    print_line(f"Read it, then: clipaudit prompts check {safe(out)} --labels {safe(source)}")
    if summary.failed:
        raise typer.Exit(1)


def _show_instruction(messages: Sequence[Message]) -> None:
    from clipaudit.cli.console import print_line, safe

    if not messages:
        print_line("Every class has features already: nothing is sent.")
    for message in messages:
        print_line(f"[bold]{safe(message['role'])}[/bold]\n{_paragraphs(message)}\n")


def _paragraphs(message: Message) -> str:
    """What is sent, in the lines that it has; names in it are quoted, so that their line breaks are escapes already."""
    from clipaudit.cli.console import safe

    return "\n".join(safe(line) for line in message["content"].split("\n"))


def _show_generation_progress(progress: GenerationProgress) -> None:
    from clipaudit.cli.console import err, safe

    def say(text: str) -> None:
        err.print(text, soft_wrap=True)

    if not progress.done and progress.question:
        say("This is sent for the first class, and the like for every other:")
        for message in progress.question:
            say(f"[dim]{_paragraphs(message)}[/dim]")
    if progress.last:
        result = f"{len(progress.last.features)} features" if progress.last.features else "[red]failed[/red]"
        say(f"{progress.done} of {progress.total}: {safe(progress.last.name)}, {result}")


def _show_generation(summary: GenerationSummary) -> None:
    from clipaudit.cli.console import print_line, safe

    print_line(f"[bold]{len(summary.written):,} classes[/bold] got features in {safe(summary.path)}")
    if summary.kept:
        print_line(f"  kept           {len(summary.kept):,} that had features before")
    for outcome in summary.failed:
        print_line(f"  [red]failed[/red]         {safe(outcome.name)}: {safe(outcome.fault)}")
    if summary.failed:
        print_line("The same command asks again for those that failed.")
