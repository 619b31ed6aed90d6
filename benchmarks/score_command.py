"""``tamis score`` over a corpus and over several times as much: its memory does not grow."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import Sample, Side, clock, measure, speed, table
from benchmarks.texts import Part, repeat_part

SCORER = "difficulty"


def score_subject(path: str, folder: str | None, documents: int) -> dict[str, Any]:
    """From standard input to lines, or (with a folder) from a file to Parquet and the page."""
    from tamis.scorers.command import ScoreCommand

    with Path(path).open("rb") as stream, Path("/dev/null").open("wb") as sink, clock() as spent:
        if folder is None:
            ScoreCommand(["-"], [SCORER]).run(stream, sink, quiet=True)
        else:
            ScoreCommand([path], [SCORER], output=folder).run(stream, sink, quiet=True)
    return spent.result(documents, Path(path).stat().st_size)


def row(name: str, sample: Sample) -> list[str]:
    return [
        name,
        f"{sample.bytes / 1e6:,.0f}",
        speed(sample),
        f"{sample.cpu:.1f}",
        f"{sample.peak / 1e6:,.0f}",
    ]


def run(whole: Part, times: int = 5) -> str:
    """The section of the results: the corpus, and ``times`` as much."""
    rows = []
    for repeated in (1, times):
        with tempfile.TemporaryDirectory() as name:
            part = repeat_part(whole, repeated, Path(name, "part")) if repeated > 1 else whole
            at = {"path": part.path("jsonl"), "documents": part.documents}
            for how, folder in (("stdin to lines", None), ("file to folder", f"{name}/scored")):
                sample = measure(Side(score_subject, {**at, "folder": folder}))
                rows.append(row(f"{repeated} x, {how}", sample))
    header = ["the corpus", "MB of JSONL", "documents (MB) per CPU s", "CPU s", "peak MB"]
    return (
        f"## tamis score\n\n{table(header, rows)}\n"
        f"One process, JSONL in, the scorer {SCORER}. The folder gets Parquet with all columns and "
        "the page of highest and lowest scores.\n"
    )
