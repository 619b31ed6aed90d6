"""Measure two programs against each other, fairly on a machine that has other things to do.

Every measurement runs in a process of its own, so that neither compiled code, caches nor memory
peaks of one side help or hurt the other; the two sides alternate, and the ratio is taken within
each pair. The unit is CPU seconds (user and system, children included): wall time on a shared
machine says little. A subject is a function that prepares, then works inside
``with clock() as spent:`` and returns ``spent.result(...)``.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent


def cpu_seconds() -> float:
    """User and system seconds of this process and of its children that have ended."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


@dataclass
class Spent:
    """CPU and wall seconds of the work inside a ``clock``."""

    cpu: float = 0.0
    wall: float = 0.0

    def result(self, documents: int, size: int, **facts: Any) -> dict[str, Any]:
        """What a subject returns; ``size`` is bytes of UTF-8 text."""
        return {
            "cpu": self.cpu,
            "wall": self.wall,
            "documents": documents,
            "bytes": size,
            "facts": facts,
        }


@contextmanager
def clock() -> Iterator[Spent]:
    spent = Spent()
    cpu, wall = cpu_seconds(), time.perf_counter()
    yield spent
    spent.cpu, spent.wall = cpu_seconds() - cpu, time.perf_counter() - wall


@dataclass(frozen=True)
class Sample:
    """One measurement; ``peak`` is the largest resident memory of the process tree in bytes."""

    cpu: float
    wall: float
    documents: int
    bytes: int
    peak: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def cpu_per_byte(self) -> float:
        return self.cpu / self.bytes


class PeakMemory(threading.Thread):
    """Watches the resident memory of a process and its children, twenty times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process = psutil.Process(pid)
        self.peak = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.05):
            try:
                tree = [self.process, *self.process.children(recursive=True)]
                self.peak = max(self.peak, sum(one.memory_info().rss for one in tree))
            except psutil.Error:
                continue

    def stop(self) -> int:
        self.stopped.set()
        self.join()
        return self.peak


@dataclass(frozen=True)
class Side:
    """A subject, what it is called with, and changes to its environment."""

    subject: Callable[..., dict[str, Any]]
    arguments: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)


def measure(side: Side) -> Sample:
    """Run a subject in a new process; RuntimeError with the end of its output if it fails."""
    name = f"{side.subject.__module__}:{side.subject.__name__}"
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.harness", name, json.dumps(side.arguments)],
        cwd=ROOT,
        env={**os.environ, **side.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    memory = PeakMemory(process.pid)
    memory.start()
    out, err = process.communicate()
    peak = memory.stop()
    if process.returncode:
        raise RuntimeError(f"{name} failed:\n{err[-2000:]}")
    return Sample(peak=peak, **json.loads(out.splitlines()[-1]))


@dataclass(frozen=True)
class Comparison:
    """The samples of two sides, taken in turn."""

    ours: list[Sample]
    peer: list[Sample]

    def ratios(self) -> list[float]:
        """How many times the CPU of ours the peer needs for a text, in each pair; sorted."""
        pairs = zip(self.ours, self.peer, strict=True)
        return sorted(peer.cpu_per_byte / ours.cpu_per_byte for ours, peer in pairs)


def compare(ours: Side, peer: Side, repetitions: int = 3) -> Comparison:
    """Measure both sides alternately, after a run of ours that may have to compile."""
    measure(ours)
    result = Comparison([], [])
    for _ in range(repetitions):
        result.ours.append(measure(ours))
        result.peer.append(measure(peer))
    return result


def middle(samples: list[Sample]) -> Sample:
    """The sample with the median CPU per byte of text."""
    ordered = sorted(samples, key=lambda sample: sample.cpu_per_byte)
    return ordered[(len(ordered) - 1) // 2]


def speed(sample: Sample) -> str:
    """Documents and megabytes of text per CPU second."""
    documents = sample.documents / sample.cpu
    return f"{documents:,.0f} ({sample.bytes / 1e6 / sample.cpu:,.3g})"


def ratio(comparison: Comparison) -> str:
    """Median (smallest-largest) of the pairs."""
    ratios = comparison.ratios()
    return f"**{statistics.median(ratios):.3g}x** ({ratios[0]:.3g}-{ratios[-1]:.3g})"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def side_by_side(rows: list[tuple[str, str, Comparison]]) -> str:
    """A table of (subject, peer's name, comparison)."""
    return table(
        ["", "peer", "peer docs/s (MB/s)", "tamis docs/s (MB/s)", "ratio"],
        [
            [name, peer, speed(middle(one.peer)), speed(middle(one.ours)), ratio(one)]
            for name, peer, one in rows
        ],
    )


def main() -> None:
    module, _, function = sys.argv[1].partition(":")
    subject = getattr(importlib.import_module(module), function)
    # A library that prints must not spoil the result: it is the last line.
    print("\n" + json.dumps(subject(**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
