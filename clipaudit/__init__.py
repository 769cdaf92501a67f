"""clipaudit: find the wrong labels in an image data set, offline, with CLIP.

import clipaudit

audited = clipaudit.audit("photos", out="clean.parquet", report="report.html")
clipaudit.evaluate(audited.index, "truth.csv").overall.auroc
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipaudit.auditing.metrics import Metrics as Metrics
    from clipaudit.cache.embeddings import EmbeddingsCache as EmbeddingsCache
    from clipaudit.calls.apply import ReviewSummary as ReviewSummary
    from clipaudit.calls.apply import apply_marks as apply_marks
    from clipaudit.calls.audit import AuditSummary as AuditSummary
    from clipaudit.calls.audit import audit as audit
    from clipaudit.calls.corrupt import Corruption as Corruption
    from clipaudit.calls.corrupt import corrupt as corrupt
    from clipaudit.calls.doubts import Doubts as Doubts
    from clipaudit.calls.doubts import find_doubts as find_doubts
    from clipaudit.calls.embed import EmbedSummary as EmbedSummary
    from clipaudit.calls.embed import embed as embed
    from clipaudit.calls.evaluate import Evaluation as Evaluation
    from clipaudit.calls.evaluate import evaluate as evaluate
    from clipaudit.calls.export import export as export
    from clipaudit.calls.import_ import import_dataset as import_dataset
    from clipaudit.calls.leaks import Leak as Leak
    from clipaudit.calls.leaks import find_leaks as find_leaks
    from clipaudit.calls.leaks import write_leaks as write_leaks
    from clipaudit.calls.pred_probs import pred_probs as pred_probs
    from clipaudit.calls.predict import predict as predict
    from clipaudit.calls.reselect import reselect as reselect
    from clipaudit.calls.review import Queue as Queue
    from clipaudit.calls.review import review as review
    from clipaudit.calls.select import select as select
    from clipaudit.calls.threshold import Target as Target
    from clipaudit.calls.threshold import reviewed_threshold as reviewed_threshold
    from clipaudit.calls.threshold import target_threshold as target_threshold
    from clipaudit.calls.train import TrainProgress as TrainProgress
    from clipaudit.calls.train import TrainSummary as TrainSummary
    from clipaudit.calls.train import train as train
    from clipaudit.certainty.thresholds import Interval as Interval
    from clipaudit.clip.encoders import EncoderOptions as EncoderOptions
    from clipaudit.clip.pipeline import EmbedProgress as EmbedProgress
    from clipaudit.config import PRESETS as PRESETS
    from clipaudit.config import AuditConfig as AuditConfig
    from clipaudit.config import preset as preset
    from clipaudit.errors import ClipAuditError as ClipAuditError
    from clipaudit.index.clean_index import CleanIndex as CleanIndex
    from clipaudit.index.clean_index import read_index as read_index
    from clipaudit.prompts.check import PromptReport as PromptReport
    from clipaudit.prompts.check import check_prompts as check_prompts
    from clipaudit.prompts.generation import GenerationSummary as GenerationSummary
    from clipaudit.prompts.generation import generate_prompts as generate_prompts
    from clipaudit.prompts.language_models import Endpoint as Endpoint
    from clipaudit.prompts.language_models import LocalModel as LocalModel
    from clipaudit.prompts.writing import new_prompts as new_prompts
    from clipaudit.report import ReportSummary as ReportSummary
    from clipaudit.report import write_report as write_report
    from clipaudit.report.figure import write_figure as write_figure
    from clipaudit.reviews.estimate import Estimate as Estimate
    from clipaudit.reviews.estimate import estimate as estimate
    from clipaudit.samples import SourceOptions as SourceOptions
    from clipaudit.training.config import TrainConfig as TrainConfig
    from clipaudit.training.recipes import RECIPES as RECIPES
    from clipaudit.training.recipes import recipe as recipe

__version__ = "0.1.0"

# Each public name and the module that it lives in; the imports above say the same to tools that read types.
_HOMES = {
    "AuditConfig": "config",
    "preset": "config",
    "PRESETS": "config",
    "Leak": "calls.leaks",
    "find_leaks": "calls.leaks",
    "write_leaks": "calls.leaks",
    "Metrics": "auditing.metrics",
    "EmbeddingsCache": "cache.embeddings",
    "audit": "calls.audit",
    "AuditSummary": "calls.audit",
    "corrupt": "calls.corrupt",
    "Corruption": "calls.corrupt",
    "Doubts": "calls.doubts",
    "find_doubts": "calls.doubts",
    "embed": "calls.embed",
    "EmbedSummary": "calls.embed",
    "evaluate": "calls.evaluate",
    "Evaluation": "calls.evaluate",
    "export": "calls.export",
    "import_dataset": "calls.import_",
    "pred_probs": "calls.pred_probs",
    "predict": "calls.predict",
    "apply_marks": "calls.apply",
    "ReviewSummary": "calls.apply",
    "review": "calls.review",
    "Queue": "calls.review",
    "estimate": "reviews.estimate",
    "Estimate": "reviews.estimate",
    "Interval": "certainty.thresholds",
    "reselect": "calls.reselect",
    "reviewed_threshold": "calls.threshold",
    "target_threshold": "calls.threshold",
    "Target": "calls.threshold",
    "select": "calls.select",
    "train": "calls.train",
    "TrainProgress": "calls.train",
    "TrainSummary": "calls.train",
    "EncoderOptions": "clip.encoders",
    "EmbedProgress": "clip.pipeline",
    "ClipAuditError": "errors",
    "CleanIndex": "index.clean_index",
    "read_index": "index.clean_index",
    "check_prompts": "prompts.check",
    "PromptReport": "prompts.check",
    "generate_prompts": "prompts.generation",
    "GenerationSummary": "prompts.generation",
    "Endpoint": "prompts.language_models",
    "LocalModel": "prompts.language_models",
    "new_prompts": "prompts.writing",
    "ReportSummary": "report",
    "write_report": "report",
    "write_figure": "report.figure",
    "SourceOptions": "samples",
    "recipe": "training.recipes",
    "RECIPES": "training.recipes",
    "TrainConfig": "training.config",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # torch and pyarrow take seconds to import: only who uses a name pays for it.
    if name in _HOMES:
        return getattr(import_module(f"clipaudit.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'clipaudit' has no attribute {name!r}")
