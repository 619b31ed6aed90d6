"""Hashed n-grams are DSIR's, and importance weights find the planted target."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tamis
from tamis.fit import fit
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.scorers.artefact import read_facts
from tamis.scorers.dsir import (
    Dsir,
    DsirModel,
    choose_for_targets,
    dsir_scores,
    proportional_amounts,
)
from tamis.scorers.hashed_ngrams import ngram_counts, ngram_sums
from tamis.scorers.sha256 import padded_size, sha256
from tests.filters.dedup.conftest import make_documents

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "dsir.json").read_text())
STRANGE = [
    "",
    "ΑΣ ΣΑΣ. Σ",
    "İstanbul K ȺȺȺ",
    "x\x1cy\x85z\u2003_a_ ０１ a\u0301",
    "𐐀𐐁 𝒳 🎉🎉! \x00",
    "a" * 5000 + " " + "?" * 3000,
]


@pytest.fixture(scope="module")
def demo(corpus) -> list[dict[str, str]]:
    with gzip.open(corpus) as lines:
        return [json.loads(line) for line in lines]


def tokens_of(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]+", text.lower())


def reference(text: str, ngrams: int, buckets: int) -> dict[int, int]:
    tokens = tokens_of(text)
    found: Counter[int] = Counter()
    for n in range(1, ngrams + 1):
        for first in range(len(tokens) - n + 1):
            ngram = " ".join(tokens[first : first + n]).encode()
            found[int(hashlib.sha256(ngram).hexdigest(), 16) % buckets] += 1
    return dict(found)


def counts_of(text: str, ngrams: int = 2, buckets: int = 10_000) -> dict[int, int]:
    counts = ngram_counts(make_documents([text]), ngrams, buckets)
    return {int(bucket): int(counts[bucket]) for bucket in np.flatnonzero(counts)}


@pytest.mark.parametrize("length", [0, 1, 3, 55, 56, 63, 64, 65, 119, 120, 1000])
def test_sha256_is_that_of_hashlib(length):
    text = bytes(range(1, 252)) * 4
    message = np.zeros(padded_size(length), np.uint8)
    message[:length] = np.frombuffer(text[:length], np.uint8)
    state = np.zeros(8, np.uint32)
    sha256(message, length, np.zeros(64, np.uint32), state)
    assert state.astype(">u4").tobytes() == hashlib.sha256(text[:length]).digest()


def test_vectors():
    for text, bucket in VECTORS["dsir_hash"].items():
        assert reference(text, 1, 10_000) or text
        assert counts_of(text, len(text.split()))[bucket] >= 1
    for one in VECTORS["dsir_features"]:
        assert tokens_of(one["text"]) == one["tokens"]
        assert counts_of(one["text"]) == {int(b): n for b, n in one["buckets"].items()}
        found = ngram_sums(make_documents([one["text"]]), 2, np.zeros((10_000, 1)))
        assert found.tokens.tolist() == [one["length"]]


@pytest.mark.parametrize(("ngrams", "buckets"), [(1, 10_000), (2, 10_000), (3, 997), (8, 1 << 20)])
def test_buckets_are_those_of_python(demo, ngrams, buckets):
    texts = [record["text"][:2000] for record in demo[::40]] + STRANGE
    for text in texts:
        assert counts_of(text, ngrams, buckets) == reference(text, ngrams, buckets)


@settings(deadline=None)
@given(
    st.text(
        st.characters(codec="utf-8") | st.sampled_from("aA _.,ΣςσİK\u0307\u00a0\x1f!"), max_size=60
    )
)
def test_tokens_of_any_text_are_those_of_re(text):
    assert counts_of(text) == reference(text, 2, 10_000)


def test_every_character_has_its_lower_case_and_kind():
    text = " ".join(f"{chr(c)}x{chr(c)}" for c in range(0x20000) if not 0xD800 <= c < 0xE000)
    text = text.replace("Σ", "")
    assert counts_of(text) == reference(text, 2, 10_000)


def test_sums_follow_the_weights_and_pass_over_dead_rows(demo):
    texts = [record["text"] for record in demo[:30]]
    weights = np.random.default_rng(0).normal(size=(10_000, 2))
    alive = np.arange(30) % 3 != 0
    found = ngram_sums(make_documents(texts, alive=alive), 2, weights)
    for row, text in enumerate(texts):
        expected = sum(
            (weights[bucket] * number for bucket, number in reference(text, 2, 10_000).items()),
            np.zeros(2),
        )
        assert found.sums[row] == pytest.approx(expected * alive[row], abs=1e-9)
        assert found.tokens[row] == len(tokens_of(text)) * alive[row]


def formula_length(counts: dict[int, int], ngrams: int) -> int:
    return (sum(counts.values()) + ngrams * (ngrams - 1) // 2) // ngrams


@pytest.mark.parametrize("ngrams", [1, 2, 3, 5])
def test_tokens_are_the_length_of_the_released_code(ngrams):
    for size in range(ngrams - 1, 12):
        assert formula_length(reference("a " * size, ngrams, 50), ngrams) in (size, max(size, 1))


class Planted:
    """Documents of 120 words of 2,000; the last tenth is of the target's topic."""

    def __init__(self, documents: int = 6000, words: int = 120) -> None:
        generator = np.random.default_rng(5)
        rest = generator.dirichlet(np.full(2000, 0.7))
        topic = 0.55 * generator.dirichlet(np.full(2000, 0.2)) + 0.45 * rest
        self.is_target = np.arange(documents) >= 0.9 * documents
        rows = np.concatenate(
            [
                generator.choice(2000, (int((~self.is_target).sum()), words), p=rest),
                generator.choice(2000, (int(self.is_target.sum()), words), p=topic),
            ]
        )
        self.texts = [" ".join(f"w{word}" for word in row) for row in rows]
        self.target = [
            " ".join(f"w{word}" for word in row)
            for row in generator.choice(2000, (1500, words), p=topic)
        ]


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


