"""What a model is shown of a document, and its answers put together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.filters.refine.chunks import (
    Chunk,
    chunk_documents,
    chunks,
    count_words,
    fitting,
    join_programs,
    number_lines,
)
from tamis.filters.refine.prompts import (
    SYSTEM,
    TEMPLATE_TOKENS,
    chunk_prompt,
    document_prompts,
    llama2_chat,
)
from tamis.generation.generator import Prompt


def characters(texts: Sequence[str]) -> list[int]:
    """A tokenizer whose tokens are characters."""
    return [len(one) for one in texts]


def test_lines_are_numbered_from_0_with_three_digits_at_least() -> None:
    assert number_lines("a\n\nb ") == ["[000]a", "[001]", "[002]b "]
    assert number_lines("\n" * 1000)[-1] == "[1000]"
    assert number_lines("") == ["[000]"]


def test_windows_are_filled_line_by_line() -> None:
    # "[000]" and one character, and one that is counted with every line: 7 tokens a line.
    assert chunks("a\nb\nc\nd\ne", characters, window=14) == [
        Chunk(0, 1, "[000]a\n[001]b"),
        Chunk(2, 3, "[002]c\n[003]d"),
        Chunk(4, 4, "[004]e"),
    ]
    assert [one.last for one in chunks("a\nb\nc\nd\ne", characters, window=15)] == [1, 3, 4]
    assert [one.last for one in chunks("a\nb\nc\nd\ne", characters, window=21)] == [2, 4]
    assert chunks("a\nb", count_words) == [Chunk(0, 1, "[000]a\n[001]b")]
    with pytest.raises(ValueError, match="holds no line"):
        chunks("a", characters, window=0)


def test_a_line_longer_than_the_window() -> None:
    text = f"a\n{'b' * 30}\nc\nd"
    long = f"[001]{'b' * 30}"
    assert chunks(text, characters, window=14, long_lines="whole") == [
        Chunk(0, 0, "[000]a"),
        Chunk(1, 1, long),
        Chunk(2, 3, "[002]c\n[003]d"),
    ]
    # As the paper: it is not shown, and the window before it ends there.
    assert chunks(text, characters, window=14, long_lines="skip") == [
        Chunk(0, 0, "[000]a"),
        Chunk(2, 3, "[002]c\n[003]d"),
    ]
    assert chunks(text, characters, window=14) == [
        Chunk(0, 0, "[000]a"),
        Chunk(1, 1, f"[001]{'b' * 8}"),
        Chunk(2, 3, "[002]c\n[003]d"),
    ]
    assert chunks("b" * 30, characters, window=14, long_lines="skip") == []
    assert chunks(f"{'b' * 30}\nc", characters, window=14, long_lines="skip") == [
        Chunk(1, 1, "[001]c")
    ]


def test_all_lines_of_several_documents_are_counted_in_one_call() -> None:
    calls = []

    def counted(texts: Sequence[str]) -> list[int]:
        calls.append(len(texts))
        return [1] * len(texts)

    assert [len(one) for one in chunk_documents(["a\nb", "", "c"], counted)] == [1, 1, 1]
    assert calls == [4]


@given(st.text("ab c", max_size=200), st.integers(1, 60))
def test_the_longest_beginning_that_fits(text: str, most: int) -> None:
    assert fitting(text, characters, most) == text[:most]
    words = fitting(text, count_words, most)
    assert text.startswith(words) and count_words([words])[0] <= most
    assert words == text or count_words([text[: len(words) + 1]])[0] > most


def test_a_huge_text_is_not_counted_to_its_end() -> None:
    seen = []

    def counted(texts: Sequence[str]) -> list[int]:
        seen.append(max(map(len, texts)))
        return characters(texts)

    assert len(fitting("a" * 10**7, counted, 100)) == 100
    assert max(seen) < 1000


def test_programs_of_windows_are_one() -> None:
    windows = [Chunk(0, 1, ""), Chunk(2, 4, "")]
    assert join_programs(["keep_all()", "# so\nremove_lines(start=3, end=4)"], windows) == (
        "# lines 0-1\nkeep_all()\n# lines 2-4\n# so\nremove_lines(start=3, end=4)"
    )
    # What a model writes does not say what a program is about.
    assert join_programs(["# lines 0-99\nkeep_all()"], windows[:1]) == "keep_all()"
    assert "99" not in join_programs(["# lines 0-99", "#lines 2-99 "], windows)
    assert join_programs([], []) == ""


def test_prompts_of_the_released_models() -> None:
    (window,) = chunks("Home | About\nText.")
    asked = chunk_prompt(window)
    assert asked.user == "[doc]\n[000]Home | About\n[001]Text.\n[/doc]"
    assert asked.system == "You are a helpful, respectful and honest assistant."
    assert llama2_chat(Prompt("Text.", asked.system)) == (
        "<s>[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant.\n<</SYS>>\n\n"
        "Text. [/INST]"
    )


def test_document_prompts_fit() -> None:
    texts = ["short", "", "a" * 5000, "b" * 100_000]
    room = 2000 - len(SYSTEM) - TEMPLATE_TOKENS
    asked = document_prompts(texts, characters)
    assert [one.user for one in asked] == ["short", "", "a" * room, "b" * room]
    assert all(len(one.user + one.system) + TEMPLATE_TOKENS <= 2000 for one in asked)
    # The published code cuts the templated text after 2000 tokens, whatever that is.
    published = document_prompts(texts[2:3], characters, compat="prox")[0]
    assert (
        llama2_chat(published).removesuffix(" [/INST]")
        == llama2_chat(Prompt(texts[2], SYSTEM))[:2000]
    )
    with pytest.raises(ValueError, match="no room for a document"):
        document_prompts(texts, characters, most=60)
