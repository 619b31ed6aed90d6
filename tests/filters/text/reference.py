"""The measures of the text filters in plain Python, one document at a time, and texts to try them
on.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from tamis.filters.text.unicode_classes import PUNCTUATION_SET, TERMINAL_PUNCTUATION
from tamis.filters.text.words import STOP_WORDS
from tamis.pipeline.documents import Documents
from tamis.pipeline.stages import Measures

Split = Callable[[str], list[str]]


def batch(texts: Sequence[str | None]) -> Documents:
    return Documents(
        pa.RecordBatch.from_pydict(
            {
                "id": pa.array([str(i) for i in range(len(texts))]),
                "text": pa.array(texts, pa.large_string()),
            }
        )
    )


@cache
def demo_texts() -> tuple[str, ...]:
    """Real documents: those of the demo corpus, and pieces of them that begin and end anywhere."""
    packed = files("tamis.demo").joinpath("minicrawl.jsonl.gz").read_bytes()
    documents = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
    texts = [document["text"] for document in documents if document.get("text")]
    pieces = [
        text[start : start + size]
        for size in (40, 300, 900, 2500)
        for text in texts
        for start in range(7, min(len(text), 3 * size), size)
    ]
    return tuple(texts + pieces)


AWKWARD = (
    *(
        "",
        " ",
        "\n",
        "\n\n",
        "\n\n\n",
        "a",
        "\na",
        "a\n",
        "\na\n",
        "\0",
        "a\0b \0",
        " \n \n ",
        "\r\n",
    ),
    *("a\n\nb\n\na\n\na", "x\n \nx\n \nx", "a\n\n\n\na", " a \n\n a ", "one\ntwo\none\ntwo\none"),
    *(
        "...",
        "....",
        "......",
        "a...",
        "a…",
        "… … …",
        "# # #",
        "• a\n- b\n* c\n● d\n-",
        ". . .",
        "a . . . .",
    ),
    *(
        "line\rline\x0bline\x0cline\x1cline\x1dline\x1eline\x85line\u2028line\u2029line",
        "a\r\n\r\nb\r",
    ),
    *("\u00a0a\u1680b\u2000c\u200a\u202fd\u205fe\u3000f\u200bg\u180eh\x1fi\x85j", "\ufeff a"),
    *(
        "日本語のテキスト。\n日本語のテキスト。",
        "。",
        "カタカナ ﾊﾝｶｸ",
        "ภาษาไทย",
        "한국어 문장.",
        "👩‍👩‍👧 😀 !",
        "é e\u0301",
    ),
    *(
        "the THE The be to of and that have with",
        "the the the",
        "１ ２ ¹ ² Ⅳ ⓐ",
        "-",
        "-\n•\n•x\n -y",
    ),
    *(
        "a b a b a b a b a b a b a b",
        "ab c a bc abc " * 9,
        "word " * 700,
        "x" * 5000,
        "y" * 63 + " " + "z" * 64,
    ),
    *(
        "end.\nend!\nend?\nend;\nend. \nend…",
        "a" * 30 + "\n" + "b" * 31,
        "é" * 30 + "\n" + "é" * 31,
    ),
    *(
        "\n".join(f"row {i % 7}" for i in range(90)),
        " ".join(f"w{i % 13} v{i % 5}" for i in range(400)),
    ),
    *(
        "\n" * 64 + "a" * 64 + "\n" * 64,
        ("a" * 63 + "\u3000") * 3,
        ("b" * 62 + "\u2028") * 70,
        "é" * 4095,
    ),
)

_PIECES = st.sampled_from(
    [
        *(
            "the",
            "be",
            "of",
            "With",
            "a",
            "bb",
            "don't",
            "3.14",
            "word",
            "-",
            "•",
            "#",
            "...",
            "…",
            ".",
            "!",
        ),
        *(
            " ",
            " ",
            " ",
            "\n",
            "\n",
            "\n\n",
            "\t",
            "\r\n",
            "\r",
            "\x0c",
            "\x1c",
            "\x85",
            "\u00a0",
            "\u3000",
        ),
        *(
            "\u2028",
            "\u200a",
            "\0",
            "é",
            "日本",
            "。",
            "カナ",
            "ไทย",
            "😀",
            "\u0301",
            "'",
            ":",
            "_",
            ". . .",
        ),
        *("a b c d e ", "line of text.\n", "\u180e", "\u200b", "ß", "ǅ", "²", "x" * 70),
    ]
)
hostile_text = st.one_of(
    st.lists(_PIECES, max_size=120).map("".join),
    st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=200),
)


def words_of(text: str) -> list[str]:
    return text.split()


def divide(part: float, whole: float) -> float:
    if whole == 0:
        return math.nan if part == 0 else math.inf
    return part / whole


def repeated(segments: Sequence[str]) -> tuple[int, int]:
    """Segments equal to an earlier one, and their characters."""
    earlier = [segment for i, segment in enumerate(segments) if segment in set(segments[:i])]
    return len(earlier), sum(map(len, earlier))


def copies(segments: Sequence[str]) -> tuple[int, int]:
    """Segments that occur more than once, and their characters."""
    count = Counter(segments)
    several = [segment for segment in segments if count[segment] > 1]
    return len(several), sum(map(len, several))


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def greedy(words: Sequence[str], n: int) -> int:
    """Characters of n-grams met before, the words of which are passed over."""
    met: set[str] = set()
    at, characters = 0, 0
    while at + n <= len(words):
        joined = "".join(words[at : at + n])
        if joined in met:
            characters += len(joined)
            at += n
        else:
            met.add(joined)
            at += 1
    return characters


def repetition(text: str, split: Split = words_of) -> dict[str, float]:
    words = split(text)
    blocks, rows = re.split(r"\n{2,}", text.strip()), re.split(r"\n+", text)
    result = {
        "characters": float(len(text)),
        "duplicate_paragraphs": divide(repeated(blocks)[0], len(blocks)),
        "duplicate_paragraph_characters": divide(repeated(blocks)[1], len(text)),
        "duplicate_lines": divide(repeated(rows)[0], len(rows)),
        "duplicate_line_characters": divide(repeated(rows)[1], len(text)),
    }
    for n in (2, 3, 4):
        result[f"top_{n}_gram"] = math.nan
        if len(words) >= n:
            top, number = Counter(ngrams(words, n)).most_common(1)[0]
            result[f"top_{n}_gram"] = divide(len(" ".join(top)) * number, len(text))
    for n in range(5, 11):
        result[f"duplicated_{n}_grams"] = divide(greedy(words, n), len(text))
    return result


def repetition_dolma(text: str) -> dict[str, float]:
    words, rows = text.split(), text.split("\n")
    characters = sum(map(len, words))
    result = {
        "characters": float(characters),
        "duplicate_lines": divide(copies(rows)[0], len(rows)),
        "duplicate_line_characters": divide(copies(rows)[1], characters),
    }
    for n in (2, 3, 4):
        result[f"top_{n}_gram"] = math.nan
        if len(words) >= n:
            top, number = Counter(ngrams(words, n)).most_common(1)[0]
            result[f"top_{n}_gram"] = divide(len("".join(top)) * number, characters)
    for n in range(5, 11):
        grams = ngrams(words, n)
        count = Counter(grams)
        part = sum(len("".join(gram)) for gram in grams if count[gram] > 1)
        result[f"duplicated_{n}_grams"] = divide(part, sum(len("".join(gram)) for gram in grams))
    return result


def repetition_dclm(text: str, split: Split) -> dict[str, float]:
    words = [word for word in split(text) if word[0].isalnum()]
    characters = sum(map(len, words))
    result = {"characters": float(len("".join(text.split())))}
    for name, separator in (("line", "\n"), ("paragraph", "\n\n")):
        segments = [segment.strip() for segment in text.split(separator) if segment.strip()]
        number, part = copies(segments)
        result[f"duplicate_{name}s"] = divide(number, len(segments))
        result[f"duplicate_{name}_characters"] = divide(part, sum(map(len, segments)))
    for n in (2, 3, 4):
        result[f"top_{n}_gram"] = math.nan
        count = Counter(ngrams(words, n))
        most = max(count.values(), default=0)
        if most > 1:
            longest = max(len("".join(gram)) for gram in count if count[gram] == most)
            result[f"top_{n}_gram"] = divide(most * longest, characters)
    for n in range(5, 11):
        grams = ngrams(words, n)
        count = Counter(grams)
        covered = {i + k for i, gram in enumerate(grams) if count[gram] > 1 for k in range(n)}
        part = sum(len(words[i]) for i in covered)
        result[f"duplicated_{n}_grams"] = divide(part, characters)
    return result


def has_letter(word: str) -> bool:
    return any(character.isalpha() for character in word)


def quality(text: str, split: Split = words_of) -> dict[str, float]:
    words, rows = split(text), text.splitlines()
    plain = [word for word in words if any(ord(c) not in PUNCTUATION_SET for c in word)]
    return {
        "words": float(len(plain)),
        "mean_word_length": divide(sum(map(len, plain)), len(plain)),
        "hash_ratio": divide(text.count("#"), len(words)),
        "ellipsis_ratio": divide(text.count("...") + text.count("…"), len(words)),
        "bullet_lines": divide(sum(r.lstrip().startswith(("•", "-")) for r in rows), len(rows)),
        "ellipsis_lines": divide(sum(r.rstrip().endswith(("...", "…")) for r in rows), len(rows)),
        "alphabetic_words": divide(sum(map(has_letter, words)), len(words)),
        "stop_words": float(len(set(STOP_WORDS) & set(words))),
    }


def quality_dolma(text: str) -> dict[str, float]:
    words, rows = text.split(), text.split("\n")
    return {
        "words": float(len(words)),
        "median_word_length": statistics.median(map(len, words)) if words else math.nan,
        "symbol_ratio": divide(sum("#" in w or "…" in w for w in words), len(words)),
        "bullet_lines": divide(sum(row.startswith(("*", "-")) for row in rows), len(rows)),
        "ellipsis_lines": divide(sum(row.endswith("…") for row in rows), len(rows)),
        "alphabetic_words": divide(sum(map(has_letter, words)), len(words)),
        "stop_words": float(sum(word in STOP_WORDS for word in words)),
    }


def quality_dclm(text: str) -> dict[str, float]:
    words = text.split()
    rows = [row.strip() for row in text.split("\n") if row.strip()]
    symbols = sum(map(text.count, ("#", "...", ". . .", "…")))
    ends = ("...", ". . .", "…")
    return {
        "words": float(sum(word[0].isalnum() for word in words)),
        "mean_word_length": divide(sum(map(len, words)), len(words)),
        "symbol_ratio": divide(symbols, len(words)),
        "bullet_lines": divide(
            sum(row.startswith(("●", "•", "*", "-")) for row in rows), len(rows)
        ),
        "ellipsis_lines": divide(sum(row.endswith(ends) for row in rows), len(rows)),
        "alphabetic_words": divide(sum(map(has_letter, words)), len(words)),
        "stop_words": float(sum(word.lower() in STOP_WORDS for word in words)),
    }


def fineweb(text: str, split: Split = words_of, short: int = 30) -> dict[str, float]:
    rows = [row for row in text.split("\n") if row.strip()]
    ends = tuple(map(chr, TERMINAL_PUNCTUATION))
    return {
        "lines": float(len(rows)),
        "terminal_lines": divide(sum(row.endswith(ends) for row in rows), len(rows)),
        "short_lines": divide(sum(len(row) <= short for row in rows), len(rows)),
        "duplicate_line_characters": divide(repeated(rows)[1], len(text.replace("\n", ""))),
        "newline_ratio": divide(text.count("\n"), len(split(text))),
    }


def assert_equal_measures(
    measured: Measures, texts: Sequence[str], expected: Callable[[str], dict[str, float]]
) -> None:
    """Every value is the reference's to the last bit, NaN where it is NaN."""
    reference = [expected(text) for text in texts]
    if not texts:
        return
    assert set(measured) == set(reference[0])
    for name, values in measured.items():
        wanted = np.array([one[name] for one in reference])
        got = np.asarray(values, np.float64)
        wrong = np.flatnonzero(~((got == wanted) | (np.isnan(got) & np.isnan(wanted))))
        assert not len(wrong), (name, texts[wrong[0]], got[wrong[0]], wanted[wrong[0]])
