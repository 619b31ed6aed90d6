"""Difficulty: known answers of compression, lexical diversity, reading ease and fertility."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

import tamis
from tamis.filters.text.unicode_classes import PUNCTUATION_SET
from tamis.pipeline.errors import TamisError
from tamis.scorers.difficulty import Difficulty, compression_ratios, mtld, syllables, word_traits
from tests.filters.dedup.conftest import make_documents

GPL = Path("/usr/share/common-licenses/GPL-3")


def measured(text: str, **settings) -> dict[str, float]:
    found = Difficulty(**settings).measure(make_documents([text]))
    return {name: values[0] for name, values in found.items()}


def counted(word: str) -> int:
    return syllables(np.frombuffer(word.encode(), np.uint8), len(word))


def test_compression_of_a_sentence_forty_times():
    sentence = "The dog saw a quick mouse"
    (ratio,) = compression_ratios(make_documents([" ".join([sentence] * 40)]))
    assert ratio == pytest.approx(25.3, abs=1.2)


@pytest.mark.skipif(not GPL.exists(), reason="needs the text of the GPL as Debian has it")
def test_compression_of_the_gpl():
    (ratio,) = compression_ratios(make_documents([GPL.read_bytes()[:4000].decode()]))
    assert ratio == pytest.approx(2.31, abs=0.01)


def test_text_that_zlib_cannot_shorten_has_a_ratio_below_one():
    assert measured("q7#Zk")["compression_ratio"] < 1


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, "the be make makes walked jumped rules bridge queue strength through eyes asked"),
        (2, "table tables little wanted added faces changes boxes wishes churches being city"),
        (2, "nation vision special question people surgeon argue"),
        (3, "radio piano video religious stadium situate"),
        (4, "information education"),
        (5, "organization university"),
    ],
)
def test_syllables(number, words):
    assert {word: counted(word) for word in words.split()} == dict.fromkeys(words.split(), number)


def test_flesch_by_hand():
    text = "The cat sat on the mat. It was happy!"
    assert measured(text)["flesch"] == pytest.approx(206.835 - 1.015 * 9 / 2 - 84.6 * 10 / 9)
    hard = "Institutional considerations notwithstanding, organizational reconfiguration proceeded."
    assert measured(hard)["flesch"] < 0 < 90 < measured(text)["flesch"]


def test_flesch_is_for_latin_letters():
    assert np.isnan(measured("Быстрая коричневая лиса прыгает.")["flesch"])
    assert np.isnan(measured("日本語のテキストには(IBM)の名前もある。")["flesch"])
    assert measured("Быстрая fox jumps.")["flesch"] < 206.835
    assert measured("Élan, plus café.")["flesch"] == pytest.approx(
        206.835 - 1.015 * 3 - 84.6 * 5 / 3
    )


def reference_mtld(words: list[str], limit: float = 0.72) -> float:
    def one_way(words: list[str]) -> float:
        factors, types, tokens = 0.0, set(), 0
        for word in words:
            types.add(word)
            tokens += 1
            if len(types) / tokens <= limit:
                factors, types, tokens = factors + 1, set(), 0
        if tokens:
            factors += (1 - len(types) / tokens) / (1 - limit)
        return len(words) / factors if factors else len(words)

    return (one_way(words) + one_way(words[::-1])) / 2


def counted_words(text: str) -> list[str]:
    words = []
    for word in text.split():
        kept = "".join(
            c.lower() if len(c.lower()) == 1 else c for c in word if ord(c) not in PUNCTUATION_SET
        )
        words += [kept] * any(c.isalnum() for c in kept)
    return words


def test_mtld_by_hand():
    assert measured("a a a a")["mtld"] == 2
    assert measured("one two three four")["mtld"] == 4
    # Forwards a factor closes at the third word (2/3) and "d" is left, backwards at the fourth.
    forwards, backwards = 4 / 1, 4 / (0.25 / 0.28)
    assert measured("b a a d")["mtld"] == pytest.approx((forwards + 4 / 1) / 2)
    assert measured("a b c a")["mtld"] == pytest.approx((backwards + backwards) / 2)


def test_mtld_of_real_text_is_that_of_the_definition(corpus):
    with gzip.open(corpus) as lines:
        texts = [json.loads(line)["text"] for line in lines][::9]
    found = Difficulty().measure(make_documents(texts))
    for row, text in enumerate(texts):
        words = counted_words(text)
        assert found["words"][row] == len(words)
        assert found["mtld"][row] == pytest.approx(reference_mtld(words), abs=1e-9)


@given(st.lists(st.sampled_from(["a", "B", "b", "c,", "d", "é", "É"]), max_size=80))
def test_mtld_of_any_words_is_that_of_the_definition(words):
    found = word_traits(make_documents([" ".join(words)]), "whitespace")
    expected = reference_mtld(counted_words(" ".join(words))) if words else 0
    assert mtld(found)[0] == pytest.approx(expected)


def test_documents_without_words():
    for text in ("", "  \n", "... -- !"):
        found = measured(text)
        assert found["words"] == 0
        assert np.isnan([found["mtld"], found["flesch"]]).all()
    assert np.isnan(measured("")["compression_ratio"])


def test_one_huge_line():
    found = measured("word" * 500_000 + " " + "x y " * 100_000)
    assert found["words"] == 200_001
    assert found["mtld"] == pytest.approx(reference_mtld(["long", *["x", "y"] * 100_000]))


def test_dead_rows_are_not_measured():
    documents = make_documents(["a b", "c d e"], alive=np.array([False, True]))
    found = Difficulty().measure(documents)
    assert found["words"].tolist() == [0, 3]
    assert np.isnan(found["compression_ratio"][0])


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    vocabulary = {"?": 0, "one": 1, "two": 2, "-": 3}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    built.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_fertility_is_tokens_a_word(tokenizer):
    stage = tamis.Difficulty(tokenizer=tokenizer)
    found = stage({"text": ["one-two one", "", "two", None]})
    assert found["difficulty.tokens"] == [4, 0, 1, 0]
    assert found["difficulty.fertility"][:1] + found["difficulty.fertility"][2:3] == [2.0, 1.0]
    assert np.isnan(found["difficulty.fertility"][1])
    assert "difficulty.tokens" not in Difficulty()({"text": ["one"]})


def test_a_tokenizer_that_is_none_says_so(tmp_path):
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(TamisError, match="cannot be read as a tokenizer"):
        Difficulty(tokenizer=tmp_path / "bad.json")({"text": ["a"]})
    with pytest.raises(TamisError, match="there is no tokenizer"):
        Difficulty(tokenizer=tmp_path / "none.json")({"text": ["a"]})


def test_harder_text_is_harder_by_every_measure():
    easy = "The dog ran. The dog sat. The dog ran to the man. " * 20
    hard = (
        "Constitutional jurisprudence presupposes interpretive methodologies whose "
        "epistemological foundations remain contested among theoreticians. "
    )
    low, high = measured(easy), measured(hard)
    assert low["compression_ratio"] > 3 * high["compression_ratio"]
    assert low["mtld"] < high["mtld"]
    assert low["flesch"] > 100 > 0 > high["flesch"]
