"""Merges equal lines of different ranks into one."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from executors.process.logs import LogReader

__all__ = ["FOLDING_SECONDS", "LineFolder", "new_lines"]

FOLDING_SECONDS = 0.5
"""How long a reader that follows a log waits for equal lines of other ranks."""

_LINE = re.compile(r"\[(\d+)\] (.*)", re.DOTALL)
_MOST_WAITING = 512


@dataclass(eq=False)
class _Group:
    """A line and the ranks that have printed it."""

    text: str
    ranks: set[int] = field(default_factory=set)


class LineFolder:
    """Merges equal lines of different ranks: `[0-63] text` for 64 lines `[0] text`, `[1] text`, ...

    The lines of each rank stay in order; lines of different ranks may be reordered.

    Args:
        world_size: Number of ranks.
    """

    def __init__(self, world_size: int) -> None:
        self._world_size = world_size
        self._groups: list[_Group] = []
        self._own: dict[int, list[_Group]] = {}  # the groups of each rank

    def feed(self, lines: Iterable[str]) -> Iterator[str]:
        """Take lines of the joined log, and yield merged lines that are complete."""
        for line in lines:
            match = _LINE.fullmatch(line)
            if match is None:  # not printed by a rank
                yield from self.flush()
                yield line
                continue
            group = self._add(int(match[1]), match[2])
            if len(group.ranks) == self._world_size:
                yield from self._take(self._groups.index(group) + 1)
            elif len(self._groups) > _MOST_WAITING:
                yield from self._take(_MOST_WAITING // 2)

    def flush(self) -> Iterator[str]:
        """Yield the lines that are still waiting for equal lines."""
        yield from self._take(len(self._groups))

    def _add(self, rank: int, text: str) -> _Group:
        own = self._own.setdefault(rank, [])
        place = self._groups.index(own[-1]) + 1 if own else 0
        group = next((group for group in self._groups[place:] if group.text == text), None)
        if group is None and text.strip():
            group = self._behind_own_lines(own, text)
        if group is None:
            group = _Group(text)
            self._groups.append(group)
        group.ranks.add(rank)
        own.append(group)
        return group

    def _behind_own_lines(self, own: list[_Group], text: str) -> _Group | None:
        """Return the group of a line that other ranks have printed before lines that only this rank has printed.

        Moves the lines of this rank, such as a warning, in front of the group, so that the rank can join it.
        """
        shared = max((number for number, group in enumerate(own) if len(group.ranks) > 1), default=-1)
        alone = own[shared + 1 :]
        if not alone:
            return None
        begin = self._groups.index(own[shared]) + 1 if shared >= 0 else 0
        between = self._groups[begin : self._groups.index(alone[-1])]
        found = next((group for group in between if group.text == text and group not in alone), None)
        if found is not None:
            self._groups = [group for group in self._groups if group not in alone]
            place = self._groups.index(found)
            self._groups[place:place] = alone
        return found

    def _take(self, count: int) -> Iterator[str]:
        taken, self._groups = self._groups[:count], self._groups[count:]
        for group in taken:
            for rank in group.ranks:
                self._own[rank].remove(group)
            yield f"[{_ranges(group.ranks)}] {group.text}"


def _ranges(ranks: set[int]) -> str:
    """Return ranks in the form `0-3,7`."""
    spans = []
    for _, pairs in groupby(enumerate(sorted(ranks)), key=lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in pairs]
        spans.append(str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}")
    return ",".join(spans)


def new_lines(reader: LogReader, folder: LineFolder | None) -> Iterator[str]:
    """Yield the lines that a log has got, merged if a folder is given."""
    for batch in reader.batches():
        yield from batch if folder is None else folder.feed(batch)
    if folder is not None:
        yield from folder.flush()
