"""`clipaudit select`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clipaudit.cli import options
from clipaudit.errors import UsageError

_ESTIMATES = "Estimates"
_SELECTORS = "Selectors"
_REVIEWED = "reviewed"


def select(
    cache: Annotated[
        Path | None,
        typer.Argument(help="Embeddings cache.", show_default="the one that embed made below .clipaudit/"),
    ] = None,
    out: Annotated[Path, typer.Option(help="The clean index to write.")] = Path("clean.parquet"),
    export: Annotated[
        list[Path] | None,
        typer.Option(
            help="Write it in another form, too: .csv or .jsonl (all rows), .txt (clean paths), .npy (clean rows),"
            " or a folder of links to the clean images. May be given several times.",
            show_default=False,
        ),
    ] = None,
    raw_csv: Annotated[
        bool,
        typer.Option(
            "--raw-csv",
            help="Export .csv without the apostrophe that keeps a spreadsheet from running a name as a formula.",
        ),
    ] = False,
    from_index: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Decide again on the scores of this clean index, with other thresholds, selectors or combination.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Audit other labels on the same embeddings: FILE or FILE:COLUMN, matched by path or row by row.",
            show_default="the source's own",
            rich_help_panel="Source",
        ),
    ] = None,
    names: options.Names = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="Prompt set: the name of a shipped one, a file, auto (the shipped set that knows all classes, else"
            " plain templates) or none (plain templates).",
            show_default="auto",
            rich_help_panel=_ESTIMATES,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="recommended (beyond the paper: measured to find more), or thresholds as published: paper, cifar,"
            " animal10n, red-mini-imagenet, webvision. Options override.",
            show_default="paper",
        ),
    ] = None,
    temperature: Annotated[
        str | None,
        typer.Option(
            help="T of the zero-shot softmax (no unit), or model: the model's own.",
            show_default="0.07",
            rich_help_panel=_ESTIMATES,
        ),
    ] = None,
    induced: Annotated[
        str | None,
        typer.Option(
            help="Estimate beside zero-shot: logistic (regression on the embeddings), neighbours, or joint (its product"
            " with zero-shot); or several, separated by commas.",
            show_default="logistic",
            rich_help_panel=_ESTIMATES,
        ),
    ] = None,
    c: Annotated[
        float | None,
        typer.Option(
            "--c",
            help="Inverse strength of the logistic regression's L2 penalty.",
            show_default="1.0",
            rich_help_panel=_ESTIMATES,
        ),
    ] = None,
    balanced: Annotated[
        bool | None,
        typer.Option(
            help="Weigh classes by the inverse of their size in the logistic regression.",
            show_default="balanced",
            rich_help_panel=_ESTIMATES,
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            help="Judge each sample by a model that has not seen it, in so many folds; 0: in-sample, as the paper.",
            show_default="0",
            rich_help_panel=_ESTIMATES,
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            help="Fit the logistic regression so many times, each time on the samples whose labels it agreed with.",
            show_default="1",
            rich_help_panel=_ESTIMATES,
        ),
    ] = None,
    transition: Annotated[
        bool | None,
        typer.Option(
            help="Take the given label for evidence: weigh the second estimate by the noise transition matrix, found by"
            " EM.",
            show_default="no-transition",
            rich_help_panel=_ESTIMATES,
        ),
    ] = None,
    neighbours: Annotated[
        int | None,
        typer.Option(
            help="Nearest neighbours, for --induced neighbours.", show_default="50", rich_help_panel=_ESTIMATES
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the assignment to folds.", show_default="0", rich_help_panel=_ESTIMATES),
    ] = None,
    theta_consistency: Annotated[
        float | None,
        typer.Option(
            help="Least share of the largest probability that a clean label's must reach, 0 to 1.",
            show_default="1.0, or the preset's",
            rich_help_panel=_SELECTORS,
        ),
    ] = None,
    theta_loss: Annotated[
        float | None,
        typer.Option(
            help="Least posterior of the low-loss component for a clean label, 0 to 1.",
            show_default="0.5",
            rich_help_panel=_SELECTORS,
        ),
    ] = None,
    raw_posterior: Annotated[
        bool | None,
        typer.Option(
            "--raw-posterior/--monotone-posterior",
            help="Take the mixture's posterior as it is, or made monotone in the loss.",
            show_default="monotone",
            rich_help_panel=_SELECTORS,
        ),
    ] = None,
    selectors: Annotated[
        str | None,
        typer.Option(
            help="Those that vote, separated by commas: zero_shot_consistency, zero_shot_loss, induced_consistency,"
            " induced_loss.",
            show_default="all four",
            rich_help_panel=_SELECTORS,
        ),
    ] = None,
    combine: Annotated[
        str | None,
        typer.Option(
            help="When the selectors together say clean: intersection, union, majority or K-of-M (2-of-4).",
            show_default="intersection",
            rich_help_panel=_SELECTORS,
        ),
    ] = None,
    ranking: Annotated[
        str | None,
        typer.Option(
            help="What orders the samples among clean and among noisy ones: margins (of the selectors that vote) or"
            " probability (of the label, by the induced estimate).",
            show_default="margins",
            rich_help_panel=_SELECTORS,
        ),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Least clean_score of a clean sample, as the selectors give it, 0 to 1; or, with --from, reviewed: the"
            " one that parts the right labels from the wrong ones best among those that a review has marked.",
            show_default="0.5: what the selectors say; or the preset's",
            rich_help_panel=_SELECTORS,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Where the cache's model lies now, if it was moved.", show_default=False, rich_help_panel="Model"
        ),
    ] = None,
    device: options.DeviceIfGiven = None,
) -> None:
    """Tell clean labels from noisy ones: clipaudit select --out clean.parquet

    Writes the clean index: one row a sample with its flags, all scores and a suggested label.
    """
    from clipaudit.calls.export import export as write_export
    from clipaudit.calls.select import find_cache, reselect, reviewed_threshold
    from clipaudit.calls.select import select as run
    from clipaudit.cli.console import print_line, safe, show_index, stages
    from clipaudit.config import AuditConfig
    from clipaudit.config import preset as named
    from clipaudit.index.clean_index import read_index
    from clipaudit.samples import read_names

    exports = export or []
    _check_places(out, exports, [from_index, labels, names, prompts], raw_csv)
    changes = {
        "temperature": _parse_number("--temperature", temperature, "model"),
        "induced": induced,
        "c": c,
        "balanced": balanced,
        "folds": folds,
        "rounds": rounds,
        "transition": transition,
        "neighbours": neighbours,
        "seed": seed,
        "theta_consistency": theta_consistency,
        "theta_loss": theta_loss,
        "raw_posterior": raw_posterior,
        "selectors": None if selectors is None else tuple(name.strip() for name in selectors.split(",")),
        "combine": combine,
        "ranking": ranking,
        "threshold": None if threshold == _REVIEWED else _parse_number("--threshold", threshold, _REVIEWED),
    }

    def configured(config: AuditConfig) -> AuditConfig:
        return config.with_changes(**({} if preset is None else named(preset))).with_changes(**changes)

    if from_index:
        _refuse_with_from(cache=cache, labels=labels, names=names, prompts=prompts, model=model, device=device)
        held = read_index(from_index)
        index = reselect(held, configured(held.config))
        if threshold == _REVIEWED:
            index = reselect(index, index.config.with_changes(threshold=reviewed_threshold(index)))
            print_line(f"Threshold: {index.config.threshold:.4f}, from the review")
    elif threshold == _REVIEWED:
        raise UsageError("--threshold reviewed needs the index that a review was applied to: --from reviewed.parquet.")
    else:
        config = configured(AuditConfig())
        if cache is None:
            cache = find_cache()
            print_line(f"Cache: {safe(cache)}")
        with stages() as report:
            index = run(
                cache,
                config=config,
                prompts="auto" if prompts is None else prompts,
                labels=labels,
                names=read_names(names) if names else None,
                model=model,
                device="auto" if device is None else device,
                progress=report,
            )
    index.write(out)
    notes = [note for place in exports for note in write_export(index, place, raw=raw_csv and _is_csv(place))]
    show_index(index, [out, *exports])
    for note in notes:
        print_line(f"[yellow]note[/yellow] {safe(note)}")


def _check_places(out: Path, exports: list[Path], inputs: list[Path | str | None], raw_csv: bool) -> None:
    """Refuse what cannot be written, before the audit."""
    from clipaudit.calls.export import check_export
    from clipaudit.files import check_output

    check_output(out, inputs)
    for number, place in enumerate(exports):
        check_export(place, [*inputs, out, *exports[:number]])
    if raw_csv and not any(map(_is_csv, exports)):
        raise UsageError("--raw-csv is about --export FILE.csv, which is not asked for.")


def _is_csv(place: Path) -> bool:
    return place.suffix.lower() == ".csv"


def _parse_number(option: str, text: str | None, word: str) -> float | str | None:
    """A number, or the one word that the option knows."""
    if text is None or text == word:
        return text
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option} must be a number or {word!r}, not {text!r}.") from None


def _refuse_with_from(**given: Any) -> None:
    if idle := [name if name == "cache" else f"--{name}" for name, value in given.items() if value is not None]:
        raise UsageError(
            f"--from decides again on scores that are there: {', '.join(idle)} would have no effect. Leave out the one"
            " or the other."
        )
