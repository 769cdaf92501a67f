"""Everything that decided."""

from __future__ import annotations

from typing import Any

from clipaudit.report.sections.base import Material


def configuration(material: Material) -> list[tuple[str, str]]:
    """Names and values."""
    index = material.columns.index
    metadata = index.metadata
    model, prompts = metadata.model, metadata.prompts
    own = model.is_own and model.has_texts
    decided = {
        "source": metadata.source,
        "labels": metadata.labels or "the source's own",
        "prompts": prompts.source,
        **metadata.decided,
    }
    rows = {
        **decided,
        "prompts": f"{decided['prompts']} ({len(prompts.texts):,} texts)",
        "model": f"{model.model} {model.revision or ''}{' (of texts; the vectors are own)' if own else ''}".strip(),
        "weights": model.weights,
        "precision": model.precision,
        **{name: value for name, value in index.config.to_dict().items() if name not in decided},
        "clipaudit": metadata.clipaudit,
    }
    return [(name.replace("_", " "), _plain(value)) for name, value in rows.items()]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
