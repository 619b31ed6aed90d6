"""Programs by a language model that was trained to write them, asked through a generator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tamis.filters.refine.chunks import WINDOW, Chunk, LongLines, chunk_documents, join_programs
from tamis.filters.refine.prompts import (
    CHUNK_ANSWER_TOKENS,
    DOCUMENT_ANSWER_TOKENS,
    DOCUMENT_PROMPT_TOKENS,
    TEMPLATE_TOKENS,
    chunk_prompt,
    document_prompts,
)
from tamis.filters.refine.writers import Cost, ProgramWriter
from tamis.generation.cache import cache_folder, generate_cached
from tamis.generation.generator import Generator, Prompt
from tamis.generation.setting import Generation
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import TamisError


class Generated(ProgramWriter):
    """The programs that a language model answers with, greedily.

    Answers are kept: a document that was asked about before costs nothing.
    """

    kind: ClassVar[str] = "generator"

    generator: Generation
    """The model, of chunk programs if there is another one for documents."""
    document: Generation | None = None
    """The model of document programs; None for the same."""
    window: int = Field(default=WINDOW, ge=1)
    """Tokens of a window of numbered lines."""
    long_lines: LongLines = "cut"
    """What becomes of a line that is longer than the window."""
    max_tokens: int = Field(default=CHUNK_ANSWER_TOKENS, ge=1)
    """Of an answer about a window."""
    max_prompt_tokens: int = Field(default=DOCUMENT_PROMPT_TOKENS, ge=1)
    """Of a question about a document, which sees no more of it."""
    prompts: Literal["fitting", "prox"] = "fitting"
    """``prox``: so much of a document is shown as the published code shows."""
    cache: str | bool = True
    """The folder of answers; true for ~/.cache/tamis/answers, false to keep none."""

    def document_programs(self, documents: Documents) -> list[str]:
        rows, texts = _shown(documents)
        answers = generate_cached(
            self._judge(),
            self._document_prompts(texts),
            DOCUMENT_ANSWER_TOKENS,
            cache_folder(self.cache),
        )
        programs = [""] * len(documents)
        for row, answer in zip(rows, answers, strict=True):
            programs[row] = answer.text
        return programs

    def chunk_programs(self, documents: Documents) -> list[str]:
        rows, texts = _shown(documents)
        windows = self._windows(texts)
        answers = iter(
            generate_cached(
                self.generator,
                [chunk_prompt(one) for several in windows for one in several],
                self.max_tokens,
                cache_folder(self.cache),
            )
        )
        programs = [""] * len(documents)
        for row, several in zip(rows, windows, strict=True):
            programs[row] = join_programs([next(answers).text for _ in several], several)
        return programs

    def identity(self) -> str:
        sizes = f"{self.window} {self.long_lines} {self.max_tokens} {self.max_prompt_tokens}"
        return f"{self.generator.identity()}; {self._judge().identity()}; {sizes} {self.prompts}"

    def models(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys((*self.generator.models(), *self._judge().models())))

    def document_cost(self, documents: Documents) -> Cost:
        prompts = self._document_prompts(_shown(documents)[1])
        return _cost(self._judge(), prompts, DOCUMENT_ANSWER_TOKENS)

    def chunk_cost(self, documents: Documents) -> Cost:
        windows = self._windows(_shown(documents)[1])
        prompts = [chunk_prompt(one) for several in windows for one in several]
        return _cost(self.generator, prompts, self.max_tokens)

    def _judge(self) -> Generator:
        return self.document or self.generator

    def _document_prompts(self, texts: Sequence[str]) -> list[Prompt]:
        if not texts:
            return []
        compat: Literal["prox"] | None = "prox" if self.prompts == "prox" else None
        count, most = self._judge().count_tokens, self.max_prompt_tokens
        try:
            return document_prompts(texts, count, most, compat)
        except ValueError as error:
            raise TamisError(f"writer.max_prompt_tokens = {most}: {error}") from error

    def _windows(self, texts: Sequence[str]) -> list[list[Chunk]]:
        if not texts:
            return []
        return chunk_documents(texts, self.generator.count_tokens, self.window, self.long_lines)


def _shown(documents: Documents) -> tuple[list[int], list[str]]:
    """The rows that are alive and have more than white space, and their texts: about nothing no
    model is asked.
    """
    texts: list[str | None] = documents.text.filter(pa.array(documents.alive)).to_pylist()
    rows = np.flatnonzero(documents.alive).tolist()
    shown = [(row, text) for row, text in zip(rows, texts, strict=True) if text and text.strip()]
    return [row for row, _ in shown], [text for _, text in shown]


def _cost(generator: Generator, prompts: Sequence[Prompt], most: int) -> Cost:
    asked = list(dict.fromkeys(prompts))
    tokens = sum(generator.count_tokens([one.system + one.user for one in asked]))
    return Cost(len(asked), tokens + TEMPLATE_TOKENS * len(asked), most * len(asked))
