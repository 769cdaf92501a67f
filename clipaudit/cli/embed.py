"""`clipaudit embed`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from clipaudit.cli import options
from clipaudit.cli.output import Result, printed
from clipaudit.errors import UsageError
from clipaudit.options.shared import ADDRESS, COLUMNS, ENCODER, ENGINE, QUALITY, VERIFY, WORKERS, ZERO_SHOT

_WORKERS = replace(
    WORKERS,
    unset="one a core; with the model on the CPU, one for eight cores; ray: one a GPU, or one a machine without GPUs",
    note="with --engine ray, number of workers",
)


@options.taking([*ENCODER, *COLUMNS])
@printed
def embed(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of class folders (photos/cat/1.jpg), or an archive of them (zip, tar); manifest (CSV, TSV,"
            " JSONL, Parquet) with a path and a label column; described folder, with such a manifest named metadata;"
            " Parquet file, or folder of them, with an image column; saved data set of the library datasets; WebDataset"
            " shards; or what a labelling tool wrote: Label Studio export, CVAT file, COCO file, FiftyOne data set. A"
            " pattern in quotes names several files: 'data/train-*.parquet', 'x/{00..99}.tar'. Each may be a URL:"
            " s3://bucket/photos.",
            show_default=False,
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="In place of SOURCE, vectors that were computed elsewhere by --model: Parquet file with a column of"
            " vectors, .npy file, folder of them (as clip-retrieval writes), or a pattern of such files in quotes:"
            " 'vectors/*.parquet'.",
            show_default=False,
            rich_help_panel="Source",
        ),
    ] = None,
    zero_shot: Annotated[bool, options.declared(ZERO_SHOT)] = ZERO_SHOT.default,
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
    engine: Annotated[str, options.declared(ENGINE)] = ENGINE.default,
    address: Annotated[str | None, options.declared(ADDRESS)] = None,
    verify: Annotated[bool, options.declared(VERIFY)] = VERIFY.default,
    quality: Annotated[bool, options.declared(QUALITY)] = QUALITY.default,
    workers: Annotated[int | None, options.declared(_WORKERS)] = None,
    *,
    changes: dict[str, Any],
) -> Result:
    """Embed images into a cache: clipaudit embed photos/

    Rerun an interrupted command, and it resumes. It notices changed, added and removed files.
    """
    from clipaudit.calls.embed import embed as run
    from clipaudit.cli import documents
    from clipaudit.cli.console import ProgressDisplay, show_embed_summary
    from clipaudit.clip.encoders import EncoderOptions

    columns = {entry.name: changes.pop(entry.name, entry.default) for entry in COLUMNS}
    if embeddings and changes and "model" not in changes:
        # A default model is a guess at who made the vectors.
        raise UsageError(f"{', '.join(changes)} would have no effect on embeddings without --model. Name it.")
    with ProgressDisplay() as display:
        summary = run(
            source,
            embeddings=embeddings,
            zero_shot=zero_shot,
            cache=cache,
            encoder=None if embeddings and not changes else EncoderOptions(**changes),
            options=options.source_options(names, **columns),
            shard=_parse_shard(shard),
            engine=engine,
            address=address,
            verify=verify,
            quality=quality,
            workers=workers,
            progress=display.update,
        )
    return Result(show=lambda: show_embed_summary(summary), document=lambda: documents.embedding(summary))


def _parse_shard(text: str) -> tuple[int, int]:
    number, slash, shards = text.partition("/")
    if not (slash and number.isdecimal() and shards.isdecimal()):
        raise UsageError(f"--shard {text!r} is not of the form i/n, for example 2/4.")
    return int(number), int(shards)
