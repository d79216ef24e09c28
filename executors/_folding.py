"""The lines of many ranks, shown so that they can be read: those that say the same become one."""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

__all__ = ["LineFolder"]

_LINE = re.compile(r"\[(\d+)\] (.*)", re.DOTALL)
_MOST_WAITING = 512


class LineFolder:
    """Folds what ranks of a job print alike: `[0-63] text` for 64 lines `[0] text`, `[1] text`, ...

    The lines of every rank stay in their order; those of different ranks may change places.

    Args:
        world_size: Number of ranks.
    """

    def __init__(self, world_size: int) -> None:
        self._world_size = world_size
        self._groups: list[tuple[str, set[int]]] = []
        self._first = 0  # number of the first group that is still kept
        self._last: dict[int, int] = {}  # by rank, the number of the group with its last line

    def feed(self, lines: Iterable[str]) -> Iterator[str]:
        """Take lines of the joined log, and yield what no later line can become one with."""
        for line in lines:
            match = _LINE.fullmatch(line)
            if match is None:  # not of a rank
                yield from self.flush()
                yield line
                continue
            self._add(int(match[1]), match[2])
            if len(self._last) == self._world_size:
                yield from self._take(min(self._last.values()) + 1 - self._first)
            if len(self._groups) > _MOST_WAITING:
                yield from self._take(_MOST_WAITING // 2)

    def flush(self) -> Iterator[str]:
        """Yield what has been waiting for equal lines."""
        yield from self._take(len(self._groups))

    def _add(self, rank: int, text: str) -> None:
        after = max(self._last.get(rank, -1) + 1, self._first)
        for number in range(after, self._first + len(self._groups)):
            known, ranks = self._groups[number - self._first]
            if known == text:
                break
        else:
            number, ranks = self._first + len(self._groups), set()
            self._groups.append((text, ranks))
        ranks.add(rank)
        self._last[rank] = number

    def _take(self, count: int) -> Iterator[str]:
        taken, self._groups = self._groups[: max(0, count)], self._groups[max(0, count) :]
        self._first += len(taken)
        for text, ranks in taken:
            yield f"[{_ranges(ranks)}] {text}"


def _ranges(ranks: set[int]) -> str:
    """Return numbers in the way of `0-3,7`."""
    spans = []
    for _, pairs in groupby(enumerate(sorted(ranks)), key=lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in pairs]
        spans.append(str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}")
    return ",".join(spans)
