"""What `cache.json` says of a cache: the model, the source and the plan; written, checked and read here alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from clipaudit.cache.parts import MAX_PART
from clipaudit.checked import (
    Rule,
    fault_of,
    is_class_names,
    is_count,
    is_number,
    is_text,
    list_of,
    object_of,
    optional,
    parse_json,
    texts_by_name,
)
from clipaudit.errors import CacheError
from clipaudit.files import read_bounded, write_atomically
from clipaudit.remote import to_path

NAME = "cache.json"
FORMAT = 1
# A larger file is none of ours.
MAX_BYTES = 1 << 28
MAX_DIMENSION = 1 << 16
AGAIN = "Run the same embed command again."
# In place of a model's name.
NO_MODEL = "own vectors"
# What a fingerprint has in place of what was done to pixels, where the vectors were computed elsewhere.
_CONTENT = "content"


class UnusableCacheError(CacheError):
    """No `cache.json`, or a damaged one: nothing there that `embed` could not write again."""


@dataclass(frozen=True)
class Fingerprint:
    """What embeddings depend on. Two caches with equal digests hold comparable vectors.

    Attributes:
        model: Folder or hub id, as the user named it.
        revision: Commit of the hub, empty for a folder.
        weights: Hash of all weights.
        preprocessing: What was done to the pixels.
        precision: Of the arithmetic: float32, bfloat16 or float16.
        dimension: Length of an embedding.
    """

    model: str
    revision: str
    weights: str
    preprocessing: Mapping[str, Any]
    precision: str
    dimension: int

    @property
    def is_own(self) -> bool:
        """The vectors are the user's own, computed elsewhere; model and weights are those of the texts."""
        return _CONTENT in self.preprocessing

    @property
    def has_texts(self) -> bool:
        """There is a model that embeds texts among these vectors."""
        return bool(self.weights)

    @classmethod
    def of_own(cls, content: str, dimension: int, texts: Fingerprint | None) -> Fingerprint:
        """That of vectors that were computed elsewhere.

        Args:
            content: A hash of all of them.
            dimension: Length of each.
            texts: The model that embeds texts among them; None where there is none.
        """
        own = {"vectors": "computed elsewhere", _CONTENT: content}
        if texts is None:
            return cls(NO_MODEL, "", "", own, "float32", dimension)
        return replace(texts, preprocessing=own, dimension=dimension)

    @property
    def digest(self) -> str:
        """Hash of everything but the name: the same weights in another folder are the same model."""
        return json_digest([self.weights, self.preprocessing, self.precision, self.dimension])

    def differences(self, other: Fingerprint) -> str:
        """In words, what makes `other` another model."""
        names = [
            name
            for name in ("weights", "preprocessing", "precision", "dimension")
            if _get(self, name) != _get(other, name)
        ]
        return "; ".join(f"{name}: {_get(self, name)} there, {_get(other, name)} now" for name in names)


