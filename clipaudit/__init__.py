"""clipaudit: find the wrong labels in an image data set, offline, with CLIP.

import clipaudit

summary = clipaudit.embed("photos")
index = clipaudit.select(summary.cache)
index.write("clean.parquet")
clipaudit.evaluate(index, "truth.csv").overall.auroc
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipaudit.auditing.config import PRESETS, AuditConfig
    from clipaudit.cache.embeddings import EmbeddingsCache
    from clipaudit.calls.corrupt import Corruption, corrupt
    from clipaudit.calls.embed import EmbedSummary, embed
    from clipaudit.calls.evaluate import Evaluation, Metrics, evaluate
    from clipaudit.calls.export import export
    from clipaudit.calls.import_ import import_dataset
    from clipaudit.calls.predict import predict
    from clipaudit.calls.review import ReviewSummary, apply_marks
    from clipaudit.calls.select import reselect, reviewed_threshold, select
    from clipaudit.calls.train import TrainProgress, TrainSummary, train
    from clipaudit.clip.encoders import EncoderOptions
    from clipaudit.clip.pipeline import EmbedProgress
    from clipaudit.errors import ClipAuditError
    from clipaudit.index.clean_index import CleanIndex, read_index
    from clipaudit.prompts.check import PromptReport, check_prompts
    from clipaudit.prompts.generation import GenerationSummary, generate_prompts
    from clipaudit.prompts.language_models import Endpoint, LocalModel
    from clipaudit.prompts.writing import new_prompts
    from clipaudit.report import ReportSummary, write_report
    from clipaudit.samples import SourceOptions
    from clipaudit.training.recipes import RECIPES, TrainConfig, recipe

__version__ = "0.1.0"

_HOMES = {
    "import_dataset": "calls.import_",
    "Corruption": "calls.corrupt",
    "corrupt": "calls.corrupt",
    "check_prompts": "prompts.check",
    "PromptReport": "prompts.check",
    "new_prompts": "prompts.writing",
    "generate_prompts": "prompts.generation",
    "GenerationSummary": "prompts.generation",
    "Endpoint": "prompts.language_models",
    "LocalModel": "prompts.language_models",
    "AuditConfig": "auditing.config",
    "CleanIndex": "index.clean_index",
    "ClipAuditError": "errors",
    "EmbedProgress": "clip.pipeline",
    "EmbedSummary": "calls.embed",
    "EmbeddingsCache": "cache.embeddings",
    "EncoderOptions": "clip.encoders",
    "Evaluation": "calls.evaluate",
    "Metrics": "calls.evaluate",
    "PRESETS": "auditing.config",
    "RECIPES": "training.recipes",
    "ReportSummary": "report",
    "ReviewSummary": "calls.review",
    "SourceOptions": "samples",
    "TrainConfig": "training.recipes",
    "TrainProgress": "calls.train",
    "TrainSummary": "calls.train",
    "apply_marks": "calls.review",
    "embed": "calls.embed",
    "evaluate": "calls.evaluate",
    "export": "calls.export",
    "predict": "calls.predict",
    "read_index": "index.clean_index",
    "recipe": "training.recipes",
    "reselect": "calls.select",
    "reviewed_threshold": "calls.select",
    "select": "calls.select",
    "train": "calls.train",
    "write_report": "report",
}

__all__ = [
    "PRESETS",
    "RECIPES",
    "AuditConfig",
    "CleanIndex",
    "ClipAuditError",
    "Corruption",
    "EmbedProgress",
    "EmbedSummary",
    "EmbeddingsCache",
    "EncoderOptions",
    "Endpoint",
    "Evaluation",
    "GenerationSummary",
    "LocalModel",
    "Metrics",
    "PromptReport",
    "ReportSummary",
    "ReviewSummary",
    "SourceOptions",
    "TrainConfig",
    "TrainProgress",
    "TrainSummary",
    "apply_marks",
    "check_prompts",
    "corrupt",
    "embed",
    "evaluate",
    "export",
    "generate_prompts",
    "import_dataset",
    "new_prompts",
    "predict",
    "read_index",
    "recipe",
    "reselect",
    "reviewed_threshold",
    "select",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    # torch and pyarrow take seconds to import: only who uses a name pays for it.
    if name in _HOMES:
        return getattr(import_module(f"clipaudit.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'clipaudit' has no attribute {name!r}")
