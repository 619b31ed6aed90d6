"""Gopher's repetition filter: documents that say the same again and again.

Source: Rae et al. 2021, "Scaling Language Models" (Gopher), table A1. What counts as repeated is
not said there; the preset tells whose reading is taken:

gopher   datatrove's, which made FineWeb: a copy is what equals something before it, and duplicated
         n-grams are counted greedily; fractions of the characters of the text
dolma    all copies count, the first among them; n-grams overlap; fractions of the characters of the
         words (of lines: ``max_duplicate_line_characters`` 0.30); no paragraphs
dclm     lines and paragraphs are stripped and empty ones left out; all copies count; n-grams of
         words that begin with a letter or digit, and characters that a repeated n-gram covers count
         once; documents of white space only are dropped
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from tamis.filters.text.lines import Lines, lines, paragraphs, repeated_lines, repeats, stripped
from tamis.filters.text.ngrams import duplicated_ngrams, repeated_ngrams, top_ngrams
from tamis.filters.text.ratio import ratio
from tamis.filters.text.scan import scan
from tamis.filters.text.words import Profile, Words, only, per_document, starts_alphanumeric, words
from tamis.pipeline.documents import Documents
from tamis.pipeline.stages import Filter, Measures, Quantity, Rule, count, fraction

_PRESETS: dict[str, dict[str, Any]] = {
    "gopher": {},
    "dolma": {
        "min_characters": None,
        "max_duplicate_paragraphs": None,
        "max_duplicate_paragraph_characters": None,
        "max_duplicate_line_characters": 0.30,
    },
    "dclm": {"words": "unicode"},
}


class GopherRepetition(Filter):
    """Drops documents by the share of repeated paragraphs, lines and word n-grams.

    A fraction is NaN, and drops nothing, where it has no meaning: n-grams of a text of fewer than n
    words, and all fractions of an empty text, which ``min_characters`` drops.
    """

    kind: ClassVar[str] = "gopher_repetition"

    preset: Literal["gopher", "dolma", "dclm"] = "gopher"
    words: Profile = "whitespace"
    min_characters: int | None = 1
    max_duplicate_paragraphs: float | None = 0.30
    max_duplicate_paragraph_characters: float | None = 0.20
    max_duplicate_lines: float | None = 0.30
    max_duplicate_line_characters: float | None = 0.20
    max_top_ngram: dict[PositiveInt, float | None] = Field(default={2: 0.20, 3: 0.18, 4: 0.16})
    max_duplicated_ngrams: dict[PositiveInt, float | None] = Field(
        default={5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {**_PRESETS.get(values.get("preset", "gopher"), {}), **values}

    def provides(self) -> tuple[Quantity, ...]:
        dolma = self.preset == "dolma"
        unbounded = float("inf")
        segments = () if dolma else ("paragraphs", "lines")
        of_segments = [
            quantity
            for segment in segments or ("lines",)
            for quantity in (
                fraction(f"duplicate_{segment}", f"{segment} that are copies of another one"),
                fraction(
                    f"duplicate_{segment[:-1]}_characters",
                    "characters in them",
                    unbounded if dolma else 1.0,
                ),
            )
        ]
        return (
            count("characters", "code points of the text (dolma, dclm: of its words)"),
            *of_segments,
            *(
                fraction(
                    f"top_{n}_gram", f"characters of all copies of the top {n}-gram", unbounded
                )
                for n in self.max_top_ngram
            ),
            *(
                fraction(f"duplicated_{n}_grams", f"characters in {n}-grams that are repeated")
                for n in self.max_duplicated_ngrams
            ),
        )

    def rules(self) -> tuple[Rule, ...]:
        segments = ["paragraphs", "paragraph_characters", "lines", "line_characters"]
        if self.preset == "dclm":
            segments = ["lines", "paragraphs", "line_characters", "paragraph_characters"]
        if self.preset == "dolma":
            segments = segments[2:]
        return (
            Rule("min_characters", "<", "characters"),
            *(
                Rule(f"max_duplicate_{segment}", ">", f"duplicate_{segment}")
                for segment in segments
            ),
            *(Rule(f"max_top_ngram.{n}", ">", f"top_{n}_gram") for n in self.max_top_ngram),
            *(
                Rule(f"max_duplicated_ngrams.{n}", ">", f"duplicated_{n}_grams")
                for n in self.max_duplicated_ngrams
            ),
        )

    def measure(self, documents: Documents) -> Measures:
        spans = words(documents, self.words)
        top, duplicated = tuple(self.max_top_ngram), tuple(self.max_duplicated_ngrams)
        if self.preset == "dolma":
            return {**_dolma_lines(documents), **_dolma_ngrams(spans, top, duplicated)}
        if self.preset == "dclm":
            spans = only(spans, starts_alphanumeric(documents, spans))
            return {**_dclm_segments(documents), **_dclm_ngrams(spans, top, duplicated)}
        of_text = scan(documents).characters
        return {**_segments(documents), **_ngrams(spans, of_text, top, duplicated)}


def _by_size(name: str, sizes: tuple[int, ...], values: NDArray[np.float64]) -> Measures:
    """A measure for each n from an array of shape (documents, sizes)."""
    return {name.format(n): values[:, column] for column, n in enumerate(sizes)}


def _segments(documents: Documents) -> Measures:
    """Of ``re.split(r"\\n{2,}", text.strip())`` and ``re.split(r"\\n+", text)``."""
    of_text = scan(documents).characters
    blocks = paragraphs(documents)
    of_blocks, of_lines = repeats(documents, blocks), repeated_lines(documents)
    segments, empty = _line_segments(lines(documents))
    return {
        "characters": of_text,
        "duplicate_paragraphs": ratio(of_blocks.repeated, np.maximum(np.diff(blocks.first), 1)),
        "duplicate_paragraph_characters": ratio(of_blocks.repeated_characters, of_text),
        "duplicate_lines": ratio(of_lines.repeated + empty, segments),
        "duplicate_line_characters": ratio(of_lines.repeated_characters, of_text),
    }


def _line_segments(split: Lines) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The number of items of ``re.split(r"\\n+", text)``, and 1 where an empty one is repeated.

    Empty items are there only where the text begins or ends with a line break.
    """
    solid = split.start < split.end
    total = np.diff(split.first)
    some = total > 0
    begins, ends = np.zeros(len(total), np.int64), np.zeros(len(total), np.int64)
    begins[some] = ~solid[split.first[:-1][some]]
    ends[some] = ~solid[split.first[1:][some] - 1]
    empty = begins + ends - ((total == 1) & (begins == 1))
    return per_document(split.first, solid) + empty, np.maximum(empty - 1, 0)


