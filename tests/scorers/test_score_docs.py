"""The page about scoring is right: its commands and recipes are run, one after the other."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import zstandard
from typer.testing import CliRunner

import tamis
from tamis.cli import app
from tamis.pipeline.recipe import parse_recipe
from tamis.scorers.fasttext_training import FastTextSettings, train_classifier

PAGE = (Path(__file__).parents[2] / "docs" / "score.md").read_text(encoding="utf-8")
# Those about scoring and selecting; sections about single scorers follow.
SECTIONS = "".join(re.split(r"^(?=## )", PAGE, flags=re.MULTILINE)[:3])


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    found: list[str] = re.findall(r"^    \$ (.*)$", SECTIONS, re.MULTILINE)
    return found


def prepare(folder: Path) -> None:
    lines = [
        json.dumps(
            {
                "id": f"d{n}",
                "text": f"{'good' if n % 3 else 'bad'} words number {n} " * (n % 5 + 1),
                "source": ("web", "books", "code")[n % 7 % 3],
            }
        )
        for n in range(60)
    ]
    (folder / "crawl").mkdir()
    (folder / "models").mkdir()
    packed = zstandard.compress(("\n".join(lines) + "\n").encode())
    (folder / "crawl" / "1.jsonl.zst").write_bytes(packed)
    labelled = [("hq", "good words number"), ("cc", "bad words number")] * 30
    settings = FastTextSettings(dim=4, epoch=20, bucket=1000)
    train_classifier(labelled, settings, folder / "models" / "edu.bin")


def invoke(arguments: list[str]) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_page_from_scores_to_a_selection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    score, _, retune = (shlex.split(one) for one in commands()[:3])
    assert score[:2] == ["tamis", "score"]
    # The file that there is here.
    invoke(["score", "crawl/1.jsonl.zst", *score[3:], "--quiet"])
    table = pq.read_table("scored/data")
    assert {"edu.score", "edu.logit", "difficulty.mtld"} <= set(table.column_names)
    assert Path("scored/scores.html").exists()
    for text in (one for one in blocks("yaml") if "select" in one):
        recipe = parse_recipe(text)[0]
        done = tamis.Pipeline(recipe.input, recipe.stages, recipe.output).run()
        assert 0 < done.counts["kept"] < 60
    assert "kept before" in invoke(retune[1:])


def test_the_table_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (one for one in blocks("python") if "table = pa.table" in one)
    exec(compile(code, "score.md", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == "[4.0, 2.0]\n"
