"""Where `embed` runs the model: in this process, or in the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from clipaudit.clip.encoders import EncoderOptions
from clipaudit.clip.pipeline import EmbedProgress, Progress
from clipaudit.engines.base import Engine


@contextmanager
def open_engine(
    name: str, options: EncoderOptions | None, workers: int | None, address: str | None, report: Progress
) -> Iterator[Engine]:
    """An engine with the model loaded; arguments and errors as `clipaudit.embed`."""
    report(EmbedProgress("loading the model"))
    if name == "ray":
        from clipaudit.engines.cluster import RayEngine, joined

        with joined(address):
            engine = RayEngine(options, workers)
            try:
                yield engine
            finally:
                engine.close()
    else:
        from clipaudit.engines.local import LocalEngine

        yield LocalEngine(options, workers)
