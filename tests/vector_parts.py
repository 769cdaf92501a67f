"""Embeddings that lie in many small parts, as files on a disk may give them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


class InParts:
    """Vectors in several tensors, of any float types; no chunk crosses a border or is larger than `most` rows."""

    def __init__(self, parts: list[Tensor], most: int = 64) -> None:
        self.parts, self.most = parts, most

    def __len__(self) -> int:
        """n."""
        return sum(map(len, self.parts))

    @property
    def dimension(self) -> int:
        """d."""
        return self.parts[0].shape[1]

    def chunks(self, rows: int) -> Iterator[tuple[slice, Tensor]]:
        """See Vectors."""
        start = 0
        for part in self.parts:
            for chunk in part.split(min(rows, self.most)):
                yield slice(start, start + len(chunk)), chunk.float()
                start += len(chunk)

    def take(self, rows: Tensor) -> Tensor:
        """See Vectors."""
        return torch.cat([part.float() for part in self.subset(rows).parts])

    def subset(self, rows: Tensor) -> InParts:
        """See Vectors."""
        ends = torch.tensor([len(part) for part in self.parts]).cumsum(0)
        number = torch.bucketize(rows, ends, right=True)
        return InParts([part[rows[number == i] - ends[i] + len(part)] for i, part in enumerate(self.parts)], self.most)
