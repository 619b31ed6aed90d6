"""Training of fastText classifiers, and what is trained on."""

from __future__ import annotations

import json
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tamis
from tamis.filters.fasttext import FastTextModel, fasttext_tokens
from tamis.filters.toxicity.training import as_documents
from tamis.fit import fit
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.scorers import fasttext_training
from tamis.scorers.artefact import read_facts
from tamis.scorers.fasttext_fit import calibration_error, precision_at_top
from tamis.scorers.fasttext_training import FastTextSettings, train_classifier, training_line

fasttext = pytest.importorskip("fasttext")

SMALL = FastTextSettings(dim=8, bucket=1000, lr=0.5)
LINES = [("hq", f"good text number {n}") for n in range(60)]
LINES += [("cc", f"bad text number {n}") for n in range(90)]


def leave_garbage() -> None:
    """Fill memory that is handed out next with what is no number."""
    blocks = [np.full(size, np.nan, np.float32) for size in (2000, 10_000, 30_000) * 50]
    del blocks


def test_the_same_lines_give_the_same_bytes_whatever_the_memory_held(tmp_path: Path) -> None:
    for name in ("a.bin", "b.bin"):
        train_classifier(LINES, SMALL, tmp_path / name)
        leave_garbage()
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.bin", "b.bin"]
    train_classifier(LINES, SMALL.model_copy(update={"seed": 1}), tmp_path / "c.bin")
    assert (tmp_path / "c.bin").read_bytes() != (tmp_path / "a.bin").read_bytes()


def test_the_order_of_the_lines_is_no_lesson(tmp_path: Path) -> None:
    # All of one label behind all of the other: in that order the library learns the last one.
    texts = pa.array(["good text", "bad text"], pa.large_string())
    train_classifier(LINES, SMALL, tmp_path / "model.bin")
    scores = FastTextModel.load(tmp_path / "model.bin").predict_text(texts, ["hq"]).scores
    assert scores[0] > 0.9 and scores[1] < 0.1


def header(path: Path) -> tuple[int, ...]:
    return struct.unpack("<12i", path.read_bytes()[8:56])


def test_settings_are_in_the_file(tmp_path: Path) -> None:
    settings = FastTextSettings.preset("betr", bucket=500, minCount=1)
    train_classifier(LINES, settings, tmp_path / "betr.bin")
    dim, ws, epoch, min_count, _, grams, loss, _, bucket, minn, maxn, _ = header(
        tmp_path / "betr.bin"
    )
    assert (dim, ws, epoch, min_count, grams, bucket) == (128, 10, 5, 1, 2, 500)
    assert (loss, minn, maxn) == (3, 0, 0)


def test_recipes_are_the_published_ones() -> None:
    dclm, preselect, betr = (FastTextSettings.preset(one) for one in ("dclm", "preselect", "betr"))
    assert (dclm.lr, dclm.dim, dclm.epoch, dclm.minCount, dclm.wordNgrams) == (0.1, 100, 5, 1, 2)
    assert not dclm.zero_end_of_line and preselect.zero_end_of_line
    assert (betr.lr, betr.dim, betr.ws, betr.minCount, betr.wordNgrams) == (0.03, 128, 10, 5, 2)
    assert FastTextSettings.preset("betr", dim=4).dim == 4
    again = FastTextSettings.model_validate(betr.model_dump())
    assert again == betr


def test_the_row_of_the_end_of_the_line_is_zero_if_wanted(tmp_path: Path) -> None:
    for zero in (False, True):
        path = tmp_path / f"{zero}.bin"
        train_classifier(LINES, SMALL.model_copy(update={"zero_end_of_line": zero}), path)
    as_trained, zeroed = (
        fasttext.load_model(str(tmp_path / f"{one}.bin")) for one in (False, True)
    )
    assert np.abs(as_trained.get_word_vector("</s>")).min() > 0
    assert (zeroed.get_word_vector("</s>") == 0).all()
    changed = np.array(as_trained.get_input_matrix()) != np.array(zeroed.get_input_matrix())
    assert changed.any(axis=1).sum() == 1
    assert (np.array(as_trained.get_output_matrix()) == np.array(zeroed.get_output_matrix())).all()


