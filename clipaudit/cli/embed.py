"""`clipaudit embed`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from clipaudit.cli import options
from clipaudit.errors import UsageError
from clipaudit.options.shared import COLUMNS, ENCODER, QUALITY, WORKERS

_WORKERS = replace(WORKERS, unset="one a core; with the model on the CPU, one for eight cores")


@options.taking([*ENCODER, *COLUMNS])
def embed(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of class folders (photos/cat/1.jpg), or an archive of them (zip, tar); manifest (CSV, TSV,"
            " JSONL, Parquet) with a path and a label column; described folder, with such a manifest named metadata;"
            " Parquet file, or folder of them, with an image column; saved data set of the library datasets; WebDataset"
            " shards; or what a labelling tool wrote: Label Studio export, CVAT file, COCO file, FiftyOne data set. A"
            " pattern in quotes names several files: 'data/train-*.parquet', 'x/{00..99}.tar'.",
            show_default=False,
        ),
    ],
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of the embeddings cache.", show_default=".clipaudit/SOURCE-MODEL-HASH"),
    ] = None,
    names: options.Names = None,
    shard: Annotated[
        str,
        typer.Option(
            help="Embed only share i of n (i/n), so that n processes or machines fill one cache.",
            rich_help_panel="Work",
        ),
    ] = "1/1",
    quality: Annotated[bool, options.declared(QUALITY)] = QUALITY.default,
    workers: Annotated[int | None, options.declared(_WORKERS)] = None,
    *,
    changes: dict[str, Any],
) -> None:
    """Embed images into a cache: clipaudit embed photos/

    Rerun an interrupted command, and it resumes. It notices changed, added and removed files.
    """
    from clipaudit.calls.embed import embed as run
    from clipaudit.cli.console import EmbedDisplay, show_embed_summary
    from clipaudit.clip.encoders import EncoderOptions

    columns = {entry.name: changes.pop(entry.name, entry.default) for entry in COLUMNS}
    with EmbedDisplay() as display:
        summary = run(
            source,
            cache=cache,
            encoder=EncoderOptions(**changes),
            options=options.source_options(names, **columns),
            shard=_parse_shard(shard),
            quality=quality,
            workers=workers,
            progress=display.update,
        )
    show_embed_summary(summary)


def _parse_shard(text: str) -> tuple[int, int]:
    number, slash, shards = text.partition("/")
    if not (slash and number.isdecimal() and shards.isdecimal()):
        raise UsageError(f"--shard {text!r} is not of the form i/n, for example 2/4.")
    return int(number), int(shards)
