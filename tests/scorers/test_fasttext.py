"""The fastText stage on small models that the library trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

import tamis
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.scorers.artefact import facts_path

pytest.importorskip("fasttext")

from tamis.scorers.fasttext_training import FastTextSettings, train_classifier

SMALL = FastTextSettings(dim=8, bucket=1000, minCount=1, lr=0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good texts are hq, three times as many bad ones cc: the order of its labels is cc, hq."""
    path = tmp_path_factory.mktemp("model") / "quality.bin"
    lines = [("hq", f"good words {n}") for n in range(40)]
    lines += [("cc", f"bad words {n}") for n in range(120)]
    train_classifier(lines, SMALL, path)
    return path


def table(texts: list[str]) -> pa.Table:
    return pa.table({"id": [str(n) for n in range(len(texts))], "text": texts})


def test_the_label_is_found_by_its_name_not_by_its_place(model: Path) -> None:
    scored = tamis.FastText(model=model)(table(["good", "bad"]))
    good, bad = scored["fasttext.score"].to_pylist()
    assert good > 0.9 and bad < 0.1
    other = tamis.FastText(model=model, label="__label__cc")(table(["good", "bad"]))
    assert np.asarray(other["fasttext.score"]) == pytest.approx([1 - good, 1 - bad], abs=3e-5)
    assert np.asarray(other["fasttext.logit"]) == pytest.approx(
        -np.asarray(scored["fasttext.logit"])
    )


def test_a_text_without_words_has_no_score(model: Path) -> None:
    scored = tamis.FastText(model=model)(table(["", " \n\t", "x"]))
    assert np.isnan(scored["fasttext.score"].to_pylist()).tolist() == [True, True, False]
    assert np.isnan(scored["fasttext.logit"].to_pylist()).tolist() == [True, True, False]


def test_a_label_that_is_not_there(model: Path) -> None:
    with pytest.raises(TamisError, match="has no label hp; it has cc, hq"):
        tamis.FastText(model=model, label="hp").models()


def test_facts_beside_the_model_say_the_label(model: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copy(model, tmp_path / "mine.bin"))
    facts = {"stage": "fasttext", "settings": {"label": "cc"}, "recipe": {}, "facts": {}}
    facts_path(mine).write_text(json.dumps(facts))
    assert tamis.FastText(model=mine).positive() == "cc"
    assert tamis.FastText(model=mine, label="hq").positive() == "hq"
    # A change of the label is a change of what the stage does.
    assert tamis.FastText(model=mine).models() == (mine, facts_path(mine))


def test_labels_that_say_nothing_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "odd.bin"
    train_classifier([("math", "one two"), ("prose", "a b"), ("prose", "c")], SMALL, path)
    with pytest.raises(RecipeError, match=r"label: say which one of odd\.bin: prose, math"):
        tamis.FastText(model=path).models()


def test_models_that_are_none(model: Path, tmp_path: Path) -> None:
    for name, content in {
        "short.bin": model.read_bytes()[:400],
        "text.bin": b"no model at all " * 99,
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecipeError, match=rf"fasttext: .*{name} is"):
            tamis.FastText(model=tmp_path / name).models()
    with pytest.raises(TamisError, match=r"there is no model .*missing\.bin"):
        tamis.FastText(model=tmp_path / "missing.bin")(table(["a"]))


def toy(random: np.random.Generator, documents: int) -> tuple[list[str], list[str]]:
    """(labels, texts): those of class 1 have "good" every 20 words."""
    labels, texts = [], []
    for _ in range(documents):
        words = [f"w{n}" for n in random.integers(0, 500, random.integers(20, 200))]
        good = bool(random.integers(2))
        if good:
            words[::20] = ["good"] * len(words[::20])
        labels.append(str(int(good)))
        texts.append(" ".join(words))
    return labels, texts


def test_twice_the_text_has_the_score_of_once_only_without_the_end(tmp_path: Path) -> None:
    # Specification: 1.3e-2 as the library has it, 2.7e-3 with the row of the end zeroed, 2e-16
    # with the end left out.
    labels, texts = toy(np.random.default_rng(0), 2000)
    change = {}
    for zero in (False, True):
        path = tmp_path / f"{zero}.bin"
        settings = FastTextSettings(dim=16, zero_end_of_line=zero)
        train_classifier(zip(labels, texts, strict=True), settings, path)
        for end_of_line in (True, False):
            stage = tamis.FastText(model=path, end_of_line=end_of_line)
            once = np.asarray(stage(table(texts))["fasttext.score"])
            twice = np.asarray(stage(table([f"{one} {one}" for one in texts]))["fasttext.score"])
            change[zero, end_of_line] = np.abs(once - twice).max()
            assert ((once > 0.5) == (np.array(labels) == "1")).all()
    assert 3e-3 < change[False, True] < 5e-2
    assert 1e-4 < change[True, True] < change[False, True] / 2
    assert change[False, False] < 1e-12 and change[True, False] < 1e-12


def test_pairs_over_a_line_break_are_seen(tmp_path: Path) -> None:
    # The check of DCLM's classifier: a tenth of the pool is in the style of the positives, whose
    # other words are from another vocabulary. A style is which function word follows which one,
    # over a line break; a filter that leaves line breaks out glues the two.
    random = np.random.default_rng(1)
    ours, others = random.permutation(40), random.permutation(40)

    def text(style: NDArray[np.int64], vocabulary: int) -> str:
        out = ""
        for _ in range(40):
            first = random.integers(40)
            second = style[first] if random.random() < 0.8 else random.integers(40)
            out += f"f{first}\nf{second} v{vocabulary}x{random.integers(300)} "
        return out

    pairs = [("hq", text(ours, 1)) for _ in range(300)]
    pairs += [("cc", text(others, 1)) for _ in range(300)]
    settings = FastTextSettings.preset("dclm", dim=16, bucket=20_000, epoch=15, lr=0.5)
    train_classifier(pairs, settings, tmp_path / "style.bin")
    planted = np.arange(1000) % 10 == 0
    pool = [text(ours if one else others, 2) for one in planted]
    precision = {}
    for name, texts in {"spaces": pool, "glued": [one.replace("\n", "") for one in pool]}.items():
        scored = tamis.FastText(model=tmp_path / "style.bin")(table(texts))
        best = np.argsort(-np.asarray(scored["fasttext.logit"]))[:100]
        precision[name] = planted[best].mean()
    assert precision["spaces"] > 0.95
    assert precision["glued"] < precision["spaces"] - 0.2
