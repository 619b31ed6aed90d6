"""Whole runs: JSONL.gz, filters, near-duplicates, Parquet."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.filters import FOUR, THREE
from benchmarks.harness import Comparison, Sample, clock, compare, measure, side_by_side, table
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
        documents, size = reader.stats["documents"].total, reader.stats["doc_len"].total
    return spent.result(int(documents), int(size))


def parts_of(sample: Sample) -> list[str]:
    """Shares of a run's CPU seconds."""
    timing = sample.facts["timing"]
    names = ("read", "stages", "fit", "write", "engine")
    shares = [f"{timing[name] / sample.cpu:.0%}" for name in names]
    return [f"{sample.cpu:.2f}", *shares]


def run(part: Part, small: Part) -> str:
    """The section of the results."""
    three = {"kinds": THREE, "words": "whitespace"}
    four = {"kinds": FOUR, "words": "spacy"}
    path, few = part.path("jsonl.gz"), small.path("jsonl.gz")
    split = compare((tamis_run, {"path": path, **three}), (datatrove_run, {"path": path, **three}))
    cold = Comparison([], [])
    for _ in range(2):
        with tempfile.TemporaryDirectory() as cache:
            cold.ours.append(measure(tamis_run, {"TAMIS_CACHE": cache}, path=few, **four))
        cold.peer.append(measure(datatrove_run, path=few, **four))
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
            sample = measure(tamis_run, path=which.path("jsonl"), workers=workers, **recipe)
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
