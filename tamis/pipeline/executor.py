"""Who runs the tasks: this process, or Dask (threads, local processes, or a cluster of yours).

Threads when every stage of the recipe releases the interpreter lock, processes otherwise. Batches never travel: a task is
told where to read and write, and what comes back is its record. Few tasks are under way at a time, so a plan of a million
tasks does not burden the scheduler. A worker that dies loses the task it had; Dask gives that task to another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from tamis.pipeline.errors import TamisError
from tamis.pipeline.isolation import run_attempt
from tamis.pipeline.plan import Task

OnRead = Callable[[int, int], None]
Record = dict[str, Any]

TASKS_IN_FLIGHT_PER_WORKER = 2
_TOPIC = "tamis-progress"
_REPORT_EVERY = 0.5


class Executor(Protocol):
    """Runs tasks in any order and gives their records as they come."""

    kind: str

    def run(self, tasks: Sequence[Task], on_read: OnRead) -> Iterator[tuple[Task, Record]]: ...

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any: ...


class SerialExecutor:
    """In this process, one task after the other (debugging, notebooks, tests)."""

    kind = "this process"

    def run(self, tasks: Sequence[Task], on_read: OnRead) -> Iterator[tuple[Task, Record]]:
        for task in tasks:
            yield task, run_attempt(task, on_read)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


class DaskExecutor:
    """On the workers of a Dask client."""

    def __init__(self, client: Any, kind: str) -> None:
        self.client = client
        self.kind = kind

    def run(self, tasks: Sequence[Task], on_read: OnRead) -> Iterator[tuple[Task, Record]]:
        from distributed import as_completed

        def heard(event: tuple[float, dict[str, int]]) -> None:
            on_read(event[1]["documents"], event[1]["bytes"])

        self.client.subscribe_topic(_TOPIC, heard)
        waiting = iter(tasks)
        running: dict[Any, Task] = {}
        completed = as_completed()

        def submit_next() -> None:
            task = next(waiting, None)
            if task is not None:
                future = self.client.submit(_run_on_worker, task, pure=False)
                running[future] = task
                completed.add(future)

        try:
            threads = sum(self.client.nthreads().values()) or 1
            for _ in range(threads * TASKS_IN_FLIGHT_PER_WORKER):
                submit_next()
            for future in completed:
                task = running.pop(future)
                yield task, _result(future, task)
                submit_next()
        finally:
            self.client.cancel(list(running))
            self.client.unsubscribe_topic(_TOPIC)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.client.submit(function, *arguments, pure=False).result()


def _result(future: Any, task: Task) -> Record:
    from distributed import KilledWorker

    try:
        record: Record = future.result()
    except KilledWorker:
        raise TamisError(
            f"every worker that took task {task.name} died, most likely for want of memory; "
            "give the workers more memory, or lower slice_size, and run again"
        ) from None
    return record


def _run_on_worker(task: Task) -> Record:
    """The task on a Dask worker, which tells the driver now and then how much it has read."""
    from distributed import get_worker

    worker = get_worker()
    pending = {"documents": 0, "bytes": 0}
    told = time.monotonic()

    def report(documents: int, size: int) -> None:
        nonlocal told
        pending["documents"] += documents
        pending["bytes"] += size
        if time.monotonic() - told > _REPORT_EVERY:
            told = time.monotonic()
            worker.log_event(_TOPIC, dict(pending))
            pending.update(documents=0, bytes=0)

    record = run_attempt(task, report)
    worker.log_event(_TOPIC, dict(pending))
    return record


@contextmanager
def open_executor(workers: int, scheduler: str | None, processes: bool) -> Iterator[Executor]:
    """``workers=0``: this process; ``workers=N``: N threads or processes; ``scheduler``: the cluster at that address.

    Raises TamisError when the scheduler cannot be reached.
    """
    if scheduler is None and workers == 0:
        yield SerialExecutor()
        return
    import dask
    from distributed import Client, LocalCluster

    quiet = {
        "distributed.worker.daemon": False,
        "distributed.scheduler.allowed-failures": 5,
        "distributed.admin.low-level-log-length": 0,
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
    }
    with dask.config.set(quiet):
        if scheduler is not None:
            try:
                client = Client(scheduler, timeout=20)
            except (OSError, ValueError) as error:
                raise TamisError(
                    f"no Dask scheduler answers at {scheduler} ({error}); check the address"
                ) from None
            with client:
                yield DaskExecutor(client, f"the cluster at {scheduler}")
            return
        shape = (
            {"n_workers": workers, "threads_per_worker": 1}
            if processes
            else {"n_workers": 1, "threads_per_worker": workers}
        )
        with (
            LocalCluster(
                processes=processes, dashboard_address=None, silence_logs=50, **shape
            ) as cluster,
            Client(cluster) as client,
        ):
            yield DaskExecutor(client, f"{workers} {'processes' if processes else 'threads'}")
