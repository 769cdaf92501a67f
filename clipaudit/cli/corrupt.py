"""`clipaudit corrupt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipaudit.cli import options


def corrupt(
    source: Annotated[
        Path,
        typer.Argument(help="Images in any form that embed reads; their labels count as true.", show_default=False),
    ],
    kind: Annotated[
        str,
        typer.Option(
            help="Kind of noise: symmetric (new label drawn among all classes), symmetric-others (among the other"
            " classes), asymmetric (by a map of classes) or instance (samples nearest to another class first; needs"
            " embeddings)."
        ),
    ] = "symmetric",
    rate: Annotated[
        float, typer.Option(help="Share of the samples to select (0 to 1); with asymmetric, of each mapped class.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Random seed of the draw (from 0).")] = 0,
    out: Annotated[Path, typer.Option(help="Manifest to write: .csv, .tsv, .jsonl or .parquet.")] = Path("noisy.csv"),
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map",
            help="Map of true to given classes, for asymmetric: a file with a JSON object {true: given}, or TOML.",
            show_default="CIFAR-10's or CIFAR-100's, for their classes",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Embeddings cache of the source, for the kind instance.",
            show_default="the one that embed made below .clipaudit/",
        ),
    ] = None,
    label_column: options.LabelColumn = None,
    names: options.Names = None,
) -> None:
    """Make labels wrong on purpose: clipaudit corrupt photos/ --kind symmetric --rate 0.4 --out noisy.csv

    Writes a manifest with the columns label, wrong for some samples, and label_true.
    """
    from clipaudit.calls.corrupt import corrupt as run
    from clipaudit.calls.corrupt import read_map
    from clipaudit.cli.console import print_line, safe
    from clipaudit.files import check_output

    check_output(out, [map_file, names])
    result = run(
        source,
        out,
        kind=kind,
        rate=rate,
        seed=seed,
        mapping=read_map(map_file) if map_file else None,
        cache=cache,
        options=options.source_options(names, label_column=label_column),
    )
    print_line(
        f"[bold]{result.n_wrong:,} of {result.n_samples:,} labels are wrong[/bold], a rate of {result.rate:.4f}"
        f" ({result.n_selected:,} were selected)"
    )
    for true, given, count in result.confusions[:5]:
        print_line(f"  {safe(true)} -> {safe(given)}: {count:,}")
    print_line(f"Written: {safe(result.out)}")
