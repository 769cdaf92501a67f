"""Weights and the whole state of a run as safetensors with JSON in their header: nothing in them can be executed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from clipaudit.errors import RunError
from clipaudit.files import write_atomically
from clipaudit.mixfix.methods import Look

_KEY = "clipaudit"


def save_weights(path: Path, networks: Sequence[nn.Module], facts: Mapping[str, Any]) -> None:
    """All networks' weights, `0.` and `1.` before their names."""
    _save(path, _weights(networks), facts)


def load_weights(path: Path, networks: Sequence[nn.Module]) -> dict[str, Any]:
    """Fill the networks; returns the facts. RunError where the file is missing, damaged or of another architecture."""
    tensors, facts = _load(path)
    _fill(path, networks, tensors)
    return facts


def save_state(
    path: Path,
    networks: Sequence[nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    looks: Sequence[Look],
    facts: Mapping[str, Any],
) -> None:
    """All that the next epoch depends on: weights, momentum, what the networks saw; randomness has no state."""
    tensors = _weights(networks)
    for number, (network, optimizer) in enumerate(zip(networks, optimizers, strict=True)):
        for name, parameter in network.named_parameters():
            if (momentum := optimizer.state[parameter].get("momentum_buffer")) is not None:
                tensors[f"{number}.momentum.{name}"] = momentum.detach().cpu().contiguous()
    for number, look in enumerate(looks):
        tensors[f"{number}.look.p_m"] = torch.from_numpy(look.p_m)
        tensors[f"{number}.look.y_m"] = torch.from_numpy(look.y_m)
    _save(path, tensors, {**facts, "looks": len(looks)})


def load_state(
    path: Path, networks: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]
) -> tuple[list[Look], dict[str, Any]]:
    """The inverse of `save_state`: fills networks and optimizers, returns looks and facts."""
    tensors, facts = _load(path)
    for number, (network, optimizer) in enumerate(zip(networks, optimizers, strict=True)):
        for name, parameter in network.named_parameters():
            if (momentum := tensors.pop(f"{number}.momentum.{name}", None)) is not None:
                optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
    looks = [
        Look(*(np.array(tensors.pop(f"{number}.look.{name}").numpy()) for name in ("p_m", "y_m")))
        for number in range(facts.pop("looks"))
    ]
    _fill(path, networks, tensors)
    return looks, facts


def _weights(networks: Sequence[nn.Module]) -> dict[str, torch.Tensor]:
    return {
        f"{number}.{name}": tensor.detach().cpu().contiguous()
        for number, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }


def _fill(path: Path, networks: Sequence[nn.Module], tensors: Mapping[str, torch.Tensor]) -> None:
    for number, network in enumerate(networks):
        prefix = f"{number}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        try:
            network.load_state_dict(own)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"{path} holds the weights of another architecture: {reason}") from None


def _save(path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    write_atomically(path, save(dict(tensors), {_KEY: json.dumps(facts)}))


def _load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except FileNotFoundError:
        raise RunError(f"there are no weights in {path}: the run has not finished its first epoch.") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunError(f"{path} is damaged or not one of clipaudit's: {error}. Remove it and run again.") from None
