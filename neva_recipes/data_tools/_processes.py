"""Checks batches on all cores."""

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import NamedTuple

from neva_recipes.config import RunError
from neva_recipes.data_tools._batches import Batch
from neva_recipes.data_tools._checking import Checked, Checking
from neva_recipes.data_tools.settings import Settings
from neva_recipes.interruption import uninterrupted

__all__ = ["Result", "checked_batches", "cores"]

_AHEAD = 2
"""Batches for each process that wait to be checked, or to be taken."""


class Result(NamedTuple):
    """A batch, and what was found in it."""

    batch: Batch
    checked: Checked


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def checked_batches(batches: Iterable[Batch], settings: Settings, processes: int) -> Iterator[Result]:
    """Yield batches with what was found in them, in their order.

    Args:
        batches: The batches.
        settings: How they are checked.
        processes: Number of processes that check; with 1 it is this one.

    Raises:
        DataError: A file cannot be read.
        RunError: A process was killed.
    """
    if processes == 1:
        checking = Checking(settings)
        yield from (Result(batch, checking.check(batch)) for batch in batches)
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _start, (settings,))
    waiting = deque[tuple[Batch, Future[Checked]]]()
    try:
        for batch in batches:
            with uninterrupted():  # a new process does not print where Ctrl-C has met it
                waiting.append((batch, pool.submit(_check, batch)))
            if len(waiting) > processes * _AHEAD:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    except BrokenProcessPool:
        raise RunError("a process that checks was killed, as for want of memory: check fewer files at a time") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _result(batch: Batch, future: "Future[Checked]") -> Result:
    return Result(batch, future.result())


_checking: Checking | None = None
"""That of a process that does nothing but check."""


def _start(settings: Settings) -> None:
    global _checking
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _checking = Checking(settings)


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, however that happened."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _check(batch: Batch) -> Checked:
    assert _checking is not None
    return _checking.check(batch)
