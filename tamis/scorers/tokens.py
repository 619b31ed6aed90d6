"""How many tokens documents have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import TamisError

if TYPE_CHECKING:
    import tokenizers

_FILE = "tokenizer.json"
# An encoding takes some hundred bytes of memory for each token until its length is taken.
_BYTES_AT_ONCE = 1 << 20


def open_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json, or of a folder with one.

    Raises:
        TamisError: if the package tokenizers is not installed, or the file is none.
    """
    try:
        import tokenizers
    except ImportError:
        raise TamisError(
            "to count tokens takes the package tokenizers: pip install 'tamis[train]'"
        ) from None
    file = path / _FILE if path.is_dir() else path
    try:
        found = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001
        # The package raises Exception itself.
        raise TamisError(f"{file} cannot be read as a tokenizer: {error}") from None
    # A file can say that texts are cut or filled up to some length.
    found.no_truncation()
    found.no_padding()
    return found


def count_tokens(tokenizer: tokenizers.Tokenizer, documents: Documents) -> NDArray[np.int64]:
    """The tokens of every document that is alive, without those that begin and end it."""
    counts = np.zeros(len(documents), np.int64)
    rows = np.flatnonzero(documents.alive)
    _, offsets = documents.utf8()
    behind = np.cumsum(np.diff(offsets)[rows])
    # Whole documents of about so many bytes at once.
    for part in np.split(rows, np.flatnonzero(np.diff(behind // _BYTES_AT_ONCE)) + 1):
        texts = [documents.text[int(row)].as_py() or "" for row in part]
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        counts[part] = [len(one) for one in encoded]
    return counts
