"""What a task says about itself."""

from __future__ import annotations

import subprocess
import sys

CHILD = "from tamis.pipeline.task import peak_memory; print(peak_memory())"
PARENT = f"""
import subprocess, sys
large = bytearray(600_000_000)
subprocess.run([sys.executable, "-c", {CHILD!r}], check=True)
"""


def test_peak_memory_is_that_of_this_process_alone() -> None:
    done = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, check=True)
    assert 20_000_000 < int(done.stdout) < 400_000_000
