"""Measure everything: ``python -m benchmarks --corpus corpus/bench.jsonl --out RESULTS.md``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

import tamis
from benchmarks import (
    crawl,
    decontamination,
    dedup,
    dedup_quality,
    dedup_scaling,
    dsir,
    filters,
    io,
    language,
    lists,
    minhash,
    pii,
    pipeline,
    plug_in,
    refine,
    score_command,
    scoring,
    semantic,
    start,
    substring,
    toxicity,
)
from benchmarks.texts import Part, lines_of, make_part

SECTIONS = [
    "filters", "language", "lists", "io", "minhash", "dedup", "dedup_quality", "dedup_scaling",
    "substring", "semantic", "decontamination", "crawl", "pii",
    "pipeline", "large", "toxicity",
    "scoring",
    "plug_in", "score_command", "refine", "refine_study",
    "dsir", "betr", "preselect", "selection_study", "mixing", "training", "start",
]  # fmt: skip
PACKAGES = ("datatrove", "datasketch", "rensa", "pyarrow", "numba", "numpy", "polars", "spacy")


def processor() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def heading(part: Part, small: Part) -> str:
    """The machine, the versions and the unit."""
    versions = f"tamis {tamis.__version__}, "
    versions += ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    memory = psutil.virtual_memory().total / 2**30
    return (
        "# Benchmarks\n\n"
        "Made by `make bench`; nothing here is written by hand.\n\n"
        f"{time.strftime('%Y-%m-%d')}, {processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"load {os.getloadavg()[0]:.1f} at the start; Python {platform.python_version()}, "
        f"{versions}.\n\n"
        f"{part.documents:,} documents evenly spread over the bench corpus; {small.documents:,} "
        "for peers that take long. Speeds are documents (MB of text) per CPU second, medians; "
        "ratios are CPU seconds of the peer to ours for a text, median (smallest-largest) of "
        "pairs measured in turn, each in a process of its own. On a busy machine the CPU seconds "
        "of Python grow more than those of compiled code: its ratios flatter us.\n"
    )


def run_of(section: str, *arguments: Any) -> str:
    """A section whose module is imported when it is wanted: the others need no torch in this
    process.
    """
    found: str = import_module(f"benchmarks.{section}").run(*arguments)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="JSONL with text")
    parser.add_argument("--out", type=Path, help="default: print")
    parser.add_argument("--documents", type=int, default=int(os.environ.get("BENCH_DOCS", "8000")))
    parser.add_argument("--only", nargs="+", default=SECTIONS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        everything = lines_of(arguments.corpus, sys.maxsize)
        part = make_part(lines_of(arguments.corpus, arguments.documents), folder / "part")
        few = max(100, arguments.documents // 8)
        small = make_part(lines_of(arguments.corpus, few), folder / "small")
        tiny = make_part(lines_of(arguments.corpus, few // 8), folder / "tiny")
        whole = make_part(everything, folder / "whole")

        def study(section: str) -> str:
            (folder / section).mkdir()
            return run_of(section, arguments.corpus, folder / section)

        sections: dict[str, Callable[[], str]] = {
            "filters": lambda: filters.run(part, small),
            "language": lambda: language.run_fetched(part, small),
            "lists": lambda: lists.run(part, small, folder / "lists"),
            "io": lambda: io.run(whole, tiny),
            "minhash": lambda: minhash.run(part, small),
            "dedup": lambda: dedup.run(whole),
            "dedup_quality": lambda: dedup_quality.run(everything, whole, folder / "planted"),
            "dedup_scaling": dedup_scaling.run,
            "substring": lambda: substring.run(everything, folder / "passages"),
            "semantic": semantic.run,
            "decontamination": lambda: decontamination.run(everything, folder / "items"),
            "crawl": lambda: crawl.run(arguments.corpus, folder / "crawl"),
            "pii": lambda: pii.run(part),
            "pipeline": lambda: pipeline.run(whole, part, small, tiny),
            "large": lambda: pipeline.run_large(whole),
            "toxicity": lambda: toxicity.run(part, small, tiny, arguments.corpus.parent),
            "plug_in": lambda: plug_in.run(part, small),
            "scoring": lambda: scoring.run(whole, part, small, folder / "scoring"),
            "score_command": lambda: score_command.run(whole),
            "refine": lambda: refine.run(part),
            "refine_study": lambda: study("refine_study"),
            "dsir": lambda: dsir.run(part, small, folder / "dsir"),
            "betr": lambda: study("betr"),
            "preselect": lambda: study("preselect"),
            "selection_study": lambda: run_of("selection_study", arguments.corpus),
            "mixing": lambda: study("mixing"),
            "training": lambda: run_of("training"),
            "start": start.run,
        }
        done = [heading(part, small)]
        for section in arguments.only:
            print(f"measuring: {section}", file=sys.stderr)
            done.append(sections[section]())
            if arguments.out:
                arguments.out.write_text("\n".join(done))
    if not arguments.out:
        print("\n".join(done))


if __name__ == "__main__":
    main()
