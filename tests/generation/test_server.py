"""The server of transformers, killed in the middle of a run: nothing is paid twice."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import tamis
from tamis.filters.refine.stage import ProX
from tamis.generation.generator import Prompt
from tamis.generation.setting import read_generator
from tamis.pipeline.errors import TamisError
from tamis.pipeline.pipeline import Pipeline
from tests.generation.servers import reply, serving

pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")

DOCUMENTS = 9


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def transformers_serve(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    serve = ["serve", str(folder), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "transformers.cli.transformers", *serve],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    try:
        while not is_up(port):
            assert process.poll() is None
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def is_up(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


class Meter:
    """Stands before the server, passes requests on, and counts the answers that it gave."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: dict[str, str] = {}
        self.paid: Counter[str] = Counter()
        self.kill_at = 0
        self.victim: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __call__(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            if self.victim is not None and self.paid.total() >= self.kill_at:
                os.kill(self.victim.pid, signal.SIGKILL)
                self.victim = None
        upstream = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            as_json = {"Content-Type": "application/json"}
            upstream.request("POST", handler.path, json.dumps(body), as_json)
            response = upstream.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return
        asked = json.dumps(body["messages"])
        # What the run asks before it begins is about a text of its own.
        if response.status == 200 and "reed" in asked:
            with self._lock:
                self.paid[asked] += 1
                self.answers[asked] = json.loads(content)["choices"][0]["message"]["content"]
        reply(handler, response.status, content)


def pipeline(folder: Path, url: str, model: Path) -> Pipeline:
    texts = [f"reed {at}\nreed is low {at}\nThe end, reed {at}" for at in range(DOCUMENTS)]
    rows = [json.dumps({"id": str(at), "text": text}) for at, text in enumerate(texts)]
    (folder / "in.jsonl").write_text("\n".join(rows) + "\n")
    server = {
        "url": url, "model": str(model), "tokenizer": str(model), "concurrency": 2, "retries": 1,
        "pause": 0.01,
    }  # fmt: skip
    writer = {
        "generator": {"openai": server}, "window": 40, "max_tokens": 12,
        "cache": str(folder / "answers"),
    }  # fmt: skip
    return Pipeline(
        tamis.read(folder / "in.jsonl"), [ProX(writer=writer)], tamis.write(folder / "run")
    )


def test_a_run_goes_on_when_its_server_was_killed(chat_folder, tmp_path):
    port = free_port()
    proxy = Meter(port)
    with serving(proxy) as server:
        refines = pipeline(tmp_path, server.url, chat_folder)
        with transformers_serve(chat_folder, port) as process:
            proxy.victim, proxy.kill_at = process, 12
            with pytest.raises(TamisError, match=f"The server {server.url} does not answer"):
                refines.run()
            assert process.wait() == -signal.SIGKILL
        paid_before = proxy.paid.copy()
        assert 12 <= paid_before.total() <= 14
        with transformers_serve(chat_folder, port):
            refines.run()
    assert set(proxy.paid.values()) == {1}
    assert paid_before.items() <= proxy.paid.items()
    # One question about each document, and one about each of its two windows.
    assert proxy.paid.total() == 3 * DOCUMENTS
    table = pq.read_table(tmp_path / "run" / "data")
    assert table.num_rows == DOCUMENTS
    here = read_generator({"transformers": str(chat_folder)})
    questions = [json.loads(asked) for asked in proxy.answers]
    prompts = [Prompt(user["content"], system["content"]) for system, user in questions]
    chunked = [one.user.startswith("[doc]") for one in prompts]
    assert sum(chunked) == 2 * DOCUMENTS
    for most, is_chunk in ((12, True), (16, False)):
        asked = [one for one, chunk in zip(prompts, chunked, strict=True) if chunk is is_chunk]
        found = [
            text for text, chunk in zip(proxy.answers.values(), chunked, strict=True)
            if chunk is is_chunk
        ]  # fmt: skip
        assert [one.text for one in here.generate(asked, most)] == found
