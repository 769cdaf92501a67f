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
    from clipaudit.config import PRESETS, AuditConfig
    from clipaudit.corruption import Corruption, corrupt
    from clipaudit.embedding import EmbedSummary, embed
    from clipaudit.embeddings import EmbeddingsCache
    from clipaudit.encoders import EncoderOptions
    from clipaudit.errors import ClipAuditError
    from clipaudit.evaluation import Evaluation, Metrics, evaluate
    from clipaudit.exports import export
    from clipaudit.importers import import_dataset
    from clipaudit.index import CleanIndex, read_index
    from clipaudit.language_models import Endpoint, LocalModel
    from clipaudit.mixfix.recipes import RECIPES, TrainConfig, recipe
    from clipaudit.pipeline import EmbedProgress
    from clipaudit.prediction import predict
    from clipaudit.prompt_check import PromptReport, check_prompts
    from clipaudit.prompt_generation import GenerationSummary, generate_prompts
    from clipaudit.prompt_writing import new_prompts
    from clipaudit.report import ReportSummary, write_report
    from clipaudit.review import ReviewSummary, apply_marks
    from clipaudit.samples import SourceOptions
    from clipaudit.selection import reselect, reviewed_threshold, select
    from clipaudit.training import TrainProgress, TrainSummary, train

__version__ = "0.1.0"

_HOMES = {
    "import_dataset": "importers",
    "Corruption": "corruption",
    "corrupt": "corruption",
    "check_prompts": "prompt_check",
    "PromptReport": "prompt_check",
    "new_prompts": "prompt_writing",
    "generate_prompts": "prompt_generation",
    "GenerationSummary": "prompt_generation",
    "Endpoint": "language_models",
    "LocalModel": "language_models",
    "AuditConfig": "config",
    "CleanIndex": "index",
    "ClipAuditError": "errors",
    "EmbedProgress": "pipeline",
    "EmbedSummary": "embedding",
    "EmbeddingsCache": "embeddings",
    "EncoderOptions": "encoders",
    "Evaluation": "evaluation",
    "Metrics": "evaluation",
    "PRESETS": "config",
    "RECIPES": "mixfix.recipes",
    "ReportSummary": "report",
    "ReviewSummary": "review",
    "SourceOptions": "samples",
    "TrainConfig": "mixfix.recipes",
    "TrainProgress": "training",
    "TrainSummary": "training",
    "apply_marks": "review",
    "embed": "embedding",
    "evaluate": "evaluation",
    "export": "exports",
    "predict": "prediction",
    "read_index": "index",
    "recipe": "mixfix.recipes",
    "reselect": "selection",
    "reviewed_threshold": "selection",
    "select": "selection",
    "train": "training",
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
