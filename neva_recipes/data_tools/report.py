"""What a check of data files has found."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from neva_recipes.data_tools.kinds import KINDS
from neva_recipes.data_tools.settings import Counts, Finding, Settings

__all__ = ["LISTED", "FileReport", "OfKind", "Report"]

LISTED = 1000
"""Findings of each kind and file that are kept with all that is known of them; of others only the sample's number."""


@dataclass
class OfKind:
    """The findings of a kind in a file.

    Attributes:
        numbers: The number of each sample; one with several findings of the kind counts once.
        listed: The first findings.
    """

    numbers: "array[int]" = field(default_factory=lambda: array("Q"))
    listed: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Add a finding; those of a sample follow each other."""
        if self.numbers and self.numbers[-1] == finding.number:
            return
        self.numbers.append(finding.number)
        if len(self.listed) < LISTED:
            self.listed.append(finding)


@dataclass
class FileReport:
    """What was found in a file.

    Attributes:
        path: The file.
        counts: What was counted.
        found: The findings by their kinds.
        lost: Why the first missing image is missing, and what to do; empty if unknown, or if none is.
        endings: The right endings of images that lack them: number of the sample, name, ending.
    """

    path: Path
    counts: Counts = field(default_factory=Counts)
    found: dict[str, OfKind] = field(default_factory=dict)
    lost: str = ""
    endings: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Add a finding."""
        self.found.setdefault(finding.kind, OfKind()).add(finding)

    def leave_out_lines(self) -> None:
        """Forget in which lines the samples of findings begin."""
        for found in self.found.values():
            found.listed = [finding._replace(line=None) for finding in found.listed]

    def by_kind(self) -> Iterator[tuple[str, OfKind]]:
        """Yield the kinds that were found, in the order of reports, with their findings."""
        yield from ((kind, self.found[kind]) for kind in KINDS if kind in self.found)


@dataclass(frozen=True)
class Report:
    """What was found in several files.

    Attributes:
        settings: How they were checked.
        files: What was found in each.
    """

    settings: Settings
    files: list[FileReport]

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not any(file.found for file in self.files)

    @property
    def counts(self) -> Counts:
        """What was counted in all files."""
        total = Counts()
        for file in self.files:
            total.add(file.counts)
        return total
