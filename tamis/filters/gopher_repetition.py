"""Gopher's repetition filter: documents that say the same again and again.

Source: Rae et al. 2021, "Scaling Language Models" (Gopher), table A1.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tamis.filters.text.lines import Lines, lines, paragraphs, repeated_lines, repeats
from tamis.filters.text.ngrams import duplicated_ngrams, top_ngrams
from tamis.filters.text.scan import scan
from tamis.filters.text.ratio import ratio
from tamis.filters.text.words import Profile, words
from tamis.pipeline.documents import Documents
from tamis.pipeline.stages import Filter, Measures, Quantity, Rule, count, fraction


class GopherRepetition(Filter):
    """Drops documents by the share of repeated paragraphs, lines and word n-grams."""

    kind: ClassVar[str] = "gopher_repetition"

    min_characters: int | None = 1
    max_duplicate_paragraphs: float | None = 0.30
    max_duplicate_paragraph_characters: float | None = 0.20
    max_duplicate_lines: float | None = 0.30
    max_duplicate_line_characters: float | None = 0.20
    max_top_ngram: dict[int, float] = Field(default={2: 0.20, 3: 0.18, 4: 0.16})
    max_duplicated_ngrams: dict[int, float] = Field(
        default={5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    )
    words: Profile = "whitespace"

    def provides(self) -> tuple[Quantity, ...]:
        top = (
            fraction(f"top_{n}_gram", f"characters of the most common {n}-gram, all its occurrences", float("inf"))
            for n in self.max_top_ngram
        )
        duplicated = (
            fraction(f"duplicated_{n}_grams", f"characters in {n}-grams that occurred before")
            for n in self.max_duplicated_ngrams
        )
        return (
            count("characters", "code points of the text"),
            fraction("duplicate_paragraphs", "paragraphs equal to an earlier one"),
            fraction("duplicate_paragraph_characters", "characters in those paragraphs"),
            fraction("duplicate_lines", "lines equal to an earlier one"),
            fraction("duplicate_line_characters", "characters in those lines"),
            *top,
            *duplicated,
        )

    def rules(self) -> tuple[Rule, ...]:
        top = (Rule(f"max_top_ngram.{n}", ">", f"top_{n}_gram") for n in self.max_top_ngram)
        duplicated = (
            Rule(f"max_duplicated_ngrams.{n}", ">", f"duplicated_{n}_grams")
            for n in self.max_duplicated_ngrams
        )
        return (
            Rule("min_characters", "<", "characters"),
            Rule("max_duplicate_paragraphs", ">", "duplicate_paragraphs"),
            Rule("max_duplicate_paragraph_characters", ">", "duplicate_paragraph_characters"),
            Rule("max_duplicate_lines", ">", "duplicate_lines"),
            Rule("max_duplicate_line_characters", ">", "duplicate_line_characters"),
            *top,
            *duplicated,
        )

    def measure(self, documents: Documents) -> Measures:
        characters = scan(documents).characters
        split, blocks = lines(documents), paragraphs(documents)
        of_lines, of_blocks = repeated_lines(documents), repeats(documents, blocks)
        segments, empty = _line_segments(split)
        measures = {
            "characters": characters,
            "duplicate_paragraphs": ratio(
                of_blocks.repeated, np.maximum(np.diff(blocks.first), 1)
            ),
            "duplicate_paragraph_characters": ratio(of_blocks.repeated_characters, characters),
            "duplicate_lines": ratio(of_lines.repeated + empty, segments),
            "duplicate_line_characters": ratio(of_lines.repeated_characters, characters),
        }
        spans = words(documents, self.words)
        for table, sizes, name in (
            (top_ngrams, tuple(self.max_top_ngram), "top_{}_gram"),
            (duplicated_ngrams, tuple(self.max_duplicated_ngrams), "duplicated_{}_grams"),
        ):
            found = table(spans, sizes)
            for column, n in enumerate(sizes):
                measures[name.format(n)] = ratio(found[:, column], characters)
        return measures


def _line_segments(split: Lines) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The number of items of ``re.split(r"\\n+", text)``, and how many of them are a second empty one.

    Empty items are there only where the text begins or ends with a line break.
    """
    solid = split.start < split.end
    before = np.concatenate([[0], np.cumsum(solid)])
    filled = before[split.first[1:]] - before[split.first[:-1]]
    count = np.diff(split.first)
    some = count > 0
    begins, ends = np.zeros(len(count), np.int64), np.zeros(len(count), np.int64)
    begins[some] = ~solid[split.first[:-1][some]]
    ends[some] = ~solid[split.first[1:][some] - 1]
    single = count == 1
    empty = begins + ends - (single & (begins == 1))
    return filled + empty, np.maximum(empty - 1, 0)
