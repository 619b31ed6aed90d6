"""BETR on documents of planted topics: what is labelled, learned, kept on disk, and refused."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from tamis.embedding import Hashed
from tamis.embedding.embedder import unit_vectors
from tamis.fit import fit
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.recipe import load_settings
from tamis.scorers.artefact import read_facts
from tamis.scorers.betr import Betr, FitBetr, filter_rate, rank_texts, rank_vectors
from tamis.scorers.fasttext import FastText
from tamis.scorers.reading import Corpus
from tamis.scorers.sample import Sample, draw_sample

TOPICS = {
    "birds": "heron feather nest wing egg migration marsh beak flock song",
    "salt": "brine crystal evaporation sodium mine sea pan harvest trade tax",
    "other": "meeting agenda budget report deadline office manager printer memo form",
}


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def text_about(topic, random, words=30):
    return " ".join(random.choice(TOPICS[topic].split(), words))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with 600 documents, a fifth of them about the topics of two benchmarks of 20 and 30
    questions; two documents have no words.
    """
    folder = tmp_path_factory.mktemp("betr")
    random = np.random.default_rng(0)
    documents = []
    for number in range(600):
        topic = ("birds", "salt", *["other"] * 8)[number % 10]
        documents.append({"id": f"{topic}-{number:03d}", "text": text_about(topic, random)})
    documents += [{"id": "none-1", "text": " \n"}, {"id": "none-2", "text": "!!! ???"}]
    random.shuffle(documents)
    write_lines(folder / "corpus.jsonl", documents)
    for topic, count in (("birds", 20), ("salt", 30)):
        records = [
            {"question": text_about(topic, random, 8), "answer": text_about(topic, random, 3)}
            for _ in range(count)
        ]
        write_lines(folder / f"{topic}.jsonl", records)
    return folder


def config_of(folder, **settings):
    values = {
        "sample": str(folder / "corpus.jsonl"),
        "benchmarks": {name: str(folder / f"{name}.jsonl") for name in ("birds", "salt")},
        "embedding": "hashed",
        "output": str(folder / "betr.bin"),
        "work": str(folder / "work"),
        "positive_share": 0.2,
        "training": {"recipe": "betr", "dim": 8, "bucket": 1000, "lr": 0.5, "epoch": 5},
        **settings,
    }
    path = folder / "fit.yaml"
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize(
    ("flops", "nemotron", "refinedweb"),
    [(1e19, 2.2, 2.7), (1e20, 4.0, 3.8), (1e21, 7.1, 5.2), (1e22, 12.6, 7.2), (1e23, 22.5, 10.0)],
)
def test_the_law_of_the_filter_rate(flops, nemotron, refinedweb):
    """The table of selection.md 2, to its last digit."""
    assert 100 * filter_rate(flops) == pytest.approx(nemotron, abs=0.0501)
    assert 100 * filter_rate(flops, "dclm-refinedweb") == pytest.approx(refinedweb, abs=0.0501)


def test_the_law_has_bounds():
    assert filter_rate(1e30) == 1
    with pytest.raises(ValueError, match="more than 0 FLOPs"):
        filter_rate(0)
    with pytest.raises(ValueError, match="no law for pile; there is nemotron-cc"):
        filter_rate(1e20, "pile")


def test_fit_trains_a_classifier_of_documents_near_the_benchmarks(made, monkeypatch):
    said = fit("betr", config_of(made, compute=1e20))
    assert "120 of 601 documents are positive, by 40 examples of 2 benchmarks" in said
    assert "for 1e+20 FLOPs keep 4.0% of the tokens (the law of nemotron-cc)" in said
    found = read_facts(made / "betr.bin")
    assert found.stage == "fasttext" and found.settings == {"label": "hq"}
    facts = found.facts
    assert facts["examples"] == {"birds": 20, "salt": 20}
    assert facts["without_words"] == 1 and facts["positive"] == facts["negative"] == 120
    assert facts["held_out"] == 12 and facts["accuracy"] == 1.0
    assert facts["contributions"]["birds"] == pytest.approx(0.5, abs=0.1)
    random = np.random.default_rng(1)
    texts = [text_about(topic, random) for topic in ("birds", "other", "salt", "other")]
    score = FastText(model=made / "betr.bin")(pa.table({"text": texts}))["fasttext.score"]
    assert np.argsort(np.asarray(score))[:2].tolist() in ([1, 3], [3, 1])
    before = (made / "betr.bin").read_bytes()
    monkeypatch.setattr(Hashed, "embed", lambda *_: pytest.fail("it was embedded before"))
    fit("betr", config_of(made))
    assert (made / "betr.bin").read_bytes() == before


