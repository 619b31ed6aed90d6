"""The page's sections on DSIR, difficulty, combining, buckets and scorers of one's own are run."""

from __future__ import annotations

import gzip
import json
import re
import textwrap
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner

from tamis.cli import app
from tamis.pipeline.pipeline import Pipeline
from tamis.scorers.artefact import read_facts

PAGE = (Path(__file__).parents[2] / "docs" / "score.md").read_text(encoding="utf-8")
SECTIONS = PAGE[PAGE.index("## DSIR: ") :]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS, re.DOTALL | re.MULTILINE)


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def prepare(folder: Path, corpus: Path) -> None:
    with gzip.open(corpus) as lines:
        rows = [json.loads(line) for line in lines][::4]
    english = [row for row in rows if row["lang"] == "en"]
    for name, part in (("books", english[:20]), ("crawl", rows)):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(text)
    (folder / "models").mkdir()
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "models" / "tokenizer.json"))


def test_the_sections_run_as_they_stand(tmp_path, corpus, monkeypatch):
    prepare(tmp_path, corpus)
    monkeypatch.chdir(tmp_path)
    config = re.search(r"^    # dsir.yaml\n(?:    .*\n)+", SECTIONS, re.MULTILINE)
    (tmp_path / "dsir.yaml").write_text(textwrap.dedent(config[0]))
    assert "KL(target || raw)" in invoke("fit", "dsir", "dsir.yaml")
    tables = {}
    # Those that need a model are indented: there is none where the recipes of all pages are read.
    indented = re.findall(r"^    input: .*\n(?:    .*\n)+", SECTIONS, re.MULTILINE)
    for number, recipe in enumerate([*map(textwrap.dedent, indented), *blocks("yaml")]):
        (tmp_path / f"{number}.yaml").write_text(recipe)
        Pipeline.from_recipe(tmp_path / f"{number}.yaml").run()
    assert number == 3
    for name in ("like-books", "middling", "both", "labelled"):
        tables[name] = pl.read_parquet(f"{name}/data/*.parquet")
    assert tables["like-books"]["dsir.score"].is_finite().all()
    assert tables["middling"]["difficulty.fertility"].is_not_null().all()
    assert tables["both"]["combine.score"].is_between(0, 1).all()
    assert {"plain", "hard-high-en"} <= set(tables["labelled"]["attributes.bucket"])
    exec(compile(blocks("python")[0], "score.md", "exec"), {"__name__": "page"})
    plain = pl.read_parquet("sources/plain/*.parquet")
    assert len(plain) == (tables["labelled"]["attributes.bucket"] == "plain").sum() > 0


def test_the_scorer_of_the_page(tmp_path, corpus, monkeypatch):
    prepare(tmp_path, corpus)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_scorers.py").write_text(blocks("python")[1])
    (tmp_path / "surprise.yaml").write_text("data: [books.jsonl]\noutput: surprise.npy\n")
    assert "bytes: surprise.npy" in invoke("fit", "my_scorers:FitSurprise", "surprise.yaml")
    assert read_facts(tmp_path / "surprise.npy").stage == "my_scorers:Surprise"
    printed = invoke("score", "crawl.jsonl", "--with", "surprise.npy")
    scores = dict(line.split("\t")[:2] for line in printed.splitlines() if "\t" in line)
    bits = np.load(tmp_path / "surprise.npy")
    for line in (tmp_path / "crawl.jsonl").read_text().splitlines():
        row = json.loads(line)
        expected = bits[np.frombuffer(row["text"].encode(), np.uint8)].mean()
        assert float(scores[row["id"]]) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["nowhere:Fit", "tamis.scorers.dsir:Nope", "tamis:Dsir"])
def test_what_cannot_be_fitted_says_so(name, tmp_path):
    (tmp_path / "a.yaml").write_text("output: a.npy\n")
    done = CliRunner().invoke(app, ["fit", name, str(tmp_path / "a.yaml")])
    assert done.exit_code != 0
    assert "Traceback" not in done.output
