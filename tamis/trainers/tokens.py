"""Token files: the documents of a source as one memory-mapped stream of tokens.

    SOURCE/tokens.bin    256 int32 (magic, version, count), then the tokens: the files of llm.c
    SOURCE/offsets.npy   int64: document i is tokens[offsets[i]:offsets[i + 1]]
    SOURCE/weights.bin   float32 for each token, if any: how much it counts as a target
    SOURCE/tokens.json   what is in them, and what they were made from

A document is ``bos``, its tokens, ``eos``. Its first token is nobody's target: the token at i
predicts the token at i + 1 of the same document.
"""

from __future__ import annotations

import fcntl
import io
import pickletools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import orjson
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel

from tamis.pipeline.documents import TEXT
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.readers import (
    BadRecord,
    Input,
    PassedOver,
    Slice,
    declare_schema,
    list_files,
    plan_slices,
    read_slice,
)
from tamis.pipeline.storage import digest, explained, shards_of
from tamis.trainers.token_writer import (
    FACTS,
    HEADER_BYTES,
    OFFSETS,
    TOKENS,
    VERSION,
    WEIGHTS,
    Encode,
    Encoded,
    TokenWriter,
    token_header,
)
from tamis.trainers.tokenizer import Tokenizer

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
_NEEDED = {
    "documents", "tokens", "target_tokens", "target_bytes", "vocab_size", "eos", "tokenizer",
    "token_bytes", "weighted", "digest",
}  # fmt: skip
_NAME = re.compile(r"\w[\w.+-]*")


@dataclass(frozen=True)
class TokenSource:
    """The documents of a source, on disk."""

    name: str
    tokens: NDArray[np.uint16] | NDArray[np.uint32]
    offsets: Int64
    """One more than there are documents."""
    weights: Float32 | None
    """Of each token as a target."""
    facts: dict[str, Any]
    """``documents``, ``tokens``, ``target_tokens``, ``target_bytes``, ``vocab_size``, ``bos``,
    ``eos``, ``tokenizer`` (fingerprint), ``digest`` (of all the content) ...
    """

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, number: int) -> NDArray[np.int64]:
        """The tokens of a document."""
        begin, end = self.offsets[number : number + 2]
        return self.tokens[begin:end].astype(np.int64)


def write_tokens(
    source: str,
    texts: Iterable[pa.RecordBatch],
    tokenizer: Tokenizer,
    folder: Path,
    weights: str | None = None,
    encode: Encode | None = None,
) -> None:
    """Write the token files of a source into ``folder/source``, which takes its name at the end.

    ``texts`` are documents with the column ``text``; those without any text are left out.
    ``weights`` names a column of numbers: how much each target of the document counts. What
    ``encode`` gives is taken instead, if there is one.

    Raises TamisError if no document is left, or if the tokens or weights cannot be.
    """
    if weights is not None:
        encode = _Weighted(weights)
    target = _target(Path(folder), source)
    with TokenWriter(target, tokenizer) as writer:
        for batch in texts:
            writer.write(batch, encode)
        writer.publish({})


def build_sources(
    sources: Mapping[str, str | Sequence[str]],
    tokenizer: Tokenizer,
    folder: Path,
    encode: Encode | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, TokenSource]:
    """The token files of each source (name -> paths), in ``folder``, as far as they are not there.

    Paths are the folders of tamis runs, whose ``data`` is read, or whatever else can be read:
    files, folders, globs, URLs. A source is written again if its files (by size and time of
    change), the tokenizer or ``encode`` have changed: the code of its module, and what it was made
    with. After a kill the source that was being written goes on behind its last whole slice;
    ``say`` is told of each.

    Raises RecipeError if a path or a source's name cannot be, TamisError if there is no document.
    """
    folder = Path(folder)
    plans = [_plan(name, paths, tokenizer, encode) for name, paths in sources.items()]
    if not all(_is_made_from(folder / plan.name, plan.key) for plan in plans):
        with _alone(folder):
            for plan in plans:
                if not _is_made_from(folder / plan.name, plan.key):
                    _build(plan, tokenizer, folder / plan.name, encode, say)
    return {plan.name: open_tokens(folder / plan.name, tokenizer) for plan in plans}


