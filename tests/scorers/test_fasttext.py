"""The fastText stage on small models that the library trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import tamis
from tamis.pipeline.errors import TamisError

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
