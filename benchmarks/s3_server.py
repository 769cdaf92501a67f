"""A server of S3's protocol (moto) that tests and benchmarks start, and that can be busy or slow."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Any

KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"


class Store:
    """What the server is told.

    Attributes:
        url: Its address.
        busy: How many requests it answers with 503 before it works again.
        pause: Seconds that each request takes at least.
        asked: Requests by their method.
        before: Called with the method and path of each request.
    """

    def __init__(self, application: Any) -> None:
        self.url, self.busy, self.pause = "", 0, 0.0
        self.asked: Counter[str] = Counter()
        self.before: Callable[[str, str], None] = lambda method, path: None
        self._application, self._lock = application, Lock()

    def __call__(self, environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        """Answer one request, as WSGI has it."""
        with self._lock:
            self.asked[environment["REQUEST_METHOD"]] += 1
            is_busy = self.busy > 0
            self.busy -= is_busy
        if is_busy:
            start("503 Service Unavailable", [("Content-Type", "application/xml")])
            return [b"<Error><Code>ServiceUnavailable</Code><Message>Please reduce your rate.</Message></Error>"]
        time.sleep(self.pause)
        self.before(environment["REQUEST_METHOD"], environment["PATH_INFO"])
        answer: Iterable[bytes] = self._application(environment, start)
        return answer

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which s3fs finds it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def s3_server() -> Iterator[Store]:
    """A server in threads of this process."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    store = Store(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, store, threaded=True)
    store.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield store
    finally:
        server.shutdown()