def model_of(target: list[str], raw: list[str], smoothing: float = 0.0, ngrams: int = 2):
    return DsirModel(
        ngrams,
        smoothing,
        {"target": ngram_counts(make_documents(target), ngrams, 10_000)},
        ngram_counts(make_documents(raw), ngrams, 10_000),
    )


def stage_of(model: DsirModel, folder: Path, **more) -> Dsir:
    model.save(folder / "dsir.npz")
    return Dsir(model=folder / "dsir.npz", **more)


def test_the_planted_target_is_selected(planted, tmp_path):
    """A share of .98 where chance gives .10, and KL from .43 to .02."""
    model = model_of(planted.target, planted.texts, ngrams=1)
    weight = stage_of(model, tmp_path).measure(make_documents(planted.texts))["score"]
    wanted = int(planted.is_target.sum())
    best = np.argsort(-weight)[:wanted]
    assert planted.is_target[best].mean() > 0.95
    noisy = choose_for_targets(weight[:, None], [wanted], seed=1) == 0
    assert planted.is_target[noisy].mean() > 0.95
    chosen = model_of(planted.target, [planted.texts[row] for row in best], ngrams=1)
    assert 0.3 < model.divergence("target") < 0.6
    assert chosen.divergence("target") < 0.05


def test_weights_are_far_apart_so_that_noise_decides_nothing(planted, tmp_path):
    model = model_of(planted.target, planted.texts)
    weight = stage_of(model, tmp_path).measure(make_documents(planted.texts))["score"]
    wanted = int(planted.is_target.sum())
    assert weight.std() > 20
    noisy = choose_for_targets(weight[:, None], [wanted], seed=1) == 0
    plain = choose_for_targets(weight[:, None], [wanted], seed=None) == 0
    assert (noisy & plain).sum() > 0.98 * wanted


