"""Scorers by whatever they are known, in recipes and in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import tamis
from tamis.filters.toxicity import FitToxicity
from tamis.pipeline.errors import RecipeError
from tamis.pipeline.explain import explain
from tamis.pipeline.recipe import parse_recipe
from tamis.scorers.artefact import write_facts
from tamis.scorers.difficulty import Difficulty
from tamis.scorers.fasttext import FastText
from tamis.scorers.fasttext_training import FastTextSettings, train_classifier
from tamis.scorers.score import Score, measuring_stages


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that likes the word good."""
    path = tmp_path_factory.mktemp("model") / "edu.bin"
    lines = [("hq", "good words here"), ("cc", "bad words there")] * 50
    train_classifier(lines, FastTextSettings(dim=4, epoch=20, bucket=1000), path)
    return path


def recipe(score: str, more: str = "") -> str:
    return f"input: in.jsonl\nstages:\n  - score: {score}\n{more}output: out\n"


def stages_of(text: str) -> tuple[Any, ...]:
    return parse_recipe(text)[0].stages


def test_a_stage_by_its_name_with_and_without_settings() -> None:
    assert stages_of(recipe("{with: difficulty, as: hard}")) == (Difficulty(name="hard"),)
    assert stages_of(recipe("{with: difficulty}")) == (Difficulty(name="score"),)
    (stage,) = stages_of(recipe("{with: {difficulty: {words: unicode}}, as: hard}"))
    assert stage == Difficulty(name="hard", words="unicode")
    assert Score(with_="difficulty", name="hard") == Difficulty(name="hard")


def test_a_model_is_applied_as_its_facts_say(model: Path, tmp_path: Path) -> None:
    table = pa.table({"text": ["good words", "bad words", ""]})
    plain = Score(with_=model, name="edu")(table)
    assert plain.column_names == ["text", "edu.score", "edu.logit"]
    good, bad, empty = plain.column("edu.score").to_pylist()
    assert good > 0.9 > 0.1 > bad
    assert empty != empty
    copied = tmp_path / "reversed.bin"
    copied.write_bytes(model.read_bytes())
    made = FitToxicity(data=("x",), labels=("cc",), output=tmp_path / "any.npz")
    write_facts(copied, "fasttext", {"label": "cc"}, made, {})
    assert Score(with_=str(copied)) == FastText(name="score", model=copied, label="cc")
    assert Score(with_=copied)(table).column("score.score").to_pylist()[1] > 0.9


def wrong(with_: Any) -> str:
    with pytest.raises(RecipeError) as error:
        Score(with_=with_)
    return str(error.value)


def test_what_is_no_scorer_is_told(model: Path, tmp_path: Path) -> None:
    assert "there is no scorer dificulty; did you mean difficulty?" in wrong("dificulty")
    assert f"did you mean {model}?" in wrong(str(model.with_name("edo.bin")))
    assert "gopher_quality is no scorer: it drops documents" in wrong("gopher_quality")
    assert "unicode is no scorer: it does not measure" in wrong("unicode")
    assert "fasttext needs the setting model" in wrong({"fasttext": {}})
    assert "difficulty.mltd: there is no such setting" in wrong({"difficulty": {"mltd": 1}})
    assert "one stage with its settings" in wrong({"a": 1, "b": 2})
    unknown = tmp_path / "model.npz"
    unknown.write_bytes(b"?")
    assert "has no model.npz.json beside it" in wrong(str(unknown))
    with pytest.raises(RecipeError, match=r"recipe:3: .*there is no scorer"):
        parse_recipe(recipe("{with: nothing}"))
    with pytest.raises(RecipeError, match=r"score.wth: there is no such .*did you mean with\?"):
        parse_recipe(recipe("{wth: difficulty}"))
    with pytest.raises(RecipeError, match=r"recipe:3: .*with is missing"):
        parse_recipe(recipe("{as: a}"))


def test_measuring_stages_are_those_that_drop_nothing() -> None:
    found = measuring_stages()
    assert "difficulty" in found
    assert "gopher_quality" not in found
    assert "select" not in found


def test_check_set_explain_and_select_work_with_a_score(model: Path, tmp_path: Path) -> None:
    texts = ["good words here", "bad words there", "good bad", "words"]
    lines = [json.dumps({"id": f"d{n}", "text": text}) for n, text in enumerate(texts)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    path = tmp_path / "recipe.yaml"
    text = recipe(f"{{with: {model}, as: edu}}", "  - select: {by: edu, keep: 1}\n")
    path.write_text(text.replace("in.jsonl", str(tmp_path / "in.jsonl")))
    pipeline = tamis.Pipeline.from_recipe(path, ["edu.with=difficulty", "select.by=edu.mtld"])
    assert pipeline.recipe.stages[0] == Difficulty(name="edu")
    done = tamis.Pipeline.from_recipe(path, output=str(tmp_path / "out")).run()
    assert done.manifest["stages"][0]["kind"] == "fasttext"
    assert done.counts["kept"] == 1
    (way,) = explain(tmp_path / "out", "d1")
    assert [step.stage for step in way.steps] == ["edu", "select"]
    assert not way.kept
    assert tamis.retune(tmp_path / "out", ["select.keep=2"]).newly_kept == 1
