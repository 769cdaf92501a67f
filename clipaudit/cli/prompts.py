"""`clipaudit prompts`: list, show, check, new, generate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipaudit.cli import options
from clipaudit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipaudit.prompts.check import PromptReport
    from clipaudit.prompts.generation import GenerationProgress, GenerationSummary
    from clipaudit.prompts.language_models import LanguageModel, Message
    from clipaudit.samples import SourceOptions

Source = Annotated[
    Path, typer.Argument(help="Labelled images, as embed takes them, for their class names.", show_default=False)
]
LabelColumn = Annotated[
    str | None,
    typer.Option(help="Column with the labels.", show_default="recognised", rich_help_panel="Source"),
]
PathColumn = Annotated[
    str | None,
    typer.Option(help="Manifest column with the paths.", show_default="recognised", rich_help_panel="Source"),
]


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


def show(
    name: Annotated[str, typer.Argument(help="Name of a shipped set, or a file.", show_default=False)],
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Show the full sentences that the text encoder gets.")
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


def check(
    sets: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE|NAME", help="Files or shipped sets.", show_default="all shipped sets"),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Labelled images: their classes and those of the set are compared.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Count tokens with this dual encoder's own tokenizer, and find classes that it hardly tells apart."
            " Local folder or hub id.",
            show_default="an estimate of the tokens from above",
            rich_help_panel="Model",
        ),
    ] = None,
    device: options.Device = "auto",
    names: options.Names = None,
    label_column: LabelColumn = None,
    path_column: PathColumn = None,
) -> None:
    """Check prompt sets: clipaudit prompts check animals.toml --labels photos/

    Exit code 1 where something has to be put right; warnings alone give 0.
    """
    from clipaudit.clip.encoders import EncoderOptions, load_encoder
    from clipaudit.prompts.check import check_prompts
    from clipaudit.prompts.sets import shipped_prompt_sets
    from clipaudit.prompts.writing import source_classes

    if labels is None:
        given = {"--names": names, "--label-column": label_column, "--path-column": path_column}
        _refuse_without_effect("--labels", {option: value is not None for option, value in given.items()})
    if model is None:
        _refuse_without_effect("--model", {"--device": device != "auto"})
    known = source_classes(labels, _source_options(names, label_column, path_column)) if labels else None
    encoder = load_encoder(EncoderOptions(model=model, device=device)) if model else None
    reports = [check_prompts(name, labels=known, encoder=encoder) for name in sets or shipped_prompt_sets()]
    for report in reports:
        _show_report(report)
    if any(report.errors for report in reports):
        raise typer.Exit(1)


def new(
    source: Source,
    out: Annotated[Path, typer.Option(help="The file to write; an existing one is refused.", show_default=False)],
    names: options.Names = None,
    label_column: LabelColumn = None,
    path_column: PathColumn = None,
) -> None:
    """Write a prompt file to fill in, with every class of a source: clipaudit prompts new photos/ --out photos.toml"""
    from clipaudit.cli.console import print_line, safe
    from clipaudit.prompts.writing import new_prompts

    written = new_prompts(source, out, _source_options(names, label_column, path_column))
    print_line(f"{len(written.classes):,} classes in {safe(out)}. Give each its features, then:")
    print_line(f"clipaudit prompts check {safe(out)} --labels {safe(source)}")


def generate(
    source: Source,
    out: Annotated[
        Path,
        typer.Option(help="The file to write, or to go on with: classes with features stay.", show_default=False),
    ],
    llm: Annotated[
        str | None,
        typer.Option(
            help="Language model: its name at the endpoint, or without one a local folder of a text-generation model.",
            show_default=False,
            rich_help_panel="Language model",
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="URL of an OpenAI-compatible server, such as http://localhost:8000/v1. Its key is read from the"
            " environment: CLIPAUDIT_API_KEY, else OPENAI_API_KEY.",
            show_default=False,
            rich_help_panel="Language model",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds for a whole answer of the endpoint (above 0, at most 86,400).",
            show_default="120",
            rich_help_panel="Language model",
        ),
    ] = None,
    device: options.Device = "auto",
    features: Annotated[int, typer.Option(help="To ask for, 6 to 10 a class.")] = 8,
    show_instruction: Annotated[
        bool, typer.Option("--show-instruction", help="Only show what would be sent for the first class; send nothing.")
    ] = False,
    names: options.Names = None,
    label_column: LabelColumn = None,
    path_column: PathColumn = None,
) -> None:
    """Let a language model write the features: clipaudit prompts generate photos/ --out photos.toml --llm FOLDER

    One class is asked for at a time, and the file written after each. Read what it wrote before you rely on it.
    """
    from clipaudit.cli.console import print_line, safe
    from clipaudit.files import check_output
    from clipaudit.prompts.generation import first_instruction, generate_prompts
    from clipaudit.prompts.language_models import Endpoint, LocalModel

    source_options = _source_options(names, label_column, path_column)
    if show_instruction:
        _show_instruction(first_instruction(source, out, n_features=features, options=source_options))
        return
    if not llm:
        raise UsageError("name a language model: --llm FOLDER, or --endpoint URL --llm NAME.")
    check_output(out, [source, names])  # Before a model is loaded.
    model: LanguageModel
    if endpoint is not None:
        _refuse_without_effect("a local model, not for --endpoint", {"--device": device != "auto"})
        model = Endpoint(endpoint, llm, timeout=120.0 if timeout is None else timeout)
    else:
        _refuse_without_effect("an --endpoint", {"--timeout": timeout is not None})
        model = LocalModel(Path(llm), device=device)
    summary = generate_prompts(
        source, out, model, n_features=features, options=source_options, progress=_show_generation_progress
    )
    _show_generation(summary)
    print_line(f"Read it, then: clipaudit prompts check {safe(out)} --labels {safe(source)}")
    if summary.failed:
        raise typer.Exit(1)


def _refuse_without_effect(needed: str, given: dict[str, bool]) -> None:
    if useless := [option for option, is_given in given.items() if is_given]:
        verb = "is" if len(useless) == 1 else "are"
        raise UsageError(f"{' and '.join(useless)} {verb} only for {needed}.")


def _source_options(names: Path | None, label_column: str | None, path_column: str | None) -> SourceOptions:
    from clipaudit.samples import SourceOptions, read_names

    return SourceOptions(path_column, label_column, names=read_names(names) if names else None)


def _show_report(report: PromptReport) -> None:
    from clipaudit.cli.console import print_line, safe

    n_errors, n_warnings = len(report.errors), len(report.warnings)
    verdict = f"{n_errors} error(s), {n_warnings} warning(s)" if n_errors or n_warnings else "clean"
    tokens = f", at most {report.most_tokens} tokens a prompt" if report.most_tokens else ""
    sizes = f"{report.n_classes:,} classes, {report.n_prompts:,} prompts{tokens}: " if report.n_classes else ""
    print_line(f"[bold]{safe(report.name)}[/bold]: {sizes}{verdict}")
    colours = {"error": "red", "warning": "yellow", "note": "dim"}
    for finding in report.findings:
        colour = colours[finding.severity]
        print_line(f"  [{colour}]{finding.severity}[/{colour}] {safe(finding.message)}")


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
