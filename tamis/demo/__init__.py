"""The demo: 940 real documents in seven languages, and 90 planted copies and damaged ones."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import polars as pl

from tamis.pipeline.pipeline import Pipeline
from tamis.pipeline.progress import Progress
from tamis.pipeline.summary import format_summary

FOLDER = Path(__file__).parent
RECIPE = FOLDER / "recipe.yaml"
CORPUS = FOLDER / "minicrawl.jsonl.gz"


def run_demo(output: str, workers: int = 0) -> str:
    """Curate the corpus that comes with the package into the folder; gives the text to show."""
    pipeline = Pipeline.from_recipe(RECIPE, [f"input.path={CORPUS}"], output)
    run = pipeline.run(workers, progress=Progress())
    parts = [format_summary(run.manifest), found_again(run.path), _next_steps(run.path)]
    return "\n\n".join(parts)


def found_again(run: str) -> str:
    """What became of the documents that were planted: the column ``planted`` names the kind and
    the original of each.
    """
    corpus = pl.read_ndjson(CORPUS, infer_schema_length=None)
    planted = corpus.filter(pl.col("planted").is_not_null()).select(
        "id",
        pl.col("planted").str.split_exact(":", 1).struct.rename_fields(["kind", "_"]).struct[0],
        original=pl.col("planted").str.replace("^[a-z_]+:", ""),
    )
    kept = pl.read_parquet(f"{run}/data/*.parquet")["id"].to_list()
    copied = planted.filter(pl.col("id").is_in(kept) & pl.col("original").is_in(kept))
    lines = ["Planted on purpose"]
    for kind, what in (("exact_copy", "exact copies"), ("near_copy", "near copies")):
        total = len(planted.filter(pl.col("kind") == kind))
        pairs = len(copied.filter(pl.col("kind") == kind))
        lines.append(f"  {total} {what}: {total - pairs} no longer stand beside their original")
    damaged = planted.filter(pl.col("kind").is_in(["repetition", "boilerplate"]))
    dropped = len(damaged.filter(~pl.col("id").is_in(kept)))
    lines.append(f"  {len(damaged)} documents with repetition or boilerplate: {dropped} dropped")
    return "\n".join(lines)


def _next_steps(run: str) -> str:
    # After `make demo` the command is in .venv/bin, which is not on everybody's path.
    tamis = "tamis" if shutil.which("tamis") else os.path.relpath(sys.argv[0])
    ledger = pl.read_parquet(f"{run}/ledger/*.parquet")
    copies = ledger.filter((pl.col("stage") == "minhash") & (pl.col("action") == "dropped"))
    threshold = "--set gopher_quality.min_words=100"
    steps = [
        (f"{run}/report.html", "open it in a browser"),
        *((f"{tamis} explain {run} {one}", "a near copy: why it went") for one in copies["id"][:1]),
        (f"{tamis} retune {run} {threshold}", "what another threshold would change"),
        (os.path.relpath(RECIPE), "the recipe, to copy and change"),
    ]
    width = max(len(step) for step, _ in steps)
    lines = [f"  {step:<{width}}   {what}" for step, what in steps]
    return "\n".join(["Where to look next", *lines])
