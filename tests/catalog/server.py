"""A file server on 127.0.0.1 that behaves as badly as it is told to."""

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Files by path; `behave` has what happens to the next requests instead, one after the other."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.behave: list[Callable[[Handler, bytes], None]] = []
        self.always: Callable[[Handler, bytes], None] | None = None
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that goes away is what some tests are about


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        content = self.server.files.get(self.path.partition("?")[0])
        if self.server.behave:
            self.server.behave.pop(0)(self, content or b"")
        elif self.server.always:
            self.server.always(self, content or b"")
        elif content is None:
            self.answer(404, b"<!DOCTYPE html><title>Not found</title>", kind="text/html")
        else:
            self.serve(content)

    def serve(self, content: bytes, *, etag: str | None = None, limit: int | None = None) -> None:
        """The file, or the part that is asked for of this version of it; breaks off after `limit` bytes."""
        etag = etag or f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        start, status = 0, 200
        if (asked := self.headers.get("Range")) and self.headers.get("If-Range") == etag:
            start, status = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]), 206  # type: ignore[index]
        if start >= len(content) and status == 206:
            self.answer(416, b"", headers={"Content-Range": f"bytes */{len(content)}"})
            return
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(status, content[start:], headers=headers, limit=limit)

    def answer(
        self,
        status: int,
        body: bytes,
        *,
        kind: str = "application/octet-stream",
        headers: dict[str, str] | None = None,
        length: int | None = None,
        limit: int | None = None,
    ) -> None:
        """An answer whose length may be a lie, and which may break off after `limit` bytes."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.server.sent += len(body[:limit])  # before: a client that has it all does not wait for this thread
        self.wfile.write(body[:limit])
        self.wfile.flush()
        if limit is not None or length is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


def breaks_off(after: int) -> Callable[[Handler, bytes], None]:
    return lambda handler, content: handler.serve(content, limit=after)


def stalls(after: int, seconds: float) -> Callable[[Handler, bytes], None]:
    def behave(handler: Handler, content: bytes) -> None:
        handler.serve(content, limit=after)
        time.sleep(seconds)

    return behave


def says(status: int, body: bytes = b"", **how: Any) -> Callable[[Handler, bytes], None]:
    return lambda handler, _: handler.answer(status, body, **how)


def redirects(to: str, status: int = 302) -> Callable[[Handler, bytes], None]:
    return says(status, headers={"Location": to})


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
