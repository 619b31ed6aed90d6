"""Trained scorers that are arrays with a header: one ``.npz``, nothing in it that runs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.embedding import Embedder, read_embedder
from tamis.pipeline.errors import TamisError


class Stored(NamedTuple):
    """What a file holds."""

    header: Mapping[str, Any]
    """``kind``, and what else is no array."""
    arrays: Mapping[str, NDArray[Any]]

    def embedder(self) -> Embedder:
        """The embedder of the header's ``embedding``.

        Raises:
            TamisError: if there is none of this kind here.
        """
        try:
            return read_embedder(self.header["embedding"])
        except ValueError as error:
            raise TamisError(f"the embedding that the model was made with: {error}") from error


def save_arrays(
    path: Path, kind: str, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write the file; equal contents give equal bytes.

    Raises:
        TamisError: if it cannot be written.
    """
    text = json.dumps({**header, "kind": kind}, sort_keys=True).encode()
    named: dict[str, Any] = {"header": np.frombuffer(text, np.uint8), **arrays}
    scratch = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("wb") as file:
            np.savez_compressed(file, **named)
        scratch.replace(path)
    except OSError as error:
        raise TamisError(f"{path} cannot be written: {error.strerror}") from error


def load_arrays(path: Path, kind: str, names: tuple[str, ...]) -> Stored:
    """Read what ``save_arrays`` wrote.

    Raises:
        TamisError: if the file is missing, damaged, or holds another kind of model.
    """
    try:
        if path.is_file() and not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz archive")
        with np.load(path, allow_pickle=False) as stored:
            header = json.loads(stored["header"].tobytes())
            if header["kind"] != kind:
                raise ValueError(f"it is one of {header['kind']}")
            return Stored(header, {name: stored[name] for name in names})
    except OSError as error:
        raise TamisError(f"{path} cannot be read as a model: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise TamisError(f"{path} is no model of tamis fit {kind}: {error}") from error
