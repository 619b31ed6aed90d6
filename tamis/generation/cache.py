"""Answers that were paid for are kept: what was asked once is never asked again.

    FOLDER/<hash of the generator's identity>/generator.json     the identity, for who looks
                                              HOST-PID-....jsonl  answers, a line each

A line is ``{"key": HEX, "text": ..., "prompt_tokens": ..., "tokens": ..., "cut": ...}``; the key is
the xxh3-128 of the prompt, the most tokens and the temperature. Every process appends to a file of
its own, one line with one call of the system, as soon as an answer is there: a process that is
killed loses the answers under way and no others. A line that was not finished counts for nothing.
Prompts are not kept, and of answers in memory only where they lie: about 200 bytes for each.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import orjson
import xxhash

from tamis.generation.generator import Answer, Generator, Prompt
from tamis.pipeline.errors import TamisError
from tamis.pipeline.storage import explained

Progress = Callable[["Spent"], None]
_FIELDS = tuple(one.name for one in fields(Answer))
_KEY = slice(len('{"key":"'), len('{"key":"') + 32)


class Spent(NamedTuple):
    """What some prompts took."""

    prompts: int = 0
    """Asked for, equal ones counted each time."""
    asked: int = 0
    """That the model answered now; the others were known, or equal to one of these."""
    prompt_tokens: int = 0
    """In those that the model answered now."""
    tokens: int = 0
    """That it wrote."""
    cut: int = 0
    """Answers now that ended because no more tokens were allowed."""

    @property
    def known(self) -> float:
        """The share of the prompts for which nothing had to be done."""
        return 1 - self.asked / self.prompts if self.prompts else 0.0

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(*(one + more for one, more in zip(self, other, strict=True)))

    def facts(self) -> dict[str, float]:
        """For a manifest."""
        return {**self._asdict(), "known": round(self.known, 4)}


_spent: dict[str, Spent] = {}
_counting = threading.Lock()


def spent(generator: Generator) -> Spent:
    """What ``generate_cached`` has taken of this generator in this process."""
    return _spent.get(generator.identity(), Spent())


def generate_cached(
    generator: Generator,
    prompts: Sequence[Prompt],
    max_tokens: int,
    folder: str | Path | None,
    temperature: float = 0.0,
    progress: Progress | None = None,
) -> list[Answer]:
    """An answer for each prompt, in their order. Only those are asked of the generator that the
    folder has no answer for, equal prompts once; each answer is kept when it arrives.

    Without a folder nothing is kept. ``progress`` is called behind every answer with what was spent
    in this call.

    Raises:
        TamisError: as ``Generator.generate``, behind the answers that it still gave, which are
            kept; or if the folder cannot be written.
    """
    keys = [_key(prompt, max_tokens, temperature) for prompt in prompts]
    wanted = dict(zip(keys, prompts, strict=True))
    kept = None if folder is None else _open(str(folder), generator.identity())
    found = {} if kept is None else kept.read(wanted)
    missing = [key for key in wanted if key not in found]
    total = Spent(prompts=len(prompts))
    try:
        for number, answer in (
            generator.arriving([wanted[key] for key in missing], max_tokens, temperature)
            if missing
            else ()
        ):
            found[missing[number]] = answer
            # What did not fit was not answered: it may, when the model is set up otherwise.
            if kept is not None and not (answer.cut and not answer.text and not answer.tokens):
                kept.append(missing[number], answer)
            total = total.plus(Spent(0, 1, answer.prompt_tokens, answer.tokens, int(answer.cut)))
            if progress is not None:
                progress(total)
    finally:
        with _counting:
            _spent[generator.identity()] = spent(generator).plus(total)
    return [found[key] for key in keys]


class Paid(NamedTuple):
    """What a folder of answers holds."""

    answers: int
    prompt_tokens: int
    tokens: int
    cut: int


def paid(generator: Generator, folder: str | Path) -> Paid:
    """What the answers in a folder took of this generator, whoever asked for them.

    Raises:
        TamisError: if the folder cannot be read.
    """
    kept = _open(str(folder), generator.identity())
    total = Paid(0, 0, 0, 0)
    for answer in kept.all():
        counts = (1, answer.prompt_tokens, answer.tokens, int(answer.cut))
        total = Paid(*(one + more for one, more in zip(total, counts, strict=True)))
    return total


def cache_folder(setting: str | bool) -> Path | None:
    """The folder of a setting: the one that it names, for True ``answers`` where tamis keeps its
    caches (``$TAMIS_CACHE``, else ``~/.cache/tamis`` on Linux), and None, which keeps nothing, for
    False.
    """
    from tamis.filters.text import spacy_words

    if isinstance(setting, str):
        return Path(setting).expanduser()
    return spacy_words.cache_folder() / "answers" if setting else None


def _key(prompt: Prompt, max_tokens: int, temperature: float) -> str:
    asked = [prompt.system, prompt.user, max_tokens, float(temperature)]
    return xxhash.xxh3_128_hexdigest(orjson.dumps(asked))


class _Answers:
    """The answers of one generator in one folder, as this process knows them."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder, self._identity = folder, identity
        self._files: list[Path] = []
        self._read_to: dict[Path, int] = {}
        self._places: dict[bytes, tuple[int, int]] = {}
        self._own: int | None = None
        self._lock = threading.Lock()

    def read(self, keys: Iterable[str]) -> dict[str, Answer]:
        """The answers of those keys that have one."""
        with self._lock, explained(str(self._folder)):
            self._look()
            found = ((key, self._at(self._places.get(bytes.fromhex(key)))) for key in keys)
            return {key: answer for key, answer in found if answer is not None}

    def all(self) -> Iterator[Answer]:
        """Every answer once."""
        with self._lock, explained(str(self._folder)):
            self._look()
            places = list(self._places.values())
        yield from filter(None, map(self._at, places))

    def append(self, key: str, answer: Answer) -> None:
        """Keep an answer."""
        line = orjson.dumps({"key": key, **asdict(answer)}) + b"\n"
        with self._lock, explained(str(self._folder)):
            if self._own is None:
                self._own = self._new_file()
            if os.write(self._own, line) < len(line):
                # The disk is full: what comes next must not stand behind half a line.
                os.close(self._own)
                self._own = None
                raise TamisError(f"{self._folder} cannot be written: the disk is full")

    def _look(self) -> None:
        """Find what this and other processes have added."""
        for path in sorted(self._folder.glob("*.jsonl")):
            begin = self._read_to.get(path, 0)
            if path not in self._read_to:
                self._files.append(path)
                self._read_to[path] = 0
            if path.stat().st_size <= begin:
                continue
            number = self._files.index(path)
            with path.open("rb") as file:
                file.seek(begin)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._note(line, (number, self._read_to[path]))
                    self._read_to[path] += len(line)

    def _note(self, line: bytes, place: tuple[int, int]) -> None:
        """Where the answer of a whole line is; a damaged one is passed over."""
        if line.endswith(b"}\n"):
            with suppress(ValueError):
                self._places[bytes.fromhex(line[_KEY].decode("ascii", "replace"))] = place

    def _at(self, place: tuple[int, int] | None) -> Answer | None:
        if place is None:
            return None
        try:
            with self._files[place[0]].open("rb") as file:
                file.seek(place[1])
                content = orjson.loads(file.readline())
            return Answer(**{name: content[name] for name in _FIELDS})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _new_file(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        about = self._folder / "generator.json"
        if not about.exists():
            scratch = self._folder / f"{name}.tmp"
            scratch.write_text(json.dumps({"identity": self._identity}) + "\n", encoding="utf-8")
            scratch.replace(about)
        path = self._folder / f"{name}.jsonl"
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)


@lru_cache(maxsize=16)
def _open(folder: str, identity: str) -> _Answers:
    name = xxhash.xxh3_64_hexdigest(identity.encode())
    return _Answers(Path(folder).expanduser() / name, identity)
