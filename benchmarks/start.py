"""What a user waits for before any work is done."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.harness import Side, clock, measure, table


def command(arguments: list[str]) -> dict[str, Any]:
    """A Python command in a process of its own."""
    with clock() as spent:
        done = subprocess.run(
            [sys.executable, *arguments], check=True, capture_output=True, text=True
        )
    return spent.result(1, 0, output=done.stdout)


def run() -> str:
    """The section of the results."""
    rows = []
    for name, arguments in (
        ("python -c pass", ["-c", "pass"]),
        ("import tamis", ["-c", "import tamis"]),
        ("tamis --help", ["-m", "tamis.cli", "--help"]),
        ("import datatrove's filters", ["-c", "import datatrove.pipeline.filters"]),
    ):
        samples = sorted(
            (measure(Side(command, {"arguments": arguments})) for _ in range(3)),
            key=lambda s: s.cpu,
        )
        rows.append([name, f"{samples[1].cpu:.2f}", f"{samples[1].wall:.2f}"])
    with tempfile.TemporaryDirectory() as cache:
        env = {"NUMBA_CACHE_DIR": cache, "TAMIS_CACHE": cache}
        warmup = Side(command, {"arguments": ["-m", "tamis.cli", "warmup"]}, env)
        first, again = measure(warmup), measure(warmup)
    rows.append(["tamis warmup, nothing compiled yet", f"{first.cpu:.1f}", f"{first.wall:.1f}"])
    rows.append(["tamis warmup, all compiled", f"{again.cpu:.1f}", f"{again.wall:.1f}"])
    kernels = "\n".join(f"    {line}" for line in first.facts["output"].splitlines())
    return (
        f"## Start\n\n{table(['', 'CPU s', 'wall s'], rows)}\n"
        "Seconds of the first `tamis warmup` by stage, each without what an earlier one "
        f"compiled:\n\n{kernels}\n"
    )
