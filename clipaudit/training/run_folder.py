"""A run's folder: what was asked for, what happened in each epoch, the weights and the relabelled data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from clipaudit import __version__
from clipaudit.checked import NewerError
from clipaudit.errors import RunError
from clipaudit.files import irregular, read_bounded, remove_stale, write_atomically
from clipaudit.text import printable
from clipaudit.training.curve import training_curve
from clipaudit.training.models import Architecture
from clipaudit.training.probe import Probe
from clipaudit.training.run_check import digest_of
from clipaudit.training.run_facts import RunFacts

# 2: with checksums, so that nothing that was damaged or changed is taken for a result.
FORMAT = 2
# The most that is read of a run.json: a hundred thousand long class names have room in it.
LIMIT = 64 << 20

History = Sequence[Mapping[str, Any]]


class RunFolder:
    """The files of a run.

    Attributes:
        path: The folder.
        facts: What its run.json says.
        digest: A checksum of run.json, which the weights and the state name: they belong to this run alone.
    """

    def __init__(self, path: Path, facts: RunFacts, digest: str) -> None:
        self.path, self.facts, self.digest = path, facts, digest

    @classmethod
    def start(cls, path: Path, facts: RunFacts) -> RunFolder:
        """Make the folder, or go on with one of the same configuration; what killed processes left there is removed.

        Raises:
            RunError: the folder holds another run, or something else, or is none.
        """
        if _is_new(path):
            content = {"format": FORMAT, **facts.to_dict()}
            write_atomically(path / "run.json", _json({**content, "digest": digest_of(content)}))
        folder = cls.open(path)
        if changed := folder.facts.differences(facts):
            raise RunError(
                f"{path} holds a run of another configuration: {'; '.join(changed)}."
                " Name another --out, or remove the folder."
            )
        remove_stale(path)
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run; RunError where there is none, or where its run.json is not as it was written."""
        file = path / "run.json"
        try:
            content = json.loads(read_bounded(file, LIMIT, RunError))
        except FileNotFoundError:
            raise RunError(f"{path} is no run folder: it has no run.json. Make one with: clipaudit train") from None
        except (ValueError, RecursionError) as error:
            raise _damaged(file, f"it cannot be read ({error})") from None
        if not isinstance(content, dict):
            raise _damaged(file, "it holds no facts")
        if content.get("format") != FORMAT:
            raise RunError(f"{path} was written by another version of clipaudit. Train again with another --out.")
        digest = content.pop("digest", None)
        if digest != digest_of(content):
            raise _damaged(file, "it was changed after it was written")
        del content["format"]
        try:
            return cls(path, RunFacts.from_dict(content), digest)
        except NewerError as error:
            raise RunError(
                f"{file} has {str(error)!r}, which this clipaudit ({__version__}) does not know: a newer version wrote"
                " it. Update clipaudit, or train again with another --out."
            ) from None
        except ValueError as error:
            raise _damaged(file, str(error)) from None

    @property
    def state(self) -> Path:
        """What the next epoch starts from."""
        return self.path / "state.safetensors"

    @property
    def last(self) -> Path:
        """Weights after the last finished epoch."""
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        """Weights after the epoch of highest accuracy on the held-out share; without one, the last."""
        return self.path / "best.safetensors"

    @property
    def architecture(self) -> Architecture | Probe:
        """Of the networks whose weights are here."""
        return self.facts.architecture

    @property
    def n_networks(self) -> int:
        """Networks in each weights file."""
        return self.facts.config.networks

    def write_history(self, history: History) -> None:
        """`metrics.jsonl` and the training curve."""
        lines = "".join(json.dumps(row) + "\n" for row in history)
        write_atomically(self.path / "metrics.jsonl", lines.encode())
        write_atomically(self.path / "curve.svg", training_curve(history).encode())

    def write_labels(self, table: pa.Table) -> None:
        """`labels.parquet`, with the run's facts in its metadata, but for the version: equal runs have equal bytes."""
        facts = {name: value for name, value in self.facts.to_dict().items() if name != "clipaudit"}
        table = table.replace_schema_metadata({b"clipaudit": json.dumps(facts).encode()})

        def write(file: BinaryIO) -> None:
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)

        write_atomically(self.path / "labels.parquet", write)

    def write_card(self, history: History, best_epoch: int, notes: Sequence[str]) -> None:
        """README.md: the model card."""
        write_atomically(self.path / "README.md", model_card(self.facts, history, best_epoch, notes).encode())


def model_card(facts: RunFacts, history: History, best_epoch: int, notes: Sequence[str]) -> str:
    """What the weights are, what they were trained on and how good they were, in Markdown."""
    architecture, last = facts.architecture, history[-1]
    measured = [
        f"| {words} | {history[best_epoch - 1][key]:.4f} | {last[key]:.4f} |"
        for key, words in (("test_accuracy", "test set"), ("val_accuracy", "held-out share of the clean subset"))
        if last.get(key) is not None
    ]
    chosen = (
        "by its accuracy on the held-out share" if last.get("val_accuracy") is not None else "because it is the last"
    )
    names = ", ".join(map(printable, facts.class_names[:20])) + (", ..." if len(facts.class_names) > 20 else "")
    settings = json.dumps(facts.config.to_dict(), indent=2)
    table = "\n".join(["| accuracy on | best weights | last weights |", "|---|---|---|", *measured])
    sections = [
        "---\nlibrary_name: clipaudit\npipeline_tag: image-classification\n---",
        f"# {architecture.model}, trained with {facts.config.title}",
        f"{len(facts.class_names):,} classes: {names}. {printable(architecture.sees)}.",
        f"Trained on the clean index of {printable(facts.index_source)} for {len(history):,} epochs."
        f" The best weights are those of epoch {best_epoch}, chosen {chosen}; the test set chose nothing.",
        table if measured else "No accuracy was measured: there was no test set, and nothing was held out.",
        "\n".join(f"- {note}" for note in notes),
        "Apply it with `clipaudit predict THIS_FOLDER IMAGES`. Weights: `best.safetensors`, `last.safetensors`"
        " (`0.` and `1.` before a name number the networks, whose probabilities are averaged).",
        f"```json\n{settings}\n```",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _is_new(path: Path) -> bool:
    """There is no folder yet, or nothing in it but what a process left that was killed while it wrote run.json."""
    try:
        if not path.exists():
            return True
        if not path.is_dir():
            raise RunError(f"{path} is {irregular(path) or 'a file'}, not a folder. Name another --out.")
        names = [entry.name for entry in path.iterdir()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"{path} cannot be opened: {reason}. Check its permissions, or name another --out.") from None
    if "run.json" in names:
        return False
    if others := sorted(name for name in names if not (name.startswith("run.json.") and name.endswith(".tmp"))):
        raise RunError(f"{path} exists and is no run of clipaudit: it holds {others[0]}. Name another --out.")
    return True


def _damaged(file: Path, words: str) -> RunError:
    return RunError(f"{file} is damaged: {words}. Restore it from a copy, or train again with another --out.")


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
