"""`audit`: from images to a clean index and its report, in one call that can be given again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipaudit.calls.embed import EmbedSummary, embed
from clipaudit.calls.select import select
from clipaudit.clip.encoders import EncoderOptions
from clipaudit.clip.pipeline import EmbedProgress, Progress
from clipaudit.config import AuditConfig
from clipaudit.errors import ClipAuditError, UsageError
from clipaudit.files import check_output
from clipaudit.index.clean_index import CleanIndex, read_index
from clipaudit.options.arguments import typed
from clipaudit.prompts.sets import prompt_file
from clipaudit.remote import to_path
from clipaudit.report import ReportSummary, write_report
from clipaudit.samples import SourceOptions
from clipaudit.samples.hugging_face import Dataset, is_dataset

REPORT = "report.html"


@dataclass(frozen=True)
class AuditSummary:
    """What an audit decided and found.

    Attributes:
        embedding: What `embed` decided and did.
        index: The clean index.
        file: Where it was written.
        report: What `write_report` wrote.
    """

    embedding: EmbedSummary
    index: CleanIndex
    file: Path
    report: ReportSummary

    @property
    def n_opposed(self) -> int:
        """Number of labels in doubt that every estimate contradicts: each of them sees another class."""
        readable = self.index.readable
        given = self.index.scored_labels()[readable]
        seen = [scores.prediction for scores in self.index.estimates().values()]
        return int((self.index.in_doubt[readable] & np.all([classes != given for classes in seen], axis=0)).sum())


@typed
def audit(
    source: str | Path | Dataset,
    *,
    out: str | Path = "clean.parquet",
    report: str | Path | None = None,
    cache: str | Path | None = None,
    encoder: EncoderOptions | None = None,
    options: SourceOptions | None = None,
    config: AuditConfig | None = None,
    prompts: str | Path = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> AuditSummary:
    """Embed a source, audit its labels, and write the clean index and a report: `embed`, `select` and `write_report`.

    Given again, even after `kill -9`, the same call goes on: it embeds only what the cache does not hold yet. The index
    and the report are made again from the cache, and are the same bytes.

    Args:
        source: What `embed` takes.
        out: The clean index to write. One that holds a review is refused, as the marks would be lost.
        report: The HTML file to write; by default `report.html` beside the index.
        cache: The cache's folder; by default one below `.clipaudit/` named after source and model.
        encoder: Model, device, precision, batch size; by default `EncoderOptions()`. Its device audits, too.
        options: Columns and class names of the source.
        config: Estimates, selectors, thresholds; the paper's by default.
        prompts: Name of a shipped prompt set, a prompt file, "auto" or "none", as `select` takes it.
        workers: Number of decoding threads, as `embed` takes it.
        progress: Called as the audit goes on; a stage begins with the name of its step ("embed: scanning").

    Raises:
        ClipAuditError, UsageError: what is written cannot be, or `out` holds a review; else as `embed`, `select` and
            `write_report`.
    """
    file, page = to_path(out), to_path(report) if report is not None else to_path(out).with_name(REPORT)
    inputs = [prompts, *([] if is_dataset(source) else [str(source)])]
    check_output(file, inputs)
    check_output(page, [*inputs, file])
    _keep_review(file)
    if prompts not in ("auto", "none"):
        prompt_file(prompts)
    encoder, show = encoder or EncoderOptions(), progress or (lambda _: None)
    embedding = embed(
        source,
        cache=cache,
        encoder=encoder,
        options=options,
        workers=workers,
        progress=lambda at: show(replace(at, stage=f"embed: {at.stage}")),
    )
    index = select(
        embedding.cache, config=config, prompts=prompts, device=encoder.device, progress=_step("select", show)
    )
    index.write(file)
    images = source if is_dataset(source) else None
    summary = write_report(index, page, images=images, progress=_step("report", show))
    return AuditSummary(embedding, index, file, summary)


def _step(name: str, show: Progress) -> Callable[[str], None]:
    return lambda stage: show(EmbedProgress(f"{name}: {stage}"))


def _keep_review(file: Path) -> None:
    """UsageError where an index of this name holds what a person did, or the chances that give it a meaning."""
    if not file.is_file():
        return
    try:
        held = read_index(file)
    except ClipAuditError:
        return  # No index that could be read: nothing of a person is in it.
    if held.has_reviews or held.drawn.any():
        raise UsageError(
            f"{file} holds a review, which a new audit would overwrite. Name another file: --out FILE. To decide again"
            f" on its scores: clipaudit select --from {file}"
        )
