from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import tamis
from tamis.demo import CORPUS
from tamis.fit import fit
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.scorers.artefact import read_facts
from tamis.scorers.ccnet import ccnet_normalize
from tamis.scorers.language_models import ModelSetting, open_language_model
from tamis.scorers.ngram import train_ngram
from tamis.scorers.perplexity_fit import FitPerplexity

kenlm = pytest.importorskip("kenlm")

VECTORS = [
    ("Café № 12, “Hello” — World…", 'cafe № 00, "hello"  -  world...'),
    ("line one\nline two", "line oneline two"),
    ("  Ünïcode １２３ ", "unicode 000"),
    ("a\tb c", "ab c"),
]
LN10 = math.log(10)


@pytest.mark.parametrize(("text", "normalized"), VECTORS)
def test_ccnet_normalizer(text: str, normalized: str) -> None:
    assert ccnet_normalize(text, compatible=True) == normalized


def test_lines_are_not_joined_unless_it_has_to_be_as_ccnet_does() -> None:
    assert ccnet_normalize("line one\r\nline\ttwo\x00") == "line one  line two"
    assert ccnet_normalize("同意，“１”！\x9f") == '同意,"0"!'


# A bigram model by hand: log10 p, and backoff.
ARPA = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.0\t<unk>
0\t<s>\t-0.3
-0.7\t</s>
-0.5\ta\t-0.2
-0.6\tb\t-0.1

\\2-grams:
-0.1\t<s> a
-0.2\ta b
-0.3\tb </s>

