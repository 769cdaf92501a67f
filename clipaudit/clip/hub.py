"""Models that are no local folders: their short names, and whether the Hugging Face hub can be reached at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from clipaudit.clip.devices import first_line
from clipaudit.errors import ModelError
from clipaudit.options.shared import MODELS
from clipaudit.remote import without_secrets

# How long the hub may take to answer at all, in seconds; the hub's own client reads the same variable.
PATIENCE, PATIENCE_VARIABLE = 3.0, "HF_HUB_ETAG_TIMEOUT"


def hub_id(model: str) -> str:
    """The hub id behind a short name; anything else, a local folder of that name included, as it is."""
    return model if Path(model).is_dir() else MODELS.get(model, model)


def only_cached(model: str, revision: str | None) -> bool:
    """Whether a model has to come from the hub's cache on this disk, as the hub cannot be reached.

    The hub's client repeats each request for half a minute. Whether anything answers shows in one.

    Raises:
        ModelError: it cannot be reached, and the model is not in the cache.
    """
    if Path(model).is_dir():
        return False
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        held = try_to_load_from_cache(model, "config.json", revision=revision)
    except HFValidationError:
        return False  # No id of the hub: who loads the model says so without asking there.
    reason = _silence(model, revision or "main")
    if reason is None:
        return False
    if isinstance(held, str):
        return True
    raise ModelError(
        f"the model {model} cannot be loaded: it is no local folder, the cache {constants.HF_HUB_CACHE} does not hold"
        f" it, and the Hugging Face hub at {without_secrets(constants.ENDPOINT)} cannot be reached"
        f" ({without_secrets(reason)}). Do one of these:",
        f"copy the model where there is a network (hf download {model} --local-dir FOLDER), bring the folder, and name"
        " it: --model FOLDER",
        "name a mirror of the hub that can be reached: HF_ENDPOINT=https://...",
        "bring the cache of a machine that has the model, and name it: HF_HOME=FOLDER",
    )


def _silence(model: str, revision: str) -> str | None:
    """Why the hub does not answer; None where it does, whatever it says."""
    from huggingface_hub import constants, get_session, hf_hub_url

    patience = constants.HF_HUB_ETAG_TIMEOUT if PATIENCE_VARIABLE in os.environ else PATIENCE
    failures: list[Exception | None] = []

    def ask() -> None:
        try:
            address = hf_hub_url(model, "config.json", revision=revision)
            get_session().head(address, timeout=patience, follow_redirects=False)
            failures.append(None)
        except Exception as error:
            # The client, its proxies and its settings raise types of their own.
            failures.append(error)

    # In a thread: no time limit of a request holds for the look-up of a name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    if not failures:
        return f"no answer within {patience:g} s; {PATIENCE_VARIABLE}=30 waits longer"
    return None if failures[0] is None else first_line(failures[0]).rstrip(".")
