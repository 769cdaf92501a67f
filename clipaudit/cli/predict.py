"""`clipaudit predict`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from clipaudit.cli import options
from clipaudit.cli.output import Result, printed


@printed
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder, from train.", show_default=False)],
    source: Annotated[
        Path, typer.Argument(help="Images in any form that embed reads; their labels are copied.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")] = Path("predictions.parquet"),
    weights: Annotated[
        str,
        typer.Option(help="Weights: best (highest accuracy on the held-out share) or last.", rich_help_panel="Model"),
    ] = "best",
    device: options.Device = "auto",
    precision: options.TrainPrecision = "auto",
    names: options.Names = None,
    workers: options.Workers = None,
) -> Result:
    """Apply a trained classifier: clipaudit predict run photos/ --out predictions.parquet

    Writes one row per image: its predicted label and probability, or the reason why it cannot be read.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from clipaudit.calls.predict import predict as apply
    from clipaudit.cli.console import stages
    from clipaudit.files import check_images, check_output, write_atomically
    from clipaudit.remote import to_path

    check_output(out, [source, names])
    with stages() as show:
        table = apply(
            run,
            source,
            options=options.source_options(names),
            weights=weights,
            device=device,
            precision=precision,
            workers=workers,
            progress=lambda done: show(f"{done:,} images"),
        )
    place = to_path(source)
    check_images(out, table["id"].to_pylist(), place if place.is_dir() else place.parent)
    write_atomically(out, lambda file: pq.write_table(table, file, compression="zstd", write_page_checksum=True))
    predicted = table["predicted_label"].cast("string")
    found = {
        "predictions": out,
        "source": str(source),
        "n_samples": table.num_rows,
        "n_unreadable": table.num_rows - (pc.sum(pc.equal(table["status"], "ok")).as_py() or 0),
        "share_as_labelled": pc.mean(pc.equal(predicted, table["label"])).as_py(),
        "predicted": {row["values"]: row["counts"] for row in pc.value_counts(predicted.drop_null()).to_pylist()},
    }
    return Result(show=lambda: _show(found), document=lambda: found)


def _show(found: Mapping[str, Any]) -> None:
    from clipaudit.cli.console import print_line, safe

    print_line(f"[bold]{found['n_samples']:,} images[/bold] from {safe(found['source'])}")
    if found["share_as_labelled"] is not None:
        print_line(f"  as labelled    {found['share_as_labelled']:.2%} of the predictions")
    if found["n_unreadable"]:
        print_line(f"  unreadable     {found['n_unreadable']:,}, kept with the reason")
    print_line(f"Written: {safe(found['predictions'])}")