def read_documents(name: str, paths: str | Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The documents of a source (id and text), batch by batch; what cannot be read is passed over.

    Raises RecipeError if a path or the name cannot be, TamisError if a file cannot be read.
    """
    plan = _plan(name, paths, None, None)
    for part in plan.slices:
        for _, batch in _read(plan, part):
            if batch is not None:
                yield batch


def open_tokens(folder: Path, tokenizer: Tokenizer | None = None) -> TokenSource:
    """The token files in a folder, memory-mapped; they are named like it.

    Raises TamisError if they are not whole, hold no document, or are another tokenizer's.
    """
    folder = Path(folder)
    facts = _facts(folder)
    if tokenizer is not None and facts["tokenizer"] != tokenizer.fingerprint:
        raise TamisError(
            f"the token files in {folder} were made with another tokenizer (of "
            f"{facts['vocab_size']:,} tokens, this one has {tokenizer.vocab_size:,}); make them "
            "again, or take the tokenizer they were made with"
        )
    documents, count = facts["documents"], facts["tokens"]
    width = facts["token_bytes"]
    _check_size(folder / TOKENS, HEADER_BYTES + width * count)
    header = np.fromfile(folder / TOKENS, np.int32, 256)
    if not np.array_equal(header, token_header(count, width)):
        raise TamisError(_torn(folder, f"{TOKENS} does not begin as it should"))
    if not documents:
        raise TamisError(f"the token files in {folder} hold no document")
    tokens = np.memmap(folder / TOKENS, f"<u{width}", "r", HEADER_BYTES)
    weights = None
    if facts["weighted"]:
        _check_size(folder / WEIGHTS, 4 * count)
        weights = np.memmap(folder / WEIGHTS, "<f4", "r")
    return TokenSource(folder.name, tokens, _open_offsets(folder, documents, count), weights, facts)


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts = orjson.loads((folder / FACTS).read_bytes())
    except FileNotFoundError:
        raise TamisError(f"there are no token files in {folder}: it has no {FACTS}") from None
    except (OSError, ValueError) as error:
        raise TamisError(f"cannot read {folder / FACTS}: {error}; remove {folder}") from None
    if not isinstance(facts, dict) or facts.get("version") != VERSION:
        raise TamisError(
            f"the token files in {folder} are of another version of tamis; remove the folder, they "
            "are made again"
        )
    if missing := _NEEDED - facts.keys():
        raise TamisError(_torn(folder, f"{FACTS} does not say {min(missing)}"))
    return facts


def _open_offsets(folder: Path, documents: int, count: int) -> Int64:
    try:
        offsets: Int64 = np.load(folder / OFFSETS, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise TamisError(_torn(folder, f"{OFFSETS}: {error}")) from None
    if offsets.shape != (documents + 1,) or offsets[0] != 0 or offsets[-1] != count:
        raise TamisError(_torn(folder, f"{OFFSETS} does not fit {TOKENS}"))
    return offsets


def _torn(folder: Path, why: str) -> str:
    return f"the token files in {folder} are damaged: {why}; remove the folder, they are made again"


def _check_size(path: Path, wanted: int) -> None:
    size = path.stat().st_size if path.exists() else 0
    if size != wanted:
        raise TamisError(_torn(path.parent, f"{path.name} has {size:,} bytes, not {wanted:,}"))


def _target(folder: Path, source: str) -> Path:
    if not _NAME.fullmatch(source):
        raise RecipeError(
            f"a source cannot be called {source!r}: its name is that of a folder; letters, digits, "
            "'_', and behind the first of them '.', '+' and '-' can be in it"
        )
    return folder / source


# Sources from files.


@dataclass(frozen=True)
class _Plan:
    name: str
    input: Input
    slices: list[Slice]
    schema: pa.Schema
    key: str
    """Changes when the token files have to be written again."""


def _plan(
    name: str, paths: str | Sequence[str], tokenizer: Tokenizer | None, encode: Encode | None
) -> _Plan:
    _target(Path(), name)
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if not paths:
        raise RecipeError(f"source {name}: there is no path")
    columns: dict[str, str] | None = {} if encode is None else None
    try:
        entry = Input(path=[shards_of(str(path)) for path in paths], columns=columns)
        files = list_files(entry)
        slices = plan_slices(entry, files=files).slices
        schema = declare_schema(entry, files)
    except TamisError as error:
        raise type(error)(f"source {name}: {error}") from None
    inputs = [(file.path, file.fingerprint) for file in files]
    fingerprint = tokenizer.fingerprint if tokenizer else None
    key = digest(VERSION, inputs, fingerprint, _identity(encode))
    return _Plan(name, entry, slices, schema, key)


class _Identity(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Pickles a model with its fields in their order: which of them were set is a set."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, BaseModel):
            return type(value), (), dict(value)
        return super().reducer_override(value)


def _identity(encode: Encode | None) -> str:
    """Changes when an encoder might give other tokens: with its settings, and with the code of the
    modules that it and its settings are from.
    """
    if encode is None:
        return ""
    pickled = io.BytesIO()
    _Identity(pickled, protocol=5).dump(encode)
    hashed = xxhash.xxh3_128(pickled.getvalue())
    names = {text for _, text, _ in pickletools.genops(pickled.getvalue()) if type(text) is str}
    for name in sorted(names & sys.modules.keys()):
        if file := getattr(sys.modules[name], "__file__", None):
            hashed.update(Path(file).read_bytes())
    return hashed.hexdigest()


def _is_made_from(target: Path, key: str) -> bool:
    try:
        return bool(open_tokens(target).facts.get("key") == key)
    except TamisError:
        return False


def _build(
    plan: _Plan,
    tokenizer: Tokenizer,
    target: Path,
    encode: Encode | None,
    say: Callable[[str], None],
) -> None:
    with TokenWriter(target, tokenizer, plan.key) as writer:
        for part in plan.slices[writer.slices :]:
            for bad, batch in _read(plan, part):
                if batch is None:
                    writer.pass_over(bad or "")
                else:
                    writer.write(batch, encode)
            writer.mark()
            say(f"tokens of {plan.name}: {writer.slices} of {len(plan.slices)} parts are done")
        writer.publish({"key": plan.key, "paths": plan.input.paths})


def _read(plan: _Plan, part: Slice) -> Iterator[tuple[str, None] | tuple[None, pa.RecordBatch]]:
    """What is in a slice: (what cannot be read, None) or (None, documents)."""
    try:
        for found in read_slice(part, plan.input, plan.schema):
            if isinstance(found, BadRecord):
                yield f"{part.name}, {found.position}: {found.reason}", None
            elif not isinstance(found, PassedOver):
                yield None, found
    except TamisError as error:
        raise TamisError(f"source {plan.name}: {error}") from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time writes token files into a folder; the others wait for it."""
    with explained(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class _Weighted:
    """Encodes documents as always; all targets of one have the weight that is in a column."""

    column: str

    def __call__(self, batch: pa.RecordBatch, tokenizer: Tokenizer) -> list[Encoded | None]:
        if self.column not in batch.schema.names:
            raise TamisError(f"the documents have no column {self.column!r} of weights")
        try:
            weights = batch.column(self.column).cast(pa.float32()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid as error:
            raise TamisError(f"the column {self.column!r} is no weight: {error}") from None
        tokens, offsets = tokenizer.encode_documents(batch.column(TEXT))
        bounds = zip(offsets[:-1], offsets[1:], weights, strict=True)
        return [
            (tokens[begin:end].astype(np.int32), np.full(end - begin, weight, np.float32))
            for begin, end, weight in bounds
        ]
