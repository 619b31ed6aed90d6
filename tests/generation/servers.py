"""A small HTTP server that speaks OpenAI's protocol, goes wrong as it is told, and remembers."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


def reply(handler: BaseHTTPRequestHandler, status: int, content: Any, **headers: str) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def upper(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """Answers with what was asked, in capitals, of at most ``max_tokens`` words."""
    user = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    words = user.upper().split()
    text, most = " ".join(words[: body["max_tokens"]]), body["max_tokens"]
    choice = (
        {"message": {"role": "assistant", "content": text}}
        if "messages" in body
        else {"text": text}
    )
    choice["finish_reason"] = "length" if len(words) > most else "stop"
    usage = {"prompt_tokens": len(words), "completion_tokens": min(len(words), most)}
    reply(handler, 200, {"choices": [choice], "usage": usage})


class Server:
    """``script`` holds what becomes of the next requests; behind it ``otherwise`` does."""

    def __init__(self, otherwise: Reply) -> None:
        self.script: list[Reply] = []
        self.otherwise = otherwise
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: Counter[str] = Counter()
        self.tokenize: Reply | None = None
        self.names = ["small", "large"]
        self.lock = threading.Lock()
        self.most_at_once = self._now = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                reply(self, 200, {"data": [{"id": name} for name in server.names]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.handle(self, body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def handle(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self.lock:
            self.paths[handler.path] += 1
            if handler.path == "/tokenize":
                does = self.tokenize or (lambda one, _: reply(one, 404, {"error": "no"}))
            else:
                self.bodies.append(body)
                self.headers.append(dict(handler.headers))
                does = self.script.pop(0) if self.script else self.otherwise
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            does(handler, body)
        finally:
            with self.lock:
                self._now -= 1


@contextmanager
def serving(otherwise: Reply = upper) -> Iterator[Server]:
    server = Server(otherwise)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
