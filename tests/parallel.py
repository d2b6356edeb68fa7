"""Many small tasks over the machine's cores, with progress, for the commands that are too long for a test."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .threads import processors


def in_parallel(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, ...]],
    *,
    what: str,
    total: int,
    workers: int | None = None,
    minutes: float | None = None,
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each task with function(*task), in the order in which they are done; no task is begun once the minutes are over.

    function is importable by name, tasks can be pickled: a worker is a new process, of one thread.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    workers = workers or processors()
    end = time.monotonic() + 60 * minutes if minutes else float("inf")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console, finished = Console(stderr=True), 0
    with (
        Progress(*columns, TimeRemainingColumn(), console=console, refresh_per_second=2) as progress,
        ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        bar = progress.add_task(what, total=total)
        left, pending = iter(tasks), dict[Any, tuple[Any, ...]]()
        while True:
            while len(pending) < 2 * workers and time.monotonic() < end and (task := next(left, None)) is not None:
                pending[pool.submit(function, *task)] = task
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                progress.advance(bar)
                finished += 1
                if not console.is_terminal and finished % max(1, total // 20) == 0:
                    console.print(f"{what}: {finished} of {total}")
                yield pending.pop(future), future.result()
