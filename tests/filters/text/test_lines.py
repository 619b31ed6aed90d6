"""Lines and paragraphs as Python splits them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings

from tamis.filters.text.lines import Lines, lines, paragraphs, split_lines, stripped
from tamis.pipeline.documents import Documents
from tests.filters.text.reference import AWKWARD, batch, demo_texts, hostile_text


def spell(documents: Documents, found: Lines) -> list[list[str]]:
    data = documents.utf8()[0].tobytes()
    every = [data[a:b].decode() for a, b in zip(found.start, found.end, strict=True)]
    return [every[a:b] for a, b in zip(found.first[:-1], found.first[1:], strict=True)]


def assert_lines(texts: tuple[str, ...]) -> None:
    documents = batch(texts)
    assert spell(documents, lines(documents)) == [text.split("\n") for text in texts]
    assert spell(documents, split_lines(documents)) == [text.splitlines() for text in texts]
    blocks = [re.split(r"\n{2,}", text.strip()) if text.strip() else [] for text in texts]
    assert spell(documents, paragraphs(documents)) == blocks
    found, characters = stripped(documents, lines(documents))
    rows = [[row.strip() for row in text.split("\n") if row.strip()] for text in texts]
    assert spell(documents, found) == rows
    np.testing.assert_array_equal(characters, [sum(map(len, row)) for row in rows])


@pytest.mark.parametrize("texts", [AWKWARD, demo_texts()], ids=["awkward", "demo"])
def test_lines_are_those_of_python(texts: tuple[str, ...]) -> None:
    assert_lines(texts)


@settings(deadline=None)
@given(hostile_text)
def test_lines_of_hostile_text(text: str) -> None:
    assert_lines((text, text + "\n", "a" + text))


@pytest.mark.parametrize("width", [1, 62, 63, 64, 65, 4094, 4095, 4096, 4097])
def test_every_break_at_the_edge_of_what_is_looked_at_together(width: int) -> None:
    breaks = (
        "\n",
        "\r",
        "\r\n",
        "\x0b",
        "\x0c",
        "\x1c",
        "\x1d",
        "\x1e",
        "\x85",
        "\u2028",
        "\u2029",
    )
    assert_lines(tuple("x" * width + mark + "y" + mark for mark in breaks))
    assert_lines(tuple("x" * width + mark for mark in breaks))
