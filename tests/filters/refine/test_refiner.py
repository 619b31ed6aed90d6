"""The compact refiner: its chain, what it learns, the one that comes along, and its training."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

import tamis
from tamis.demo import CORPUS
from tamis.filters.refine import execute, run
from tamis.filters.refine.chain import IMPOSSIBLE, emissions, learn, marginals, viterbi
from tamis.filters.refine.embedded import (
    DEFAULT,
    CompactRefiner,
    load_refiner,
    train,
)
from tamis.filters.refine.fit import FitRefiner, lessons_of
from tamis.filters.refine.tagger import Tagger
from tamis.fit import fit
from tamis.pipeline.documents import TEXT, Documents
from tamis.pipeline.errors import RecipeError, TamisError

SENTENCES = [
    f"The {bird} stands in the water of the lake for hours, and nobody knows what it waits for."
    for bird in ("heron", "stork", "crane", "egret", "bittern", "spoonbill", "ibis")
]
NOISY = [
    "Home | About | Contact | Log in",
    *SENTENCES[:4],
    "A page at http://lake.test/birds?id=1 has the numbers, which change from year to year.",
    *SENTENCES[4:],
    "http://lake.test/next",
    "© 2014 Lake Society. All rights reserved.",
]


def documents(*texts: str | None) -> Documents:
    column = pa.array(list(texts), pa.large_string())
    return Documents(pa.RecordBatch.from_pydict({TEXT: column}))


def every(n: int, labels: int) -> NDArray[np.int64]:
    return np.array(list(itertools.product(range(labels), repeat=n)))


@pytest.fixture(scope="module")
def chain() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(scores, transitions, the score of every labelling of four elements)."""
    random = np.random.default_rng(0)
    scores, transitions = random.normal(size=(4, 3)), random.normal(size=(3, 3))
    scores[1, 2] = IMPOSSIBLE
    totals = np.array(
        [
            scores[range(4), one].sum() + sum(transitions[a, b] for a, b in itertools.pairwise(one))
            for one in every(4, 3)
        ]
    )
    return scores, transitions, totals


def test_viterbi_is_the_best_of_all(
    chain: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
) -> None:
    scores, transitions, totals = chain
    best = np.zeros(4, np.int8)
    viterbi(scores, transitions, best)
    assert best.tolist() == every(4, 3)[totals.argmax()].tolist()


def test_marginals_are_sums_over_all(
    chain: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
) -> None:
    scores, transitions, totals = chain
    of_one, of_two = np.zeros((4, 3)), np.zeros((3, 3))
    whole = marginals(scores, transitions, of_one, of_two)
    assert whole == pytest.approx(np.log(np.exp(totals).sum()))
    probability = np.exp(totals - whole)
    for i, y in itertools.product(range(4), range(3)):
        assert of_one[i, y] == pytest.approx(probability[every(4, 3)[:, i] == y].sum())
    pairs = np.zeros((3, 3))
    for one, p in zip(every(4, 3), probability, strict=True):
        for a, b in itertools.pairwise(one):
            pairs[a, b] += p
    assert of_two == pytest.approx(pairs)