def test_lines_of_a_training_file() -> None:
    assert training_line("one\ntwo\r\nthree") == "one two\r three"
    assert training_line("a __label__cc b\t__label__ c__label__d") == "a  b\t c__label__d"
    assert training_line("__label__hq") == ""
    assert training_line("a </s>b </s> c") == "a </s>b "
    assert training_line("</s>") == ""


@given(
    st.lists(
        st.sampled_from(["the", "é", "</s>", "__label__a", "__label__", "a__label__b", "</s>x", ""])
        | st.sampled_from([" ", "\n", "\r", "\t", "\v", "\f", "\0", "\u00a0", "\u2028", "\x85"])
    ).map("".join)
)
def test_training_and_scoring_see_the_same_words(text: str) -> None:
    documents = as_documents([text])
    _, start, end = fasttext_tokens(documents)
    data, _ = documents.utf8()
    words = [data[a:b].tobytes().decode() for a, b in zip(start, end, strict=True)]
    # What the scorer takes for the end, and for words that are none.
    scored = words[: words.index("</s>")] if "</s>" in words else words
    scored = [word for word in scored if not word.startswith("__label__")]
    line = training_line(text)
    assert "\n" not in line
    for separator in "\r\t\v\f\0":
        line = line.replace(separator, " ")
    assert [word for word in line.split(" ") if word] == scored


@pytest.mark.parametrize(
    ("lines", "settings", "message"),
    [
        ([], SMALL, "at least two labels; there are none"),
        ([("a", "x"), ("a", "y")], SMALL, "all of them have the label a"),
        ([("a b", "x"), ("c", "y")], SMALL, "'a b': a label is one word"),
        ([("a", "x"), ("b", " \n")], SMALL, "at least two labels"),
        ([("a", "x"), ("b", "y")], FastTextSettings(minCount=5, bucket=9), "minCount = 5"),
        (LINES, FastTextSettings(lr=1e9, dim=4), "diverged with lr = 1e[+]09"),
    ],
)
def test_trainings_that_cannot_be(
    lines: list[tuple[str, str]], settings: FastTextSettings, message: str, tmp_path: Path
) -> None:
    with pytest.raises(TamisError, match=message):
        train_classifier(lines, settings, tmp_path / "model.bin")
    assert not list(tmp_path.iterdir())


class LibraryThatClearsATenth:
    """What the releases of the library do with one thread."""

    def train_supervised(self, *_: Any, **__: Any) -> Any:
        weights = np.zeros((200, 16), np.float32)
        weights[:20] = 1 / 32
        return types.SimpleNamespace(f=types.SimpleNamespace(getInputMatrix=lambda: weights))


def test_packages_that_would_spoil_the_model_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in (types.ModuleType("fasttext"), LibraryThatClearsATenth()):
        monkeypatch.setitem(sys.modules, "fasttext", package)  # type: ignore[arg-type]
        fasttext_training.fasttext_library.cache_clear()
        with pytest.raises(TamisError, match="fasttext-community"):
            fasttext_training.fasttext_library()
    monkeypatch.setitem(sys.modules, "fasttext", None)  # type: ignore[arg-type]
    with pytest.raises(TamisError, match=r"pip install 'tamis\[fasttext\]'"):
        fasttext_training.fasttext_library()
    monkeypatch.undo()
    fasttext_training.fasttext_library.cache_clear()
    assert fasttext_training.fasttext_library() is fasttext


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


SETTINGS = "training: {dim: 8, bucket: 1000, lr: 0.5}\n"


