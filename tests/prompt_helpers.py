"""For the tests of `clipaudit prompts`: the command in this process, made-up classes, a chat completions server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from conftest import any_image
from typer.testing import CliRunner, Result

from clipaudit.cli.app import app
from clipaudit.prompts.language_models import Message

CLASSES = ("fluffy_dragon", "lynx", "red_fox", "sea_cow", "wolf")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["prompts", *map(str, words)])


def features_of(name: str, n: int = 8) -> list[str]:
    """Features that no other class shares a word with, but "has"."""
    mark = "".join(filter(str.isalnum, name))
    return [f"has {mark}{number} marks" for number in range(n)]


def write_photos(root: Path) -> Path:
    """A folder of five made-up classes."""
    for name in CLASSES:
        (root / "photos" / name).mkdir(parents=True)
        any_image().save(root / "photos" / name / "1.png")
    return root / "photos"


@dataclass
class Reply:
    """One scripted reply: a status with a body, a silence, or bytes that a server should not send as they come."""

    content: str | None = None
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    stream: Iterable[bytes] | None = None


class Server(ThreadingHTTPServer):
    """Speaks the chat completions protocol: scripted replies first, then good features for whatever is asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        server = self.server
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.requests.append({"path": self.path, **asked})
        server.keys.append(self.headers.get("Authorization"))
        reply = (
            server.script.pop(0) if server.script else Reply(json.dumps(features_of(asked_class(asked["messages"]))))
        )
        if reply.hang:
            server.released.wait(30)
            return
        if reply.stream is not None:
            for piece in reply.stream:
                if server.released.is_set():
                    break
                self.wfile.write(piece)
            return
        body = reply.body
        if body is None:
            body = json.dumps({"choices": [{"message": {"role": "assistant", "content": reply.content}}]}).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Not to the test's output."""


def asked_class(messages: Sequence[Message]) -> str:
    return messages[1]["content"].split('of the class "')[1].split('"')[0]
