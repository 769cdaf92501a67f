"""`clipaudit demo`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

DEMO_BUDGET = 100


def demo(
    folder: Annotated[Path, typer.Argument(help="New folder for the demo's files.")] = Path("clipaudit-demo"),
    rate: Annotated[float, typer.Option(help="Share of labels to make wrong (above 0 and below 1).")] = 0.2,
    seed: Annotated[int, typer.Option(help="Random seed of the choice of wrong labels (from 0).")] = 0,
) -> None:
    """Audit real handwritten digits, some with wrong labels: offline, in about a minute.

    Runs audit, evaluate, review, apply, estimate and report, and prints each command as you would type it. The marks of
    the review are simulated by the true labels.
    """
    from clipaudit.cli.apply import apply
    from clipaudit.cli.audit import audit
    from clipaudit.cli.console import print_line, safe
    from clipaudit.cli.estimate import estimate
    from clipaudit.cli.evaluate import evaluate
    from clipaudit.cli.report import report
    from clipaudit.cli.review import review
    from clipaudit.demo import MODEL, mark_by_truth, write_digits

    files = write_digits(folder, rate=rate, seed=seed)
    cache, index, page = (folder / name for name in ("cache", "clean.parquet", "report.html"))
    queue, reviewed = folder / "review", folder / "reviewed.parquet"

    def announce(*words: object) -> None:
        print_line(f"\n[bold]$ clipaudit {safe(shlex.join(map(str, words)))}[/bold]")

    print_line(
        f"{files.n_images:,} handwritten digits in {safe(files.images)}; {files.n_wrong:,} lie in a wrong folder, and"
        f" {files.n_copies} are copies of others, one of them under another class."
    )
    announce("audit", files.images, "--model", MODEL, "--cache", cache, "--out", index)
    audit(str(files.images), model=str(MODEL), cache=cache, out=index)
    announce("evaluate", index, "--truth", files.truth)
    evaluate(index, truth=str(files.truth))
    announce("review", index, "--budget", DEMO_BUDGET, "--out", queue)
    review(index=index, out=queue, budget=DEMO_BUDGET)
    marks = mark_by_truth(queue, files)
    print_line(f"\nIn your place, the true labels answer: their marks are in {safe(marks)}.")
    announce("apply", index, marks, "--out", reviewed)
    apply(index=index, marks=[marks], out=reviewed)
    announce("estimate", reviewed)
    estimate(index=reviewed)
    print_line(f"In truth, {files.n_wrong:,} labels are wrong.")
    announce("report", reviewed, "--truth", files.truth, "--out", page)
    report(reviewed, out=page, truth=str(files.truth))
    print_line(
        f"\nThe files are in {safe(folder)}: images, truth.csv, the embeddings cache, the clean index,"
        "\nthe review and the report."
        "\nGo on with your own images: clipaudit audit IMAGES, or other thresholds:"
        f"\n  clipaudit select --from {safe(index)} --theta-loss 0.7 --out {safe(folder / 'stricter.parquet')}"
    )
