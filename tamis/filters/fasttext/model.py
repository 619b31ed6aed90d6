"""fastText's model files: the dictionary, the matrices (quantised or not) and the output layer."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.filters.fasttext import kernels
from tamis.filters.fasttext.collapsed import (
    Collapsed,
    collapse,
    keep,
    open_kept,
    predict_collapsed,
    relative,
)
from tamis.filters.fasttext.kernels import HIERARCHICAL, Memory, Tables
from tamis.filters.once import once
from tamis.filters.text.bitmap import empty, readonly, text_arrays
from tamis.filters.text.words import Spans
from tamis.pipeline.documents import TEXT, Documents
from tamis.pipeline.errors import TamisError, nearest

_MAGIC = 793712314
_VERSIONS = (11, 12)
_SUPERVISED = 3
_CENTROIDS = 256
_PREFIX = "__label__"
# Word n-grams; nobody trains with more than a few.
_LONGEST = 64

# Bytes of remembered words per thread: about what a processor keeps near.
_MEMORY_BYTES = 1 << 23
# Rows at a time that are multiplied by the output matrix at load.
_ROWS_AT_A_TIME = 1 << 16


class Prediction(NamedTuple):
    """What a model says of n texts."""

    top: NDArray[np.int32]
    """(n,) the best label as an index of ``FastTextModel.labels``; -1 for a text in which the model
    knows nothing.
    """
    top_probability: NDArray[np.float64]
    """(n,) between 0 and 1; NaN where ``top`` is -1."""
    words: NDArray[np.int64]
    """(n,) how many words each text has."""
    scores: NDArray[np.float64]
    """(n, wanted) the probabilities of the labels that were asked for."""
    log_odds: NDArray[np.float64]
    """(n, wanted) the logarithm of the odds of these labels against all others, which still tells
    texts apart whose probability is as good as 1; the label's own logit if the loss was one-vs-all;
    NaN for a hierarchical softmax.
    """


class FastTextModel:
    """A supervised fastText model; safe to use from several threads at once.

    Probabilities are those of the library to 1e-5, its habit of adding 1e-5 before the logarithm
    included, but never above 1. They are summed in another order and more precisely: in a text of
    very many words the library's own rounding shows.
    """

    def __init__(self, path: Path, labels: tuple[str, ...], tables: Tables | Collapsed) -> None:
        self.path = path
        self.labels = labels
        self._tables = tables
        self._memories: list[Memory] = []
        self._index = {label: index for index, label in enumerate(labels)}

    @classmethod
    def load(cls, path: str | Path) -> FastTextModel:
        """Read a ``.bin`` or ``.ftz`` file of a supervised model.

        The matrix of a large model is memory-mapped; if there are few labels it is multiplied by
        the output matrix instead, and the file read once: see ``collapsed``. A quantised matrix is
        decoded.

        Raises:
            TamisError: if the file is missing, damaged, or no supervised fastText model.
        """
        path = Path(path)
        kept = open_kept(path)
        if kept is not None:
            return cls(path, *kept)
        with _opened(path) as file:
            labels, tables = _read(file, path)
        if isinstance(tables, Collapsed):
            tables = keep(path, labels, tables)
        return cls(path, labels, tables)

    def index(self, label: str) -> int:
        """The index of a label, with or without ``__label__`` in front.

        Raises:
            TamisError: if the model has no such label.
        """
        name = label.removeprefix(_PREFIX)
        if name not in self._index:
            raise TamisError(
                f"the model {self.path.name} has no label {name}{nearest(name, self.labels)}"
            )
        return self._index[name]

    def predict(
        self,
        data: NDArray[np.uint8],
        tokens: Spans,
        wanted: Sequence[str] = (),
        end_of_line: bool = True,
    ) -> Prediction:
        """The best label of each text, and the scores of the labels ``wanted``, by name.

        Args:
            data: the bytes of the texts, as ``Documents.utf8`` gives them.
            tokens: (first, start, end): the words ``data[start[j]:end[j]]`` of text i are
                ``first[i]:first[i + 1]``, those of ``fasttext_tokens`` that are together.
            end_of_line: add the word ``</s>`` to every text, as the library does. It is one word in
                a text of any length, so it weighs more in short ones.

        Raises:
            TamisError: for a label that the model has not.
        """
        if isinstance(self._tables, Collapsed):
            spans = _spanned(tokens)
            return self._predict_spans(self._tables, data, *spans, wanted, end_of_line)
        first, start, end = (readonly(array) for array in tokens)
        columns, said = self._asked(wanted), _unsaid(len(first) - 1, len(wanted))
        said.words[:] = np.diff(first)
        memory = self._borrow(self._tables)
        kernels.predict(
            *(self._tables, memory, readonly(data), first, start, end, end_of_line),
            *(columns, said.top, said.top_probability, said.scores, said.log_odds),
        )
        self._memories.append(memory)
        return said

    def predict_documents(
        self, documents: Documents, wanted: Sequence[str] = (), end_of_line: bool = True
    ) -> Prediction:
        """``predict`` for the documents that are alive, with the words of the library; the others
        are taken for empty.
        """
        data, offsets = documents.utf8()
        if isinstance(self._tables, Collapsed):
            begin = offsets[:-1]
            end = np.where(documents.alive, offsets[1:], begin)
            return self._predict_spans(self._tables, data, begin, end, wanted, end_of_line)
        return self.predict(data, fasttext_tokens(documents), wanted, end_of_line)

    def _predict_spans(
        self,
        model: Collapsed,
        data: NDArray[np.uint8],
        begin: NDArray[np.int64],
        end: NDArray[np.int64],
        wanted: Sequence[str],
        end_of_line: bool,
    ) -> Prediction:
        columns, said = self._asked(wanted), _unsaid(len(begin), len(wanted))
        predict_collapsed(
            *(model, readonly(data), readonly(begin), readonly(end), end_of_line, columns),
            *(said.top, said.top_probability, said.scores, said.log_odds, said.words),
        )
        return said

    def _asked(self, wanted: Sequence[str]) -> NDArray[np.int64]:
        """Where the labels asked for are."""
        return readonly(np.array([self.index(label) for label in wanted], np.int64))

    def predict_text(
        self, text: pa.LargeStringArray, wanted: Sequence[str] = (), end_of_line: bool = True
    ) -> Prediction:
        """``predict`` for an Arrow array of strings, with the words of the library."""
        documents = Documents(pa.RecordBatch.from_pydict({TEXT: text.cast(pa.large_string())}))
        return self.predict_documents(documents, wanted, end_of_line)

    def _borrow(self, tables: Tables) -> Memory:
        """A memory of words that no other thread uses; what it holds does not change the result."""
        try:
            return self._memories.pop()
        except IndexError:
            width = tables.rows.shape[1]
            size = 4 * width + kernels.KEY_BYTES + 8
            places = 1 << max((_MEMORY_BYTES // size).bit_length() - 1, 0)
            # No word has a key of zeros: they end words.
            key = np.zeros((places + 2, kernels.KEY_BYTES // 8), np.uint64)
            hashes, features = np.zeros(places + 2, np.uint32), np.zeros(places + 2, np.int32)
            total = np.zeros((places + 2, width), np.float32)
            memory = Memory(key, hashes, features, total)
            line, nothing = kernels.END_OF_LINE, (np.uint64(0),) * 4
            kernels.remember(tables, memory, line, 0, len(line), places + 1, nothing)
            return memory


def _unsaid(texts: int, wanted: int) -> Prediction:
    """A prediction to be filled in."""
    scores, log_odds = np.empty((2, texts, wanted))
    top, words = np.empty(texts, np.int32), np.empty(texts, np.int64)
    return Prediction(top, np.empty(texts), words, scores, log_odds)


def _spanned(tokens: Spans) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the words of each text begin and end."""
    first, start, end = tokens
    begin, behind = np.zeros((2, len(first) - 1), np.int64)
    some = np.flatnonzero(np.diff(first))
    begin[some], behind[some] = start[first[some]], end[first[some + 1] - 1]
    return begin, behind


