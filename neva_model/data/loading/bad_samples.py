"""The report on bad samples in a run directory, written by all ranks and their workers."""

import json
from pathlib import Path
from typing import BinaryIO

from neva_model.data._cache import lock_file
from neva_model.data.sample import BadSample

__all__ = ["BadSampleReport"]


class BadSampleReport:
    """Appends each bad sample once, whichever process meets it first, also across resumes."""

    def __init__(self, path: Path) -> None:
        """Report to the JSONL file `path`; it is created with the first bad sample."""
        self._path = path
        self._known: set[tuple[str, int]] = set()
        self._read_to = 0  # bytes of the report

    def add(self, *samples: BadSample) -> None:
        """Write one line for every sample that has none; the first sample of a run is also named in the log."""
        if all(_key(sample) in self._known for sample in samples):
            return
        with lock_file(self._path):
            if not self._path.stat().st_size:
                said = f"skipped {samples[0]}; every such sample is named in {self._path.name}"
                print(said.encode(errors="backslashreplace").decode(), flush=True)
            with self._path.open("a+b") as file:
                if not self._read(file):
                    file.write(b"\n")
                for sample in samples:
                    if _key(sample) not in self._known:
                        self._known.add(_key(sample))
                        file.write(_line(sample).encode(errors="backslashreplace"))
                file.flush()
                self._read_to = file.tell()

    def _read(self, file: BinaryIO) -> bool:
        """Read what has been written since the last look; return whether the last line is complete."""
        file.seek(self._read_to)
        line = b"\n"
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                # An incomplete line of a killed process.
                continue
            self._known.add((entry["file"], entry["sample"]))
        return line.endswith(b"\n")


def _key(sample: BadSample) -> tuple[str, int]:
    return sample.data_path, sample.index


def _line(sample: BadSample) -> str:
    entry = {"file": sample.data_path, "sample": sample.index, "id": sample.identity, "reason": sample.reason}
    return f"{json.dumps(entry, ensure_ascii=False)}\n"
