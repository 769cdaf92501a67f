"""What identifies an index to others that outlive it: the marks in a browser, the folder of a training run.

There are two, because the flags differ: marks stay when other thresholds are chosen, a run is about one clean subset.
Browsers and run folders hold their values, which therefore never change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain

from clipaudit.index.clean_index import CleanIndex

ROWS_AT_ONCE = 1 << 16


def labels_fingerprint(index: CleanIndex) -> str:
    """A hash of ids, labels and class names, whatever the thresholds are: 24 hexadecimal digits."""
    return _hash(12, _ids(index), [index.labels().tobytes(), _names(index)])


def subset_fingerprint(index: CleanIndex) -> str:
    """A hash of ids, labels, clean flags and class names: 32 hexadecimal digits."""
    return _hash(16, _ids(index), [b"\0", index.labels().tobytes(), index.is_clean.tobytes(), _names(index)])


def _ids(index: CleanIndex) -> Iterator[bytes]:
    """All ids with a NUL between two, few of them at once."""
    between = ""
    for batch in index.table.select(["id"]).to_batches(max_chunksize=ROWS_AT_ONCE):
        yield (between + "\0".join(batch["id"].to_pylist())).encode()
        between = "\0"


def _names(index: CleanIndex) -> bytes:
    return "\0".join(index.class_names).encode()


def _hash(size: int, *parts: Iterable[bytes]) -> str:
    digest = blake2b(digest_size=size)
    for part in chain(*parts):
        digest.update(part)
    return digest.hexdigest()