@dataclass(frozen=True)
class CacheInfo:
    """What `cache.json` says.

    Attributes:
        fingerprint: The image encoder.
        logit_scale: The model's own 1 / temperature.
        source: What was embedded, absolute.
        root: What the sample ids are relative to.
        image_column: Column with the image bytes, where they are rows of a table.
        access: How an id leads to its image; None where an earlier version did not say.
        class_names: Classes in their order, where the source declares them.
        plan: (part, number of samples) in source order.
        decided: What `embed` decided about the source, by what it is about, in words.
        notes: What the source passed over, in words.
    """

    fingerprint: Fingerprint
    logit_scale: float
    source: str
    root: str
    image_column: str | None = None
    access: str | None = None
    class_names: list[str] | None = None
    plan: list[tuple[str, int]] = field(default_factory=list)
    decided: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def temperature(self) -> float:
        """The model's own T."""
        return 1 / self.logit_scale

    @property
    def command(self) -> str:
        """How to make the cache, or the rest of it."""
        return f"clipaudit embed {'--embeddings ' if self.fingerprint.is_own else ''}{self.source}"

    @property
    def root_path(self) -> Path:
        """What the sample ids are relative to."""
        return to_path(self.root)

    @property
    def n_samples(self) -> int:
        """Number of samples of the source."""
        return sum(count for _, count in self.plan)

    def write(self, path: Path) -> None:
        """Write `cache.json` into a cache's folder, whole or not at all."""
        content = {"format": FORMAT, **asdict(self)}
        content["checksum"] = json_digest(content)
        write_atomically(path / NAME, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> CacheInfo:
        """What the `cache.json` in a cache's folder says, checked.

        Raises:
            UnusableCacheError: there is none, or it is damaged.
            CacheError: it may not be opened, or another version of clipaudit wrote it.
        """
        file = path / NAME
        try:
            content = parse_json(read_bounded(file, MAX_BYTES, CacheError))
        except FileNotFoundError:
            raise UnusableCacheError(
                f"{path} is no embeddings cache: it has no {NAME}. Make one with: clipaudit embed IMAGES"
            ) from None
        except ValueError as error:
            raise UnusableCacheError(f"{file} is damaged ({error}). {AGAIN}") from None
        # Caches that were written before have no checksum.
        if isinstance(content, dict) and content.pop("checksum", None) not in (None, json_digest(content)):
            raise UnusableCacheError(f"{file} is damaged or was edited (its checksum is wrong). {AGAIN}")
        _refuse_newer(path, content)
        if fault := fault_of(content, _INFO):
            raise UnusableCacheError(f"{file} is damaged ({fault}). {AGAIN}")
        del content["format"]
        fingerprint = Fingerprint(**content.pop("fingerprint"))
        plan = [(name, count) for name, count in content.pop("plan")]
        return cls(fingerprint=fingerprint, plan=plan, **content)


FINGERPRINT = {
    **{name: Rule("text", is_text) for name in ("model", "revision", "weights", "precision")},
    "preprocessing": Rule("a JSON object", lambda value: isinstance(value, dict)),
    "dimension": Rule(
        f"a number from 1 to {MAX_DIMENSION:,}", lambda value: is_count(value) and 1 <= value <= MAX_DIMENSION
    ),
}
_INFO = {
    "format": Rule(f"{FORMAT}", lambda value: is_count(value) and value == FORMAT),
    "fingerprint": Rule("the model's fingerprint", object_of(FINGERPRINT)),
    "logit_scale": Rule("a number from 0.001 to 1,000,000", lambda value: is_number(value) and 1e-3 <= value <= 1e6),
    "source": Rule("text", is_text),
    "root": Rule("text", is_text),
    **{name: Rule("text or null", optional(is_text), optional=True) for name in ("image_column", "access")},
    "class_names": Rule("a list of different names or null", optional(is_class_names), optional=True),
    "plan": Rule("the parts, each once, with their numbers of samples", lambda value: _is_plan(value)),
    "decided": Rule("texts by name", texts_by_name, optional=True),
    "notes": Rule("a list of texts", list_of(is_text), optional=True),
}


def json_digest(content: Any) -> str:
    """A hash of what JSON can hold, whatever the order of keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=dict)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _refuse_newer(path: Path, content: Any) -> None:
    """A cache of a newer clipaudit is none that this one could write again, as a damaged one is."""
    if not isinstance(content, dict):
        return
    remedy = "Update clipaudit, or embed again with another --cache."
    if is_count(content.get("format")) and content["format"] > FORMAT:
        raise CacheError(
            f"{path} was written by a newer clipaudit: it has cache format {content['format']}, this one reads"
            f" {FORMAT}. {remedy}"
        )
    model = content.get("fingerprint")
    unknown = [name for name in content if name not in _INFO]
    unknown += [name for name in (model if isinstance(model, dict) else ()) if name not in FINGERPRINT]
    if unknown:
        raise CacheError(
            f"{path} was written by a newer clipaudit: this one does not know its field {unknown[0]!r}. {remedy}"
        )


def _is_plan(value: Any) -> bool:
    def is_part(entry: Any) -> bool:
        pair = isinstance(entry, list) and len(entry) == 2
        return pair and is_text(entry[0]) and is_count(entry[1]) and 1 <= entry[1] <= MAX_PART

    return list_of(is_part)(value) and len({name for name, _ in value}) == len(value) > 0


def _get(fingerprint: Fingerprint, name: str) -> Any:
    value = getattr(fingerprint, name)
    return dict(value) if isinstance(value, Mapping) else value
