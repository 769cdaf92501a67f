"""`clipaudit select`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipaudit.cli import options
from clipaudit.cli.output import Result, printed
from clipaudit.cli.selection import Chosen, Leaks, Selection
from clipaudit.config import PRESET, PRESETS, AuditConfig
from clipaudit.config import preset as configured
from clipaudit.errors import ClipAuditError, UsageError
from clipaudit.options.shared import EXPORT_FORMAT
from clipaudit.text import excerpt

if TYPE_CHECKING:
    from clipaudit.index.clean_index import CleanIndex

# In place of a number for --threshold.
_REVIEWED = "reviewed"


@options.taking(AuditConfig.entries().values(), PRESETS)
@printed
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
            " .xml or .json (for labelling tools), or a folder of links to the clean images. May be given several"
            " times.",
            show_default=False,
        ),
    ] = None,
    export_format: Annotated[str | None, options.declared(EXPORT_FORMAT)] = None,
    raw_csv: Annotated[
        bool,
        typer.Option(
            "--raw-csv",
            help="Export .csv without the apostrophe that keeps a spreadsheet from running a name as a formula.",
        ),
    ] = False,
    pred_probs: Annotated[
        Path | None,
        typer.Option(
            help="Write P(y given x) of each sample and class as .npy (float32, a row a sample), for cleanlab and"
            " others: the mean of all estimates, which are fitted once more.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="Cache of images that must not be among these, such as the test set's: those that are, exact or near"
            " copies, are written to OUT.leaks.csv. May be given several times.",
            show_default=False,
            rich_help_panel="Source",
        ),
    ] = None,
    fail_on_leaks: Annotated[
        bool, typer.Option("--fail-on-leaks", help="Exit with 1 where there are any.", rich_help_panel="Source")
    ] = False,
    from_index: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Decide again on the scores of this clean index, with other thresholds, selectors or combination.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Precision or recall that the threshold is to reach, by the review of the index that --from names:"
            " precision=0.95 (share of the labels called noisy that are wrong) or recall=0.9 (share of the wrong labels"
            " that are called noisy).",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        options.declared(PRESET),
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
    background: Annotated[
        str | None,
        typer.Option(
            help="The class of images that show none of the other classes, where the data set has one.",
            show_default=False,
            rich_help_panel="Source",
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="Prompt set: the name of a shipped one, a file, auto (the shipped set that knows all classes, else"
            " plain templates) or none (plain templates).",
            show_default="auto",
            rich_help_panel="Source",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Where the cache's model lies now, if it was moved.", show_default=False, rich_help_panel="Model"
        ),
    ] = None,
    device: options.DeviceIfGiven = None,
    data_parallel: options.DataParallelIfGiven = None,
    fail_over: options.FailOver = None,
    *,
    changes: dict[str, Any],
) -> Result:
    """Tell clean labels from noisy ones: clipaudit select --out clean.parquet

    Writes the clean index: one row a sample with its flags, all scores and a suggested label.
    """
    from clipaudit.calls.doubts import find_doubts
    from clipaudit.calls.export import export as write_export
    from clipaudit.calls.pred_probs import check_file
    from clipaudit.files import check_output

    exports, limit = export or [], options.allowed_share(fail_over)
    leaks_file = out.with_suffix(".leaks.csv") if against else None
    formats = _formats(exports, export_format)
    _check_places(out, formats, [from_index, labels, names, prompts], raw_csv)
    if pred_probs is not None:
        check_file(pred_probs)
        check_output(pred_probs, [from_index, labels, names, prompts, out, *exports])
    if leaks_file is not None:
        check_output(leaks_file, [from_index, labels, names, prompts, out, *exports])
        _check_against(against or [])
    elif fail_on_leaks:
        raise UsageError("--fail-on-leaks needs the caches to look in: --against CACHE.")
    by_review = _is_by_review(changes)
    if target is not None and "threshold" in changes:
        raise UsageError("--target chooses the threshold: leave out --threshold.")
    scored: dict[str, Any] = {
        **{"labels": labels, "names": names, "background": background},
        **{"prompts": prompts, "model": model, "device": device, "data_parallel": data_parallel},
    }
    chosen = None
    if from_index:
        _refuse_with_from(cache=cache, against=against, **scored)
        index, chosen = _decide_again(from_index, preset, changes, target)
    elif target is not None:
        raise UsageError("--target needs the index that a review was applied to: --from reviewed.parquet.")
    elif by_review:
        raise UsageError("--threshold reviewed needs the index that a review was applied to: --from reviewed.parquet.")
    else:
        index = _audit(cache, configured(preset, **changes), **scored)
    index.write(out)
    notes = [
        note
        for place, form in formats
        for note in write_export(index, place, raw=raw_csv and _is_csv(place), format=form)
    ]
    if pred_probs is not None:
        _write_pred_probs(index, pred_probs, model, device)
    written = [out, *exports, *([pred_probs] if pred_probs else [])]
    leaks = None if leaks_file is None else _leaks(index, cache, against or [], leaks_file)
    doubts = find_doubts(index, top=0)
    made = Selection(index, doubts, written, notes, chosen, leaks)
    leaked = (
        ClipAuditError(f"{len(leaks.found):,} images are in the other caches, too. {leaks.file} lists them.")
        if leaks and leaks.found and fail_on_leaks
        else None
    )
    return Result(
        show=made.show,
        document=lambda: made.document(limit),
        fault=leaked or options.too_many(doubts, limit, out),
    )


def _write_pred_probs(index: CleanIndex, file: Path, model: str | None, device: str | None) -> None:
    from clipaudit.calls.pred_probs import pred_probs
    from clipaudit.cli.console import stages

    with stages() as report:
        report("writing probabilities")
        pred_probs(index, file, model=model, device=device or "auto")


def _check_against(caches: list[Path]) -> None:
    """Refuse what is no cache before the audit, not after it."""
    from clipaudit.cache.embeddings import EmbeddingsCache

    for cache in caches:
        EmbeddingsCache.open(cache)


def _leaks(index: CleanIndex, cache: Path | None, against: list[Path], file: Path) -> Leaks:
    """Write the list of leaks."""
    from clipaudit.calls.leaks import find_leaks, write_leaks
    from clipaudit.calls.material import find_cache

    leaks = find_leaks(cache or find_cache(), against, index=index)
    write_leaks(leaks, file)
    return Leaks(file, leaks, against)


def _audit(cache: Path | None, config: AuditConfig, *, names: Path | None, **given: Any) -> CleanIndex:
    """Audit the labels of a cache; what was not given is left to the call."""
    from clipaudit.calls.material import find_cache
    from clipaudit.calls.select import select as run
    from clipaudit.cli.console import print_line, safe, stages
    from clipaudit.samples import read_names

    if cache is None:
        cache = find_cache()
        print_line(f"Cache: {safe(cache)}")
    scored = {name: value for name, value in given.items() if value is not None}
    with stages() as report:
        return run(cache, config=config, names=read_names(names) if names else None, progress=report, **scored)


def _decide_again(
    file: Path, preset: str | None, changes: dict[str, Any], target: str | None
) -> tuple[CleanIndex, Chosen | None]:
    """Decide again on the scores of an index, if need be by its review."""
    from clipaudit.calls.reselect import reselect
    from clipaudit.index.clean_index import read_index

    held = read_index(file)
    chosen_later = target is not None or _is_by_review(changes)
    index = reselect(
        held, configured(preset, held.config, **{**changes, **({"threshold": None} if chosen_later else {})})
    )
    if not chosen_later:
        return index, None
    chosen = _reviewed(index) if target is None else _targeted(index, target)
    return reselect(index, index.config.with_changes(threshold=chosen.threshold)), chosen


def _reviewed(index: CleanIndex) -> Chosen:
    """The threshold of the best F1, and what it rests on."""
    from clipaudit.calls.threshold import reviewed_threshold
    from clipaudit.reviews.survey import has_estimate

    note = (
        "the marked samples were not drawn by chance: the threshold suits samples like these. To find one for all, draw"
        " some: clipaudit review"
    )
    return Chosen(reviewed_threshold(index), note="" if has_estimate(index) else note)


def _targeted(index: CleanIndex, target: str) -> Chosen:
    """The threshold that reaches "precision=0.95" or "recall=0.9"."""
    from clipaudit.calls.threshold import target_threshold

    name, _, text = target.partition("=")
    try:
        wanted = {name: float(text)}
    except ValueError:
        wanted = {}
    if name not in ("precision", "recall") or not wanted:
        raise UsageError(f"--target must be precision=NUMBER or recall=NUMBER, not {excerpt(target)}.")
    found = target_threshold(index, **wanted)
    return Chosen(found.threshold, found.precision, found.recall)


def _is_by_review(changes: dict[str, Any]) -> bool:
    """Whether a review is to choose the threshold; UsageError for another word in place of a number."""
    threshold = changes.get("threshold")
    if isinstance(threshold, str) and threshold != _REVIEWED:
        raise UsageError(f"--threshold must be a number or {_REVIEWED!r}, not {excerpt(threshold)}.")
    return threshold == _REVIEWED


def _check_places(
    out: Path, formats: list[tuple[Path, str | None]], inputs: list[Path | str | None], raw_csv: bool
) -> None:
    """Refuse what cannot be written, before the audit."""
    from clipaudit.calls.export import check_export
    from clipaudit.files import check_output

    check_output(out, inputs)
    exports = [place for place, _ in formats]
    for number, (place, form) in enumerate(formats):
        check_export(place, [*inputs, out, *exports[:number]], format=form)
    if raw_csv and not any(map(_is_csv, exports)):
        raise UsageError("--raw-csv is about --export FILE.csv, which is not asked for.")


def _formats(exports: list[Path], wanted: str | None) -> list[tuple[Path, str | None]]:
    """Each export with its format: the wanted one where the ending is that of its files, else that of the ending."""
    from clipaudit.exports.formats import ending_of

    if wanted is None:
        return [(place, None) for place in exports]
    ending = ending_of(wanted)
    if all(place.suffix.lower() != ending for place in exports):
        raise UsageError(f"--export-format {wanted} is about --export FILE{ending}, which is not asked for.")
    return [(place, wanted if place.suffix.lower() == ending else None) for place in exports]


def _is_csv(place: Path) -> bool:
    return place.suffix.lower() == ".csv"


def _refuse_with_from(**given: Any) -> None:
    if idle := [
        name if name == "cache" else f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None
    ]:
        raise UsageError(
            f"--from decides again on scores that are there: {', '.join(idle)} would have no effect. Leave out the one"
            " or the other."
        )
