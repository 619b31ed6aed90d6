"""Kills runs and compares what the reruns leave with a run that was not disturbed.

    python -m tests.pipeline.killing random SCENARIO WORKERS KILLS FOLDER
    python -m tests.pipeline.killing events SCENARIO STEP FOLDER

It forks every run from a process that has all kernels loaded, so that a run takes a second and the
kills fall into its work and not into its start. Prints one JSON object.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import distributed  # noqa: F401 - imported once, before the forks

from tamis.pipeline.warmup import warm_up
from tests.pipeline import runs


class Arena:
    """A corpus, an undisturbed run over it, and a folder whose runs are killed."""

    def __init__(self, scenario: str, folder: Path, **corpus: Any) -> None:
        self.scenario, self.folder = scenario, folder
        self.corpus = runs.write_corpus(folder / "corpus", **corpus)
        stages, _ = runs.SCENARIOS[scenario]
        for stage in stages():
            with suppress(Exception):
                list(warm_up([stage]))
        whole = folder / "whole"
        began = time.monotonic()
        if runs.ended(self.start(whole, 0)):
            raise SystemExit("the undisturbed run failed")
        self.seconds = time.monotonic() - began
        self.wanted = runs.results(whole)

    def start(self, output: Path, workers: int, die_at: int = 0) -> int:
        def work() -> None:
            if die_at:
                runs.die_at(die_at)
            runs.pipeline(self.scenario, self.corpus, output).run(workers)

        return runs.in_fork(work)

    def differences(self, output: Path) -> list[str]:
        """Results that are not as in the undisturbed run, and what was left lying about."""
        found = runs.results(output)
        names = sorted({*found, *self.wanted})
        return [name for name in names if found.get(name) != self.wanted.get(name)] + (
            runs.leftovers(output)
        )


def kill_at_random(scenario: str, workers: int, kills: int, folder: Path) -> dict[str, Any]:
    """Kill again and again until the run gets through; then begin anew, until there were enough."""
    arena = Arena(scenario, folder)
    dice = random.Random(workers)
    killed = finished = 0
    problems: list[str] = []
    output = folder / "killed"
    # With workers, the first part of a run is the start of a cluster.
    longest = arena.seconds + (2.0 if workers else 0.0)
    while killed < kills:
        if runs.kill_after(arena.start(output, workers), dice.uniform(0, longest)):
            killed += 1
            continue
        problems += arena.differences(output)
        shutil.rmtree(output)
        finished += 1
    if runs.ended(arena.start(output, workers)):
        problems.append("the last rerun failed")
    problems += arena.differences(output)
    return {"killed": killed, "finished": finished + 1, "problems": problems}


def kill_at_events(scenario: str, step: int, folder: Path) -> dict[str, Any]:
    """Kill at every ``step``-th change of the file tree, run again, compare; until none is left."""
    arena = Arena(scenario, folder, files=2, every=12)
    problems: list[str] = []
    event, killed = 1 - step, 0
    while True:
        event += step
        output = folder / f"event-{event}"
        status = runs.ended(arena.start(output, 0, die_at=event))
        if status == 0:
            return {"killed": killed, "events": event, "problems": problems}
        killed += 1
        if runs.ended(arena.start(output, 0)):
            problems.append(f"the rerun after event {event} failed")
        problems += [f"event {event}: {one}" for one in arena.differences(output)]
        shutil.rmtree(output)


def main(kind: str, scenario: str, *rest: str) -> None:
    """Do what the command line asks for."""
    *numbers, folder = rest
    action = {"random": kill_at_random, "events": kill_at_events}[kind]
    outcome = action(scenario, *map(int, numbers), Path(folder))  # type: ignore[operator]
    print(json.dumps(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])
