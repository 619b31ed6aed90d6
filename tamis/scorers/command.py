"""``tamis score``: what is asked on the command line, checked and done."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from tamis.pipeline.errors import RecipeError
from tamis.pipeline.progress import Progress
from tamis.pipeline.stages import Measure
from tamis.pipeline.summary import format_summary
from tamis.scorers.scoring import (
    STDIN,
    Printer,
    Reading,
    print_files,
    print_stream,
    read_scorers,
    score_columns,
    score_files,
)


@dataclass(frozen=True)
class ScoreCommand:
    """The arguments of ``tamis score``."""

    inputs: Sequence[str]
    scorers: Sequence[str]
    names: Sequence[str] = ()
    output: str | None = None
    workers: int = 1
    top: int = 10
    threshold: float | None = None
    jsonl: bool = False
    text: str = "text"
    id: str = "id"

    def run(self, stdin: BinaryIO, stdout: BinaryIO, quiet: bool = False) -> None:
        """Score into the folder and write the page, or print.

        Raises:
            RecipeError: if something is wrong with what is asked.
            TamisError: if it cannot be done.
        """
        self._check()
        stages = read_scorers(self.scorers, self.names)
        reading = Reading(self.text, self.id)
        if self.output is not None:
            self._write(self.output, stages, reading, quiet)
            return
        printer = Printer(stdout, stages, _say, self.jsonl)
        if list(self.inputs) == [STDIN]:
            print_stream(stdin, printer, reading)
        else:
            print_files(self.inputs, printer, reading)

    def _check(self) -> None:
        if STDIN in self.inputs and (len(self.inputs) > 1 or self.output is not None):
            raise RecipeError("- (standard input) is scored alone, and printed: leave out -o")
        if self.output is None and self.workers > 1:
            raise RecipeError("--workers is for scoring into a folder: add -o DIR")
        if self.output is not None and self.jsonl:
            raise RecipeError("--jsonl is for printing; with -o the scores are in Parquet")

    def _write(self, output: str, stages: Sequence[Measure], reading: Reading, quiet: bool) -> None:
        from tamis.scorers.page import write_page_of

        # One worker needs no cluster: the work is done here.
        workers = 0 if self.workers == 1 else self.workers
        progress = Progress(quiet=quiet)
        done = score_files(self.inputs, stages, output, workers, reading, progress)
        page = write_page_of(
            done, score_columns(stages, numbers_only=True), self.top, self.threshold
        )
        print(format_summary(done.manifest))  # noqa: T201
        print(f"the highest and lowest scores: {page}")  # noqa: T201


def _say(line: str) -> None:
    print(f"tamis: {line}", file=sys.stderr)  # noqa: T201
