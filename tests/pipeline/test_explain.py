"""The way of a document: what is said agrees with the measures, the ledger and the output."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import tamis
from tamis.pipeline.errors import TamisError
from tamis.pipeline.explain import explain, format_way
from tamis.pipeline.pipeline import Pipeline, Run


def ledger(run: Run) -> pl.DataFrame:
    return pl.read_parquet(f"{run.path}/ledger/*.parquet")


def test_every_dropped_document_is_explained_by_its_ledger_row(finished: Run) -> None:
    dropped = ledger(finished).filter(pl.col("action") == "dropped")
    assert len(dropped) == finished.counts["dropped"]
    for row in dropped.sample(40, seed=1).to_dicts():
        (way,) = explain(finished.path, row["id"])
        assert not way.kept
        step = next(one for one in way.steps if one.decision == "dropped")
        assert step.stage == row["stage"]
        assert step.reason.startswith(row["rule"])
        (failed,) = [
            one
            for one in step.measures
            if one.failed and any(rule.startswith(row["rule"] + ":") for rule in one.rules)
        ]
        assert failed.value == pytest.approx(row["value"], rel=1e-12)


def test_a_kept_document_passed_every_stage_and_is_in_the_output(finished: Run) -> None:
    kept = pl.read_parquet(f"{finished.path}/data/*.parquet")["id"].to_list()
    assert len(kept) == finished.counts["kept"]
    for one in kept[:20]:
        (way,) = explain(finished.path, one)
        assert way.kept
        assert {step.decision for step in way.steps} <= {"kept", "changed"}
        assert all(step.measures for step in way.steps)


def test_a_copy_names_the_document_that_was_kept(finished: Run) -> None:
    copies = ledger(finished).filter(
        (pl.col("stage") == "exact_dedup") & (pl.col("action") == "dropped")
    )
    row = copies.row(0, named=True)
    text = format_way(explain(finished.path, row["id"])[0])
    assert f"copy of {row['detail']}" in text
    assert "not reached" in text


def test_without_measures_the_decision_is_still_told(
    tmp_path: Path, pipeline: Pipeline, corpus: Path
) -> None:
    run = Pipeline(
        tamis.read(corpus), [tamis.GopherQuality()], tamis.write(tmp_path / "r"), measures="none"
    ).run()
    row = ledger(run).row(0, named=True)
    assert explain(run.path, row["id"])[0].steps[0].decision == "dropped"
    kept = pl.read_parquet(f"{run.path}/data/*.parquet")["id"][0]
    assert explain(run.path, kept)[0].kept


def test_documents_with_one_id_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        '{"id": "a", "text": "one"}\n{"id": "a", "text": "two words"}\n'
    )
    run = Pipeline(
        tamis.read(tmp_path / "in.jsonl"), [tamis.GopherQuality()], tamis.write(tmp_path / "r")
    ).run()
    ways = explain(run.path, "a")
    words = [
        next(one.value for one in way.steps[0].measures if one.name == "words") for way in ways
    ]
    assert words == [1, 2]


def test_an_unknown_id_is_one_sentence_with_what_is_near(finished: Run) -> None:
    with pytest.raises(
        TamisError, match=r"has no document with the id npm:spdx; there is npm:spdx/\d+"
    ):
        explain(finished.path, "npm:spdx")


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TamisError, match=r"has no manifest\.json: it is not the folder of a run"):
        explain(tmp_path, "a")
