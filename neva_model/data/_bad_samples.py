"""The report of bad samples in a run directory, written by all ranks and their workers together."""

import json
from pathlib import Path

from neva_model.data._cache import lock_file
from neva_model.data.sample import BadSample

__all__ = ["BadSampleReport"]


class BadSampleReport:
    """Appends each bad sample once, whichever process meets it first, in this run and after a resume."""

    def __init__(self, path: Path) -> None:
        """Report to the JSONL file `path`; it is created with the first bad sample."""
        self._path = path
        self._known: set[tuple[str, int]] = set()

    def add(self, sample: BadSample) -> None:
        """Write one line for the sample unless it has one; of the first one the log of the run speaks as well."""
        key = (sample.data_path, sample.index)
        if key in self._known:
            return
        line = json.dumps(
            {"file": sample.data_path, "sample": sample.index, "id": sample.identity, "reason": sample.reason},
            ensure_ascii=False,
        )
        with lock_file(self._path):
            if not self._path.stat().st_size:
                said = f"skipped {sample}; every such sample is named in {self._path.name}"
                print(said.encode(errors="backslashreplace").decode(), flush=True)
            self._read()
            if key not in self._known:
                with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(line + "\n")
        self._known.add(key)

    def _read(self) -> None:
        for line in self._path.read_text(encoding="utf-8").split("\n"):
            try:
                entry = json.loads(line)
            except ValueError:
                # A line that a killed process has left unfinished.
                continue
            self._known.add((entry["file"], entry["sample"]))
