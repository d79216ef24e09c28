"""The folder in which indexed datasets are written until they are whole, and from which a killed process goes on."""

import fcntl
import json
import os
import shutil
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from neva_recipes.config import CheckpointError, DataError, PlainTable, RunError
from neva_recipes.sources.indexed import INDEX_ENDING, TOKENS_ENDING, TOKENS_FILE, TokenType, index_header
from neva_recipes.storage.exports import cannot_be_written, require_new
from neva_recipes.token_data._encoding import Encoded
from neva_recipes.token_data.settings import PARTS, Counts, Place

__all__ = ["Work", "work_folder"]

_STATE, _DATA, _LENGTHS = "reached.json", "data", ".lengths"

_AT_ONCE = 2**20


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """Give the hidden folder beside a target in which this process alone may write.

    It is there already if a process was killed, and is removed after an error of what is read. A process that is
    interrupted leaves it, and so does one that lacks memory or room: the same command goes on from there.

    Raises:
        CheckpointError: The target exists or cannot be written.
        RunError: Another process is writing it.
    """
    if not target.name:  # `.` and `/`, which nothing can stand beside
        require_new(target, "folder")
    folder = target.with_name(f".{target.name}.unfinished")
    _remove_done(folder)
    require_new(target, "folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _held(folder, target):
            try:
                yield folder
            except (DataError, CheckpointError):
                shutil.rmtree(folder, ignore_errors=True)
                raise
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise cannot_be_written(target, error) from None


def _remove_done(folder: Path) -> None:
    """Remove what a process has left that was killed when the target was whole already."""
    with suppress(OSError, RunError), _held(folder, folder):
        if not (folder / _DATA).exists() and (folder / _STATE).exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path, target: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RunError(f"{target}: another process is writing it: wait for its end, or name another folder") from None
    finally:
        os.close(descriptor)


class Work:
    """What has been written so far.

    Attributes:
        place: Where the records end that it was made of.
        counts: What was counted in them.
        in_file: Documents of the file in which they end.
        goes_on: Whether a killed process has written some of it.
        documents: Documents of each part.
        tokens: Tokens of each part.
    """

    def __init__(self, folder: Path, made_of: PlainTable, kind: TokenType, parts: Sequence[int]) -> None:
        """Begin, or go on with what a killed process has made of the same files in the same way.

        Args:
            folder: The folder to write in.
            made_of: What determines the content.
            kind: The type of tokens.
            parts: The parts that get documents, by their numbers.

        Raises:
            OSError: The folder cannot be written.
        """
        self._folder, self._data = folder, folder / _DATA
        self._made_of, self._kind = made_of, kind
        self.place, self.counts, self.in_file = Place(), Counts(), 0
        self.documents, self.tokens = dict.fromkeys(parts, 0), dict.fromkeys(parts, 0)
        self.goes_on = self._read_state()
        if not self.goes_on:
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self._data.mkdir()
        self._files = {part: self._open(part) for part in parts}
        self.save()

    def _read_state(self) -> bool:
        try:
            state = json.loads((self._folder / _STATE).read_text(encoding="utf-8"))
            if state["made_of"] != json.loads(json.dumps(self._made_of)):
                return False
            self.place, self.counts, self.in_file = Place(*state["place"]), Counts(*state["counts"]), state["in_file"]
            self.documents = {int(part): count for part, count in state["documents"].items()}
            self.tokens = {int(part): count for part, count in state["tokens"].items()}
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return self._data.is_dir()

    def _open(self, part: int) -> tuple[BinaryIO, BinaryIO]:
        sizes = (self._data / f"{PARTS[part]}{TOKENS_ENDING}", self.tokens[part] * self._kind.size)
        counts = (self._folder / f"{PARTS[part]}{_LENGTHS}", self.documents[part] * 4)
        found = []
        for path, size in (sizes, counts):
            file = path.open("r+b" if path.exists() else "w+b")
            file.truncate(size)
            file.seek(size)
            found.append(file)
        return found[0], found[1]

    def add(self, encoded: Encoded) -> None:
        """Write an encoded batch.

        Raises:
            OSError: It cannot be written.
        """
        for part, (tokens, lengths) in self._files.items():
            tokens.write(encoded.parts[part].tokens)
            lengths.write(encoded.parts[part].lengths)
            self.tokens[part] += len(encoded.parts[part].tokens) // self._kind.size
            self.documents[part] += len(encoded.parts[part].lengths) // 4
        self.place, self.counts = encoded.end, self.counts.with_more(encoded.counts)
        self.in_file = 0 if encoded.ends_file else self.in_file + encoded.counts.documents

    def save(self) -> None:
        """Have a process that follows a killed one go on from here.

        Raises:
            OSError: It cannot be written.
        """
        for file in (file for pair in self._files.values() for file in pair):
            file.flush()
            os.fsync(file.fileno())
        state = {
            "made_of": self._made_of,
            "place": self.place,
            "counts": self.counts,
            "in_file": self.in_file,
            "documents": self.documents,
            "tokens": self.tokens,
        }
        new = self._folder / f"{_STATE}.new"
        new.write_text(json.dumps(state), encoding="utf-8")
        new.rename(self._folder / _STATE)

    def close(self) -> None:
        """Close the files."""
        for file in (file for pair in self._files.values() for file in pair):
            with suppress(OSError):  # what cannot be written has been told
                file.close()

    def finish(self, target: Path, made: PlainTable) -> None:
        """Write the indices and what the datasets are made of, and give the folder its name.

        Args:
            target: The name.
            made: The content of `TOKENS_FILE`.

        Raises:
            CheckpointError: The target exists by now.
            OSError: It cannot be written.
        """
        self.save()
        self.close()
        for part, count in self.documents.items():
            if not count:
                (self._data / f"{PARTS[part]}{TOKENS_ENDING}").unlink(missing_ok=True)
                continue
            lengths = self._folder / f"{PARTS[part]}{_LENGTHS}"
            _write_index(self._data / f"{PARTS[part]}{INDEX_ENDING}", lengths, count, self._kind)
        text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        (self._data / TOKENS_FILE).write_text(text, encoding="utf-8", errors="backslashreplace")
        for path in (*self._data.iterdir(), self._data):
            _sync(path)
        require_new(target, "folder")
        self._data.rename(target)


def _write_index(path: Path, lengths: Path, count: int, kind: TokenType) -> None:
    """Write an index as Megatron's builder does, for documents that are one sequence each."""
    with path.open("wb") as index, lengths.open("rb") as file:
        index.write(index_header(kind, count))
        shutil.copyfileobj(file, index)
        file.seek(0)
        place = 0
        while block := file.read(4 * _AT_ONCE):
            places = array("q")
            for length in array("i", block):
                places.append(place)
                place += length * kind.size
            index.write(places)
        for start in range(0, count + 1, _AT_ONCE):
            index.write(array("q", range(start, min(count + 1, start + _AT_ONCE))))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