def test_fit_from_positives_and_negatives(tmp_path: Path) -> None:
    for label in ("hq", "cc"):
        write_jsonl(tmp_path / f"{label}.jsonl", [{"text": b} for a, b in LINES if a == label])
    (tmp_path / "fit.yaml").write_text(
        f"positives: {tmp_path}/hq.jsonl\nnegatives: [{{path: {tmp_path}/cc.jsonl}}]\n"
        f"held_out: 0.3\noutput: {tmp_path}/m.bin\n{SETTINGS}"
    )
    told = fit("fasttext", tmp_path / "fit.yaml")
    assert "hq: AUC 1.000" in told and "100.0% are hq" in told
    made = read_facts(tmp_path / "m.bin")
    assert made is not None and made.stage == "fasttext" and made.settings == {"label": "hq"}
    assert made.recipe["method"] == "fasttext" and made.recipe["training"]["dim"] == 8
    counted = made.facts["trained_on"]
    assert sum(counted.values()) + made.facts["held_out"]["texts"] == len(LINES)
    scored = tamis.FastText(model=tmp_path / "m.bin")({"text": ["good", "bad"]})
    assert scored["fasttext.score"][0] > 0.9 > 0.1 > scored["fasttext.score"][1]


def test_fit_from_labels_in_the_data(tmp_path: Path) -> None:
    rows = [{"text": text, "of": label} for label, text in LINES]
    write_jsonl(tmp_path / "all.jsonl", rows)
    base = f"data: {tmp_path}/all.jsonl\nlabel: of\nheld_out: 0.3\n{SETTINGS}"
    (tmp_path / "fit.yaml").write_text(base + f"positive: cc\noutput: {tmp_path}/m.bin\n")
    assert "cc: AUC 1.000" in fit("fasttext", tmp_path / "fit.yaml")
    scored = tamis.FastText(model=tmp_path / "m.bin")({"text": ["good", "bad"]})
    assert scored["fasttext.score"][0] < 0.1 < 0.9 < scored["fasttext.score"][1]
    # A number or a truth is a label too: 1 is the positive one of 1 and 0.
    for value in (1, True):
        rows = [{"text": text, "of": type(value)(label == "hq")} for label, text in LINES]
        write_jsonl(tmp_path / "all.jsonl", rows)
        (tmp_path / "fit.yaml").write_text(base + f"output: {tmp_path}/n.bin\n")
        assert "1: AUC 1.000" in fit("fasttext", tmp_path / "fit.yaml")


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (
            [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}],
            "positive: z",
            "no text has the label z; there are x, y",
        ),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], "", "positive one: x, y"),
        ([{"text": "a", "label": "hq"}, {"text": "b", "label": "cc"}], "", "too few"),
        ([{"text": "a", "lable": "hq"}], "", "no column label; did you mean lable"),
        ([{"text": "a", "label": 0.5}], "", "label is double"),
        (
            [{"id": "7", "text": "a", "label": "x"}, {"id": "8", "text": "b", "label": None}],
            "",
            "the document 8 has no label",
        ),
        ([{"text": "a", "label": "x"}], "positives: p.jsonl", "either data"),
        ([{"text": "a", "label": "x"}], "training: {recipe: dlcm}", "'dclm', 'preselect'"),
    ],
)
def test_fits_that_cannot_be(
    rows: list[dict[str, Any]], settings: str, message: str, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "in.jsonl", rows)
    config = f"data: {tmp_path}/in.jsonl\noutput: {tmp_path}/m.bin\n{settings}\n"
    (tmp_path / "fit.yaml").write_text(config)
    with pytest.raises((TamisError, RecipeError), match=message):
        fit("fasttext", tmp_path / "fit.yaml")
    assert not (tmp_path / "m.bin").exists()


def test_precision_at_the_top_counts_tokens() -> None:
    order = np.array([3.0, 2.0, 1.0, 0.0])
    positive = np.array([True, False, True, False])
    tokens = np.array([10, 10, 30, 50])
    # A tenth is the first text; 15 of 100 are it and half of the second.
    assert precision_at_top(order, positive, tokens, 0.10) == pytest.approx(1.0)
    assert precision_at_top(order, positive, tokens, 0.15) == pytest.approx(10 / 15)
    assert precision_at_top(order, positive, tokens, 1.0) == pytest.approx(0.4)


def test_calibration_error() -> None:
    positive = np.arange(1000) % 4 == 0
    assert calibration_error(np.full(1000, 0.25), positive) == pytest.approx(0.0, abs=0.01)
    assert calibration_error(np.full(1000, 0.75), positive) == pytest.approx(0.5, abs=0.01)
    assert calibration_error(positive.astype(float), positive) == pytest.approx(0.0)
