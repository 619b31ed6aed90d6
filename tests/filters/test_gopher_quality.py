"""Gopher's quality measures equal a plain Python reference, and the decisions datatrove's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from tamis.filters.gopher_quality import GopherQuality
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


def test_the_same_decisions_as_datatrove(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = pytest.importorskip("datatrove.pipeline.filters.gopher_quality_filter")
    document = pytest.importorskip("datatrove.data").Document
    monkeypatch.setattr(peer, "split_into_words", lambda text, language: text.split())
    names = {
        "gopher_short_doc": "min_words",
        "gopher_long_doc": "max_words",
        "gopher_below_avg_threshold": "min_mean_word_length",
        "gopher_above_avg_threshold": "max_mean_word_length",
        "gopher_too_many_hashes": "max_hash_ratio",
        "gopher_too_many_ellipsis": "max_ellipsis_ratio",
        "gopher_too_many_bullets": "max_bullet_lines",
        "gopher_too_many_end_ellipsis": "max_ellipsis_lines",
        "gopher_below_alpha_threshold": "min_alphabetic_words",
        "gopher_enough_stop_words": "min_stop_words",
    }
    other = peer.GopherQualityFilter()
    stage, texts = GopherQuality(), [*AWKWARD, *demo_texts()]
    verdicts = stage.decide(stage.measure(batch(texts)))
    ours = [verdicts.rules[rule].field if rule >= 0 else None for rule in verdicts.rule]
    theirs = [other.filter(document(text=text, id="")) for text in texts]
    assert ours == [None if verdict is True else names[verdict[1]] for verdict in theirs]
