"""Whole runs: JSONL.gz, filters, near-duplicates, Parquet."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

import orjson

from benchmarks.filters import FOUR, THREE
from benchmarks.harness import (
    Comparison,
    Sample,
    Side,
    clock,
    compare,
    measure,
    side_by_side,
    table,
)
from benchmarks.peers import datatrove_filters, datatrove_minhash, quiet_datatrove
from benchmarks.texts import Part, repeat_part


def tamis_run(path: str, kinds: list[str], words: str, workers: int = 0) -> dict[str, Any]:
    """A run from recipe to report; its own start, planning and report count as well."""
    import tamis
    from tamis.filters.dedup.minhash import MinHash
    from tamis.registry import stage_class

    stages = [stage_class(kind)() for kind in kinds]
    with tempfile.TemporaryDirectory() as folder, clock() as spent:
        pipeline = tamis.Pipeline(
            tamis.read(path), [*stages, MinHash()], tamis.write(folder), words=words
        )
        manifest = pipeline.run(workers).manifest
    counts = manifest["counts"]
    facts = {"kept": counts["kept"], "timing": manifest["timing"]}
    return spent.result(counts["in"], counts["bytes_in"], **facts)


def datatrove_run(path: str, kinds: list[str], words: str) -> dict[str, Any]:
    """The same by datatrove's local executor in this process: five pipelines, one after another."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader, ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    quiet_datatrove()
    with tempfile.TemporaryDirectory() as name, clock() as spent:
        folder = Path(name)
        filtered, out = str(folder / "filtered"), str(folder / "out")
        reader = JsonlReader(str(Path(path).parent))
        signature, buckets, cluster, remove = datatrove_minhash(folder, words)
        again = ParquetReader(filtered)
        steps = [
            (
                [
                    reader,
                    *datatrove_filters(words, kinds),
                    ParquetWriter(filtered, compression="zstd"),
                ],
                1,
            ),
            ([again, signature], 1),
            ([buckets], 14),
            ([cluster], 1),
            ([ParquetReader(filtered), remove, ParquetWriter(out, compression="zstd")], 1),
        ]
        for number, (pipeline, tasks) in enumerate(steps):
            logs = str(folder / f"logs{number}")
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=logs).run()
    with gzip.open(path) as lines:
        texts = [orjson.loads(line)["text"].encode() for line in lines]
    return spent.result(len(texts), sum(map(len, texts)))


def parts_of(sample: Sample) -> list[str]:
    """Shares of a run's CPU seconds."""
    timing = sample.facts["timing"]
    names = ("read", "stages", "fit", "write", "engine")
    shares = [f"{timing[name] / sample.cpu:.0%}" for name in names]
    return [f"{sample.cpu:.2f}", *shares]


def run(part: Part, small: Part) -> str:
    """The section of the results."""
    three = {"path": part.path("jsonl.gz"), "kinds": THREE, "words": "whitespace"}
    four = {"path": small.path("jsonl.gz"), "kinds": FOUR, "words": "spacy"}
    split = compare(Side(tamis_run, three), Side(datatrove_run, three), repetitions=2)
    cold = Comparison([], [])
    for _ in range(2):
        with tempfile.TemporaryDirectory() as cache:
            cold.ours.append(measure(Side(tamis_run, four, {"TAMIS_CACHE": cache})))
        cold.peer.append(measure(Side(datatrove_run, four)))
    rows = [
        ("3 filters, MinHash; words of str.split", "datatrove, str.split", split),
        ("4 filters, MinHash; spaCy's words, memory empty", "datatrove default", cold),
    ]
    return (
        f"## Whole runs: JSONL.gz, filters, MinHash, Parquet\n\n{side_by_side(rows)}\n"
        "Peak memory: "
        f"tamis {max(one.peak for one in split.ours) / 1e6:,.0f} MB, "
        f"datatrove {max(one.peak for one in split.peer) / 1e6:,.0f} MB.\n"
    )


def run_large(part: Part) -> str:
    """How runs of the whole corpus, and of five times as much, divide their time and use memory."""
    recipe = {"kinds": THREE, "words": "whitespace"}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        repeated = repeat_part(part, 5, Path(folder))
        for name, which, workers in (
            ("corpus", part, 0),
            ("corpus, 1 worker", part, 1),
            ("corpus, 2 workers", part, 2),
            ("five times the corpus", repeated, 0),
        ):
            arguments = {**recipe, "path": which.path("jsonl"), "workers": workers}
            sample = measure(Side(tamis_run, arguments))
            speed = f"{sample.documents / sample.wall:,.0f}"
            size = f"{sample.bytes / 1e6:,.0f}"
            rows.append(
                [
                    name,
                    size,
                    f"{sample.wall:.1f}",
                    speed,
                    f"{sample.peak / 1e6:,.0f}",
                    *parts_of(sample),
                ]
            )
    header = [
        "",
        "MB",
        "wall s",
        "docs/s wall",
        "peak MB",
        "CPU s",
        "read",
        "stages",
        "fit",
        "write",
        "engine",
    ]
    return f"## Where the time of a run goes, and its memory\n\n{table(header, rows)}"
