"""FineWeb's measures equal a plain Python reference, and the decisions datatrove's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tamis.filters.fineweb_quality import FineWebQuality
from tests.filters.text.peer import our_rules, their_rules
from tests.filters.text.reference import (
    AWKWARD,
    assert_equal_measures,
    batch,
    demo_texts,
    fineweb,
    hostile_text,
    words_of,
)

LINE = "A line of text that is long enough and ends as it should."


def reason(stage: FineWebQuality, text: str) -> str | None:
    verdicts = stage.decide(stage.measure(batch([text])))
    return None if verdicts.keep[0] else verdicts.rules[verdicts.rule[0]].field


@pytest.mark.parametrize("texts", [AWKWARD, demo_texts()], ids=["awkward", "demo"])
def test_measures_are_exact(texts: tuple[str, ...]) -> None:
    assert_equal_measures(FineWebQuality().measure(batch(texts)), texts, fineweb)
    short = FineWebQuality(short_line_length=5).measure(batch(texts))
    assert_equal_measures(short, texts, lambda text: fineweb(text, words_of, 5))


@settings(deadline=None)
@given(hostile_text)
def test_measures_of_hostile_text(text: str) -> None:
    texts = [text, text + "\n" + text]
    assert_equal_measures(FineWebQuality().measure(batch(texts)), texts, fineweb)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LINE, None),
        ("", "min_lines"),
        ("\n \n\u3000\n", "min_lines"),
        (LINE[:-1], "min_terminal_lines"),
        (LINE + " ", "min_terminal_lines"),
        (LINE + "\r\n", "min_terminal_lines"),
        (f"Short.\nShorter.\nShortest.\n{LINE}", "max_short_lines"),
        (f"{LINE}\n{LINE}", "max_duplicate_line_characters"),
        ("One long_" + "x" * 30 + ".\n" + "Two more_" + "y" * 30 + ".\n\n", "max_newline_ratio"),
    ],
)
def test_every_rule(text: str, expected: str | None) -> None:
    assert reason(FineWebQuality(), text) == expected


def test_documents_without_any_terminal_line_can_be_kept() -> None:
    without = LINE[:-1]
    assert reason(FineWebQuality(keep_without_terminal_lines=True), without) is None
    few = "\n".join([LINE] + [f"{without} {i}" for i in range(9)])
    assert reason(FineWebQuality(keep_without_terminal_lines=True), few) == "min_terminal_lines"


def test_blank_lines_do_not_count_as_repeated() -> None:
    text = f"{LINE}\n   \nAnother {LINE}\n   \nOne more {LINE}\n   "
    assert FineWebQuality().measure(batch([text]))["duplicate_line_characters"][0] == 0


def test_measures_are_the_quantities_that_are_declared() -> None:
    stage = FineWebQuality()
    names = {quantity.name for quantity in stage.provides()}
    assert set(stage.measure(batch(["a b"]))) == names == {rule.measure for rule in stage.rules()}


def test_the_same_decisions_as_datatrove() -> None:
    texts = [*AWKWARD, *demo_texts()]
    assert len(texts) > 2000
    assert our_rules(FineWebQuality(), texts) == their_rules("fineweb_quality", texts)


def test_documents_that_are_not_alive_change_nothing() -> None:
    texts = demo_texts()[:60]
    documents = batch(texts)
    documents.alive[::3] = False
    every, some = FineWebQuality().measure(batch(texts)), FineWebQuality().measure(documents)
    for name, values in every.items():
        np.testing.assert_array_equal(some[name][documents.alive], values[documents.alive])
