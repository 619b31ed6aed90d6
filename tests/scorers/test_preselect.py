from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import tamis
from tamis.fit import fit
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.scorers.artefact import read_facts
from tamis.scorers.fasttext_training import FastTextSettings
from tamis.scorers.language_models import ModelSetting, load_language_model
from tamis.scorers.ngram import train_ngram
from tamis.scorers.predictive_strength import predictive_strength
from tamis.scorers.preselect import FitPreSelect, choose_examples
from tamis.scorers.rated_models import RatedModel, benchmark_results
from tamis.scorers.seed_documents import PerGroup, draw_documents, model_losses, read_losses

pytest.importorskip("kenlm")

WORDS = np.array([f"w{number}" for number in range(64)])
SHARES = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85)


def chain(seed: int) -> np.ndarray:
    """A Markov chain over 64 words."""
    return np.random.default_rng(seed).dirichlet(np.full(64, 0.1), 64)


def walk(rows: np.ndarray, length: int, choose: np.random.Generator) -> str:
    below, state, states = rows.cumsum(1), int(choose.integers(64)), []
    for draw in choose.random(length):
        state = min(int(np.searchsorted(below[state], draw)), 63)
        states.append(state)
    return " ".join(WORDS[states])


A, B, UNIFORM = chain(1), chain(2), np.full((64, 64), 1 / 64)


def accuracy(learned: Iterable[str]) -> float:
    """Of the next word on A, as bigram counts say it."""
    number = {word: index for index, word in enumerate(WORDS)}
    counts = np.zeros((64, 64))
    for text in learned:
        states = [number[word] for word in text.split()]
        np.add.at(counts, (states[:-1], states[1:]), 1)
    held = [number[word] for word in walk(A, 5000, np.random.default_rng(9)).split()]
    return float((counts.argmax(1)[held[:-1]] == held[1:]).mean())


@pytest.fixture(scope="module")
def ladder(tmp_path_factory) -> list[dict]:
    """Bigram models of 6,000 words with a rising share of A; the benchmark is about A."""
    folder, choose = tmp_path_factory.mktemp("ladder"), np.random.default_rng(3)
    rated = []
    for number, share in enumerate(SHARES):
        of_a = round(60 * share)
        texts = [walk(A if one < of_a else B, 100, choose) for one in range(60)]
        path = folder / f"{number}.arpa"
        train_ngram((one.split() for one in texts), 2, path)
        rated.append({"model": path, "benchmark": accuracy(texts)})
    return rated


def pool(count: int, length: int, seed: int) -> list[dict[str, str]]:
    choose = np.random.default_rng(seed)
    kinds = {"a": A, "b": B, "uniform": UNIFORM}
    return [
        {"id": f"{kind}{number}", "text": walk(rows, length, choose), "url": f"http://{kind}.org/x"}
        for kind, rows in kinds.items()
        for number in range(count)
    ]


def write(path: Path, records: list[dict]) -> Path:
    path.write_text("\n".join(map(json.dumps, records)) + "\n")
    return path


def test_the_ladder_of_the_specification(ladder) -> None:
    """S is 1 for documents of A, 0 for those of B, and .46 on average for noise."""
    documents = pool(120, 200, seed=5)
    losses = [
        load_language_model(ModelSetting(model=one["model"])).nats(
            [document["text"] for document in documents]
        )
        for one in ladder
    ]
    benchmarks = [one["benchmark"] for one in ladder]
    assert benchmarks == sorted(benchmarks)
    strength = predictive_strength(np.array([one.nats for one in losses]), benchmarks)
    of_a, of_b, of_noise = strength[:120], strength[120:240], strength[240:]
    assert (of_a == 1).all() and (of_b == 0).all()
    assert 0.35 < of_noise.mean() < 0.6 and (of_noise == 1).mean() < 0.02


