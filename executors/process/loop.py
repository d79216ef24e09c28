"""Event loop for the output of this machine's ranks and for signals. Standard library only."""

import contextlib
import os
import selectors
import signal
from collections.abc import Callable, Iterable

from executors.process.linux import kill_children
from executors.process.rank import Joined, Rank
from neva_recipes.run_directory.exit_codes import STOP_SIGNAL

__all__ = ["RankLoop"]


class RankLoop:
    """Copies the output of ranks to their logs, reaps every child of this process, and handles signals.

    A process can have only one, because it installs signal handlers.

    Attributes:
        joined: Receives the lines of every rank in addition to the rank's own log.
        ranks: The ranks that were started.
    """

    def __init__(
        self,
        joined: Joined,
        signals: Iterable[signal.Signals],
        on_signals: Callable[[bytes], None],
        on_end: Callable[[Rank], None] | None = None,
    ) -> None:
        """Install the signal handlers.

        Args:
            joined: See the attribute.
            signals: Signals to handle in addition to SIGCHLD.
            on_signals: Called with the numbers of the signals received, after ended children have been reaped.
            on_end: Called for each rank that has ended, after it has been reaped.
        """
        self.joined = joined
        self.ranks: list[Rank] = []
        self._on_signals = on_signals
        self._on_end = on_end
        self._selector = selectors.DefaultSelector()
        read_end, write_end = os.pipe()
        for descriptor in (read_end, write_end):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, *signals):
            signal.signal(number, lambda *_: None)
        # The parent of this process may have blocked the stop signal.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {STOP_SIGNAL})
        self.watch(read_end, self._take_signals)

    def watch(self, descriptor: int, take: Callable[[int], None]) -> None:
        """Call a function with a descriptor whenever the descriptor is readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, take)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching a descriptor."""
        self._selector.unregister(descriptor)

    def add(self, rank: Rank) -> None:
        """Read the output of a rank that was started."""
        self.ranks.append(rank)
        self._selector.register(rank.output, selectors.EVENT_READ, rank)

    @property
    def goes_on(self) -> bool:
        """Whether a rank has not ended yet."""
        return any(rank.exit_code is None for rank in self.ranks)

    def step(self, timeout: float | None) -> None:
        """Wait for output and signals, and handle them.

        Args:
            timeout: Seconds to wait at most; `None` for no limit.
        """
        for key, _ in self._selector.select(timeout):
            if not isinstance(key.data, Rank):
                key.data(key.fd)
            elif not key.data.read(self.joined):
                self.unwatch(key.fd)

    def finish(self) -> None:
        """Kill the processes that the ranks have left behind, and write the rest of the ranks' output."""
        kill_children()
        for rank in self.ranks:
            rank.read(self.joined)
            rank.finish_log(self.joined)

    def _take_signals(self, descriptor: int) -> None:
        numbers = os.read(descriptor, 4096)
        if signal.SIGCHLD in numbers:
            self._reap()
        self._on_signals(numbers)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                for rank in self.ranks:
                    if rank.pid == pid and rank.exit_code is None:
                        rank.exit_code = os.waitstatus_to_exitcode(status)
                        if self._on_end is not None:
                            self._on_end(rank)