def test_long_documents_hold_both_ends_unless_weights_are_by_token(planted, tmp_path):
    model = model_of(planted.target, planted.texts, ngrams=1)
    background = [text for text, of in zip(planted.texts, planted.is_target, strict=True) if not of]
    topic = planted.target
    short_good, long_bad = topic[0], " ".join(background[:20])
    long_mixed = " ".join(background[:14] + topic[:26])
    texts = [short_good, long_mixed, background[0], long_bad]
    weights = stage_of(model, tmp_path).measure(make_documents(texts))
    assert np.argsort(-weights["score"]).tolist() == [1, 0, 2, 3]
    assert np.argmax(weights["per_token"]) == 0
    spread = np.abs(weights["per_token"][2] - weights["per_token"][3])
    assert spread < 0.2 < np.abs(weights["score"][2] - weights["score"][3]) / 100
    by_token = stage_of(model, tmp_path, length_normalize=True).measure(make_documents(texts))
    assert (by_token["score"] == weights["per_token"]).all()


def test_one_ngram_that_the_target_has_not_costs_eighteen_nats():
    target, raw = ["a b c d"] * 50, ["a b c d z"] * 10
    bare, smooth = (model_of(target, raw, smoothing, 1) for smoothing in (0.0, 1.0))
    (bucket,) = counts_of("z", 1)
    assert bare.log_ratios("target")[bucket] == pytest.approx(np.log(1e-8) - np.log(0.2), abs=1e-6)
    known = counts_of("a", 1).popitem()[0]
    assert smooth.log_ratios("target")[bucket] == pytest.approx(np.log(1 / 10_200 / 0.2), abs=1e-3)
    assert smooth.log_ratios("target")[known] == pytest.approx(np.log(51 / 10_200 / 0.2), abs=1e-5)
    assert bare.unseen("target") == pytest.approx(0.2)


def test_short_and_empty_documents_have_no_score(planted, tmp_path):
    stage = stage_of(model_of(planted.target, planted.texts[:500]), tmp_path)
    texts = ["", "w1 " * 99, "w1 " * 100, None]
    measured = stage({"text": texts})
    assert np.isnan(measured["dsir.score"]).tolist() == [True, True, False, True]
    assert measured["dsir.tokens"] == [0, 99, 100, 0]


def test_scores_in_memory_are_those_of_the_stage(planted, tmp_path):
    texts = planted.texts[::100]
    weights, tokens = dsir_scores(texts, planted.target, planted.texts, smoothing=0.5)
    stage = stage_of(model_of(planted.target, planted.texts, 0.5), tmp_path)
    assert weights.tolist() == stage.measure(make_documents(texts))["score"].tolist()
    assert tokens.tolist() == [120] * len(texts)


def test_choosing_for_targets_takes_each_document_once():
    scores = np.array([[9.0, 9.0], [8.0, 7.0], [1.0, 8.0], [np.nan, np.nan], [0.0, 0.0]])
    assert choose_for_targets(scores, [2, 1], seed=None).tolist() == [0, 0, 1, -1, -1]
    assert choose_for_targets(scores, [1, 2], seed=None).tolist() == [0, 1, 1, -1, -1]
    with pytest.raises(TamisError, match="target 2 is to have 3 documents, and 2 with a score"):
        choose_for_targets(scores, [2, 3])
    assert proportional_amounts(10, [1.0, 1.0, 1.0]) == [4, 3, 3]
    assert sum(proportional_amounts(1001, [0.3, 0.3, 0.4])) == 1001


