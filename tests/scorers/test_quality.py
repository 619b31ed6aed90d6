"""The head against the definition of its least squares, ratings that words make, and mistakes."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from tamis.embedding import Hashed
from tamis.embedding.embedder import unit_vectors
from tamis.fit import fit
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.scorers import quality
from tamis.scorers.artefact import read_facts
from tamis.scorers.quality import (
    PENALTIES,
    Quality,
    fit_head,
    measure_head,
    rate_texts,
    rounded,
    stratified,
)

WORDS = ["fraction", "photosynthesis", "grammar", "volcano", "triangle", "planet", "verb", "cell"]
JUNK = ["buy", "click", "cheap", "login", "cookie", "offer", "casino", "shipping", "cart", "sale"]


def rated_texts(count, seed=0):
    """(texts, ratings): a rating of r has r tenths of school words in every text, and its noise."""
    random = np.random.default_rng(seed)
    ratings = random.choice(6, count, p=[0.15, 0.3, 0.25, 0.15, 0.1, 0.05])
    texts = []
    for rating in ratings:
        school = random.random(60) < (rating + random.normal(0, 0.2)) / 6
        texts.append(" ".join(random.choice(WORDS if one else JUNK) for one in school))
    return texts, ratings


def write_rated(path, texts, ratings, **more):
    lines = [
        json.dumps({"text": text, "score": int(rating), **more}) + "\n"
        for text, rating in zip(texts, ratings, strict=True)
    ]
    path.write_text("".join(lines))
    return path


def config_of(folder, **settings):
    values = {
        "labels": str(folder / "rated.jsonl"),
        "embedding": {"hashed": {"dimensions": 64, "ngram": 1}},
        "output": str(folder / "edu.npz"),
        **settings,
    }
    path = folder / "fit.yaml"
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("block", [8192, 7])
def test_the_head_solves_the_least_squares(monkeypatch, block):
    monkeypatch.setattr(quality, "_BLOCK", block)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(40, 5)).astype(np.float32)
    ratings = random.integers(0, 6, 40).astype(float)
    head = fit_head(vectors, ratings, penalty=0.1)
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    amount = 0.1 * np.linalg.eigvalsh(centred.T @ centred).mean()
    stacked = np.concatenate([centred, np.sqrt(amount) * np.eye(5)])
    target = np.concatenate([ratings - ratings.mean(), np.zeros(5)])
    expected = np.linalg.lstsq(stacked, target, rcond=None)[0]
    np.testing.assert_allclose(head.weights, expected, rtol=1e-9)
    predicted = head.predict(vectors)
    np.testing.assert_allclose(predicted, ratings.mean() + centred @ expected, atol=1e-9)
    assert predicted.mean() == pytest.approx(ratings.mean())


@pytest.mark.parametrize("block", [8192, 7])
def test_the_penalty_is_the_best_of_leaving_one_out(monkeypatch, block):
    """The closed form against as many trainings as there are texts. The penalty is in units of the
    data's variance, which a text that is left out hardly changes.
    """
    monkeypatch.setattr(quality, "_BLOCK", block)
    random = np.random.default_rng(1)
    vectors = random.normal(size=(60, 20)).astype(np.float32)
    ratings = vectors[:, 0] + random.normal(0, 1, 60)
    errors = []
    for penalty in PENALTIES:
        left = []
        for out in range(60):
            rest = np.arange(60) != out
            head = fit_head(vectors[rest], ratings[rest], penalty)
            left.append(head.predict(vectors[out : out + 1])[0] - ratings[out])
        errors.append(np.square(left).sum())
    assert fit_head(vectors, ratings).penalty == PENALTIES[int(np.argmin(errors))]
    assert 0 < np.argmin(errors) < len(PENALTIES) - 1


def test_halves_are_rounded_to_even_and_cut():
    scores = np.array([-1.0, 0.5, 1.5, 2.5, 2.5000001, 3.5, 4.5, 9.0, np.nan])
    assert rounded(scores).tolist()[:-1] == [0, 0, 2, 2, 3, 4, 4, 5]
    assert np.isnan(rounded(scores)[-1])


def test_the_figures_of_a_head_by_hand():
    truth = np.array([0.0, 0, 1, 3, 3, 5])
    said = np.array([0.2, 1.4, 1.0, 2.6, 1.9, 4.2])
    found = measure_head(truth, said, (0, 5), 3)
    # Rounded 0 1 1 3 2 4: 0 is 2/3, 1 is 2/3, 3 is 2/3; 2, 4 and 5 are 0.
    assert found["f1"] == pytest.approx(
        {"0": 2 / 3, "1": 2 / 3, "2": 0, "3": 2 / 3, "4": 0, "5": 0}
    )
    assert found["macro_f1"] == pytest.approx(1 / 3)
    assert found["keep_precision"] == 1 and found["keep_recall"] == pytest.approx(2 / 3)
    assert found["keep_f1"] == pytest.approx(0.8)
    assert found["mean_absolute_error"] == pytest.approx((0.2 + 1.4 + 0 + 0.4 + 1.1 + 0.8) / 6)


def test_every_rating_is_held_out_alike():
    classes = np.repeat([0, 1, 5], [100, 50, 10])
    held = stratified(classes, 0.1, seed=0)
    assert [int(held[classes == one].sum()) for one in (0, 1, 5)] == [10, 5, 1]
    assert (held != stratified(classes, 0.1, seed=1)).any()


def test_ratings_that_words_make_are_learned(tmp_path):
    texts, ratings = rated_texts(1500)
    write_rated(tmp_path / "rated.jsonl", texts, ratings)
    said = fit("quality", config_of(tmp_path))
    facts = read_facts(tmp_path / "edu.npz")
    assert facts.stage == "quality"
    held = facts.facts["held_out"]
    assert held["texts"] == sum(round(0.1 * (ratings == one).sum()) for one in range(6))
    assert held["keep_f1"] > 0.85 and held["macro_f1"] > 0.7
    assert f"macro-F1 {held['macro_f1']:.3f}" in said and "trained on 1,351 texts" in said
    more, truth = rated_texts(600, seed=1)
    table = Quality(model=tmp_path / "edu.npz")(pa.table({"text": [*more, "", "..."]}))
    score, whole = (np.asarray(table[f"quality.{name}"]) for name in ("score", "int_score"))
    assert np.isnan(score[-2:]).all() and np.isnan(whole[-2:]).all()
    np.testing.assert_array_equal(whole[:-2], np.rint(np.clip(score[:-2], 0, 5)))
    means = [score[:-2][truth == rating].mean() for rating in range(6)]
    assert np.diff(means).min() > 0.3
    train = np.flatnonzero(~stratified(ratings, 0.1, 0))
    alone = rate_texts(
        [texts[row] for row in train], ratings[train], more, Hashed(dimensions=64, ngram=1)
    )
    np.testing.assert_allclose(alone, score[:-2], atol=1e-9)


def test_the_same_data_give_the_same_bytes_and_the_encoder_stays(tmp_path):
    """A model of model2vec is not changed, in its files or in what it gives."""
    model2vec = pytest.importorskip("model2vec")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    vocabulary = {word: number for number, word in enumerate(["[UNK]", *WORDS, *JUNK])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    table = np.random.default_rng(0).normal(size=(len(vocabulary), 12)).astype(np.float32)
    folder = tmp_path / "encoder"
    model2vec.StaticModel(table, tokenizer, config={"normalize": False}).save_pretrained(folder)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    texts, ratings = rated_texts(200)
    write_rated(tmp_path / "rated.jsonl", texts, ratings)
    settings = {"embedding": {"model2vec": str(folder)}}
    stage = Quality(model=tmp_path / "edu.npz")
    fit("quality", config_of(tmp_path, **settings))
    first, embedder = (tmp_path / "edu.npz").read_bytes(), stage._embedder()
    before = embedder.embed_texts(texts)
    fit("quality", config_of(tmp_path, work=str(tmp_path / "fresh"), **settings))
    assert (tmp_path / "edu.npz").read_bytes() == first
    np.testing.assert_array_equal(embedder.embed_texts(texts), before)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    assert folder in stage.models()


def test_scores_do_not_depend_on_the_batch(tmp_path):
    texts, ratings = rated_texts(300)
    write_rated(tmp_path / "rated.jsonl", texts, ratings)
    fit("quality", config_of(tmp_path))
    stage = Quality(model=tmp_path / "edu.npz")
    together = np.asarray(stage(pa.table({"text": texts}))["quality.score"])
    alone = [np.asarray(stage(pa.table({"text": [one]}))["quality.score"])[0] for one in texts[:20]]
    np.testing.assert_array_equal(together[:20], alone)


def test_vectors_of_a_column(tmp_path):
    texts, ratings = rated_texts(200)
    vectors = unit_vectors(Hashed(dimensions=32, ngram=1).embed_texts(texts)).tolist()
    with (tmp_path / "rated.jsonl").open("w") as file:
        for text, rating, vector in zip(texts, ratings, vectors, strict=True):
            line = {"text": text, "score": int(rating), "vector": vector}
            file.write(json.dumps(line) + "\n")
    fit("quality", config_of(tmp_path, embedding={"column": "vector"}))
    stage = Quality(model=tmp_path / "edu.npz")
    assert stage.requires() == ("vector",)
    table = stage(pa.table({"text": texts, "vector": pa.array(vectors)}))
    assert np.corrcoef(np.asarray(table["quality.score"]), ratings)[0, 1] > 0.8


def test_a_text_that_stands_twice_counts_once_and_unrated_ones_not(tmp_path):
    texts, ratings = rated_texts(100)
    path = write_rated(tmp_path / "rated.jsonl", texts + texts[:50], [*ratings, *ratings[:50]])
    with path.open("a") as file:
        file.write(json.dumps({"text": "not rated", "score": None}) + "\n")
    said = fit("quality", config_of(tmp_path))
    facts = read_facts(tmp_path / "edu.npz").facts
    assert facts["trained_on"] + facts["held_out"]["texts"] == 100
    assert facts["unrated"] == 1 and "1 lines have no rating" in said


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"text": "a"}, r"rated.jsonl:101: no rating under score"),
        ({"txt": "a", "score": 1}, r"rated.jsonl:101: no text under text; did you mean txt"),
        ({"text": "a", "score": 7}, "score is 7, and the scale goes from 0 to 5"),
        ({"text": "a", "score": "3"}, "score is a number, not '3'"),
    ],
)
def test_lines_that_will_not_do(tmp_path, line, sentence):
    texts, ratings = rated_texts(100)
    with write_rated(tmp_path / "rated.jsonl", texts, ratings).open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(TamisError) as error:
        fit("quality", config_of(tmp_path))
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"output": "edu.bin"}, "the name of a model ends in .npz"),
        ({"labels": "nowhere.jsonl"}, "nowhere.jsonl cannot be read"),
        ({"scale": [5, 0]}, "the lowest rating stands first"),
        ({"embedding": {"model2vec": "nowhere"}}, "there is no model in nowhere"),
        ({"held_out": 0.95}, "texts with words are too few"),
        ({"pentalty": 1}, "did you mean penalty"),
    ],
)
def test_settings_that_will_not_do(tmp_path, settings, sentence):
    texts, ratings = rated_texts(100)
    write_rated(tmp_path / "rated.jsonl", texts, ratings)
    with pytest.raises((TamisError, RecipeError)) as error:
        fit("quality", config_of(tmp_path, **settings))
    assert sentence in str(error.value)


def test_models_that_will_not_do(tmp_path):
    texts, ratings = rated_texts(100)
    write_rated(tmp_path / "rated.jsonl", texts, ratings)
    fit("quality", config_of(tmp_path))
    stage = Quality(model=tmp_path / "edu.npz", embedding={"hashed": {"dimensions": 16}})
    with pytest.raises(TamisError, match="vectors of 64 numbers, and this embedding gives 16"):
        stage(pa.table({"text": ["fraction"]}))
    torn = tmp_path / "torn.npz"
    torn.write_bytes((tmp_path / "edu.npz").read_bytes()[:200])
    with pytest.raises(RecipeError, match=r"quality: .* is no model of tamis fit quality"):
        Quality(model=torn).models()
    with pytest.raises(TamisError, match="the same embedding: nothing can be learned"):
        fit_head(np.ones((30, 4), np.float32), np.arange(30.0))