def test_the_stage_gives_the_rank_in_the_sample(made):
    output = made / "ranks.npz"
    fit("betr", config_of(made, output=str(output), scorer="ranks"))
    assert read_facts(output).stage == "betr"
    sample = Sample(made / "work")
    vectors = sample.vectors(Hashed())
    settings = load_settings(config_of(made, output=str(output), scorer="ranks"), FitBetr)
    texts = [text for one in settings._examples().values() for text in one]
    examples = unit_vectors(Hashed().embed_texts(texts))
    cosine = examples @ vectors.T
    texts = sample.texts(range(len(sample)))
    table = Betr(model=output)(pa.table({"text": [*texts, ""]}))
    rank = np.asarray(table["betr.rank"])
    assert np.isnan(rank).sum() == 2 and np.isnan(rank[-1])
    depth = np.nanmax(rank)
    expected = 1 + (cosine[:, None, :] > cosine[:, :, None] + 1e-6).sum(axis=2)
    known = ~np.isnan(rank[:-1])
    similarity = np.asarray(table["betr.similarity"])[:-1]
    assert (np.isnan(similarity) == (np.isnan(rank[:-1]) | (rank[:-1] == depth))).all()
    first = known & (rank[:-1] < depth)
    assert (similarity[first] <= cosine.max(axis=0)[first] + 1e-6).all()
    np.testing.assert_array_equal(rank[:-1][known], np.minimum(expected.min(axis=0), depth)[known])
    np.testing.assert_allclose(
        np.asarray(table["betr.score"])[:-1][known], -np.log2(rank[:-1])[known]
    )


def test_texts_in_memory_are_ranked_as_files_are(made):
    settings = load_settings(config_of(made), FitBetr)
    sample = draw_sample(Corpus([str(made / "corpus.jsonl")], "sample"), made / "work", 1_000_000)
    texts = sample.texts(range(len(sample)))
    found = rank_texts(texts, settings._examples(), share=0.2)
    ids = pa.ipc.open_file(str(made / "work" / "documents.arrow")).read_all()
    topic = {row["text"]: row["id"].split("-")[0] for row in ids.to_pylist()}
    assert {topic[texts[number]] for number in found.positive} == {"birds", "salt"}
    assert topic[texts[0]] == "birds" and topic[texts[-1]] == "salt"


class KilledError(Exception):
    """What ends a process in the middle."""


def test_embeddings_that_were_made_are_not_made_again(made, tmp_path, monkeypatch):
    """Three files give at least three batches; the process dies in the second."""
    lines = (made / "corpus.jsonl").read_text().splitlines(keepends=True)
    for number in range(3):
        (tmp_path / f"{number}.jsonl").write_text("".join(lines[number::3]))
    corpus = Corpus([str(tmp_path / "*.jsonl")], "sample")
    sample = draw_sample(corpus, tmp_path / "work", None)
    embedded, calls = [], []
    embed = Hashed.embed

    def counted(self, documents, rows):
        calls.append(len(rows))
        if len(calls) == 2:
            raise KilledError
        embedded.extend(documents.batch["id"].to_pylist())
        return embed(self, documents, rows)

    monkeypatch.setattr(Hashed, "embed", counted)
    with pytest.raises(KilledError):
        sample.vectors(Hashed())
    again = draw_sample(Corpus([str(tmp_path / "*.jsonl")], "sample"), tmp_path / "work", None)
    vectors = np.array(again.vectors(Hashed()))
    assert len(embedded) == len(set(embedded)) == 601
    monkeypatch.undo()
    again.vectors(Hashed(dimensions=64))
    np.testing.assert_array_equal(again.vectors(Hashed()), vectors)
    alone = unit_vectors(Hashed().embed_texts(again.texts([7, 300])))
    np.testing.assert_array_equal(vectors[[7, 300]], alone)


