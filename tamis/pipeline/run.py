"""A run from recipe to report: plan, do what is not done yet, fit between phases, balance the books.

What is already valid is found by the keys of the records (see ``plan``), so running again resumes, a changed threshold redoes
only what depends on it, and a finished run has nothing to do. The folder at the end holds exactly the files of this recipe.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tamis.pipeline.errors import TamisError
from tamis.pipeline.executor import Executor, open_executor
from tamis.pipeline.manifest import Timing, build_manifest
from tamis.pipeline.plan import (
    Phase,
    Plan,
    Task,
    check_accounting,
    digest,
    first_tasks,
    make_plan,
    next_tasks,
    stage_key,
)
from tamis.pipeline.progress import Progress
from tamis.pipeline.recipe import Recipe, Source
from tamis.pipeline.report import render
from tamis.pipeline.stages import Fitted, Summaries
from tamis.pipeline.statistics import Statistics
from tamis.pipeline.storage import TEMPORARY, RunFolder, explained
from tamis.pipeline.warmup import warm_up

OWNED = ("data", "ledger", "measures", "errors", "state")
"""The folders that a run fills; files in them that no record names are removed at the end."""

Record = dict[str, Any]


def run_recipe(
    recipe: Recipe,
    source: Source | None = None,
    *,
    workers: int = 0,
    scheduler: str | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    recipe_yaml: str = "",
) -> dict[str, Any]:
    """Run or resume; gives the manifest, which is then on disk with the report.

    Raises RecipeError for a wrong recipe, TamisError when the run cannot go on.
    """
    folder = RunFolder(recipe.output.path)
    timing = Timing()
    with progress or Progress(quiet=True) as progress, locked(folder):
        plan = make_plan(recipe, source or Source("recipe"))
        prepare_folder(folder, fresh)
        for note in plan.notes:
            progress.say(f"note: {note}")
        timing.compile_seconds = prepare_stages(plan, progress)
        processes = any(stage.needs_processes() for stage in recipe.stages)
        with open_executor(workers, scheduler, processes) as executor:
            records, facts = run_phases(plan, folder, executor, progress, timing)
        statistics = total(records)
        statistics_balance(statistics, recipe)
        remove_stale(folder, records, facts)
        timing.finish(executor.kind, workers)
        manifest = build_manifest(plan, folder, records, statistics, facts, timing, recipe_yaml)
        folder.write_json("manifest.json", manifest)
        with folder.write("report.html") as file:
            file.write(render(manifest).encode())
    return manifest


def run_phases(
    plan: Plan, folder: RunFolder, executor: Executor, progress: Progress, timing: Timing
) -> tuple[list[list[Record]], dict[str, Record]]:
    """All phases; gives the records of each in task order, and the record of each fitted stage."""
    records: list[list[Record]] = []
    fits: dict[str, Record] = {}
    for phase in plan.phases:
        started = time.perf_counter()
        states = {
            stage.name: fits[stage.name]["key"]
            for stage in phase.stages
            if isinstance(stage, Fitted)
        }
        folders = {name: fits[name]["folder"] for name in states}
        tasks = (
            next_tasks(plan, phase, folder, records[-1], states, folders)
            if records
            else first_tasks(plan, folder)
        )
        records.append(run_phase(phase, tasks, folder, executor, progress))
        if phase.summarizes is not None:
            progress.say(f"fitting {phase.summarizes.name}")
            fits[phase.summarizes.name] = executor.call(
                fit_stage, folder, phase, phase.summarizes, records[-1]
            )
        timing.phases.append(time.perf_counter() - started)
    return records, fits


def run_phase(
    phase: Phase, tasks: Sequence[Task], folder: RunFolder, executor: Executor, progress: Progress
) -> list[Record]:
    """The records of all tasks, those that were valid already included; the others are run."""
    valid = valid_records(tasks, folder)
    waiting = [task for task in tasks if task.number not in valid]
    done = sum(task.size for task in tasks if task.number in valid)
    progress.phase(phase, sum(task.size for task in tasks), done, len(tasks), len(valid))
    limit = tasks[0].recipe.max_errors if tasks else None
    failed = sum(_failed(record) for record in valid.values())
    for task, record in executor.run(waiting, progress.read):
        valid[task.number] = record
        statistics = Statistics.from_json(record["statistics"])
        progress.finished(task.size, statistics)
        failed += statistics.failed
        if limit is not None and failed > limit:
            raise TamisError(
                f"{failed} documents failed, more than max_errors: {limit}; the first: {_first_error(valid)} "
                f"(all of them are in {folder.full('errors')} and {folder.full('ledger')})"
            )
    return [valid[task.number] for task in tasks]


def valid_records(tasks: Sequence[Task], folder: RunFolder) -> dict[int, Record]:
    """The records of tasks that need not run again: same key, and every file as it was written."""

    def check(task: Task) -> Record | None:
        record: Record | None = folder.read_json(task.record)
        if record is None or record.get("key") != task.key:
            return None
        intact = all(folder.is_intact(name, identity) for name, identity in record["files"].items())
        return record if intact else None

    with ThreadPoolExecutor(4) as pool:
        found = zip(tasks, pool.map(check, tasks), strict=True)
        return {task.number: record for task, record in found if record is not None}


def fit_stage(folder: RunFolder, phase: Phase, stage: Fitted, records: Sequence[Record]) -> Record:
    """Fit a stage on the summaries of all tasks; its record says where the state lies and whether it is still valid."""
    summaries = [_summary(record) for record in records]
    key = digest(
        stage_key(stage), [records[index]["files"][name] for index, name in enumerate(summaries)]
    )
    where, record_name = f"state/{phase.name}/fitted", f"state/{phase.name}/fitted.json"
    known: Record | None = folder.read_json(record_name)
    if (
        known
        and known.get("key") == key
        and all(folder.is_intact(*one) for one in known["files"].items())
    ):
        return known
    started = time.perf_counter()
    base = Path(folder.full("state")) if folder.is_local else None
    scratch = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=base))
    facts = stage.fit(Summaries(folder.local(name) for name in summaries), scratch)
    folder.publish(scratch, where)
    files = {name: folder.identity(name) for name in folder.names(where)}
    seconds = time.perf_counter() - started
    record = {
        "key": key,
        "stage": stage.name,
        "folder": where,
        "files": files,
        "facts": facts,
        "wall_seconds": seconds,
    }
    folder.write_json(record_name, record)
    return record


def _summary(record: Record) -> str:
    return next(name for name in record["files"] if name.endswith(".summary.arrow"))


def prepare_stages(plan: Plan, progress: Progress) -> float:
    """Have every stage compile and load what it needs, once, here, before workers start; gives the seconds it took."""
    progress.say("preparing the stages (the first run on a machine compiles them; `tamis warmup` does it beforehand)")
    seconds = 0.0
    for name, spent in warm_up(plan.recipe.stages, plan.schema):
        seconds += spent
        if spent > 2:
            progress.say(f"  {name}: prepared in {spent:.1f} s")
    return seconds


def total(records: Sequence[Sequence[Record]]) -> Statistics:
    """The sum over the records of all phases."""
    statistics = Statistics()
    for phase in records:
        for record in phase:
            statistics.merge(Statistics.from_json(record["statistics"]))
    return statistics


def statistics_balance(statistics: Statistics, recipe: Recipe) -> None:
    """Nothing was lost, and something was read; raises TamisError otherwise."""
    check_accounting(
        statistics.documents,
        statistics.created,
        statistics.kept,
        statistics.dropped,
        statistics.failed,
    )
    if statistics.documents and statistics.failed == statistics.documents:
        first = (
            statistics.errors[0]
            if statistics.errors
            else {"file": "", "position": "", "reason": "unknown"}
        )
        raise TamisError(
            f"none of the {statistics.documents} documents could be used; the first: {first['file']} "
            f"({first['position']}): {first['reason']}"
        )


def prepare_folder(folder: RunFolder, fresh: bool) -> None:
    """Remove what is left of killed writes (or everything of an earlier run); refuse a folder with files of others."""
    ours = folder.exists("state") or folder.exists("manifest.json")
    foreign = [name for name in OWNED if name != "state" and not ours and folder.names(name)]
    if foreign:
        raise TamisError(
            f"{folder.full(foreign[0])} has files that no run wrote; choose an empty output folder (-o DIR)"
        )
    if fresh:
        for name in (*OWNED, "manifest.json", "report.html"):
            folder.remove(name)
    for name in OWNED:
        for left in folder.names(name):
            if f"/{TEMPORARY}" in left:
                folder.remove(left)


def remove_stale(
    folder: RunFolder, records: Sequence[Sequence[Record]], fits: Mapping[str, Record]
) -> None:
    """Delete files of an earlier recipe or input that this run's records do not name."""
    wanted = {"state/lock"}
    for number, phase in enumerate(records):
        for index, record in enumerate(phase):
            wanted |= {f"state/p{number}/{index:06d}.json", *record["files"]}
    for record in fits.values():
        wanted |= {f"{record['folder']}.json", *record["files"]}
    for name in OWNED:
        for found in folder.names(name):
            if found not in wanted:
                folder.remove(found)


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Only one run at a time may write into a (local) folder; raises TamisError when another one does."""
    if not folder.is_local:
        yield
        return
    path = Path(folder.full("state/lock"))
    with explained(folder.path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TamisError(
                f"another run is writing into {folder.path}; wait for it, or choose another folder (-o DIR)"
            ) from None
        yield
    finally:
        os.close(handle)


def _failed(record: Record) -> int:
    failed: int = record["statistics"]["failed"]
    return failed


def _first_error(records: Mapping[int, Record]) -> str:
    for number in sorted(records):
        for error in records[number]["statistics"]["errors"]:
            return f"{error['file']} {error['position']}: {error['reason']}"
    return "see the ledger"
