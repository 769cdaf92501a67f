"""An epoch's row as TensorBoard scalars, where TensorBoard is installed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipaudit.errors import UsageError


class Board:
    """Writes rows; a run that goes on writes its earlier rows again, so that there is one file and no row twice."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError("--tensorboard needs it installed: pip install 'clipaudit[tensorboard]'") from None
        self._folder, self._new = folder, SummaryWriter
        self._writer: Any = None

    def write(self, row: Mapping[str, Any]) -> None:
        """One row of metrics.jsonl."""
        if self._writer is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._writer = self._new(str(self._folder))
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()