def test_a_sample_is_uniform_exact_in_size_and_repeatable(tmp_path):
    records = [{"id": f"d{number}", "text": "word " * (1 + number % 7)} for number in range(20_000)]
    path = write_lines(tmp_path / "c.jsonl", records)
    sample = draw_sample(Corpus([path], "sample"), tmp_path / "a", 500, seed=3)
    assert len(sample) == 500
    ids = [one for _, documents in sample.batches() for one in documents.batch["id"].to_pylist()]
    numbers = np.array([int(one[1:]) for one in ids])
    assert abs(numbers.mean() - 10_000) < 1000 and len(set(ids)) == 500
    order = np.concatenate([numbers for numbers, _ in sample.batches()])
    assert [ids[place] for place in np.argsort(order)] == sorted(ids)
    other = draw_sample(Corpus([path], "sample"), tmp_path / "b", 500, seed=4)
    others = {one for _, documents in other.batches() for one in documents.batch["id"].to_pylist()}
    assert len(others & set(ids)) < 50
    with (tmp_path / "c.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "text": "new"}) + "\n")
    changed = draw_sample(Corpus([path], "sample"), tmp_path / "a", 500, seed=3)
    assert changed.facts["read"] == 20_001


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"output": "x.npz"}, "with scorer: fasttext the name ends in .bin"),
        ({"scorer": "ranks"}, "with scorer: ranks the name ends in .npz"),
        ({"embedding": {"column": "v"}}, "benchmark examples have no column; name a model"),
        ({"embedding": "hash"}, "there is no embedding hash; did you mean hashed"),
        ({"embedding": {"model2vec": "nowhere"}}, "there is no model in nowhere"),
        ({"benchmarks": {}}, "benchmarks"),
        ({"benchmarks": {"a": "nowhere.jsonl"}}, "nowhere.jsonl cannot be read"),
        ({"sample": "nowhere/*.jsonl"}, "sample: "),
        ({"positive_share": 0.9}, "positive_share"),
        ({"scorer": "ranks", "output": "x.npz", "aggregation": "mean_log"}, "goes with max"),
        ({"documents": 3}, "documents"),
        ({"device": "cuda"}, "device: cuda needs"),
    ],
)
def test_mistakes_are_one_sentence(made, settings, sentence):
    with pytest.raises((RecipeError, TamisError)) as error:
        fit("betr", config_of(made, **settings))
    assert sentence in str(error.value)


def test_vectors_without_words_and_shares_of_nothing():
    examples = {"a": np.eye(4, dtype=np.float32)[:1], "b": np.zeros((2, 4), np.float32)}
    documents = np.eye(4, dtype=np.float32)[[3, 0, 1]]
    documents[0] = 0
    found = rank_vectors(documents, examples, 0.5)
    assert found.positive.tolist() == [1] and np.isnan(found.score[0]) and found.score[1] == 0
    assert found.contributions == {"a": 1.0}
    with pytest.raises(TamisError, match=r"a share of 0.1 of 2 documents with words"):
        rank_vectors(documents, examples, 0.1)
    with pytest.raises(TamisError, match="no benchmark examples with words"):
        rank_vectors(documents, {"b": examples["b"]})


def test_a_model_for_another_embedding_and_files_that_are_none(made, tmp_path):
    output = made / "ranks.npz"
    fit("betr", config_of(made, output=str(output), scorer="ranks"))
    stage = Betr(model=output, embedding={"hashed": {"dimensions": 16}})
    with pytest.raises(
        TamisError, match="with vectors of 512 numbers, and this embedding gives 16"
    ):
        stage(pa.table({"text": ["heron"]}))
    broken = tmp_path / "broken.npz"
    broken.write_bytes(output.read_bytes()[:1000])
    with pytest.raises(RecipeError, match=r"betr: .*is no model of tamis fit betr"):
        Betr(model=broken).models()
    huge = "heron " * 300_000
    assert np.isfinite(
        np.asarray(Betr(model=output)(pa.table({"text": [huge]}))["betr.rank"])
    ).all()
