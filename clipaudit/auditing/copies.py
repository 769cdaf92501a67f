"""The copies among embedded images, and how they were found, in words."""

from __future__ import annotations

import pyarrow as pa

from clipaudit.cache.embeddings import Embeddings
from clipaudit.cache.parts import HASHES
from clipaudit.copies.cells import has_faiss
from clipaudit.copies.groups import CopyGroups, copy_groups
from clipaudit.copies.near import NO_PAIRS, near_copies


def copies_among(embeddings: Embeddings) -> tuple[CopyGroups | None, str]:
    """The groups of copies among the readable samples, None where hashes are not known; and how they were found."""
    table = embeddings.table.select(list(HASHES)).filter(pa.array(embeddings.readable))
    if embeddings.info.fingerprint.is_own:
        return None, "not looked for: the vectors were computed elsewhere, and no image was read"
    if table["look"].null_count:
        return None, "not looked for: an earlier clipaudit made the cache; embed again with another --cache"
    exact = [table["content"], table["pixels"]]
    if not has_faiss():
        return copy_groups(exact, NO_PAIRS), "exact ones only; near ones need: pip install 'clipaudit[copies]'"
    near = near_copies(embeddings.readable_vectors, table["look"].to_numpy())
    if not near.can_tell:
        why = f"{near.alike:.0%} of the images that are no copies look alike, too, so that near ones cannot be told"
        return copy_groups(exact, NO_PAIRS), f"exact ones only: {why}"
    return copy_groups(exact, near.pairs), "exact ones by bytes and pixels, near ones by embedding and look"
