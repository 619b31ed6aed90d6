"""A language model behind an OpenAI-compatible server: vLLM, llama.cpp, ``transformers serve``, or
a hosted one.

Many requests are under way at once, so that the server can batch them. One that fails for a reason
that may pass (no connection, too many requests, an error of the server) is sent again, after a
pause that doubles each time. Nothing else is: an answer that came is never asked for again.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from tamis.generation import counting
from tamis.generation.generator import Answer, Generator, Prompt, in_order, plain_text
from tamis.pipeline.errors import RecipeError, TamisError, nearest

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Answers of a server after which the same request may succeed."""
LONGEST_PAUSE = 60.0
_FIRST_RETRIES = 1
"""While the server has never answered: it is rather not there than busy."""
# As vLLM, llama.cpp and OpenAI say that a prompt does not fit.
_TOO_LONG = re.compile(r"context.{0,20}(length|size|window)", re.IGNORECASE)
_LONGEST_REASON = 300
_reached: set[str] = set()
"""Addresses that have answered in this process."""


class OpenAI(Generator):
    """A model of a server that speaks OpenAI's protocol."""

    kind: ClassVar[str] = "openai"

    url: str
    """Where the protocol begins, as a rule with ``/v1`` at its end."""
    model: str = Field(min_length=1)
    """Its name on the server. Answers are kept under this name, whatever the address."""
    revision: str = ""
    """Tells apart models that had the same name, so that the answers of one are not taken for
    those of the other."""
    key_variable: str | None = None
    """The environment variable with the key, for a server that wants one."""
    api: Literal["chat", "completions"] = "chat"
    """``completions`` gets ``PLAIN`` instead of the model's chat template."""
    options: dict[str, Any] = Field(default_factory=dict)
    """More of what a request says: {top_p: 0.9, chat_template_kwargs: {enable_thinking: false}}."""
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the most tokens of an answer."""
    seed: int | None = None
    concurrency: int = Field(default=16, ge=1, le=1024)
    """Requests that a process has under way at once."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds that an answer may take."""
    retries: int = Field(default=6, ge=0)
    pause: float = Field(default=1.0, ge=0)
    """Seconds before the first retry."""
    tokenizer: str | None = None
    """A folder or tokenizer.json that counts the tokens of prompts. Without it the server is asked
    (vLLM and llama.cpp can), or they are estimated from the bytes."""

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it is an address like http://localhost:8000/v1")
        if parts.username or parts.password:
            raise ValueError("a password does not belong into an address; see key_variable")
        return url.rstrip("/")

    @field_validator("key_variable")
    @classmethod
    def _is_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch("[A-Z_][A-Z0-9_]*", name):
            raise ValueError("it is the name of an environment variable, in capitals, not the key")
        return name

    def generate(
        self, prompts: Sequence[Prompt], max_tokens: int, temperature: float = 0.0
    ) -> list[Answer]:
        return in_order(self.arriving(prompts, max_tokens, temperature), len(prompts))

    def arriving(
        self, prompts: Sequence[Prompt], max_tokens: int, temperature: float = 0.0
    ) -> Iterator[tuple[int, Answer]]:
        waiting = deque(enumerate(prompts))
        arrived: SimpleQueue[tuple[int, Answer | Exception] | None] = SimpleQueue()
        stop, failure = threading.Event(), None
        with self._client() as client:

            def work() -> None:
                while waiting and not stop.is_set():
                    try:
                        number, prompt = waiting.popleft()
                    except IndexError:
                        break
                    try:
                        request = self._request(prompt, max_tokens, temperature)
                        arrived.put((number, self._answer(client, request, stop)))
                    except Exception as error:  # noqa: BLE001 - raised where answers are read
                        # The others are paid for: they are waited for, and no more are asked.
                        stop.set()
                        arrived.put((number, error))
                arrived.put(None)

            # Daemons, so that nobody who stops the program waits for their answers.
            workers = min(self.concurrency, len(prompts))
            for _ in range(workers):
                threading.Thread(target=work, daemon=True).start()
            try:
                while workers:
                    one = arrived.get()
                    if one is None:
                        workers -= 1
                    elif isinstance(one[1], Exception):
                        failure = failure or one[1]
                    else:
                        yield one[0], one[1]
            finally:
                stop.set()
        if failure is not None:
            raise failure

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        if self.tokenizer is not None:
            return counting.count_with_file(self.tokenizer, texts)
        with self._client() as client:
            address = self.url.removesuffix("/v1") + "/tokenize"

            errors: tuple[type[Exception], ...] = (ValueError, *_transport_errors())

            def post(body: dict[str, Any]) -> Any:
                try:
                    answer = client.post(address, json=body)
                    return answer.json() if answer.status_code == 200 else None
                except errors:
                    return None

            def count(text: str) -> int | None:
                return counting.count_with_server(post, self.model, text)

            counts = [count(text) for text in texts[:1]]
            if None not in counts:
                with ThreadPoolExecutor(self.concurrency) as pool:
                    counts += pool.map(count, texts[1:])
        found = [one for one in counts if one is not None]
        return found if len(found) == len(texts) else counting.estimate(texts)

    def identity(self) -> str:
        parts = [f"openai {self.model}", self.revision, self.api]
        if self.options:
            parts.append(json.dumps(self.options, sort_keys=True))
        if self.seed is not None:
            parts.append(f"seed {self.seed}")
        return ", ".join(part for part in parts if part)

    def models(self) -> tuple[Path, ...]:
        if find_spec("httpx") is None:
            raise RecipeError(
                "generator: openai needs the package httpx: pip install 'tamis[server]'"
            )
        self._key()
        return () if self.tokenizer is None else (counting.tokenizer_file(self.tokenizer),)

    def _key(self) -> str | None:
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise RecipeError(
                f"generator: the environment variable {self.key_variable}, which is to hold the "
                f"key of {self.url}, is not set"
            )
        # A header cannot hold it, and the error of one would show it.
        if not (key.isascii() and key.isprintable()):
            raise RecipeError(f"generator: {self.key_variable} holds no key: it is not plain ASCII")
        return key

    def _client(self) -> Any:
        httpx = _httpx()
        key = self._key()
        return httpx.Client(
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(self.timeout, connect=min(self.timeout, 20.0)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=self.concurrency),
        )

    def _request(self, prompt: Prompt, max_tokens: int, temperature: float) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "temperature": temperature}
        body[self.limit] = max_tokens
        if self.seed is not None:
            body["seed"] = self.seed
        if self.api == "completions":
            body["prompt"] = plain_text(prompt)
        else:
            system = [{"role": "system", "content": prompt.system}] if prompt.system else []
            body["messages"] = [*system, {"role": "user", "content": prompt.user}]
        return body | self.options

    def _answer(self, client: Any, body: dict[str, Any], stop: threading.Event) -> Answer:
        """The answer to one request, sent again while there is hope.

        Raises:
            TamisError: if there is none.
        """
        address = f"{self.url}/{'completions' if self.api == 'completions' else 'chat/completions'}"
        tries, pause = 0, self.pause
        while True:
            try:
                response = client.post(address, json=body)
                _reached.add(self.url)
                if response.status_code not in PASSING:
                    return self._read(client, response)
                trouble, wait = f"says {_reason(response)}", _retry_after(response)
            except _transport_errors() as error:
                trouble, wait = f"does not answer: {_sentence(error)}", None
            tries += 1
            if stop.is_set() or tries > (self.retries if self.url in _reached else _FIRST_RETRIES):
                raise TamisError(f"The server {self.url} {trouble}{self._hint(trouble, tries)}.")
            stop.wait(min(LONGEST_PAUSE, pause if wait is None else max(pause, wait)))
            pause *= 2

    def _hint(self, trouble: str, tries: int) -> str:
        if self.api == "chat" and trouble.startswith("says 500"):
            return "; a model without a chat template needs api: completions"
        return f" (asked {tries} times)"

    def _read(self, client: Any, response: Any) -> Answer:
        status = response.status_code
        if status == 200:
            return _parsed(response, self.url, self.api)
        if status in (401, 403):
            key = "a key: name the environment variable that holds it as key_variable"
            if self.key_variable is not None:
                key = f"another key than the one in {self.key_variable}"
            raise TamisError(f"The server {self.url} wants {key}.")
        if status in (400, 413, 422) and _TOO_LONG.search(response.text):
            return Answer("", 0, 0, cut=True)
        if status == 404:
            names = self._names(client)
            if not names or self.model in names:
                raise TamisError(
                    f"There is no {self.api} at {self.url}: as a rule the address ends with /v1"
                )
            raise TamisError(
                f"The server {self.url} has no model {self.model}{nearest(self.model, names)}"
            )
        raise TamisError(f"The server {self.url} refuses a prompt: {_reason(response)}.")

    def _names(self, client: Any) -> list[str]:
        """The models of the server, if it tells."""
        errors: tuple[type[Exception], ...] = (ValueError, KeyError, TypeError)
        errors += _transport_errors()
        try:
            return [str(one["id"]) for one in client.get(f"{self.url}/models").json()["data"]]
        except errors:
            return []


