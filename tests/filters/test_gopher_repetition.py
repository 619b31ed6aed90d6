"""Gopher's repetition measures equal a plain Python reference, and the decisions datatrove's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings

from tamis.filters.gopher_repetition import GopherRepetition
from tests.filters.text.peer import our_rules, their_rules
from tests.filters.text.reference import (
    AWKWARD,
    assert_equal_measures,
    batch,
    demo_texts,
    hostile_text,
    repetition,
    repetition_dclm,
    repetition_dolma,
    words_of,
)

SAMPLE = demo_texts()[::5]


def reason(stage: GopherRepetition, text: str) -> str | None:
    verdicts = stage.decide(stage.measure(batch([text])))
    return None if verdicts.keep[0] else verdicts.rules[verdicts.rule[0]].field


@pytest.mark.parametrize("texts", [AWKWARD, SAMPLE], ids=["awkward", "demo"])
def test_measures_are_exact(texts: tuple[str, ...]) -> None:
    assert_equal_measures(GopherRepetition().measure(batch(texts)), texts, repetition)
    dolma = GopherRepetition(preset="dolma").measure(batch(texts))
    assert_equal_measures(dolma, texts, repetition_dolma)
    dclm = GopherRepetition(preset="dclm", words="whitespace").measure(batch(texts))
    assert_equal_measures(dclm, texts, lambda text: repetition_dclm(text, words_of))


def test_dclm_takes_the_words_of_uax29() -> None:
    segment = pytest.importorskip("uniseg.wordbreak").words
    stage = GopherRepetition(preset="dclm")
    assert stage.words == "unicode"
    texts = [*AWKWARD, *SAMPLE[::9]]
    assert_equal_measures(
        stage.measure(batch(texts)),
        texts,
        lambda text: repetition_dclm(
            text, lambda text: [word for word in segment(text) if any(map(str.isalnum, word))]
        ),
    )


@settings(deadline=None)
@given(hostile_text)
def test_measures_of_hostile_text(text: str) -> None:
    texts = [text, text + text, text + "\n" + text]
    assert_equal_measures(GopherRepetition().measure(batch(texts)), texts, repetition)
    dolma = GopherRepetition(preset="dolma").measure(batch(texts))
    assert_equal_measures(dolma, texts, repetition_dolma)
    dclm = GopherRepetition(preset="dclm", words="whitespace").measure(batch(texts))
    assert_equal_measures(dclm, texts, lambda text: repetition_dclm(text, words_of))


@pytest.mark.parametrize(
    ("text", "measure", "expected"),
    [
        # Of six paragraphs "a" comes back twice: 2 of 6, and 2 characters of 16.
        ("a\n\nb\n\na\n\nc\n\nd\n\na", "duplicate_paragraphs", 2 / 6),
        ("a\n\nb\n\na\n\nc\n\nd\n\na", "duplicate_paragraph_characters", 2 / 16),
        # An empty item before the first and behind the last break: of four, one repeats another.
        ("\nab\n\n\ncd\n", "duplicate_lines", 1 / 4),
        # "x y" three times, 3 characters each, of 13.
        ("x y x y x y z", "top_2_gram", 9 / 13),
        # All bigrams occur once: the first counts.
        ("ab c def", "top_2_gram", 4 / 8),
        # The second "a b c d e" counts with its 5 characters, then its words are passed over.
        ("a b c d e a b c d e", "duplicated_5_grams", 5 / 19),
        # Words are joined without spaces before they are compared.
        ("ab c d e f a bc d e f", "duplicated_5_grams", 6 / 21),
        ("one two", "top_3_gram", math.nan),
        ("", "duplicate_lines", 0.0),
        ("", "duplicate_line_characters", math.nan),
    ],
)
def test_known_answers(text: str, measure: str, expected: float) -> None:
    value = GopherRepetition().measure(batch([text]))[measure][0]
    assert value == expected or (math.isnan(value) and math.isnan(expected))


def test_a_value_at_the_threshold_is_kept() -> None:
    text = "\n".join(["a sentence that returns"] * 4 + [f"line number {i}" for i in range(6)])
    stage = GopherRepetition(
        max_duplicate_line_characters=None, max_top_ngram={}, max_duplicated_ngrams={}
    )
    assert stage.measure(batch([text]))["duplicate_lines"][0] == 0.3
    assert reason(stage, text) is None
    assert reason(stage, text + "\nline number 5") == "max_duplicate_lines"


def test_rules_are_tried_in_order_and_none_switches_one_off() -> None:
    text = "again and again\n\n" * 9
    assert reason(GopherRepetition(), text) == "max_duplicate_paragraphs"
    off = {"max_duplicate_paragraphs": None, "max_duplicate_paragraph_characters": None}
    assert reason(GopherRepetition(**off), text) == "max_duplicate_lines"
    assert reason(GopherRepetition(preset="dclm"), text) == "max_duplicate_lines"
    assert reason(GopherRepetition(preset="dolma"), text) == "max_duplicate_lines"


def test_empty_documents() -> None:
    assert reason(GopherRepetition(), "") == "min_characters"
    assert reason(GopherRepetition(min_characters=None), "") is None
    assert reason(GopherRepetition(), " ") is None
    assert reason(GopherRepetition(preset="dolma"), " ") is None
    assert reason(GopherRepetition(preset="dclm"), " \n ") == "min_characters"


def test_other_ngrams_can_be_asked_for() -> None:
    stage = GopherRepetition(max_top_ngram={1: 0.2, 7: 0.1}, max_duplicated_ngrams={2: 0.2})
    measures = stage.measure(batch(["na na na na na"]))
    assert measures["top_1_gram"][0] == 10 / 14
    assert math.isnan(measures["top_7_gram"][0])
    assert measures["duplicated_2_grams"][0] == 8 / 14
    assert [rule.field for rule in stage.rules()][-3:] == [
        "max_top_ngram.1",
        "max_top_ngram.7",
        "max_duplicated_ngrams.2",
    ]


def test_measures_are_the_quantities_that_are_declared() -> None:
    for preset in ("gopher", "dolma", "dclm"):
        stage = GopherRepetition(preset=preset)
        assert set(stage.measure(batch(["a b"]))) == {
            quantity.name for quantity in stage.provides()
        }
        assert {rule.measure for rule in stage.rules()} == {q.name for q in stage.provides()}


def test_the_same_decisions_as_datatrove() -> None:
    texts = [*AWKWARD, *demo_texts()]
    assert len(texts) > 2000
    assert our_rules(GopherRepetition(), texts) == their_rules("gopher_repetition", texts)


def test_documents_that_are_not_alive_change_nothing() -> None:
    texts = demo_texts()[:60]
    documents = batch(texts)
    documents.alive[::3] = False
    every, some = GopherRepetition().measure(batch(texts)), GopherRepetition().measure(documents)
    for name, values in every.items():
        np.testing.assert_array_equal(some[name][documents.alive], values[documents.alive])