def fasttext_tokens(documents: Documents) -> Spans:
    """The words of the documents that are alive as the library splits them: at spaces, tabs, line
    breaks (``\\n \\r \\v \\f``) and zero bytes. A line break is a space; the library's ``predict``
    refuses it.
    """
    data, offsets, alive = text_arrays(documents)
    first = np.zeros(len(documents) + 1, np.int64)
    nothing = np.zeros(0, np.int64)
    found = kernels.split(data, offsets, alive, first, nothing, nothing)
    start, end = empty(found, np.int64), empty(found, np.int64)
    kernels.split(data, offsets, alive, first, start, end)
    return first, start, end


def load_model(path: Path) -> FastTextModel:
    """``FastTextModel.load``, once a process for a file that stays the same."""
    return once(FastTextModel.load, path, "there is no model {path}")


def zero_word(path: Path, word: str) -> None:
    """Set the row of a word to zeros in the file of a model that is not quantised; nothing happens
    if the model does not know the word.

    Raises:
        TamisError: if the file is no such model.
    """
    with _opened(path, "r+") as file:
        settings = _read_settings(file, path)
        words, _, _, entry, names, _ = _read_dictionary(file, settings)
        if file.numbers("?2q")[0]:
            raise TamisError(f"{path} is quantised: its words have no rows of their own")
        for row in range(words):
            if names[entry[row] : entry[row + 1]].tobytes() == word.encode():
                begin = file.at + 4 * settings.width * row
                file.content[begin : begin + 4 * settings.width] = 0
                break


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels of a model without ``__label__``, in the order of the file, which is that of how
    often they occurred.

    Raises:
        TamisError: if the file is missing, damaged, or no supervised fastText model.
    """
    with _opened(path) as file:
        labels: tuple[str, ...] = _read_dictionary(file, _read_settings(file, path))[1]
        return labels


@contextmanager
def _opened(path: Path, mode: Literal["r", "r+"] = "r") -> Iterator[_File]:
    """A file to be read as a model; what is wrong with it is a TamisError."""
    try:
        content = np.memmap(path, np.uint8, mode)
    except (OSError, ValueError) as error:
        raise TamisError(f"{path} cannot be read as a fastText model: {error}") from error
    try:
        yield _File(content)
    except (struct.error, ValueError, UnicodeDecodeError, OverflowError) as error:
        raise TamisError(f"{path} is damaged: {error}") from error


class _File:
    """A file that is read from front to back; struct.error or ValueError where it ends early."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self.content = content
        self.at = 0

    def numbers(self, format: str) -> tuple[Any, ...]:
        size = struct.calcsize("<" + format)
        values = struct.unpack("<" + format, bytes(self.content[self.at : self.at + size]))
        self.at += size
        return values

    def array(self, dtype: Any, *shape: int) -> NDArray[Any]:
        """A view of the file, maybe not aligned."""
        count = int(np.prod(np.array(shape, object)))
        if min(shape) < 0 or count * np.dtype(dtype).itemsize > len(self.content) - self.at:
            raise ValueError("it ends too early")
        array = np.frombuffer(self.content, dtype, count, self.at).reshape(shape)
        self.at += array.nbytes
        return array