\\end\\
"""


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "hand.arpa"
    path.write_text(ARPA)
    return path


def measured(stage: tamis.Measure, texts: list[str]) -> dict[str, list[float]]:
    found = stage(pa.table({"text": texts}))
    return {
        name.removeprefix("perplexity."): found.column(name).to_pylist()
        for name in found.schema.names[1:]
    }


def test_perplexity_by_hand(by_hand: Path) -> None:
    texts = ["a b", "a\u00a0 b\n", "b c", "", "a\0b", "</s> a"]
    found = measured(tamis.Perplexity(model=by_hand), texts)
    # <s> a, a b, b </s>; behind c nothing is known; </s> in a text is a word like any other.
    b_c = 0.3 + 0.6 + 0.1 + 1.0 + 0.7
    end_a = 0.3 + 1.0 + 0.5 + 0.2 + 0.7
    expected = [0.6 / 3, 0.6 / 3, b_c / 3, np.nan, 0.6 / 3, end_a / 3]
    np.testing.assert_allclose(np.log10(found["score"]), expected, rtol=1e-6)
    assert found["tokens"] == [3, 3, 3, 0, 3, 3]
    np.testing.assert_allclose(found["bits_per_byte"][0], 0.6 * LN10 / math.log(2) / 3, rtol=1e-6)
    assert math.isnan(found["bits_per_byte"][3])


def test_perplexity_of_ccnet_is_of_pieces_and_the_end(by_hand: Path) -> None:
    stage = tamis.Perplexity(model=by_hand, normalize="ccnet")
    (score,) = measured(stage, ["  A\nB "])["score"]
    assert score == pytest.approx(10 ** (0.6 / (2 + 1)), rel=1e-6)
    joined = tamis.Perplexity(model=by_hand, normalize="ccnet_compatible")
    assert measured(joined, ["A\nB"])["tokens"] == [2]


def test_units_and_lines(by_hand: Path) -> None:
    per_byte = tamis.Perplexity(model=by_hand, unit="byte")
    assert np.log10(measured(per_byte, ["a  b"])["score"]) == pytest.approx(0.6 / 4, rel=1e-6)
    assert math.isnan(measured(per_byte, [" \n "])["score"][0])
    per_character = tamis.Perplexity(model=by_hand, unit="character")
    assert np.log10(measured(per_character, ["é"])["score"]) == pytest.approx(2.0, rel=1e-6)
    lines = tamis.Perplexity(model=by_hand, lines=True)
    found = measured(lines, ["a b\n\na b", "\n", "a b"])
    assert found["tokens"] == [6, 0, 3]
    assert found["score"][0] == pytest.approx(found["score"][2]) and math.isnan(found["score"][1])


def test_lines_are_told_apart_before_they_are_normalized(by_hand: Path) -> None:
    lines = tamis.Perplexity(model=by_hand, lines=True, normalize="ccnet")
    found = measured(lines, ["A B\nA b", "A b"])
    assert found["tokens"] == [6, 3] and found["score"][0] == pytest.approx(found["score"][1])


def test_a_trained_model_is_applied_as_it_was_trained(tmp_path: Path) -> None:
    output = tmp_path / "models" / "demo.arpa"
    config = {"data": str(CORPUS), "order": 3, "held_out": 0.1, "output": str(output)}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    said = fit("perplexity", tmp_path / "config.yaml")
    artefact = read_facts(output)
    assert artefact is not None and artefact.stage == "perplexity"
    assert artefact.settings == {"pieces": None, "normalize": "ccnet", "lines": False}
    percentiles = artefact.facts["percentiles"]
    assert percentiles["10"] < percentiles["30"] < percentiles["60"] < percentiles["90"]
    assert f"30th {percentiles['30']:.1f}" in said
    before = output.read_bytes()
    fit("perplexity", tmp_path / "config.yaml")
    assert output.read_bytes() == before
    with pytest.raises(RecipeError, match=r"ends in \.arpa"):
        FitPerplexity(data="x", output=tmp_path / "model.bin")


def test_sentence_pieces(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    texts = pl.read_ndjson(CORPUS, infer_schema_length=None)["text"].to_list()[:60]
    (tmp_path / "text").write_text("\n".join(texts))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "pieces"), vocab_size=800,
        minloglevel=2, num_threads=1, hard_vocab_limit=False,
    )  # fmt: skip
    pieces = tmp_path / "pieces.model"
    cut = sentencepiece.SentencePieceProcessor(model_file=str(pieces)).encode_as_pieces
    model = tmp_path / "pieces.arpa"
    train_ngram([cut(text) for text in texts], 3, model)
    text = texts[3]
    found = measured(tamis.Perplexity(model=model, pieces=pieces), [text])
    score = kenlm.Model(str(model)).score(" ".join(cut(text)))
    assert found["tokens"] == [len(cut(text)) + 1]
    assert found["score"] == [pytest.approx(10 ** (-score / (len(cut(text)) + 1)))]


def sums_of(model, contexts: list[str], vocabulary: list[str]) -> list[float]:
    """The sum of the probabilities of all words behind each context."""
    found = []
    for context in contexts:
        state = kenlm.State()
        words = context.split()
        if words[:1] == ["<s>"]:
            model.BeginSentenceWrite(state)
            words = words[1:]
        else:
            model.NullContextWrite(state)
        for word in words:
            after = kenlm.State()
            model.BaseScore(state, word, after)
            state = after
        after = kenlm.State()
        found.append(sum(10 ** model.BaseScore(state, word, after) for word in vocabulary))
    return found


def test_kneser_ney_by_hand(tmp_path: Path) -> None:
    """Two sentences; all counts are too few for discounts, which are 0.5, 1 and 1.5."""
    train_ngram([["a", "b"], ["a", "a", "b"]], 2, tmp_path / "model.arpa")
    model = kenlm.Model(str(tmp_path / "model.arpa"))
    # In front of a: <s>, a; of b: a; of the end: b. Of 4, 2.5 are left: 1 + 0.5 + 0.5 discounted.
    below = 2.0 / 4 / 4
    a, b, end = (2 - 1) / 4 + below, (1 - 0.5) / 4 + below, (1 - 0.5) / 4 + below
    # <s> a twice; a b twice, a a once; b </s> twice.
    after_begin, after_a, after_b = 1 / 2, (1 + 0.5) / 3, 1 / 2
    expected = [
        (2 - 1) / 2 + after_begin * a,
        (2 - 1) / 3 + after_a * b,
        (2 - 1) / 2 + after_b * end,
    ]
    found = [10**score for score, _, _ in model.full_scores("a b")]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert 10 ** next(iter(model.full_scores("x")))[0] == pytest.approx(
        after_begin * below, rel=1e-5
    )


def test_probabilities_add_up_to_one_and_order_does_not_matter(tmp_path: Path) -> None:
    choose = random.Random(0)
    letters = "abcde"
    sentences = [
        [choose.choice(letters[: choose.randint(1, 5)]) for _ in range(choose.randint(0, 8))]
        for _ in range(200)
    ]
    train_ngram(sentences, 4, tmp_path / "one.arpa")
    train_ngram(sentences[::-1], 4, tmp_path / "two.arpa")
    assert sorted((tmp_path / "one.arpa").read_text().split("\n")) == sorted(
        (tmp_path / "two.arpa").read_text().split("\n")
    )
    model = kenlm.Model(str(tmp_path / "one.arpa"))
    contexts = ["", "<s>", "<s> a", "a b a", "c c c", "e d c", "unseen a", "<s> b a"]
    found = sums_of(model, contexts, [*letters, "</s>", "<unk>"])
    np.testing.assert_allclose(found, 1, atol=1e-5)


def test_a_higher_order_predicts_text_better(tmp_path: Path) -> None:
    texts = pl.read_ndjson(CORPUS, infer_schema_length=None)["text"].to_list()
    learned, held = [one.split() for one in texts[:300]], [one for one in texts[300:400] if one]
    perplexity = []
    for order in (2, 3):
        train_ngram(learned, order, tmp_path / f"{order}.arpa")
        found = open_language_model(tmp_path / f"{order}.arpa").nats(held)
        perplexity.append(math.exp(found.nats.sum() / found.tokens.sum()))
    assert perplexity[1] < perplexity[0]


def test_shuffled_words_are_on_top_and_repeated_lines_at_the_bottom(tmp_path: Path) -> None:
    """Section 7's verification: the low end keeps repeats, the middle has neither."""
    choose = random.Random(1)
    frame = pl.read_ndjson(CORPUS, infer_schema_length=None).filter(
        (pl.col("lang") == "en") & pl.col("planted").is_null()
        & (pl.col("text").str.len_bytes() > 600)
    )  # fmt: skip
    texts = frame["text"].to_list()
    learned, clean = texts[::2], texts[1::2]
    train_ngram((ccnet_normalize(one).split() for one in learned), 5, tmp_path / "clean.arpa")
    tenth = len(clean) // 8
    shuffled = [" ".join(choose.sample(words := one.split(), len(words))) for one in clean[:tenth]]
    lines = [one.strip().splitlines()[0] for one in learned[:tenth]]
    repeated = [f"{line}\n" * 25 for line in lines]
    pool = [*clean[2 * tenth :], *shuffled, *repeated]
    kinds = np.repeat([0, 1, 2], [len(clean) - 2 * tenth, tenth, tenth])
    stage = tamis.Perplexity(model=tmp_path / "clean.arpa", normalize="ccnet")
    score = np.array(measured(stage, pool)["score"])
    low, high = np.quantile(score, [tenth / len(pool), 1 - tenth / len(pool)])
    assert (score[kinds == 1] >= high).mean() > 0.85
    assert (score[kinds == 2] <= low).mean() > 0.9
    lowest = np.argsort(score)[: len(pool) // 2]
    assert (kinds[lowest] == 2).sum() == tenth
    middle = (score > low) & (score < high)
    assert (kinds[middle] > 0).mean() < 0.05


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A model of bytes that has seen a little text."""
    pytest.importorskip("torch")
    from tamis.trainers.config import TrainConfig
    from tamis.trainers.run import train

    folder = tmp_path_factory.mktemp("trained")
    text = [{"id": str(one), "text": f"{one} and {one} make {2 * one}. " * 8} for one in range(80)]
    (folder / "text.jsonl").write_text("\n".join(map(json.dumps, text)))
    data = {"sources": {"sums": str(folder / "text.jsonl")}, "context": 64, "held_out": 0.1}
    settings = {
        "output": folder / "run", "data": data, "tokens": 20_000, "batch": 8, "device": "cpu",
        "model": {"hidden_size": 16, "heads": 2, "layers": 1}, "optimizer": {"lr": 1e-2},
        "evaluation": {"times": 1},
    }  # fmt: skip
    return train(TrainConfig.model_validate(settings))


@pytest.mark.usefixtures("one_thread")
def test_a_training_scores_each_document_by_itself(trained: Path) -> None:
    from tamis.trainers.evaluation.bits_per_byte import bits_per_byte
    from tamis.trainers.evaluation.items import Document
    from tamis.trainers.evaluation.scorer import open_model

    texts = ["3 and 3 make 6. " * 20, "", "Völlig anders", "x"]
    stage = tamis.Perplexity(model=trained, unit="byte", stride=16, device="cpu")
    found = measured(stage, texts)
    outcomes = bits_per_byte(
        *open_model(trained, "cpu"), {"s": [Document(one, one) for one in texts if one]}, None, 16
    )
    expected = [one.metrics["bits_per_byte"] for one in outcomes]
    np.testing.assert_allclose([found["bits_per_byte"][one] for one in (0, 2, 3)], expected)
    np.testing.assert_allclose(np.exp2(found["bits_per_byte"]), found["score"])
    assert found["tokens"] == [len(one.encode()) for one in texts]
    assert found["score"][0] < found["score"][2] and math.isnan(found["score"][1])
    alone = measured(stage, ["x"])
    assert alone["score"][0] == pytest.approx(found["score"][3], rel=1e-5)


def problem(**settings) -> str:
    with pytest.raises(TamisError) as error:
        tamis.Perplexity(**settings)(pa.table({"text": ["a"]}))
    return str(error.value)


def test_mistakes_are_one_sentence(by_hand: Path, tmp_path: Path, trained: Path) -> None:
    (tmp_path / "no.arpa").write_text("nothing")
    assert "is no model that KenLM reads" in problem(model=tmp_path / "no.arpa")
    assert "did you mean" in problem(model=tmp_path / "noo.arpa")
    assert "neither a folder here" in problem(model="organisation/model")
    assert "has no model" in problem(model=tmp_path)
    assert "context is for models with a context" in problem(model=by_hand, context=9)
    assert "stride = 65: with a context of 64" in problem(model=trained, stride=65)
    assert "pieces are for an n-gram model" in problem(model=trained, pieces=by_hand)
    assert "is no SentencePiece model" in problem(model=by_hand, pieces=by_hand)
    assert "there is no file" in problem(model=by_hand, pieces=tmp_path / "x.model")
    with pytest.raises(RecipeError, match="lines: true is for n-gram models"):
        tamis.Perplexity(model=trained, lines=True).models()


def test_a_model_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "model.arpa"
    train_ngram([["a"]], 2, path)
    first = open_language_model(path)
    assert open_language_model(ModelSetting(model=path)) is first
    train_ngram([["a"], ["b", "b"]], 2, path)
    assert open_language_model(path) is not first
