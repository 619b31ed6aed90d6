"""Compiled code on disk is not used any more when a function that it contains has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tamis

INNER = """
from tamis.kernel import kernel

@kernel
def inner(x):
    return x + {}
"""
OUTER = """
from inner import inner
from tamis.kernel import kernel

@kernel
def outer(x):
    return 10 * inner(x)

print(outer(1))
"""


def test_a_change_in_another_file_counts(tmp_path: Path) -> None:
    package = str(Path(tamis.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": package, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    outer = tmp_path / "outer.py"
    outer.write_text(OUTER)
    printed = []
    for summand in (1, 1, 2):
        (tmp_path / "inner.py").write_text(INNER.format(summand))
        run = subprocess.run(
            [sys.executable, str(outer)], env=environment, capture_output=True, check=True
        )
        printed.append(int(run.stdout))
    assert printed == [20, 20, 30]
