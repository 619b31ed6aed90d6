"""Bits per byte of held-out text, source by source, at a fixed context.

    bits per byte = sum of nats / (ln 2 x sum of UTF-8 bytes)

over all tokens of the documents. A document is a row of its own behind ``start`` (by default the
token bos), so its first token is predicted too; its end (eos) is no text and not predicted. What is
longer than the context is seen through windows that begin every ``stride`` tokens and, in the
middle of a document, with whatever token stands there. Numbers may be compared if context, stride
and start are the same, whatever the tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.pipeline.errors import RecipeError, TamisError
from tamis.trainers.evaluation.items import Document, Outcome, digest_of

if TYPE_CHECKING:
    from tamis.trainers.evaluation.scorer import Scorer
    from tamis.trainers.tokenizer import Tokenizer

LN2 = math.log(2)

_TOGETHER = 256
"""Documents that are tokenized and scored at once."""


def bits_per_byte(
    scorer: Scorer,
    tokenizer: Tokenizer,
    documents: Mapping[str, Sequence[Document]],
    context: int | None = None,
    stride: int | None = None,
    start: Sequence[int] | None = None,
) -> list[Outcome]:
    """The nats, tokens and bytes of every document, by source; ``total`` and ``by_source`` add them
    up. Empty documents are left out.

    ``context``: tokens that are seen at once (by default all that the model can). ``stride`` (by
    default half of it): a token behind the first window is predicted from at least ``context -
    stride + 1`` tokens; ``stride = context`` is fastest. ``start``: tokens before each document.

    Raises:
        RecipeError: for a context that the model does not have, or a stride that leaves gaps.
        TamisError: if a source has no text.
    """
    context, stride = fixed_context(scorer, context, stride)
    lead = np.array([tokenizer.bos] if start is None else start, np.int64)
    if not 1 <= len(lead) <= context:
        raise RecipeError(f"{len(lead)} tokens before a document: it takes 1 to {context}")
    outcomes = []
    for source, texts in documents.items():
        wanted = [one for one in texts if one.text]
        if not wanted:
            raise TamisError(f"{source}: there is no text to measure")
        for first in range(0, len(wanted), _TOGETHER):
            part = wanted[first : first + _TOGETHER]
            encoded = tokenizer.encode([one.text for one in part])
            rows = [np.concatenate([lead, np.asarray(ids, np.int64)]) for ids in encoded]
            nats = document_nats(scorer, rows, len(lead), context, stride)
            for one, row, value in zip(part, rows, nats, strict=True):
                size = len(one.text.encode())
                metrics = {
                    "bits_per_byte": value / (LN2 * size),
                    "nats": value,
                    "tokens": len(row) - len(lead),
                    "bytes": size,
                }
                digest = digest_of(one.text)
                outcomes.append(Outcome("document", source, one.id, metrics, digest=digest))
    return outcomes


def fixed_context(scorer: Scorer, context: int | None, stride: int | None) -> tuple[int, int]:
    """The context and stride that are meant; RecipeError if they cannot be had."""
    if context is None:
        context = scorer.context
    if not 1 <= context <= scorer.context:
        raise RecipeError(
            f"context = {context}: the model sees 1 to {scorer.context} tokens at once"
        )
    if stride is None:
        stride = max(1, context // 2)
    if not 1 <= stride <= context:
        raise RecipeError(
            f"stride = {stride}: with a context of {context} it is 1 to {context}, or tokens are "
            "left out"
        )
    return context, stride


def windows(length: int, lead: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(begin, end, first) of the windows over a row: ``first:end`` are the tokens that
    ``begin:end`` predicts and no window before it did. Those before ``lead`` never are.
    """
    begin, first = 0, lead
    while first < length:
        end = min(begin + context + 1, length)
        yield begin, end, first
        begin, first = begin + stride, end


def document_nats(
    scorer: Scorer, rows: Sequence[NDArray[np.int64]], lead: int, context: int, stride: int
) -> list[float]:
    """-ln p of each row without its first ``lead`` tokens."""
    places = [
        (number, *window)
        for number, row in enumerate(rows)
        for window in windows(len(row), lead, context, stride)
    ]
    scored = scorer.token_logprobs([rows[number][begin:end] for number, begin, end, _ in places])
    nats = np.zeros(len(rows))
    for (number, begin, _, first), logprobs in zip(places, scored, strict=True):
        nats[number] -= logprobs[first - begin - 1 :].sum()
    return [float(value) for value in nats]


class Total(NamedTuple):
    """The documents of a source, or of all."""

    bits_per_byte: float
    standard_error: float | None
    """Over documents, of the ratio; None for a single one."""
    documents: int
    tokens: int
    bytes: int

    @property
    def nats_per_token(self) -> float:
        """The loss, as training has it."""
        return self.bits_per_byte * LN2 * self.bytes / max(self.tokens, 1)


def total(outcomes: Sequence[Outcome]) -> Total:
    """Bits per byte of the documents together, so that longer ones count more."""
    nats, tokens, size = (
        np.array([one.metrics[name] for one in outcomes]) for name in ("nats", "tokens", "bytes")
    )
    bits = nats.sum() / (LN2 * size.sum())
    error = ratio_error(nats / LN2, size)
    return Total(float(bits), error, len(outcomes), int(tokens.sum()), int(size.sum()))


def ratio_error(over: NDArray[np.float64], under: NDArray[np.float64]) -> float | None:
    """The standard error of sum(over) / sum(under), linearised; None for fewer than two."""
    n = len(over)
    if n < 2:
        return None
    residuals = over - under * (over.sum() / under.sum())
    return float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / under.sum())


def by_source(outcomes: Sequence[Outcome]) -> dict[str, Total]:
    """The total of each source."""
    sources = dict.fromkeys(one.task for one in outcomes)
    return {name: total([one for one in outcomes if one.task == name]) for name in sources}
