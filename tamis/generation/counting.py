"""How many tokens a text has for a model that is elsewhere: by its tokenizer's file, as its server
says, or estimated from the bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.recipe import nearest_file

BYTES_PER_TOKEN = 3
"""Of the estimate: fewer than in English text (four), so that what is counted by it fits."""
FILE = "tokenizer.json"

_said: set[str] = set()

Post = Callable[[dict[str, Any]], Any]
"""Sends a body to the tokenize address of a server; gives the JSON of its answer, None for none."""


def tokenizer_file(path: str) -> Path:
    """The tokenizer.json of a setting, which names it or its folder.

    Raises:
        RecipeError: if there is none, or the package that reads it is missing.
    """
    found = Path(path).expanduser()
    if found.is_dir():
        found /= FILE
    if not found.is_file():
        raise RecipeError(f"there is no tokenizer {found}{nearest_file(found)}")
    _package()
    return found


def count_with_file(path: str, texts: Sequence[str]) -> list[int]:
    """The tokens of each text by a tokenizer.json, without special ones around it.

    Raises:
        TamisError: if it is none.
    """
    encoded = _open(tokenizer_file(path)).encode_batch(list(texts), add_special_tokens=False)
    return [len(one.ids) for one in encoded]


def count_with_server(post: Post, model: str, text: str) -> int | None:
    """The tokens of a text as vLLM or llama.cpp count them; None if the server does not."""
    # What vLLM reads, and what llama.cpp reads: each passes over the other's.
    ours = {"model": model, "prompt": text, "add_special_tokens": False}
    answer = post(ours | {"content": text, "add_special": False})
    if not isinstance(answer, dict):
        return None
    count, tokens = answer.get("count"), answer.get("tokens")
    if isinstance(count, int):
        return count
    return len(tokens) if isinstance(tokens, list) else None


def estimate(texts: Sequence[str]) -> list[int]:
    """A token for each ``BYTES_PER_TOKEN`` bytes of UTF-8, said once in a process."""
    _say_estimated()
    return [-(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN) for text in texts]


def _say_estimated() -> None:
    if "estimated" in _said:
        return
    _said.add("estimated")
    warnings.warn(
        f"Tokens are estimated, one for each {BYTES_PER_TOKEN} bytes: the server does not count "
        "them, and the setting tokenizer names no tokenizer.json.",
        stacklevel=2,
    )


def _package() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise RecipeError(
            "generator: a tokenizer.json needs the package tokenizers: pip install 'tamis[models]'"
        ) from error
    return tokenizers


@lru_cache(maxsize=4)
def _open(path: Path) -> Any:
    try:
        return _package().Tokenizer.from_file(str(path))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise TamisError(f"the tokenizer {path} cannot be read: {reason}") from error
