"""Weights and the whole state of a run as safetensors with JSON in their header: nothing in them can be executed.

The header names the run that they belong to and holds a checksum over all that the file says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from clipaudit.errors import RunError
from clipaudit.files import require_file, write_atomically
from clipaudit.training.methods.base import Look
from clipaudit.training.run_check import check_count, check_history, check_look, digest_of
from clipaudit.training.run_folder import RunFolder

_KEY = "clipaudit"
_BEST, _AVERAGE = "best.", "average."

Tensors = dict[str, torch.Tensor]


@dataclass
class State:
    """What a run knows after an epoch, beside its networks, their averages and momentum.

    Attributes:
        looks: What each network saw last, and what they saw together.
        history: One row an epoch, as in metrics.jsonl.
        best_epoch: The epoch of the best weights, counted from 1.
        best: These weights, by name; so the state alone can restore every other file of the run.
    """

    looks: list[Look] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best: Tensors = field(default_factory=dict)


def weights_of(networks: Sequence[nn.Module]) -> Tensors:
    """A copy of all networks' weights on the host, `0.` and `1.` before their names."""
    return {
        f"{number}.{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for number, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }


def save_weights(path: Path, folder: RunFolder, weights: Tensors, epoch: int) -> None:
    """The weights of a run after an epoch."""
    _save(path, weights, {"run": folder.digest, "epoch": epoch})


def load_weights(path: Path, folder: RunFolder, networks: Sequence[nn.Module]) -> None:
    """Fill the networks.

    Raises:
        RunError: the file is missing, may not be read, is damaged, or belongs to another run.
    """
    try:
        tensors, _ = _load(path, folder)
    except FileNotFoundError:
        raise RunError(
            f"there are no weights in {path}: the run has not finished its first epoch, or they were removed."
            " Give its train command again."
        ) from None
    _fill(path, networks, tensors)


def save_state(
    path: Path,
    folder: RunFolder,
    networks: Sequence[nn.Module],
    averages: Sequence[nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    state: State,
) -> None:
    """All that the next epoch depends on: weights, their averages, momentum, what was seen; randomness has no state."""
    tensors = weights_of(networks)
    if averages is not networks:
        tensors |= {_AVERAGE + name: tensor for name, tensor in weights_of(averages).items()}
    for number, (network, optimizer) in enumerate(zip(networks, optimizers, strict=True)):
        for name, parameter in network.named_parameters():
            if (momentum := optimizer.state[parameter].get("momentum_buffer")) is not None:
                tensors[f"{number}.momentum.{name}"] = momentum.detach().cpu().contiguous()
    for number, look in enumerate(state.looks):
        tensors[f"{number}.look.p_m"] = torch.from_numpy(look.p_m)
        tensors[f"{number}.look.y_m"] = torch.from_numpy(look.y_m)
    if state.best_epoch < len(state.history):
        tensors |= {_BEST + name: tensor for name, tensor in state.best.items()}
    facts = {"run": folder.digest, "history": state.history, "best_epoch": state.best_epoch, "looks": len(state.looks)}
    _save(path, tensors, facts)


def load_state(
    path: Path,
    folder: RunFolder,
    networks: Sequence[nn.Module],
    averages: Sequence[nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    n: int,
) -> State:
    """The inverse of `save_state`: fills networks, averages and optimizers.

    Args:
        path: The file.
        folder: The run it must belong to.
        networks: To fill.
        averages: To fill; the networks themselves where nothing is averaged.
        optimizers: To fill.
        n: Samples of the index.

    Raises:
        FileNotFoundError: there is none.
        RunError: it may not be read, is damaged, or belongs to another run.
    """
    tensors, facts = _load(path, folder)
    try:
        check_history(facts.get("history"), facts.get("best_epoch"), folder.facts.config.epochs)
        looks = _pop_looks(tensors, check_count("looks", facts.get("looks")), n, len(folder.facts.class_names))
        for number, (network, optimizer) in enumerate(zip(networks, optimizers, strict=True)):
            _fill_momentum(tensors, number, network, optimizer)
    except (ValueError, KeyError) as error:
        raise _damaged(path, str(error)) from None
    best, averaged = _pop(tensors, _BEST), _pop(tensors, _AVERAGE)
    _fill(path, networks, tensors)
    if averages is not networks:
        _fill(path, averages, averaged)
    return State(looks, facts["history"], facts["best_epoch"], best or weights_of(averages))


def _pop(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}


def _pop_looks(tensors: Tensors, count: int, n: int, classes: int) -> list[Look]:
    looks = []
    for number in range(count):
        p_m, y_m = (tensors.pop(f"{number}.look.{name}").clone().numpy() for name in ("p_m", "y_m"))
        check_look(p_m, y_m, n, classes)
        looks.append(Look(p_m, y_m))
    return looks


def _fill_momentum(tensors: Tensors, number: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for name, parameter in network.named_parameters():
        if (momentum := tensors.pop(f"{number}.momentum.{name}", None)) is not None:
            if momentum.shape != parameter.shape:
                raise ValueError(f"the momentum of {name} has another shape than its weights")
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)


def _fill(path: Path, networks: Sequence[nn.Module], tensors: Mapping[str, torch.Tensor]) -> None:
    for number, network in enumerate(networks):
        prefix = f"{number}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        try:
            network.load_state_dict(own)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"{path} holds the weights of another architecture: {reason}") from None


def _save(path: Path, tensors: Tensors, facts: Mapping[str, Any]) -> None:
    # One entry: safetensors writes several in any order, and equal runs have equal bytes.
    write_atomically(path, save(tensors, {_KEY: json.dumps({**facts, "digest": _digest(facts, tensors)})}))


def _load(path: Path, folder: RunFolder) -> tuple[Tensors, dict[str, Any]]:
    require_file(path, RunError)
    try:
        with safe_open(path, "pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        is_right = facts.pop("digest") == _digest(facts, tensors)
    except Exception as error:
        # safetensors, torch and json have types of their own for what a damaged file may hold.
        raise _damaged(path, f"it cannot be read ({str(error) or type(error).__name__})") from None
    if not is_right:
        raise _damaged(path, "its content does not match its checksum")
    if facts.get("run") != folder.digest:
        raise RunError(f"{path} belongs to another run than the run.json beside it. Restore both from one copy.")
    return tensors, facts


def _digest(facts: Mapping[str, Any], tensors: Tensors) -> str:
    digest = blake2b(digest_of(facts).encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _damaged(path: Path, words: str) -> RunError:
    remedy = (
        "Remove it and train again: the run then starts from its first epoch."
        if path.name.startswith("state")
        else "Give the run's train command again: it restores the weights."
    )
    return RunError(f"{path} is damaged: {words}. {remedy}")
