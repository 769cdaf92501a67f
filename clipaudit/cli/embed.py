"""`clipaudit embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipaudit.cli import options
from clipaudit.errors import UsageError


def embed(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of class folders (photos/cat/1.jpg); manifest (CSV, TSV, JSONL, Parquet) with a path and a"
            " label column; Parquet file, or folder of them, with an image column; or a pattern of such files in"
            " quotes: 'data/train-*.parquet'.",
            show_default=False,
        ),
    ],
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of the embeddings cache.", show_default=".clipaudit/SOURCE-MODEL-HASH"),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Hugging Face dual encoder: local folder or hub id.", rich_help_panel="Model")
    ] = "openai/clip-vit-base-patch32",
    revision: Annotated[
        str | None,
        typer.Option(help="Branch, tag or commit on the hub.", show_default="main", rich_help_panel="Model"),
    ] = None,
    device: options.Device = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="Arithmetic: float32, bfloat16, float16, or auto: half precision where the device is faster in it.",
            rich_help_panel="Model",
        ),
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Images a step. It shrinks by itself when memory runs out.",
            show_default="fitted to the device",
            rich_help_panel="Model",
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Let the model's own image processor prepare each image, without reduced JPEG decoding (which keeps a"
            " cosine above 0.999 to it). Slower.",
            rich_help_panel="Model",
        ),
    ] = False,
    path_column: Annotated[
        str | None,
        typer.Option(help="Manifest column with the paths.", show_default="recognised", rich_help_panel="Source"),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Column with the labels.", show_default="recognised", rich_help_panel="Source"),
    ] = None,
    image_column: Annotated[
        str | None,
        typer.Option(help="Parquet column with image bytes.", show_default="recognised", rich_help_panel="Source"),
    ] = None,
    names: options.Names = None,
    shard: Annotated[
        str,
        typer.Option(
            help="Do the i-th of n shares of the work (i/n): n processes or machines fill one cache.",
            rich_help_panel="Work",
        ),
    ] = "1/1",
    workers: Annotated[
        int | None,
        typer.Option(
            help="Decoding threads (1 to 256).",
            show_default="one a core; with the model on the CPU, one for eight",
            rich_help_panel="Work",
        ),
    ] = None,
) -> None:
    """Embed images into a cache: clipaudit embed photos/

    Given again, it goes on where it was interrupted, and notices changed, added and removed files.
    """
    from clipaudit.calls.embed import embed as run
    from clipaudit.cli.console import EmbedDisplay, show_embed_summary
    from clipaudit.clip.encoders import EncoderOptions
    from clipaudit.samples import SourceOptions, read_names

    encoder = EncoderOptions(model, revision, device, precision, batch_size, exact)
    source_options = SourceOptions(path_column, label_column, image_column, read_names(names) if names else None)
    with EmbedDisplay() as display:
        summary = run(
            source,
            cache=cache,
            encoder=encoder,
            options=source_options,
            shard=_parse_shard(shard),
            workers=workers,
            progress=display.update,
        )
    show_embed_summary(summary)


def _parse_shard(text: str) -> tuple[int, int]:
    number, slash, shards = text.partition("/")
    if not (slash and number.isdecimal() and shards.isdecimal()):
        raise UsageError(f"--shard {text!r} is not of the form i/n, for example 2/4.")
    return int(number), int(shards)
