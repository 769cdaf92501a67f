"""Language models that answer in text: an OpenAI-compatible endpoint, or a local folder through transformers."""

from __future__ import annotations

import http.client
import json
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from email.message import Message as Headers
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from clipaudit.errors import ClipAuditError, ModelError, UsageError
from clipaudit.files import irregular
from clipaudit.options.arguments import typed

if TYPE_CHECKING:
    import torch

KEY_VARIABLES = ("CLIPAUDIT_API_KEY", "OPENAI_API_KEY")
MAX_NEW_TOKENS = 600
LONGEST_TIMEOUT = 86_400.0
_MAX_REPLY_BYTES = 1 << 20
_MAX_ERROR_BYTES = 1 << 16
_SHOWN_CHARACTERS = 200
_KEY_PIECE = 8
# One visible character, as it is or as JSON writes it.
_CHARACTER = re.compile(r"\\u[0-9a-fA-F]{4}|\\\S|\S")
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


@typed
class Endpoint:
    """A server with `POST {url}/chat/completions` as OpenAI defines it.

    The key comes from the environment (KEY_VARIABLES, the first that is set) and goes nowhere but into the request.

    Args:
        url: Up to the version, such as http://localhost:8000/v1.
        model: Its name there.
        timeout: Seconds for a whole answer, from looking up the server to its last byte; above 0, at most a day.

    Raises:
        UsageError: the URL, the timeout or the key cannot be used.
    """

    def __init__(self, url: str, model: str, *, timeout: float = 120.0) -> None:
        self._key = _key()
        _refuse_url(url, self._key)
        if not 0 < timeout <= LONGEST_TIMEOUT:
            raise UsageError(f"--timeout must be above 0 seconds and at most {LONGEST_TIMEOUT:,}, not {timeout}.")
        self._url, self._model, self._timeout = url.rstrip("/") + "/chat/completions", model, timeout
        self._opener = build_opener(_NoRedirects)

    def answer(self, messages: Sequence[Message]) -> str:
        """Ask once.

        Raises:
            NoAnswerError: out of reach, timed out, busy, or a reply of another form; another try may help.
            ModelError: the server refuses the request (the key, the model's name or the URL is wrong), or answers with
                the key.
        """
        body = json.dumps({"model": self._model, "messages": [dict(message) for message in messages]}).encode()
        try:
            reply = _within(self._timeout, lambda: self._send(body))
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            if isinstance(reason, TimeoutError):
                raise NoAnswerError(f"{self._said()} gave no whole answer within {self._timeout:g} s") from None
            detail = self._detail(str(reason) or type(reason).__name__)
            raise NoAnswerError(f"{self._said()} cannot be reached{detail}") from None
        if reply.status >= 300:
            raise self._refusal(reply)
        return self._content(reply.body)

    def _send(self, body: bytes) -> _Reply:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        try:
            with self._opener.open(Request(self._url, body, headers), timeout=self._timeout) as reply:
                return _Reply(reply.status, reply.headers, reply.read(_MAX_REPLY_BYTES + 1))
        except HTTPError as error:
            with error:
                return _Reply(error.code, error.headers, _rest(error))

    def _refusal(self, reply: _Reply) -> ClipAuditError:
        said = f"{self._said()} answered HTTP {reply.status}{self._detail(reply.body.decode('utf-8', 'replace'))}"
        if reply.status in _WORTH_ANOTHER_TRY:
            return NoAnswerError(said, _seconds(reply.headers.get("Retry-After")))
        if reply.status in (401, 403):
            return ModelError(f"{said}. Is the key in {' or '.join(KEY_VARIABLES)} right?")
        if reply.status < 400:
            return ModelError(f"{said}: it points elsewhere, where the key is not sent. Name the final URL.")
        return ModelError(f"{said}. Is the URL (up to the version, such as /v1) right, and the model {self._model!r}?")

    def _said(self) -> str:
        return mask_key(self._url, self._key)

    def _detail(self, text: str) -> str:
        """What the server said, for an error: some servers repeat the key that they were given, so mask, then cut."""
        shown = mask_key(" ".join(text.split()), self._key)[:_SHOWN_CHARACTERS]
        return f" ({shown})" if shown else ""

    def _content(self, reply: bytes) -> str:
        if len(reply) > _MAX_REPLY_BYTES:
            raise NoAnswerError(f"{self._said()} answered with more than {_MAX_REPLY_BYTES:,} bytes")
        try:
            content = json.loads(reply)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            content = None
        if not isinstance(content, str):
            raise NoAnswerError(f"{self._said()} does not speak the protocol: no text in choices[0].message.content")
        # A short key (such as "EMPTY", for a server that wants none) is no secret, and may be a word of a good answer.
        if len(self._key) >= _KEY_PIECE and mask_key(content, self._key) != content:
            raise ModelError(
                f"{self._said()} answered with the key that it was sent, or with a part of it. Nothing of that answer"
                " is kept. Find out why before you send the key there again."
            )
        return content


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: Headers
    body: bytes