class _Settings(NamedTuple):
    """The arguments of the training that matter to a prediction."""

    width: int
    ngram: int
    loss: int
    bucket: int
    shortest: int
    longest: int


def _read(file: _File, path: Path) -> tuple[tuple[str, ...], Tables | Collapsed]:
    settings = _read_settings(file, path)
    words, labels, counts, entry, names, pruned = _read_dictionary(file, settings)
    quantised = file.numbers("?")[0]
    rows = _read_quantised(file) if quantised else _read_matrix(file)
    output_quantised = file.numbers("?")[0]
    output = _read_quantised(file) if quantised and output_quantised else _read_matrix(file)
    buckets = int(pruned.max(initial=-1)) + 1 if pruned.size else settings.bucket
    hashes = settings.ngram > 1 or settings.longest > 0
    shapes = rows.shape[1] == output.shape[1] == settings.width
    if not shapes or len(output) != len(labels) or len(rows) < words + buckets * hashes:
        raise ValueError("its matrices do not fit to its dictionary")
    left = right = np.zeros(0, np.int32)
    if settings.loss == HIERARCHICAL:
        left, right = _huffman_tree(counts)
    multiplied = settings.loss != HIERARCHICAL and 2 * len(labels) <= settings.width
    if multiplied and settings.longest == 0 and not pruned.size and len(labels) > 1:
        bucket = settings.bucket if settings.ngram > 1 else 0
        product = _multiply(rows[: words + bucket], relative(output, settings.loss))
        shape = (bucket, settings.ngram, len(labels), settings.loss)
        return labels, collapse(names, entry, product, words, shape)
    if multiplied:
        rows, output = _multiply(rows, output), np.zeros((len(labels), 0), np.float32)
    slots = np.full(1 << (2 * len(entry)).bit_length(), -1, np.int32)
    kernels.fill_slots(names, entry, slots)
    return labels, Tables(
        slots=readonly(slots),
        entry=readonly(entry),
        names=readonly(names),
        words=words,
        rows=readonly(rows),
        pruned=readonly(pruned),
        kept=readonly(_bits(pruned >= 0)),
        bucket=settings.bucket,
        shortest=settings.shortest,
        longest=settings.longest,
        ngram=settings.ngram,
        output=readonly(output.T),
        loss=settings.loss,
        left=readonly(left),
        right=readonly(right),
    )


def _read_settings(file: _File, path: Path) -> _Settings:
    magic, version = file.numbers("ii")
    if magic != _MAGIC:
        raise TamisError(f"{path} is not a fastText model (.bin or .ftz)")
    if version not in _VERSIONS:
        raise TamisError(f"{path} has the format {version} of fastText; 11 and 12 can be read")
    width, _, _, _, _, ngram, loss, model, bucket, shortest, longest, _, _ = file.numbers("12id")
    if model != _SUPERVISED:
        raise TamisError(f"{path} holds word vectors; a classifier is needed (fasttext supervised)")
    if version == 11:
        longest = 0
    known = loss in range(HIERARCHICAL, kernels.ONE_VS_ALL + 1)
    if not known or width < 1 or bucket < 0 or ngram > _LONGEST:
        raise ValueError("its settings make no sense")
    if (ngram > 1 or longest > 0) and bucket == 0:
        raise ValueError("it has n-grams but no buckets")
    return _Settings(width, ngram, loss, bucket, max(shortest, 0), max(longest, 0))


