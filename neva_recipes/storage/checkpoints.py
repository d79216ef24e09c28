"""Reads and verifies the records (checkpoint.json) of checkpoints."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from neva_recipes.config import CheckpointError, PlainTable
from neva_recipes.run_directory.layout import CHECKPOINTS, JOB_FILE
from neva_recipes.run_directory.names import INFORMATION_FILE, is_shard, list_checkpoints, listed_step, step_of
from neva_recipes.storage.digests import text_digest, wrong_file

__all__ = ["next_best", "read_record", "record_text", "require_files", "way_back", "what_is_wrong"]

_OWN_DIGEST = "digest"


def record_text(record: Mapping[str, object]) -> str:
    """Return the text of checkpoint.json: the record with its own digest."""
    text = json.dumps({**record, _OWN_DIGEST: ""}, indent=2) + "\n"
    return _with_own_digest(text, "", text_digest(text))


def _with_own_digest(text: str, old: str, new: str) -> str:
    before, field, after = text.rpartition(f'"{_OWN_DIGEST}": "{old}"')
    return before + field.replace(f'"{old}"', f'"{new}"') + after


def read_record(checkpoint: Path) -> PlainTable:
    """Return the content of checkpoint.json; does not check the other files.

    Raises:
        CheckpointError: It is missing, unreadable, or was changed after it was written.
    """
    source = checkpoint / INFORMATION_FILE
    try:
        text = source.read_text(encoding="utf-8")
        record: PlainTable = json.loads(text)
        own = record.pop(_OWN_DIGEST, None)
        sizes, digests = record.setdefault("files", {}), record.setdefault("digests", {})
        if not all(isinstance(size, int) for size in sizes.values()) or not isinstance(digests, dict):
            raise TypeError("files: expected a size of each")
    except FileNotFoundError:
        raise CheckpointError(f"{checkpoint}: {INFORMATION_FILE} is missing: not a complete checkpoint") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{source}: cannot be read: {error}") from None
    # Records of older versions have no digest.
    if own is not None and text_digest(_with_own_digest(text, own, "")) != own:
        raise CheckpointError(f"{source}: is damaged, or was changed by hand: it is not the text that was written")
    return record


def what_is_wrong(checkpoint: Path, *, with_shards: bool) -> str | None:
    """Return a line about the first problem with a checkpoint; `None` if it is intact.

    Args:
        checkpoint: The directory.
        with_shards: Whether to read the tensors too, which takes as long as the disk needs; otherwise only their sizes
            are checked.
    """
    try:
        record = read_record(checkpoint)
    except CheckpointError as error:
        return str(error)
    for name, size in record["files"].items():
        try:
            actual = (checkpoint / name).stat().st_size
        except OSError:
            return f"{checkpoint / name}: is missing"
        if actual != size:
            return f"{checkpoint / name}: has {actual} bytes, expected {size}: damaged"
    looked_at = {name: digest for name, digest in record["digests"].items() if with_shards or not is_shard(name)}
    return wrong_file(checkpoint, looked_at, INFORMATION_FILE)


def require_files(checkpoint: Path) -> None:
    """Check that all files of a checkpoint exist with their sizes, and that the small ones are intact.

    Raises:
        CheckpointError: A file is missing or damaged; the message says what can be used instead.
    """
    if (problem := what_is_wrong(checkpoint, with_shards=False)) is not None:
        raise CheckpointError(f"{problem}; {next_best(checkpoint)}")


def next_best(checkpoint: Path) -> str:
    """Return what to use instead of a damaged checkpoint, with the command; the checkpoint that it names is intact."""
    run = checkpoint.parent.parent
    is_run = checkpoint.parent.name == CHECKPOINTS and (run / JOB_FILE).is_file()
    for other in _others(checkpoint):
        if what_is_wrong(other, with_shards=True) is None:
            command = f"nemo-run resume {shlex.quote(str(run))} --from step-{step_of(other)}, or " if is_run else ""
            return f"the next best is {other.name}: {command}{other} where a checkpoint is asked for"
    if not is_run:
        return "there is no whole checkpoint beside it"
    return f"the run has no whole checkpoint: nemo-run rerun {shlex.quote(str(run))} starts it anew"


def way_back(run: Path, step: int) -> str:
    """Return how to resume a run that has diverged: from a checkpoint before the weights that caused it.

    Args:
        run: Directory of the run.
        step: The step in which the divergence was seen.
    """
    found = list_checkpoints(run / CHECKPOINTS)
    spoilt = [path for path in found if listed_step(path) >= step - 1]
    if not spoilt:
        return ""
    for other in reversed(found[: -len(spoilt)]):
        if what_is_wrong(other, with_shards=False) is None:
            command = f"nemo-run resume {shlex.quote(str(run))} --from step-{step_of(other)}"
            return f"; the weights of {spoilt[0].name} have led there: {command} goes on from before"
    return f"; the weights of {spoilt[0].name} have led there: nemo-run rerun {shlex.quote(str(run))} starts anew"


def _others(checkpoint: Path) -> Iterator[Path]:
    """Yield the other checkpoints of a run: first the earlier ones, the nearest first, then the later ones."""
    found = [path for path in list_checkpoints(checkpoint.parent) if path != checkpoint]
    step = step_of(checkpoint)
    before = [path for path in found if step is None or listed_step(path) < step]
    yield from reversed(before)
    yield from (path for path in reversed(found) if path not in before)
