"""The demo: 940 real documents in seven languages, with known planted copies, curated in one
run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    return format_summary(run.manifest) + "\n" + _next_steps(run.path, run.manifest)


def _next_steps(run: str, manifest: dict[str, Any]) -> str:
    dropped = [
        sample
        for stage in manifest["stages"]
        for rule in stage["rules"]
        for sample in rule["samples"]
        if stage["name"] == "minhash" or rule["rule"] == "min_words"
    ]
    lines = ["", "Where to look next", f"  {run}/report.html{'':<28} open it in a browser"]
    if dropped:
        lines.append(f"  tamis explain {run} {dropped[-1]['id']:<28} why this document was dropped")
    retune = f"tamis retune {run} --set gopher_quality.min_words=100"
    lines.append(f"  {retune}    what another threshold would change")
    lines.append(f"  {RECIPE}    the recipe, to copy and change")
    return "\n".join(lines)