def _ngrams(
    spans: Words, of_text: NDArray[np.int64], top: tuple[int, ...], duplicated: tuple[int, ...]
) -> Measures:
    """The top n-gram has its spaces counted, duplicated n-grams are counted greedily."""
    found = top_ngrams(spans, top)
    joined = found.occurrences * (found.characters + np.array(top, np.int64) - 1)
    joined[found.occurrences == 0] = -1
    again = duplicated_ngrams(spans, duplicated)
    return {
        **_by_size("top_{}_gram", top, ratio(joined, of_text[:, None])),
        **_by_size("duplicated_{}_grams", duplicated, ratio(again, of_text[:, None])),
    }


def _dolma_lines(documents: Documents) -> Measures:
    """Of ``text.split("\\n")``, empty lines among them."""
    whitespace = words(documents, "whitespace")
    of_words = per_document(whitespace.first, whitespace.length)
    split, again = lines(documents), repeated_lines(documents)
    empty = per_document(split.first, split.start == split.end)
    copies = again.copies + np.where(empty > 1, empty, 0)
    return {
        "characters": of_words,
        "duplicate_lines": ratio(copies, np.diff(split.first)),
        "duplicate_line_characters": ratio(again.copied_characters, of_words),
    }


def _dolma_ngrams(spans: Words, top: tuple[int, ...], duplicated: tuple[int, ...]) -> Measures:
    of_words = per_document(spans.first, spans.length)
    found, again = top_ngrams(spans, top), repeated_ngrams(spans, duplicated)
    shares = found.occurrences * found.characters
    shares[found.occurrences == 0] = -1
    return {
        **_by_size("top_{}_gram", top, ratio(shares, of_words[:, None])),
        **_by_size("duplicated_{}_grams", duplicated, ratio(again.occurrences, again.total)),
    }


def _dclm_segments(documents: Documents) -> Measures:
    """Of stripped lines and paragraphs; a single one is no copy of anything."""
    whitespace = words(documents, "whitespace")
    measures: Measures = {"characters": per_document(whitespace.first, whitespace.length)}
    for name, kind in (("line", lines(documents)), ("paragraph", paragraphs(documents))):
        segments, characters = stripped(documents, kind)
        again = repeats(documents, segments)
        measures[f"duplicate_{name}s"] = ratio(again.copies, np.diff(segments.first))
        measures[f"duplicate_{name}_characters"] = ratio(again.copied_characters, characters)
    return measures


def _dclm_ngrams(spans: Words, top: tuple[int, ...], duplicated: tuple[int, ...]) -> Measures:
    of_words = per_document(spans.first, spans.length)[:, None]
    found, again = top_ngrams(spans, top, longest=True), repeated_ngrams(spans, duplicated)
    shares = np.where(found.occurrences > 1, found.occurrences * found.characters, -1)
    return {
        **_by_size("top_{}_gram", top, ratio(shares, of_words)),
        **_by_size("duplicated_{}_grams", duplicated, ratio(again.covered, of_words)),
    }
