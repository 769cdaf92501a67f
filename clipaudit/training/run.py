"""A whole run: epoch after epoch, with the run folder as its memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipaudit.errors import RunError, SourceError
from clipaudit.training.checkpoints import State, load_state, save_state, save_weights, weights_of
from clipaudit.training.config import TrainConfig
from clipaudit.training.data import Samples, TrainingSet
from clipaudit.training.engine import Engine
from clipaudit.training.methods.base import Look
from clipaudit.training.outcome import counts, labels_table
from clipaudit.training.pixels import Pixels
from clipaudit.training.run_folder import RunFolder
from clipaudit.training.trainer import DivergenceError, Trainer

if TYPE_CHECKING:
    from clipaudit.training.tensorboard import Board


@dataclass(frozen=True)
class TrainProgress:
    """Where a run stands.

    Attributes:
        stage: "reading", "decoding" or "training"; with a probe "embedding" (its test set) in place of "decoding".
        done: Images decoded, or trained on in this epoch.
        total: How many there are to do; 0 where that is not known.
        epoch: Epochs finished.
        epochs: Epochs in all.
        row: The row of metrics.jsonl, when an epoch has just ended; with `done` 0 where an earlier call trained it.
    """

    stage: str
    done: int = 0
    total: int = 0
    epoch: int = 0
    epochs: int = 0
    row: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TrainSummary:
    """What a run came to.

    Attributes:
        folder: The run folder.
        history: One row an epoch, as in metrics.jsonl.
        best_epoch: The epoch of best.safetensors, counted from 1.
        n_done: Epochs that this call trained; fewer than all where it went on with an earlier one.
        device: Where it computed.
        precision: In which arithmetic.
        notes: What a user should know.
    """

    folder: Path
    history: list[dict[str, Any]]
    best_epoch: int
    n_done: int
    device: str
    precision: str
    notes: tuple[str, ...]


Progress = Callable[[TrainProgress], None]
Load = Callable[[Samples, NDArray[np.int64]], tuple[Pixels, NDArray[np.int64]]]


@dataclass(frozen=True)
class HeldOut:
    """Images that measure accuracy: `name` is "val" or "test"."""

    name: str
    pixels: Pixels
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]

    def accuracy(self, trainer: Trainer) -> float | None:
        """In [0, 1], of all networks together; None without images."""
        if not len(self.rows):
            return None
        look = trainer.engine.look(trainer.averages, self.pixels, self.rows, len(self.labels))[-1]
        return float((look.y_m == self.labels)[self.rows].mean())


@dataclass(frozen=True)
class Material:
    """What a run computes on: the training set, decoded, and what judges it; `notes` are for the user."""

    data: TrainingSet
    pixels: Pixels
    judges: list[HeldOut]
    notes: tuple[str, ...]


def load_material(data: TrainingSet, test: Samples | None, load: Load, load_test: Load) -> Material:
    """Load everything once; images that cannot be read take no part, and a note says how many.

    Raises:
        SourceError: no image of the clean subset can be read.
    """
    pixels, unreadable = load(data.samples, np.flatnonzero(data.readable))
    data = data.without(unreadable)
    if not data.clean.any():
        raise SourceError("not one image of the clean subset can be read: there is nothing to train on.")
    judges = [HeldOut("val", pixels, data.samples.labels, np.flatnonzero(data.held_out))]
    notes = data.notes()
    if len(unreadable):
        notes.append(f"{len(unreadable):,} image(s) of the index can no longer be read and take no part")
    if test is not None:
        test_pixels, gone = load_test(test, np.arange(len(test)))
        judges.append(HeldOut("test", test_pixels, test.labels, np.setdiff1d(np.arange(len(test)), gone)))
        notes += [f"{len(gone):,} test image(s) cannot be read and are not judged"] if len(gone) else []
    elif data.held_out.any():
        notes.append(
            f"no test set: accuracy is that on {int(data.held_out.sum()):,} sample(s) of the clean subset that were"
            " held out, whose labels are right only as far as the audit is"
        )
    else:
        notes.append("no test set, and nothing held out: no accuracy can be reported")
    return Material(data, pixels, judges, tuple(notes))


class Run:
    """The epochs of a run; `board` also receives each row, where there is one."""

    def __init__(
        self,
        folder: RunFolder,
        trainer: Trainer,
        material: Material,
        config: TrainConfig,
        report: Progress,
        board: Board | None,
    ) -> None:
        self._folder, self._trainer, self._material = folder, trainer, material
        self._config, self._report, self._board = config, report, board
        self._state = State()

    def to_the_end(self) -> TrainSummary:
        """Train what is left, then write what the run is for.

        Raises:
            RunError: a loss is not finite.
        """
        self._go_on()
        history = self._state.history
        n_before = len(history)
        for number in range(n_before, self._config.epochs):
            history.append(self._epoch(number))
            self._save()
            self._show(history[-1], self._trainer.n_trained)
        data = self._material.data
        self._folder.write_labels(labels_table(data, self._look(data.readable)[-1], self._config))
        self._folder.write_card(history, self._state.best_epoch, self._material.notes)
        engine: Engine = self._trainer.engine
        return TrainSummary(
            folder=self._folder.path,
            history=history,
            best_epoch=self._state.best_epoch,
            n_done=len(history) - n_before,
            device=str(engine.device),
            precision=engine.precision,
            notes=self._material.notes,
        )

    def _go_on(self) -> None:
        """Take up an earlier call's state, if there is one, and write again what that call could not or has lost."""
        folder, trainer = self._folder, self._trainer
        try:
            self._state = load_state(
                folder.state,
                folder,
                trainer.networks,
                trainer.averages,
                trainer.optimizers,
                len(self._material.data.samples),
            )
        except FileNotFoundError:
            return
        self._write_beside()
        for row in self._state.history:
            self._show(row, 0)

    def _epoch(self, number: int) -> dict[str, Any]:
        """Train one epoch and look at X_n; returns its row."""
        trainer, config, data = self._trainer, self._config, self._material.data

        def trained(done: int, total: int) -> None:
            self._report(TrainProgress("training", done, total, number, config.epochs))

        try:
            result = trainer.train_epoch(number, self._state.looks, trained)
        except DivergenceError as error:
            kept = (
                f"The weights of epoch {number} are kept in {self._folder.last}" if number else "No epoch was finished"
            )
            raise RunError(f"{error}. {kept}. Try a smaller --learning-rate and another --out.") from None
        row: dict[str, Any] = {
            "epoch": number + 1,
            "learning_rate": config.learning_rate_in(number),
            "loss": result.loss,
            "n_samples": result.n_samples,
        }
        row |= {f"{judge.name}_accuracy": judge.accuracy(trainer) for judge in self._material.judges}
        if trainer.method.look_every and (number + 1) % trainer.method.look_every == 0:
            self._state.looks = self._look(data.usable if config.relabel_selected else data.usable & ~data.clean)
        if self._state.looks:
            row |= counts(data, self._state.looks[-1], config)
        return row

    def _look(self, wanted: NDArray[np.bool_]) -> list[Look]:
        rows, n = np.flatnonzero(wanted), len(self._material.data.samples)
        return self._trainer.engine.look(self._trainer.averages, self._material.pixels, rows, n)

    def _save(self) -> None:
        """Keep an epoch. State first: from it alone the next call restores whatever a killed one did not write."""
        state, trainer = self._state, self._trainer
        # The highest accuracy on the held-out share; without one, the last. Never the test set's.
        accuracy = state.history[-1]["val_accuracy"]
        best = state.history[state.best_epoch - 1]["val_accuracy"] if state.best_epoch else None
        if accuracy is None or best is None or accuracy > best:
            state.best_epoch, state.best = len(state.history), weights_of(trainer.averages)
        save_state(self._folder.state, self._folder, trainer.networks, trainer.averages, trainer.optimizers, state)
        self._write_beside()

    def _write_beside(self) -> None:
        folder, state = self._folder, self._state
        save_weights(folder.best, folder, state.best, state.best_epoch)
        save_weights(folder.last, folder, weights_of(self._trainer.averages), len(state.history))
        folder.write_history(state.history)

    def _show(self, row: dict[str, Any], done: int) -> None:
        if self._board:
            self._board.write(row)
        self._report(TrainProgress("training", done, done, row["epoch"], self._config.epochs, row))
