"""What `run.json` says of a run: what was asked for and on what, typed and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from clipaudit import __version__
from clipaudit.checked import refuse_unknown
from clipaudit.training.config import TrainConfig, train_options
from clipaudit.training.models import Architecture
from clipaudit.training.probe import Probe
from clipaudit.training.run_check import architecture_class, check_facts

# What a run is: another value of any of these is another run.
_IDENTITY = ("config", "index_fingerprint", "test", "architecture")


@dataclass(frozen=True)
class RunFacts:
    """The facts of a run, format 2.

    Attributes:
        config: Method, model and all numbers.
        index_fingerprint: The index, as `subset_fingerprint` knows it.
        index_source: What the index is about.
        test: The test set, absolute; None where there is none.
        class_names: K names, in their order.
        architecture: Of each network.
        clipaudit: Version that wrote it.
    """

    config: TrainConfig
    index_fingerprint: str
    index_source: str
    test: str | None
    class_names: list[str]
    architecture: Architecture | Probe
    clipaudit: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON has them, tuples as lists."""
        content = {
            "clipaudit": self.clipaudit,
            "config": self.config.to_dict(),
            "index_fingerprint": self.index_fingerprint,
            "index_source": self.index_source,
            "test": self.test,
            "class_names": self.class_names,
            "architecture": self.architecture.to_dict(),
        }
        plain: dict[str, Any] = json.loads(json.dumps(content))
        return plain

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RunFacts:
        """The inverse of `to_dict`, after a check of everything in it.

        Options of other methods than the run's, which an earlier version wrote down, too, are left out.

        Raises:
            NewerError: there is a field that this version does not know; the message is its name.
            ValueError: something is not valid; the message completes "run.json is damaged: ...".
        """
        kind = architecture_class(content.get("architecture"))
        parts = {"config": train_options(), "architecture": _names(kind)}
        refuse_unknown(content, _names(cls), parts)
        config = check_facts(content)
        return cls(**{**content, "config": config, "architecture": kind.from_dict(content["architecture"])})

    def differences(self, wanted: RunFacts) -> list[str]:
        """In words, each fact that makes `wanted` another run."""
        held, other, words = self.to_dict(), wanted.to_dict(), []
        for name in _IDENTITY:
            old, new = held[name], other[name]
            if isinstance(old, dict) and isinstance(new, dict):
                changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
                words += [
                    "the model has changed"
                    if key in ("hugging_face", "encoder")
                    else f"{key} was {old.get(key)!r} and is {new.get(key)!r}"
                    for key in changed
                ]
            elif old != new:
                words.append(
                    "the index has changed" if name == "index_fingerprint" else f"{name} was {old} and is {new}"
                )
        return words


def _names(kind: type[RunFacts] | type[Architecture] | type[Probe]) -> list[str]:
    return [field.name for field in fields(kind)]
