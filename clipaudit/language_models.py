"""Language models that answer in text: an OpenAI-compatible endpoint, or a local folder through transformers."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Mapping, Sequence
from email.message import Message as Headers
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from clipaudit.errors import ClipAuditError, ModelError, UsageError

if TYPE_CHECKING:
    import torch

KEY_VARIABLES = ("CLIPAUDIT_API_KEY", "OPENAI_API_KEY")
MAX_NEW_TOKENS = 600
_MAX_REPLY_BYTES = 1 << 20
_WORTH_ANOTHER_TRY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})

Message = Mapping[str, str]
"""One turn of a conversation: `role` (system, user or assistant) and `content`."""


class LanguageModel(Protocol):
    """Whatever answers a conversation."""

    def answer(self, messages: Sequence[Message]) -> str:
        """The next turn. Raises NoAnswerError where another try may help, ModelError where it cannot."""
        ...


class NoAnswerError(ClipAuditError):
    """No answer this time: the server is busy, out of reach or talks nonsense.

    Attributes:
        retry_after: Seconds that the server asks to wait; None where it does not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Endpoint:
    """A server with `POST {url}/chat/completions` as OpenAI defines it.

    The key comes from the environment (KEY_VARIABLES, the first that is set) and goes nowhere but into the request.

    Args:
        url: Up to the version, such as http://localhost:8000/v1.
        model: Its name there.
        timeout: Seconds without a byte from the server.
    """

    def __init__(self, url: str, model: str, *, timeout: float = 120.0) -> None:
        _refuse_url(url)
        if not 0 < timeout < threading.TIMEOUT_MAX:
            raise UsageError(f"the timeout must be above 0 seconds, not {timeout}.")
        self._url, self._model, self._timeout = url.rstrip("/") + "/chat/completions", model, timeout
        self._key = _key()
        self._opener = build_opener(_NoRedirects)

    def answer(self, messages: Sequence[Message]) -> str:
        """Ask once.

        Raises:
            NoAnswerError: out of reach, timed out, busy, or a reply of another form; another try may help.
            ModelError: the server refuses the request: the key, the model's name or the URL is wrong.
        """
        body = json.dumps({"model": self._model, "messages": [dict(message) for message in messages]}).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        try:
            with self._opener.open(Request(self._url, body, headers), timeout=self._timeout) as reply:
                content = reply.read(_MAX_REPLY_BYTES + 1)
        except HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except TimeoutError:
            raise NoAnswerError(f"{self._url} gave no answer within {self._timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise NoAnswerError(f"{self._url} cannot be reached: {reason or type(error).__name__}") from None
        return self._content(content)

    def _refusal(self, error: HTTPError) -> ClipAuditError:
        said = f"{self._url} answered HTTP {error.code}{self._detail(error)}"
        if error.code in _WORTH_ANOTHER_TRY:
            return NoAnswerError(said, _seconds(error.headers.get("Retry-After")))
        if error.code in (401, 403):
            return ModelError(f"{said}. Is the key in {' or '.join(KEY_VARIABLES)} right?")
        if 300 <= error.code < 400:
            return ModelError(f"{said}: it points elsewhere, where the key is not sent. Name the final URL.")
        return ModelError(f"{said}. Is the URL (up to the version, such as /v1) right, and the model {self._model!r}?")

    def _detail(self, error: HTTPError) -> str:
        try:
            detail = " ".join(error.read(2000).decode("utf-8", "replace").split())[:200]
        except (OSError, http.client.HTTPException):
            return ""
        # Some servers repeat the key that they were given.
        return f" ({detail.replace(self._key, '***') if self._key else detail})" if detail else ""

    def _content(self, reply: bytes) -> str:
        try:
            content = json.loads(reply)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            content = None
        if not isinstance(content, str) or len(reply) > _MAX_REPLY_BYTES:
            raise NoAnswerError(f"{self._url} does not speak the protocol: no text in choices[0].message.content")
        return content


class _NoRedirects(HTTPRedirectHandler):
    """Following one would hand the key to whatever server it names."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Headers, newurl: str
    ) -> Request | None:
        return None


def _refuse_url(url: str) -> None:
    if "@" in url:
        raise UsageError(f"the endpoint's URL must not hold a password. Put the key into {KEY_VARIABLES[0]}.")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not (usable and url.isascii() and url.isprintable() and " " not in url):
        raise UsageError(f"the endpoint {url!r} is no http or https URL, such as http://localhost:8000/v1.")


def _key() -> str:
    key = next((value for name in KEY_VARIABLES if (value := os.environ.get(name, "").strip())), "")
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"the key in {' or '.join(KEY_VARIABLES)} has characters that no key has. Set it again.")
    return key


def _seconds(retry_after: str | None) -> float | None:
    # The other form, a date, is rare; the usual pause does then.
    return float(retry_after) if retry_after and retry_after.strip().isdecimal() else None


class LocalModel:
    """A text-generation model folder, run here. Code in the folder is never run; answers are greedy, so repeatable.

    Args:
        folder: What `save_pretrained` writes, of a causal language model and its tokenizer.
        device: "auto" or a torch device.

    Raises:
        ModelError: the folder cannot be loaded.
        UsageError: the device cannot be used.
    """

    def __init__(self, folder: Path, *, device: str = "auto") -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from clipaudit.encoders import choose_device

        if not folder.is_dir():
            raise ModelError(
                f"{folder} is no folder of a language model. Name one, or a server's model with --endpoint URL."
            )
        place: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        self._folder, self._device = folder, choose_device(device)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, **place)
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", **place)
        except Exception as error:
            # transformers and safetensors raise types of their own when a folder is not right.
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"the language model {folder} cannot be loaded: {first_line}") from error
        self._model = model.to(self._device).eval()

    def answer(self, messages: Sequence[Message]) -> str:
        """Generate the next turn. Raises ModelError where the conversation is longer than the model reads."""
        import torch

        tokens = self._tokens(messages)
        length, limit = tokens.shape[1], getattr(self._model.config, "max_position_embeddings", None)
        if limit and length + MAX_NEW_TOKENS > limit:
            raise ModelError(
                f"{length} tokens to read and {MAX_NEW_TOKENS} to write are more than the {limit} that"
                f" {self._folder} has room for. Choose a model that reads more."
            )
        with torch.inference_mode():
            generated = self._model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                max_new_tokens=MAX_NEW_TOKENS,
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id,
            )
        return str(self._tokenizer.decode(generated[0, length:], skip_special_tokens=True))

    def _tokens(self, messages: Sequence[Message]) -> torch.Tensor:
        conversation = [dict(message) for message in messages]
        if self._tokenizer.chat_template:
            encoded = self._tokenizer.apply_chat_template(
                conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        else:
            text = "\n\n".join(message["content"] for message in conversation)
            encoded = self._tokenizer(f"{text}\n\n", return_tensors="pt")
        tokens: torch.Tensor = encoded["input_ids"].to(self._device)
        return tokens
