"""Documents that a stage cannot bear, or that kill the process: they fail alone, and are named."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import tamis
from tamis.pipeline.errors import TamisError
from tamis.pipeline.pipeline import Pipeline, Run
from tests.pipeline import runs
from tests.pipeline.custom_stages import Paragraphs, Reluctant

POISON = "xylophone"


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real documents of two sources, two of them with a word that the stages cannot bear."""
    folder = tmp_path_factory.mktemp("crawl")
    for number in range(3):
        rows = runs.documents()[number::12]
        lines = [
            {"id": f"{number}-{place}", "text": row["text"], "source": f"s{place % 2}"}
            for place, row in enumerate(rows)
        ]
        if number:
            lines[17]["text"] += f" {POISON}"
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"part-{number}.jsonl").write_text(text)
    return folder


def pipeline(crawl: Path, output: Path, reluctant: Reluctant, **settings: object) -> Pipeline:
    stages = [tamis.ExactDedup(), reluctant, tamis.GopherQuality(min_words=30)]
    return Pipeline(
        tamis.read(str(crawl)), stages, tamis.write(output), slice_size=60_000, **settings
    )


def check_two_failed(run: Run, stage: str) -> None:
    counts = run.counts
    assert counts["failed"] == 2
    assert counts["in"] == counts["kept"] + counts["dropped"] + counts["failed"]
    for source in run.manifest["sources"].values():
        assert source["in"] == source["kept"] + source["dropped"] + source["failed"]
    ledger = pl.read_parquet(Path(run.path) / "ledger/*.parquet")
    failed = ledger.filter(pl.col("action") == "failed")
    assert sorted(failed["id"]) == ["1-17", "2-17"]
    assert set(failed["stage"]) == {stage}
    kept = pl.read_parquet(Path(run.path) / "data/*.parquet")
    assert not set(kept["id"]) & {"1-17", "2-17"}
    errors = run.manifest["errors"]["samples"]
    assert sorted(one["position"] for one in errors) == ["id 1-17", "id 2-17"]


def others(crawl: Path, folder: Path) -> list[str]:
    """The ids that are kept when nothing fails, without the poisoned ones."""
    pipeline(crawl, folder, Reluctant()).run()
    kept = pl.read_parquet(folder / "data/*.parquet")["id"].to_list()
    return [one for one in kept if one not in ("1-17", "2-17")]


def test_a_stage_that_raises_on_some_documents(tmp_path: Path, crawl: Path) -> None:
    run = pipeline(crawl, tmp_path / "run", Reluctant(unbearable=(POISON,))).run()
    check_two_failed(run, "reluctant")
    (stage,) = (one for one in run.manifest["stages"] if one["name"] == "reluctant")
    assert stage["failed"] == 2
    assert stage["in"] == stage["kept"] + stage["dropped"] + stage["failed"]
    assert "cannot bear 'xylophone'" in run.manifest["errors"]["samples"][0]["reason"]
    found = pl.read_parquet(tmp_path / "run/data/*.parquet")["id"].to_list()
    assert found == others(crawl, tmp_path / "none")


def test_a_stage_that_raises_stops_a_strict_run(tmp_path: Path, crawl: Path) -> None:
    strict = pipeline(crawl, tmp_path, Reluctant(unbearable=(POISON,)), max_errors=1)
    with pytest.raises(TamisError, match="2 documents failed, more than max_errors: 1"):
        strict.run()
    assert pipeline(crawl, tmp_path, Reluctant(unbearable=(POISON,)), max_errors=2).run()


def test_a_stage_that_raises_on_everything(tmp_path: Path, crawl: Path) -> None:
    with pytest.raises(TamisError, match="reluctant raised on every document"):
        pipeline(crawl, tmp_path, Reluctant(unbearable=("",))).run()
    assert not (tmp_path / "manifest.json").exists()


def test_a_stage_that_raises_on_document_after_document(tmp_path: Path) -> None:
    line = json.dumps({"text": "the same words"}) + "\n"
    (tmp_path / "in.jsonl").write_text(line * 3000)
    broken = Pipeline(
        tamis.read(tmp_path / "in.jsonl"),
        [Reluctant(unbearable=("same",))],
        tamis.write(tmp_path / "o"),
    )
    with pytest.raises(TamisError, match="raised on each of 1000 documents"):
        broken.run()


def test_a_document_that_expands_without_end(tmp_path: Path) -> None:
    lines = [{"id": "few", "text": "a\n\nb"}, {"id": "many", "text": "a\n\n" * 5000}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    run = Pipeline(
        tamis.read(tmp_path / "in.jsonl"), [Paragraphs()], tamis.write(tmp_path / "o")
    ).run()
    assert (run.counts["in"], run.counts["kept"], run.counts["failed"]) == (2, 2, 1)
    assert run.manifest["errors"]["samples"][0]["position"] == "id many"


def test_a_document_that_kills_the_driver(tmp_path: Path, crawl: Path) -> None:
    """The third run gets through, with the two documents on record."""
    deadly = pipeline(crawl, tmp_path / "run", Reluctant(unbearable=(POISON,), fault="kill"))
    ends = []
    while not ends or (ends[-1] and len(ends) < 8):
        ends.append(runs.ended(runs.in_fork(deadly.run)))
    # After two deaths their task is given a process of its own, which finds out who they are.
    assert ends == [-9, -9, 0]
    run = deadly.run()
    check_two_failed(run, "")
    raising = pipeline(crawl, tmp_path / "raising", Reluctant(unbearable=(POISON,))).run()
    assert raising.counts | {"bytes_in": 0} == run.counts | {"bytes_in": 0}
    assert _data(tmp_path / "raising") == _data(tmp_path / "run")
    assert runs.leftovers(tmp_path / "run") == []


def test_a_document_that_kills_workers(tmp_path: Path, crawl: Path) -> None:
    deadly = Reluctant(unbearable=(POISON,), fault="kill", processes=True)
    run = pipeline(crawl, tmp_path / "run", deadly).run(workers=2)
    check_two_failed(run, "")
    raising = Reluctant(unbearable=(POISON,), processes=True)
    pipeline(crawl, tmp_path / "raising", raising).run()
    assert _data(tmp_path / "raising") == _data(tmp_path / "run")


def _data(folder: Path) -> dict[str, str]:
    found = runs.results(folder)
    return {name: one for name, one in found.items() if name.startswith("data/")}