def test_gumbel_keys_take_documents_in_proportion_to_their_weights():
    weights = np.array([0.5, 0.3, 0.15, 0.05])
    draws = [
        int(np.flatnonzero(choose_for_targets(np.log(weights)[:, None], [1], seed) == 0)[0])
        for seed in range(2000)
    ]
    assert np.bincount(draws, minlength=4) / 2000 == pytest.approx(weights, abs=0.04)


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def test_fit_writes_a_model_that_a_run_applies(planted, tmp_path):
    target = write(tmp_path / "target.jsonl", planted.target[:300])
    other = write(tmp_path / "other.jsonl", planted.texts[:300])
    pool = write(tmp_path / "pool.jsonl", planted.texts[::10])
    config = tmp_path / "fit.yaml"
    lines = f"target: {{topic: {target}, rest: [{other}]}}\nraw: {pool}\nsmoothing: 0.1\n"
    config.write_text(lines + f"output: {tmp_path}/a.npz\n")
    said = fit("dsir", config)
    assert "topic: 300 documents, 71,700 n-grams; KL(topic || raw)" in said
    artefact = read_facts(tmp_path / "a.npz")
    assert artefact.stage == "dsir"
    assert artefact.facts["topic"]["ngrams"] == 300 * 239
    first = (tmp_path / "a.npz").read_bytes()
    fit("dsir", config)
    assert (tmp_path / "a.npz").read_bytes() == first
    stages = [
        tamis.Dsir(model=tmp_path / "a.npz", **artefact.settings, name=name, target=name)
        for name in ("topic", "rest")
    ]
    tamis.Pipeline(tamis.read(pool), stages, tamis.write(tmp_path / "run")).run()
    table = pa.concat_tables(
        pq.read_table(path) for path in sorted((tmp_path / "run/data").glob("*"))
    )
    best = np.argsort(-table["topic.score"].to_numpy())[:60]
    assert planted.is_target[::10][best].mean() > 0.9
    assert np.corrcoef(table["topic.score"], table["rest.score"])[0, 1] < 0


def test_counts_of_parts_add_up(demo):
    texts = [record["text"] for record in demo[:40]]
    parts = [ngram_counts(make_documents(texts[k::3]), 2, 1000) for k in range(3)]
    assert (sum(parts) == ngram_counts(make_documents(texts), 2, 1000)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("target: nowhere.jsonl\nraw: {pool}", "target target: .*nowhere.jsonl"),
        ("target: {pool}\nraw: {empty}", "raw: there is not one word in"),
        ("target: {pool}\nraw: {pool}\nbuckets: 1", "buckets"),
        ("target: {pool}\nraw: {pool}\nsmothing: 1", "smoothing"),
        ("target: {raw: [x]}\nraw: {pool}", "call it something else"),
    ],
)
def test_mistakes_are_one_sentence(settings, message, tmp_path):
    pool, empty = write(tmp_path / "p.jsonl", ["a b"]), write(tmp_path / "e.jsonl", ["  "])
    config = tmp_path / "fit.yaml"
    filled = settings.replace("{pool}", pool).replace("{empty}", empty)
    config.write_text(f"{filled}\noutput: {tmp_path}/a.npz\n")
    with pytest.raises(TamisError, match=message):
        fit("dsir", config)


def test_a_model_is_named_with_npz(tmp_path):
    config = tmp_path / "fit.yaml"
    config.write_text("target: a\nraw: b\noutput: model\n")
    with pytest.raises(RecipeError, match=r"ends in \.npz"):
        fit("dsir", config)


def test_what_is_no_model_says_so(planted, tmp_path):
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(TamisError, match="no model of tamis fit dsir"):
        Dsir(model=tmp_path / "junk.npz")({"text": ["a"]})
    with pytest.raises(TamisError, match="there is no model"):
        Dsir(model=tmp_path / "none.npz")({"text": ["a"]})
    both = model_of(planted.target[:20], planted.texts[:20])
    both = DsirModel(2, 0.0, {"books": both.raw, "wiki": both.raw}, both.raw)
    with pytest.raises(TamisError, match="has 2 targets; name one, target: books, wiki"):
        stage_of(both, tmp_path)({"text": ["a"]})
    with pytest.raises(TamisError, match=r"target = book: .* has no such target.*books"):
        stage_of(both, tmp_path, target="book")({"text": ["a"]})
    whole = (tmp_path / "dsir.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TamisError, match="no model"):
        Dsir(model=tmp_path / "half.npz")({"text": ["a"]})
