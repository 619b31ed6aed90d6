"""Retuning: what the measures predict is what a fresh run does, and ``write`` gives its very
bytes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

import tamis
from tamis.demo import RECIPE
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.pipeline import Pipeline, Run
from tamis.pipeline.progress import Progress
from tamis.pipeline.retune import format_retuned, retune, write_retuned


def filters(corpus: Path, output: Path, **settings: object) -> Pipeline:
    """Filters that edit the text and no fitted stage: what they do can be told from the measures
    alone.
    """
    stages = [
        tamis.GopherRepetition(**settings.get("gopher_repetition", {})),
        tamis.GopherQuality(**settings.get("gopher_quality", {})),
        tamis.C4Quality(require_terminal_punctuation=False, **settings.get("c4_quality", {})),
        tamis.FineWebQuality(),
    ]
    return Pipeline(
        tamis.read(corpus), stages, tamis.write(output), measures=settings.get("measures", "all")
    )


def outputs(run: Run) -> dict[str, bytes]:
    """The bytes of all files that are a run's result."""
    files = [
        path
        for folder in ("data", "ledger", "measures")
        for path in Path(run.path, folder).rglob("*.parquet")
    ]
    return {str(path.relative_to(run.path)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Run:
    return filters(corpus, tmp_path_factory.mktemp("measured") / "run").run()


@pytest.mark.parametrize(
    "change",
    [
        {"gopher_quality": {"min_words": 100}},
        {"gopher_quality": {"min_words": 20, "min_stop_words": None}},
        {"gopher_repetition": {"max_top_ngram": {2: 0.5, 3: 0.5, 4: 0.5}}},
        {"c4_quality": {"min_sentences": 2, "max_curly_bracket": None}},
        {"c4_quality": {"min_sentences": 30}},
    ],
)
def test_the_prediction_is_what_a_fresh_run_does(
    measured: Run, corpus: Path, tmp_path: Path, change: dict
) -> None:
    (stage, settings), *_ = change.items()
    overrides = [
        f"{stage}.{name}={'null' if value is None else value}" for name, value in settings.items()
    ]
    predicted = retune(measured.path, overrides)
    fresh = filters(corpus, tmp_path / "fresh", **change).run()
    assert predicted.unknown == 0
    assert predicted.kept_before == measured.counts["kept"]
    assert predicted.kept_after == fresh.counts["kept"]
    rules = {
        one["name"]: {rule["rule"]: rule["dropped"] for rule in one["rules"] if rule["dropped"]}
        for one in fresh.manifest["stages"]
    }
    assert {one.stage: one.after for one in predicted.stages} == rules


def test_write_gives_the_bytes_of_a_fresh_run(corpus: Path, tmp_path: Path) -> None:
    overrides = ["gopher_quality.min_words=100"]
    settings = [f"input.path={corpus}", "measures=keep"]
    old = Pipeline.from_recipe(RECIPE, settings, str(tmp_path / "old")).run()
    fresh = Pipeline.from_recipe(RECIPE, [*settings, *overrides], str(tmp_path / "fresh")).run()
    written = write_retuned(old.path, overrides, 0, Progress(quiet=True))
    assert written["counts"] == fresh.counts
    assert outputs(old) == outputs(fresh)


def test_what_later_stages_have_not_measured_is_unknown(corpus: Path, tmp_path: Path) -> None:
    run = filters(corpus, tmp_path / "run", measures="keep").run()
    predicted = retune(run.path, ["gopher_quality.min_words=20"])
    fresh = filters(
        corpus, tmp_path / "fresh", gopher_quality={"min_words": 20}, measures="keep"
    ).run()
    assert predicted.unknown > 0
    assert predicted.kept_after <= fresh.counts["kept"] <= predicted.kept_after + predicted.unknown
    assert "have not measured them" in format_retuned(predicted)


def test_the_text_is_not_read(measured: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(measured.path, copy)
    shutil.rmtree(copy / "data")
    shutil.rmtree(copy / "state")
    assert retune(copy, ["gopher_quality.min_words=100"]).kept_after < measured.counts["kept"]


def test_a_setting_that_changes_the_measures_is_refused(measured: Run) -> None:
    with pytest.raises(TamisError, match=r"words changes what is measured.*--set .*words=unicode"):
        retune(measured.path, ["gopher_quality.words=unicode"])


def test_a_wrong_setting_is_refused(measured: Run) -> None:
    with pytest.raises(RecipeError, match=r"did you mean min_words\?"):
        retune(measured.path, ["gopher_quality.min_word=1"])


def test_a_run_without_measures_says_so(corpus: Path, tmp_path: Path) -> None:
    run = filters(corpus, tmp_path / "run", measures="none").run()
    with pytest.raises(TamisError, match="kept no measures"):
        retune(run.path, ["gopher_quality.min_words=1"])


def test_decisions_about_copies_are_told_to_be_old(finished: Run) -> None:
    notes = retune(finished.path, ["gopher_quality.min_words=100"]).notes
    assert any(note.startswith("minhash would look at other documents") for note in notes)


def test_the_measures_have_one_row_for_every_document(measured: Run) -> None:
    table = pl.read_parquet(f"{measured.path}/measures/*/*.parquet")
    assert len(table) == measured.counts["in"]
    assert table["gopher_quality.words"].null_count() == 0
