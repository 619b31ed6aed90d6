"""Gopher's quality measures equal a plain Python reference, and the decisions datatrove's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from tamis.filters.gopher_quality import GopherQuality
from tests.filters.text.peer import our_rules, their_rules
from tests.filters.text.reference import (
    AWKWARD,
    assert_equal_measures,
    batch,
    demo_texts,
    hostile_text,
    quality,
    quality_dclm,
    quality_dolma,
)

REFERENCE = {"gopher": quality, "dolma": quality_dolma, "dclm": quality_dclm}
PROSE = "It was the best of times and it was the worst of times that we have lived with. " * 4


def reason(stage: GopherQuality, text: str) -> str | None:
    verdicts = stage.decide(stage.measure(batch([text])))
    return None if verdicts.keep[0] else verdicts.rules[verdicts.rule[0]].field


@pytest.mark.parametrize("preset", REFERENCE)
@pytest.mark.parametrize("texts", [AWKWARD, demo_texts()], ids=["awkward", "demo"])
def test_measures_are_exact(preset: str, texts: tuple[str, ...]) -> None:
    measured = GopherQuality(preset=preset).measure(batch(texts))
    assert_equal_measures(measured, texts, REFERENCE[preset])


@settings(deadline=None)
@given(hostile_text)
def test_measures_of_hostile_text(text: str) -> None:
    texts = [text, "x" + text + ".", text + "." + text]
    for preset, reference in REFERENCE.items():
        assert_equal_measures(GopherQuality(preset=preset).measure(batch(texts)), texts, reference)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROSE, None),
        ("too short", "min_words"),
        ("", "min_words"),
        ("\n\n", "min_words"),
        ("a " * 60, "min_mean_word_length"),
        ("antidisestablishmentarianism " * 60, "max_mean_word_length"),
        (PROSE + " ###########", "max_hash_ratio"),
        (PROSE + " ... …" * 6, "max_ellipsis_ratio"),
        ("- " + PROSE.replace(" that", "\n- that"), "max_bullet_lines"),
        ("\u3000• " + PROSE, "max_bullet_lines"),
        (PROSE + "...\n" + PROSE + "… \n" + PROSE, "max_ellipsis_lines"),
        (PROSE + " 1234" * 20, "min_alphabetic_words"),
        ("THE quick brown foxes jump over lazy dogs and " * 9, "min_stop_words"),
    ],
)
def test_every_rule(text: str, expected: str | None) -> None:
    assert reason(GopherQuality(), text) == expected


def test_max_words() -> None:
    assert reason(GopherQuality(max_words=60), PROSE) == "max_words"
    assert (
        reason(GopherQuality(max_words=None, min_words=None), "their end was that of all men")
        is None
    )


def test_no_words_at_all_without_the_rule_for_it() -> None:
    off = GopherQuality(min_words=None, min_stop_words=None)
    assert reason(off, "") is None
    assert math.isnan(off.measure(batch([""]))["mean_word_length"][0])


def test_presets_differ_where_their_sources_do() -> None:
    twice = "the dog saw the cats near some trees " * 10
    assert reason(GopherQuality(), twice) == "min_stop_words"
    assert reason(GopherQuality(preset="dolma"), twice) is None
    loud = twice.upper()
    assert reason(GopherQuality(preset="dolma"), loud) == "min_stop_words"
    assert reason(GopherQuality(preset="dclm"), loud) is None
    long_tail = PROSE + "x" * 900
    assert reason(GopherQuality(), long_tail) == "max_mean_word_length"
    assert reason(GopherQuality(preset="dolma"), long_tail) is None
    starred = "* " + PROSE
    assert reason(GopherQuality(), starred) is None
    assert reason(GopherQuality(preset="dolma"), starred) == "max_bullet_lines"


def test_a_threshold_that_the_preset_does_not_measure() -> None:
    with pytest.raises(
        ValidationError, match="max_symbol_ratio is not measured with preset gopher"
    ):
        GopherQuality(max_symbol_ratio=0.1)
    with pytest.raises(ValidationError, match="max_hash_ratio is not measured with preset dclm"):
        GopherQuality(preset="dclm", max_hash_ratio=0.1)


def test_measures_are_the_quantities_that_are_declared() -> None:
    for preset in REFERENCE:
        stage = GopherQuality(preset=preset)
        names = {quantity.name for quantity in stage.provides()}
        assert set(stage.measure(batch(["a b"]))) == names
        assert {rule.measure for rule in stage.rules()} == names


def test_the_same_decisions_as_datatrove() -> None:
    texts = [*AWKWARD, *demo_texts()]
    assert len(texts) > 2000
    assert our_rules(GopherQuality(), texts) == their_rules("gopher_quality", texts)


def test_documents_that_are_not_alive_change_nothing() -> None:
    texts = demo_texts()[:60]
    documents = batch(texts)
    documents.alive[::3] = False
    every, some = GopherQuality().measure(batch(texts)), GopherQuality().measure(documents)
    for name, values in every.items():
        np.testing.assert_array_equal(some[name][documents.alive], values[documents.alive])