def _httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise TamisError(
            "a generator openai needs the package httpx: pip install 'tamis[server]'"
        ) from error
    return httpx


def _transport_errors() -> tuple[type[Exception], ...]:
    return (_httpx().TransportError, _httpx().DecodingError)


def _parsed(response: Any, url: str, api: str) -> Answer:
    try:
        content = response.json()
        (choice, *_) = content["choices"]
        text = choice["text"] if api == "completions" else choice["message"].get("content")
        usage = content.get("usage") or {}
        return Answer(
            # JSON can hold half a character, which no file and no column of text can.
            str(text or "").encode("utf-8", "replace").decode(),
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
            choice.get("finish_reason") == "length",
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TamisError(
            f"The server {url} does not speak OpenAI's protocol: {response.text[:100]!r}"
        ) from error


def _reason(response: Any) -> str:
    """What the server says, in one line."""
    try:
        said = response.json()
        # As OpenAI nests it ("message" in "error"), and FastAPI (a list of "msg" in "detail").
        for name in ("error", "message", "detail", "msg"):
            if isinstance(said, list) and said:
                said = said[0]
            if isinstance(said, dict):
                said = said.get(name, said)
    except ValueError:
        said = response.text
    line = " ".join(str(said).split())[:_LONGEST_REASON].rstrip(".")
    return f"{response.status_code} {line}".strip()


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__


def _retry_after(response: Any) -> float | None:
    """The seconds that the server asks for; a date, which is rare, is not read."""
    value = response.headers.get("retry-after", "")
    return float(value) if re.fullmatch(r"\d{1,6}(\.\d+)?", value) else None
