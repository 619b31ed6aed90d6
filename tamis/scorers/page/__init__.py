"""The page of scored documents: how the scores are distributed, and which documents score
highest, lowest, and near a threshold. One HTML file that needs nothing else.

``contents`` reads the scores; the frame, its style and the drawing are those of the report of a
run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tamis.pipeline.pipeline import Run
from tamis.pipeline.report import histogram
from tamis.pipeline.report.html import fill
from tamis.pipeline.storage import RunFolder
from tamis.scorers.page.contents import contents

PAGE = "scores.html"


def render(run: str | Path, columns: Sequence[str], top: int, threshold: float | None) -> str:
    """The page about the columns of a finished run."""
    return fill(__name__, {**contents(run, columns, top, threshold), "chart": histogram})


def write_page_of(run: Run, columns: Sequence[str], top: int, threshold: float | None) -> str:
    """Write the page into the folder of a run, and say where it is.

    Args:
        run: the finished run.
        columns: the score columns of its documents.
        top: how many of the best and of the worst documents are shown.
        threshold: a score; the documents next to it are shown too.
    """
    folder = RunFolder(run.path)
    with folder.write(PAGE) as file:
        file.write(render(run.path, columns, top, threshold).encode())
    return folder.full(PAGE)
