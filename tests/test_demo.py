"""The demo on its planted truths: what was put into the corpus on purpose must be found."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tamis.demo import CORPUS, run_demo
from tamis.pipeline.pipeline import Run


@pytest.fixture(scope="module")
def planted() -> pl.DataFrame:
    return (
        pl.read_ndjson(CORPUS, infer_schema_length=None)
        .filter(pl.col("planted").is_not_null())
        .select("id", "planted")
    )


def fates(run: Run) -> pl.DataFrame:
    dropped = pl.read_parquet(f"{run.path}/ledger/*.parquet").filter(pl.col("action") == "dropped")
    return dropped.select("id", pl.col("stage").cast(str), pl.col("rule").cast(str), "detail")


def test_every_planted_exact_copy_is_found_with_its_original(
    finished: Run, planted: pl.DataFrame
) -> None:
    truth = planted.filter(pl.col("planted").str.starts_with("exact_copy:"))
    found = fates(finished).filter(pl.col("stage") == "exact_dedup")
    assert len(truth) == 40
    pairs = {
        frozenset((one["id"], one["planted"].removeprefix("exact_copy:")))
        for one in truth.to_dicts()
    }
    assert {frozenset((one["id"], one["detail"])) for one in found.to_dicts()} == pairs


def test_no_pair_of_planted_near_copies_survives_whole(
    finished: Run, planted: pl.DataFrame
) -> None:
    """Of a near copy and its original at most one is kept, up to the recall of MinHash at these
    similarities.
    """
    kept = set(pl.read_parquet(f"{finished.path}/data/*.parquet")["id"])
    truth = planted.filter(pl.col("planted").str.starts_with("near_copy:")).to_dicts()
    both = [
        one
        for one in truth
        if one["id"] in kept and one["planted"].removeprefix("near_copy:") in kept
    ]
    assert len(truth) == 40
    assert len(both) <= 2, both


def test_planted_damage_is_dropped(finished: Run, planted: pl.DataFrame) -> None:
    truth = planted.filter(pl.col("planted").str.contains("^(repetition|boilerplate):"))
    found = fates(finished).join(truth, on="id")
    assert len(truth) == 10
    assert len(found) >= 9, truth.join(found, on="id", how="anti").to_dicts()


def test_the_demo_says_what_happened_and_where_to_look(tmp_path: Path) -> None:
    text = run_demo(str(tmp_path / "demo"))
    assert "1,030 documents in" in text
    assert "40 dropped   (max_duplicates 40)" in text
    assert f" explain {tmp_path}/demo " in text
    assert "  40 exact copies: 40 no longer stand beside their original" in text
    assert "  10 documents with repetition or boilerplate: 10 dropped" in text
    assert (tmp_path / "demo" / "report.html").stat().st_size > 50_000