def _within(seconds: float, work: Callable[[], _Reply]) -> _Reply:
    """What `work` returns or raises; TimeoutError after so many seconds, whatever it is busy with.

    A socket's own timeout starts again with every byte. The thread that is left behind ends with the connection, and
    holds no process up.
    """
    outcome: Future[_Reply] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if not wait([outcome], seconds).done:
        raise TimeoutError
    return outcome.result()


def _rest(error: HTTPError) -> bytes:
    try:
        return error.read(_MAX_ERROR_BYTES)
    except (OSError, http.client.HTTPException):
        return b""


def mask_key(text: str, key: str) -> str:
    """The text with `***` for the key and for every part of it that is worth something to a finder.

    Such a part has eight characters or more. It is found across blanks and line breaks, and where JSON escapes it.
    """
    places = list(_CHARACTER.finditer(text))
    plain, secret = "".join(map(_unescaped, places)), "".join(map(_unescaped, _CHARACTER.finditer(key)))
    size = min(len(secret), _KEY_PIECE)
    pieces = {secret[start : start + size] for start in range(len(secret) - size + 1)} - {""}
    masked, end = "", 0
    for start in range(len(plain) - size + 1):
        if plain[start : start + size] in pieces:
            begin = places[start].start()
            if begin >= end:
                masked += f"{text[end:begin]}***"
            end = places[start + size - 1].end()
    return masked + text[end:]


def _unescaped(character: re.Match[str]) -> str:
    written = character[0]
    return chr(int(written[2:], 16)) if len(written) == 6 else written[-1]


class _NoRedirects(HTTPRedirectHandler):
    """Following one would hand the key to whatever server it names."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Headers, newurl: str
    ) -> Request | None:
        return None


def _refuse_url(url: str, key: str) -> None:
    if "@" in url:
        raise UsageError(f"the endpoint's URL must not hold a password. Put the key into {KEY_VARIABLES[0]}.")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")  # Raises where a part of the name is empty or too long.
    except ValueError:
        usable = False
    if not (usable and url.isascii() and url.isprintable() and " " not in url):
        raise UsageError(
            f"the endpoint {mask_key(url, key)!r} is no http or https URL, such as http://localhost:8000/v1."
        )


def _key() -> str:
    key = next((value for name in KEY_VARIABLES if (value := os.environ.get(name, "").strip())), "")
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"the key in {' or '.join(KEY_VARIABLES)} has characters that no key has. Set it again.")
    return key


def _seconds(retry_after: str | None) -> float | None:
    # The other form, a date, is rare; the usual pause does then.
    return float(retry_after) if retry_after and retry_after.strip().isdecimal() else None


@typed
class LocalModel:
    """A text-generation model folder, run here. Code in the folder is never run; answers are greedy, so repeatable.

    Args:
        folder: What `save_pretrained` writes, of a causal language model and its tokenizer.
        device: "auto" or a torch device.
        max_new_tokens: Length of an answer at most.

    Raises:
        ModelError: the folder cannot be loaded.
        UsageError: the device cannot be used.
    """

    def __init__(self, folder: str | Path, *, device: str = "auto", max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from clipaudit.clip.devices import choose_device
        from clipaudit.clip.trial import check_model_folder

        folder = Path(folder)
        if not _is_folder(folder):
            raise ModelError(
                f"{folder} is no folder of a language model. Name one, or a server's model with --endpoint URL."
            )
        check_model_folder(str(folder))
        place: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        self._folder, self._device, self._max_new_tokens = folder, choose_device(device), max_new_tokens
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, **place)
            # Pickled weights could run code.
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True, **place)
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
        if limit and length + self._max_new_tokens > limit:
            raise ModelError(
                f"{length} tokens to read and {self._max_new_tokens} to write are more than the {limit} that"
                f" {self._folder} has room for. Choose a model that reads more."
            )
        with torch.inference_mode():
            generated = self._model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                max_new_tokens=self._max_new_tokens,
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


def _is_folder(path: Path) -> bool:
    try:
        return irregular(path) == "a folder"
    except (OSError, ValueError):  # Path.is_dir raises, too, for instance where the name is too long.
        return False