def test_learning_lowers_the_loss_and_finds_the_transitions() -> None:
    # Element i has the feature i % 2, which says nothing; labels alternate.
    features = (np.arange(12) % 2 // 2).astype(np.int32)[:, None]
    labels = (np.arange(12) % 2).astype(np.int8)
    one, two = np.ones(12, np.int64), np.full(12, 2)
    tables = (
        *(np.zeros((4, 2), np.float32), np.zeros((4, 2), np.float32)),
        *(np.zeros((2, 2)), np.zeros((2, 2))),
    )
    losses = [learn(features, one, two, labels, 0.3, tables) for _ in range(40)]
    assert losses[0] == pytest.approx(12 * np.log(2))
    assert losses[-1] < 1.5
    scores, best = np.zeros((12, 2)), np.zeros(12, np.int8)
    emissions(features, one, two, tables[0], scores)
    scores[0, 0] += 1
    viterbi(scores, tables[2], best)
    assert best.tolist() == labels.tolist()


def test_the_default_cleans_a_page() -> None:
    refiner = load_refiner()
    text = "\n".join(NOISY)
    (program,) = refiner.chunk_programs(documents(text))
    clean = [*NOISY[1:5], NOISY[5].replace(" http://lake.test/birds?id=1", ""), *NOISY[6:9]]
    assert execute(text, program) == "\n".join(clean)
    assert refiner.document_programs(documents(text)) == ["keep_doc()"]


def test_the_default_leaves_clean_text_alone_and_nothing_of_links_and_errors() -> None:
    links = "\n".join(["Home", "Login", *(f"http://lake.test/{n}/list" for n in range(25))])
    error = "Home\nAbout\n404 Not Found\nThe page could not be found.\n© 2014 Lake"
    texts = documents("\n".join(SENTENCES), links, error)
    programs = load_refiner().chunk_programs(texts)
    judged = load_refiner().document_programs(texts)
    assert (programs[0], judged[0]) == ("keep_chunk()", "keep_doc()")
    assert execute(links, programs[1]) is None
    assert judged[2] == "drop_doc()"


def test_odd_texts() -> None:
    long = "word " * 40_000
    texts = documents(
        "", None, "\n", "\n\n\n", long, "\x00\n\x00", "http://", "www.a.test/bc", "語" * 99
    )
    refiner = load_refiner()
    for text, program in zip(texts.text.to_pylist(), refiner.chunk_programs(texts), strict=True):
        outcome = run(text or "", program)
        assert outcome.errors == outcome.unknown == 0
    assert len(refiner.document_programs(texts)) == 9


def test_only_rows_that_are_alive_get_programs() -> None:
    batch = documents(*["\n".join(NOISY)] * 3)
    batch.alive = np.array([True, False, True])
    writer = Tagger()
    for programs in (writer.chunk_programs(batch), writer.document_programs(batch)):
        assert programs[1] == ""
        assert programs[0] == programs[2] != ""


def test_a_text_is_labelled_alike_in_any_batch() -> None:
    text, refiner = "\n".join(NOISY), load_refiner()
    alone = refiner.chunk_programs(documents(text))
    assert refiner.chunk_programs(documents("x\ny", text, "", text))[1::2] == alone * 2


def test_the_stage_uses_it() -> None:
    table = pa.table({"id": ["a"], "text": ["\n".join(NOISY)]})
    refined = tamis.ProX(writer={"model": None})(table)
    assert "rights reserved" not in refined["text"][0].as_py()
    assert SENTENCES[0] in refined["text"][0].as_py()


def test_files(tmp_path: Path) -> None:
    refiner = load_refiner()
    refiner.save(tmp_path / "one.npz")
    assert (tmp_path / "one.npz").read_bytes() == DEFAULT.read_bytes()
    assert DEFAULT.stat().st_size < 1_000_000
    with pytest.raises(TamisError, match="there is no refiner"):
        load_refiner(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(TamisError, match="is not a refiner that tamis fit refiner wrote"):
        CompactRefiner.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(TamisError, match="is not a refiner that tamis fit refiner wrote"):
        CompactRefiner.load(tmp_path / "other.npz")
    weights = refiner.weights._replace(lines=np.zeros((100, 3), np.float32))
    CompactRefiner(weights, (0.0, 0.0), {}).save(tmp_path / "odd.npz")
    with pytest.raises(TamisError, match="is damaged"):
        CompactRefiner.load(tmp_path / "odd.npz")


def test_the_card_of_the_default_keeps_its_promise() -> None:
    held_out = load_refiner().facts["held out"]
    for labels in ("planted", "teacher"):
        assert held_out[labels]["lines"]["f1"] >= 0.75
        assert held_out[labels]["documents"]["f1"] >= 0.8
        assert held_out[labels]["failures"] == 0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some sites of the demo corpus."""
    import gzip

    path = tmp_path_factory.mktemp("refiner") / "corpus.jsonl"
    sites = ("postgresql", "libreoffice-help-de", "libreoffice-help-es", "dict-devil")
    with gzip.open(CORPUS, "rt", encoding="utf-8") as lines, path.open("w") as file:
        file.writelines(one for one in lines if any(site in one[:300] for site in sites))
    return path


def test_fit_learns_what_holds_on_other_sites(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "fit.yaml").write_text(
        f"data: [{corpus}]\nleave_out: planted\nlabels: [planted]\nbits: 14\nsites: 60\n"
        f"held_out: [postgresql-doc-15.debian.test]\noutput: {tmp_path}/refiner.npz\n"
    )
    said = fit("refiner", tmp_path / "fit.yaml")
    refiner = CompactRefiner.load(tmp_path / "refiner.npz")
    quality = refiner.facts["held out"]["planted"]
    assert quality["lines"]["f1"] >= 0.6
    assert quality["documents"]["f1"] >= 0.8
    assert f"F1 {quality['lines']['f1']:.3f}" in said
    before = (tmp_path / "refiner.npz").read_bytes()
    fit("refiner", tmp_path / "fit.yaml")
    assert (tmp_path / "refiner.npz").read_bytes() == before


def test_examples_are_on_one_side(corpus: Path, tmp_path: Path) -> None:
    recipe = FitRefiner.model_validate(
        {
            "data": [str(corpus)],
            "labels": ["teacher"],
            "leave_out": "planted",
            "output": tmp_path / "a.npz",
        }
    )
    held = {one.gold.text.split("\n")[0] for one in recipe.examples() if one.held_out}
    assert held
    with pytest.raises(ValueError, match="labels for"):
        lessons = lessons_of(recipe.examples()[:3])
        train(lessons._replace(labels=lessons.labels[1:]))


def write(path: Path, rows: Sequence[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


def test_programs_from_the_data(tmp_path: Path) -> None:
    rows = [
        {
            "text": f"menu {n}\n{SENTENCES[n % 7]}\nbye",
            "url": f"https://s{n % 10}.test/{n}",
            "program": "remove_lines(line_start=0, line_end=0)\nremove_lines(start=2, end=2)",
            "document_program": "drop_doc()" if n % 9 == 0 else "",
        }
        for n in range(120)
    ]
    recipe = FitRefiner.model_validate(
        {
            "data": [write(tmp_path / "rows.jsonl", rows)],
            "labels": ["program"],
            "output": tmp_path / "made.npz",
            "epochs": 12,
        }
    )
    assert {one.labels for one in recipe.examples()} == {(1, 0, 1)}
    recipe.fit()
    quality = CompactRefiner.load(tmp_path / "made.npz").facts["held out"]["program"]
    assert quality["lines"]["f1"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output": "a.bin"}, "ends in .npz"),
        ({"held_out": 1.5}, "a part lies between 0 and 1"),
        ({"labels": ["annotator"]}, "needs a generator"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        FitRefiner.model_validate({"data": ["x"], "output": "a.npz", **settings})


def test_data_that_cannot_be(tmp_path: Path) -> None:
    def fails(rows: Sequence[dict[str, str]], **settings: object) -> str:
        data = [write(tmp_path / "rows.jsonl", rows)]
        with pytest.raises(TamisError) as found:
            FitRefiner.model_validate(
                {"data": data, "output": tmp_path / "a.npz", **settings}
            ).fit()
        return str(found.value)

    assert "no text under text; did you mean texts?" in fails([{"texts": "a"}])
    assert "no program under program" in fails([{"text": "a"}], labels=["program"])
    assert "it takes 20" in fails([{"text": "a b c"}])
    assert "there is no site b.test; did you mean a.test?" in fails(
        [{"text": "a", "url": "http://a.test/x"}], held_out=["b.test"]
    )
