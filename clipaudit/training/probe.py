"""A head on embeddings, linear or with one hidden layer, and the embeddings in the place that images have elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import nn

from clipaudit.cache.embeddings import Embeddings
from clipaudit.cache.info import Fingerprint
from clipaudit.errors import SourceError
from clipaudit.training.pixels import memory_limit


@dataclass(frozen=True)
class Probe:
    """All that is needed to build a head again, without its weights, and to embed for it.

    Attributes:
        model: "probe".
        hidden: Width of the hidden layer; 0 for none.
        classes: K.
        encoder: The fingerprint of the model whose embeddings it reads.
    """

    model: str
    hidden: int
    classes: int
    encoder: Fingerprint

    def to_dict(self) -> dict[str, Any]:
        """All fields, for the run folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Probe:
        """The inverse of `to_dict`."""
        return cls(**{**content, "encoder": Fingerprint(**content["encoder"])})

    @property
    def sample_values(self) -> int:
        """Numbers in an embedding."""
        return self.encoder.dimension

    @property
    def sees(self) -> str:
        """What a sample is, in words."""
        return f"Embeddings of {self.sample_values:,} numbers by {self.encoder.model}"


def head(probe: Probe) -> nn.Module:
    """(b, d) unit vectors to (b, K) logits, with random weights.

    The embeddings of one data set share most of their direction. Standardised, what tells them apart has the scale that
    SGD needs (He et al., CVPR 2022, A.1), whatever the encoder.
    """
    dimension, hidden = probe.encoder.dimension, probe.hidden
    standardise = nn.BatchNorm1d(dimension, affine=False)
    if not hidden:
        return nn.Sequential(standardise, nn.Linear(dimension, probe.classes))
    return nn.Sequential(standardise, nn.Linear(dimension, hidden), nn.ReLU(), nn.Linear(hidden, probe.classes))


@dataclass(frozen=True)
class Vectors:
    """n embeddings, in place of decoded images.

    Attributes:
        vectors: (m, d) float16 unit rows, on the device, or on the host where it has too little memory for them.
        places: (n,) int64, the row of each sample in them.
        device: Where they are needed.
    """

    vectors: torch.Tensor
    places: NDArray[np.int64]
    device: torch.device

    def blocks(self, blocks: Sequence[NDArray[np.int64]]) -> Iterator[torch.Tensor]:
        """For each array of b row numbers a (b, d) float32 tensor on the device."""
        for rows in blocks:
            places = torch.from_numpy(self.places[rows]).to(self.vectors.device)
            yield self.vectors[places].to(self.device).float()


def find_vectors(
    ids: Sequence[str], rows: NDArray[np.int64], embeddings: Embeddings, device: torch.device
) -> tuple[Vectors, NDArray[np.int64]]:
    """The embeddings of samples by their ids; nothing is copied on the host.

    Args:
        ids: Of n samples.
        rows: Those that are wanted.
        embeddings: Those of a cache.
        device: Where they are needed.

    Returns:
        The embeddings, and the rows among `rows` whose image could not be read.

    Raises:
        SourceError: a sample is not in the cache.
    """
    # One array of text would end at 2 GiB.
    embedded = embeddings.table["id"].cast(pa.large_string()).combine_chunks()
    found = pc.index_in(pa.array(ids, pa.large_string()), value_set=embedded)
    if found.null_count:
        first = ids[pc.index(pc.is_null(found), True).as_py()]
        raise SourceError(
            f"{found.null_count:,} of {len(ids):,} samples are not in the cache of {embeddings.info.source}."
            f" The first is {first}."
            " Name the cache that the index was made from with --embeddings, or embed and select again."
        )
    places = found.to_numpy().astype(np.int64)
    vectors = torch.from_numpy(embeddings.vectors)
    if vectors.nbytes <= memory_limit(device):
        vectors = vectors.to(device)
    return Vectors(vectors, places, device), rows[~embeddings.readable[places[rows]]]
