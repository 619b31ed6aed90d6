"""The command line as a user meets it: what it prints, and the exit status of every kind of
mistake.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tamis.pipeline.pipeline import Run

RECIPE = "input: {{path: {corpus}}}\nstages:\n  - gopher_quality\noutput: {{path: {output}}}\n"


def tamis(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tamis.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture
def recipe(tmp_path: Path, corpus: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(corpus=corpus, output=tmp_path / "run"))
    return path


def test_run_then_explain_retune_and_report(recipe: Path, tmp_path: Path) -> None:
    ran = tamis("run", recipe)
    assert ran.returncode == 0, ran.stderr
    assert "1,030 documents in" in ran.stdout
    assert "\x1b" not in ran.stdout + ran.stderr, "no control characters when it is not a terminal"
    run = tmp_path / "run"
    explained = tamis("explain", run, "dict-devil/2")
    assert "gopher_quality" in explained.stdout
    retuned = tamis("retune", run, "--set", "gopher_quality.min_words=100")
    assert retuned.stdout.startswith("1,030 documents: ")
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    reported = tamis("report", run)
    assert reported.stdout.strip() == str(run / "report.html")
    assert (run / "report.html").read_text() == before


def test_check_prints_the_plan(recipe: Path) -> None:
    checked = tamis("check", recipe)
    assert checked.returncode == 0
    for expected in (
        "gopher_quality",
        "words    whitespace",
        "text: large_string",
        "phase 1  write shards",
    ):
        assert expected in checked.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["run", "missing.yaml"], 2, "missing.yaml: there is no such recipe"),
        (["check", "{recipe}", "--set", "gopher_quality.min_word=3"], 2, "did you mean min_words?"),
        (["run", "{recipe}", "--set", "input.path=/nowhere/x.jsonl"], 2, "/nowhere/x.jsonl"),
        (["explain", "{folder}", "x"], 1, "it is not the folder of a run"),
        (
            ["run", "{recipe}", "--scheduler", "tcp://127.0.0.1:1"],
            1,
            "no Dask scheduler answers at tcp://127.0.0.1:1",
        ),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_mistakes_are_one_sentence_with_a_status(
    recipe: Path, tmp_path: Path, arguments: list[str], status: int, sentence: str
) -> None:
    filled = [argument.format(recipe=recipe, folder=tmp_path) for argument in arguments]
    done = tamis(*filled, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert sentence in done.stderr
    assert done.stdout == ""


def test_importing_tamis_imports_nothing_heavy() -> None:
    heavy = "numpy pyarrow numba torch dask distributed polars spacy"
    code = f"import sys, tamis; print([name for name in {heavy.split()} if name in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_a_reader_that_goes_away_is_no_error(finished: Run) -> None:
    command = f"{sys.executable} -m tamis.cli explain {finished.path} dict-devil/2 | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


@pytest.mark.slow
def test_warmup_prepares_every_stage_that_can_be_prepared() -> None:
    done = tamis("warmup")
    assert done.returncode == 0, done.stderr
    prepared = {line.split()[0] for line in done.stdout.splitlines()}
    assert prepared >= {"reading", "gopher_quality", "minhash", "extract", "substring_dedup"}


def test_a_warning_is_a_sentence() -> None:
    from tamis.cli import _sentence

    assert (
        _sentence("Tokens are estimated.", UserWarning, "a.py", 3)
        == "note: Tokens are estimated.\n"
    )
    assert _sentence("overflow", RuntimeWarning, "a.py", 3) == "a.py:3: RuntimeWarning: overflow\n"
