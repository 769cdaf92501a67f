"""Vectors that were computed elsewhere: read from Parquet and `.npy` files in batches, checked and normalised."""

from __future__ import annotations

from clipaudit.vectors.opening import open_vectors
from clipaudit.vectors.rows import unit_rows
from clipaudit.vectors.source import VectorFacts, VectorSource

__all__ = ["VectorFacts", "VectorSource", "open_vectors", "unit_rows"]
