"""FineWeb's own filter: lists, menus and other pages that are lines more than text.

Source: Penedo et al. 2024, "The FineWeb Datasets", section 3.6 (the thresholds); the definitions
are those of the code that made the data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tamis.filters.text.bitmap import Int64s, UInt8s, UInt64s, next_bit, text_arrays
from tamis.filters.text.lines import lines, repeated_lines, span_characters
from tamis.filters.text.ratio import ratio
from tamis.filters.text.scan import scan
from tamis.filters.text.unicode_classes import TERMINAL_MARK, character_classes
from tamis.filters.text.words import Profile, decode, words
from tamis.kernel import kernel
from tamis.pipeline.documents import Documents
from tamis.pipeline.stages import Filter, Measures, Quantity, Rule, Verdicts, count, fraction


class FineWebQuality(Filter):
    """Drops documents with few sentence ends at line ends, many short lines, repeated lines, or
    many lines for their words.
    """

    kind: ClassVar[str] = "fineweb_quality"

    min_lines: int | None = 1
    min_terminal_lines: float | None = 0.12
    keep_without_terminal_lines: bool = False
    """Do not drop a document in which no line at all ends a sentence (``line_punct_exclude_zero``
    elsewhere).
    """
    max_short_lines: float | None = 0.67
    short_line_length: int = 30
    max_duplicate_line_characters: float | None = 0.01
    max_newline_ratio: float | None = 0.3
    words: Profile = "whitespace"

    def provides(self) -> tuple[Quantity, ...]:
        return (
            count("lines", "lines that are not blank"),
            fraction("terminal_lines", "lines that end with a mark that ends a sentence"),
            fraction("short_lines", f"lines of at most {self.short_line_length} characters"),
            fraction("duplicate_line_characters", "characters in lines equal to an earlier one"),
            fraction("newline_ratio", "line breaks to words", float("inf")),
        )

    def rules(self) -> tuple[Rule, ...]:
        return (
            Rule("min_lines", "<", "lines"),
            Rule("min_terminal_lines", "<", "terminal_lines"),
            Rule("max_short_lines", ">", "short_lines"),
            Rule("max_duplicate_line_characters", ">", "duplicate_line_characters"),
            Rule("max_newline_ratio", ">", "newline_ratio"),
        )

    def measure(self, documents: Documents) -> Measures:
        data, offsets, _ = text_arrays(documents)
        seen, split = scan(documents), lines(documents)
        again = repeated_lines(documents)
        filled, terminal, short = (np.zeros(len(documents), np.int64) for _ in range(3))
        _count_lines(
            *(data, offsets, character_classes(), seen.block, seen.solid, *split),
            *(self.short_line_length, filled, terminal, short),
        )
        return {
            "lines": filled,
            "terminal_lines": ratio(terminal, filled),
            "short_lines": ratio(short, filled),
            "duplicate_line_characters": ratio(
                again.repeated_characters - again.repeated_blanks, seen.characters - seen.newlines
            ),
            "newline_ratio": ratio(seen.newlines, np.diff(words(documents, self.words).first)),
        }

    def decide(self, measures: Mapping[str, NDArray[Any]]) -> Verdicts:
        if self.keep_without_terminal_lines:
            terminal = measures["terminal_lines"]
            measures = {**measures, "terminal_lines": np.where(terminal == 0, np.nan, terminal)}
        return super().decide(measures)


@kernel
def _ends_sentence(data: UInt8s, begin: Any, end: Any, classes: UInt8s) -> Any:
    """Whether the last character is in TERMINAL_PUNCTUATION."""
    at = end - 1
    while at > begin and data[at] & 0xC0 == 0x80:
        at -= 1
    return classes[decode(data, at)] & TERMINAL_MARK != 0


@kernel
def _count_lines(
    data: UInt8s,
    offsets: Int64s,
    classes: UInt8s,
    block: Int64s,
    solid: UInt64s,
    first: Int64s,
    start: Int64s,
    end: Int64s,
    short_length: Any,
    filled: Int64s,
    terminal: Int64s,
    short: Int64s,
) -> None:
    """Of the lines that are not blank: how many, how many end a sentence, how many have few code
    points.
    """
    for doc in range(first.size - 1):
        bits = solid[block[doc] : block[doc + 1]]
        for line in range(first[doc], first[doc + 1]):
            low, high = start[line] - offsets[doc], end[line] - offsets[doc]
            if next_bit(bits, low, high) == high:
                continue
            filled[doc] += 1
            terminal[doc] += _ends_sentence(data, start[line], end[line], classes)
            size = high - low
            if size > short_length and size <= 4 * short_length:
                size = span_characters(data, start[line], end[line])
            short[doc] += size <= short_length
