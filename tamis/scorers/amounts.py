"""How much a document is, in the unit of a selection: bytes, characters, words, tokens, or one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from tamis.filters.once import once
from tamis.filters.text.words import Profile, word_spans
from tamis.pipeline.documents import Documents
from tamis.scorers.tokens import count_tokens, open_tokenizer

if TYPE_CHECKING:
    import tokenizers

Unit = Literal["documents", "bytes", "characters", "words", "tokens"]

_TOKENIZER = "tokenizer.json"


def amounts(documents: Documents, unit: Unit, profile: Profile = "whitespace") -> NDArray[np.int64]:
    """The documents' sizes in any unit but tokens."""
    if unit == "bytes":
        return np.asarray(np.diff(documents.utf8()[1]), np.int64)
    if unit == "characters":
        lengths = pc.utf8_length(documents.text).fill_null(0)
        return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)
    if unit == "words":
        return np.asarray(np.diff(word_spans(documents, profile)[0]), np.int64)
    return np.ones(len(documents), np.int64)


def token_amounts(documents: Documents, tokenizer: Path) -> NDArray[np.int64]:
    """Tokens of each document that is alive (0 of the others), without special ones.

    ``tokenizer`` is a tokenizer.json, or a folder with one (a model of transformers or of ours).

    Raises:
        TamisError: if it cannot be read, or the package is not installed.
    """
    loaded = once(_load, tokenizer_file(tokenizer), "there is no tokenizer {path}")
    return count_tokens(loaded, documents)


def tokenizer_file(tokenizer: Path) -> Path:
    """The file itself."""
    return tokenizer / _TOKENIZER if tokenizer.is_dir() else tokenizer


def _load(path: Path) -> tokenizers.Tokenizer:
    loaded = open_tokenizer(path)
    # A file can say that texts are cut or filled up to some length.
    loaded.no_truncation()
    loaded.no_padding()
    return loaded