def _read_dictionary(file: _File, settings: _Settings) -> tuple[Any, ...]:
    """(number of words, labels, their counts, entry, names, pruned) as in ``Tables``."""
    size, words, labels, _, pruned_size = file.numbers("3i2q")
    if not 0 <= labels <= size == words + labels or 10 * size > len(file.content):
        raise ValueError("its dictionary makes no sense")
    entry, counts = np.zeros(size + 1, np.int64), np.zeros(size, np.int64)
    names = np.empty(len(file.content) - file.at, np.uint8)
    at, found = kernels.read_entries(readonly(file.content), file.at, entry, names, counts)
    if at < 0 or found != words:
        raise ValueError("its dictionary ends too early or is out of order")
    file.at = at
    names = names[: entry[-1]].copy()
    decoded = tuple(
        bytes(names[entry[k] : entry[k + 1]]).decode().removeprefix(_PREFIX)
        for k in range(words, size)
    )
    if not decoded:
        raise ValueError("it has no labels")
    pruned = np.zeros(0, np.int32)
    if pruned_size >= 0:
        # With no pair left a text has no hashed features at all.
        pairs = file.array(np.int32, pruned_size, 2)
        pruned = np.full(settings.bucket, -1, np.int32)
        if pairs.min(initial=0) < 0 or pairs[:, 0].max(initial=-1) >= settings.bucket:
            raise ValueError("its list of pruned buckets makes no sense")
        pruned[pairs[:, 0]] = pairs[:, 1]
    return words, decoded, counts[words:], entry, names, pruned


def _read_matrix(file: _File) -> NDArray[np.float32]:
    return file.array(np.float32, *file.numbers("2q"))


def _read_codebook(file: _File) -> tuple[int, NDArray[np.float32]]:
    """(values a code stands for, centroids) of a product quantiser."""
    width, _, part, _ = file.numbers("4i")
    if part < 1:
        raise ValueError("its quantiser makes no sense")
    return part, file.array(np.float32, width * _CENTROIDS)


def _read_quantised(file: _File) -> NDArray[np.float32]:
    """A product-quantised matrix, decoded."""
    normalised = file.numbers("?")[0]
    count, width, size = file.numbers("2qi")
    codes_at = file.array(np.uint8, size)
    part, centroids = _read_codebook(file)
    codes = codes_at.reshape(count, -(-width // part))
    matrix = np.empty((count, width), np.float32)
    for number, begin in enumerate(range(0, width, part)):
        step = min(part, width - begin)
        book = centroids[begin * _CENTROIDS : (begin + step) * _CENTROIDS].reshape(-1, step)
        matrix[:, begin : begin + step] = book[codes[:, number]]
    if normalised:
        norm_codes = file.array(np.uint8, count)
        matrix *= _read_codebook(file)[1][norm_codes][:, None]
    return matrix


def _bits(flags: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """One bit a flag, lowest first."""
    packed = np.packbits(flags, bitorder="little")
    return np.pad(packed, (0, -len(packed) % 8)).view(np.uint64)


def _multiply(rows: NDArray[np.float32], output: NDArray[np.float32]) -> NDArray[np.float32]:
    """What each feature adds to each logit."""
    product = np.empty((len(rows), len(output)), np.float32)
    for begin in range(0, len(rows), _ROWS_AT_A_TIME):
        part = slice(begin, begin + _ROWS_AT_A_TIME)
        np.matmul(rows[part].astype(np.float32), output.T, out=product[part])
    return product


def _huffman_tree(counts: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The children of each node, -1 for those of the leaves, which come first; the last node is
    the root. Counts are in descending order, as the library keeps them.
    """
    leaves = len(counts)
    weight = np.full(2 * leaves - 1, 10**15, np.int64)
    weight[:leaves] = counts
    children = np.full((2 * leaves - 1, 2), -1, np.int32)
    leaf, inner = leaves - 1, leaves
    for node in range(leaves, 2 * leaves - 1):
        for side in range(2):
            if leaf >= 0 and weight[leaf] < weight[inner]:
                children[node, side] = leaf
                leaf -= 1
            else:
                children[node, side] = inner
                inner += 1
        weight[node] = weight[children[node]].sum()
    return children[:, 0].copy(), children[:, 1].copy()