@pytest.fixture(scope="module")
def fitted(ladder, tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("fit")
    write(folder / "seed.jsonl", pool(150, 250, seed=6))
    config = {
        "data": str(folder / "seed.jsonl"),
        "models": [{**one, "model": str(one["model"])} for one in ladder],
        "per_group": {"documents": 140},
        "training": {"recipe": "preselect", "bucket": 20_000, "dim": 16, "epoch": 10},
        "output": str(folder / "preselect.bin"),
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    return folder, fit("preselect", folder / "config.yaml")


def test_the_classifier_finds_what_predicts_the_benchmark(fitted) -> None:
    folder, said = fitted
    documents = [one for one in pool(300, 250, seed=7) if not one["id"].startswith("u")]
    stage = tamis.FastText(model=folder / "preselect.bin")
    table = stage(pa.table({"text": [one["text"] for one in documents]}))
    logit = table.column("fasttext.logit").to_numpy()
    is_a = np.array([one["id"].startswith("a") for one in documents])
    pairs = logit[is_a][:, None] > logit[~is_a]
    assert pairs.mean() > 0.99
    assert is_a[np.argsort(-logit)[:60]].mean() > 0.99
    assert "6 models, 420 documents: 33.3% order them rightly" in said
    assert "largest shares of positives: a.org 140/140, b.org 0/140" in said


def test_what_was_learned_is_noted_beside_the_model(fitted) -> None:
    folder, _ = fitted
    artefact = read_facts(folder / "preselect.bin")
    assert artefact is not None
    assert (artefact.stage, artefact.settings) == ("fasttext", {"label": "1"})
    facts = artefact.facts
    assert facts["documents"] == 420 and facts["without_losses"] == 0
    assert (facts["read"], facts["unreadable"]) == (450, 0)
    assert facts["positives"] + facts["negatives"] + facts["held_out"] == 280
    assert facts["highest_negative"] == 0 and facts["auc"] > 0.99
    assert facts["reliability"]["levels"][-1] == 140
    assert facts["reliability"]["chance"][-1] == pytest.approx(1 / 720)


def test_the_same_again_gives_the_same_bytes(fitted) -> None:
    folder, _ = fitted
    before = (folder / "preselect.bin").read_bytes()
    fit("preselect", folder / "config.yaml")
    assert (folder / "preselect.bin").read_bytes() == before


def test_losses_are_kept_block_by_block(ladder, tmp_path: Path) -> None:
    records = pool(200, 60, seed=8)
    documents = draw_documents([str(write(tmp_path / "d.jsonl", records))], tmp_path, 1, None, 0)
    setting = ModelSetting(model=ladder[0]["model"])
    first, _ = model_losses(documents, setting)
    expected = load_language_model(setting).nats([one["text"] for one in records]).nats
    np.testing.assert_array_equal(first, expected)
    one, two, _ = sorted(tmp_path.rglob("*.f64"))
    # What is there is not computed again; what a full disk cut off is.
    one.write_bytes(np.arange(256.0).tobytes())
    two.write_bytes(two.read_bytes()[:100])
    again, _ = model_losses(documents, setting)
    np.testing.assert_array_equal(again[:256], np.arange(256.0))
    np.testing.assert_array_equal(again[256:], expected[256:])


def test_which_documents_are_drawn(tmp_path: Path) -> None:
    choose = np.random.default_rng(0)
    hosts = ["big.org"] * 50 + ["mid.org"] * 20 + ["small.org"] * 5
    records = [
        {"id": str(number), "text": walk(A, 50, choose), "url": f"https://{host}/{number}"}
        for number, host in enumerate(hosts)
    ]
    short = {"id": "short", "text": "w1 w2", "url": "https://big.org/s"}
    copy = {**records[0], "id": "copy"}
    path = write(tmp_path / "d.jsonl", [*records, short, copy])
    whole = draw_documents([str(path)], tmp_path / "work", 30, None, 0)
    assert whole.ids == [str(number) for number in range(75)]
    group = PerGroup(groups=2, documents=10)
    drawn = draw_documents([str(path)], tmp_path / "work", 30, group, 0)
    assert sorted(drawn.groups) == ["big.org"] * 10 + ["mid.org"] * 10
    # Whatever the order of the documents, but not whatever the seed.
    back = write(tmp_path / "back.jsonl", records[::-1])
    turned = draw_documents([str(back)], tmp_path / "work", 30, group, 0)
    other = draw_documents([str(path)], tmp_path / "work", 30, group, 1)
    assert set(turned.ids) == set(drawn.ids) != set(other.ids)
    assert dict(drawn.texts([3, 0])) == {
        row: records[int(drawn.ids[row])]["text"] for row in (0, 3)
    }


def test_positives_have_strength_1_and_negatives_the_lowest() -> None:
    strength = np.array([1, 0.2, 1, np.nan, 0, 0.2, 0.2, 0.9, 1])
    order = np.array([0, 9, 0, 0, 5, 2, 4, 0, 0])
    chosen = choose_examples(strength, order)
    assert chosen.positives.tolist() == [0, 2, 8]
    assert chosen.negatives.tolist() == [4, 5, 6]


def test_losses_from_files(tmp_path: Path) -> None:
    records = [{"id": name, "text": f"é text {name} " * 9} for name in "abcde"]
    path = write(tmp_path / "d.jsonl", records)
    documents = draw_documents([str(path)], tmp_path / "work", 1, None, 0)
    lines = [
        {"id": "a", "nats": 3.5},
        {"id": "b", "total_loss": 2, "Model": "m", "part": 1},
        {"id": "c", "bits_per_byte": 1.5},
        {"id": "d", "bits_per_character": 2.0},
        {"id": "e", "nats": None},
        {"id": "of another sample", "nats": 1},
    ]
    found = read_losses(documents, [str(write(tmp_path / "losses.jsonl", lines))])
    size = len(records[2]["text"].encode())
    bits = [1.5 * size * math.log(2), 2 * len(records[3]["text"]) * math.log(2)]
    np.testing.assert_allclose(found, [3.5, 2, *bits, np.nan])


def problem(tmp_path: Path, models: list[dict], **settings) -> str:
    write(tmp_path / "d.jsonl", pool(20, 100, seed=1))
    config = {"data": str(tmp_path / "d.jsonl"), "output": str(tmp_path / "m.bin"), "min_tokens": 1}
    with pytest.raises(TamisError) as error:
        FitPreSelect.model_validate({**config, "models": models, **settings}).fit()
    assert "\n" not in str(error.value)
    return str(error.value)


def losses_of(tmp_path: Path, name: str, values: dict[str, float]) -> str:
    return str(write(tmp_path / name, [{"id": id_, "nats": one} for id_, one in values.items()]))


def test_mistakes_are_one_sentence(ladder, tmp_path: Path) -> None:
    assert "2 models: to order models takes at least 3" in problem(tmp_path, ladder[:2])
    same = [{**one, "benchmark": 0.5} for one in ladder]
    assert "have the same benchmark result, 0.5" in problem(tmp_path, same)
    bad = [*ladder[:3], {"model": tmp_path / "no.arpa", "benchmark": 9}]
    assert "there is no file" in problem(tmp_path, bad)
    assert "has either a model or its losses" in problem(tmp_path, [{"benchmark": 1}])
    assert "no document has the 9999 tokens" in problem(tmp_path, ladder, min_tokens=9999)
    assert "no document of the data has a host" in problem(
        tmp_path, ladder, per_group={"column": "host"}
    )
    assert "ends in .bin" in problem(tmp_path, ladder, output=tmp_path / "model")
    ids = [one["id"] for one in pool(20, 100, seed=1)]
    files = [
        {"losses": losses_of(tmp_path, f"{one}.jsonl", dict.fromkeys(ids, 9.0 - one)),
         "benchmark": one}
        for one in range(3)
    ]  # fmt: skip
    assert "of 60 documents 60 are wanted, and 0 are not; it takes 10" in problem(tmp_path, files)
    half = {**files[0], "losses": losses_of(tmp_path, "h.jsonl", dict.fromkeys(ids[:20], 1.0))}
    assert "40 of 60 documents lack the loss of a model" in problem(tmp_path, [half, *files[1:]])
    none = {**files[0], "losses": losses_of(tmp_path, "n.jsonl", {"x": 1.0})}
    assert "has a loss for none of the 60 documents" in problem(tmp_path, [none, *files[1:]])
    (tmp_path / "t.jsonl").write_text('{"id": "a0", "loss": 2.5}\n')
    wrong = {**files[0], "losses": str(tmp_path / "t.jsonl")}
    message = problem(tmp_path, [wrong, *files[1:]])
    assert "t.jsonl:1: a line gives the id of a document and one of nats" in message


def test_benchmarks_from_files(ladder, tmp_path: Path) -> None:
    def rated(content: object, name: str) -> RatedModel:
        (tmp_path / name).write_text(json.dumps(content))
        return RatedModel(model="m", benchmark=tmp_path / name)

    several = tuple(rated({"arc": 0.2, "boolq": one}, f"{one}.json") for one in (0.4, 0.6))
    assert benchmark_results(several) == [pytest.approx(0.3), pytest.approx(0.4)]
    (tmp_path / "results").mkdir()
    sources = {"news": {"bits_per_byte": 1.25}}
    summary = {"centered_accuracy": None, "all_sources": sources["news"], "sources": sources}
    (tmp_path / "results" / "results.json").write_text(json.dumps(summary))
    evaluated = RatedModel(model="m", benchmark=tmp_path / "results")
    assert benchmark_results((evaluated,)) == [-1.25]
    with pytest.raises(RecipeError, match=r"bits per byte of news, and that of .* the mean of arc"):
        benchmark_results((evaluated, several[0]))
    with pytest.raises(RecipeError, match="neither a number"):
        benchmark_results((rated(["x"], "list.json"),))
    with pytest.raises(RecipeError, match="cannot be read"):
        benchmark_results((RatedModel(model="m", benchmark=tmp_path / "no.json"),))


def test_the_defaults_are_those_of_the_paper() -> None:
    settings = FitPreSelect(
        data="d", models=({"model": "m", "benchmark": 1},), output="x.bin", per_group={}
    )
    assert settings.training == FastTextSettings.preset("preselect")
    assert (settings.training.epoch, settings.training.zero_end_of_line) == (5, True)
    assert settings.per_group == PerGroup(groups=3000, documents=300)


def test_models_that_nearly_all_documents_order_are_told(tmp_path: Path) -> None:
    """Sizes of one family: six of seven documents have S = 1."""
    choose, records = np.random.default_rng(4), []
    losses: list[list[dict]] = [[] for _ in range(6)]
    for number in range(210):
        words = choose.permutation(WORDS)[:40]
        records.append({"id": str(number), "text": " ".join(words)})
        order = choose.permutation(6) if number % 7 == 0 else np.arange(6)
        for model, of_model in enumerate(losses):
            of_model.append({"id": str(number), "nats": 100.0 - float(order[model])})
    models = []
    for model, of_model in enumerate(losses):
        path = write(tmp_path / f"{model}.jsonl", of_model)
        models.append({"losses": str(path), "benchmark": model})
    settings = FitPreSelect.model_validate(
        {
            "data": str(write(tmp_path / "d.jsonl", records)), "models": models,
            "min_tokens": 10, "output": tmp_path / "m.bin", "held_out": 0.3,
            "training": {"recipe": "preselect", "bucket": 1000, "dim": 4},
        }
    )  # fmt: skip
    said = settings.fit()
    assert "there are 180 documents with S = 1 and only 30 others" in said
    assert "negatives have strengths up to 0." in said
