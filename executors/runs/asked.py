"""Describes evaluations in words; tells data files of one name apart by folder, content and time."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from executors.runs.results import Evaluation
from neva_recipes.config import expand_path
from neva_recipes.storage.digests import digests_of

__all__ = ["asked_texts", "evaluation_lines"]


def evaluation_lines(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return a distinct line for each evaluation."""
    lines = [found.summary(text) for found, text in zip(evaluations, asked_texts(evaluations), strict=True)]
    count = Counter(lines)
    return [
        line if count[line] == 1 else f"{line}, {_moment(found)}"
        for found, line in zip(evaluations, lines, strict=True)
    ]


def asked_texts(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the questions of each evaluation in words, distinct for different files and contents."""
    groups: dict[str, list[Evaluation]] = {}
    for found in evaluations:
        groups.setdefault(found.questions_text, []).append(found)
    names = {text: _names(members) for text, members in groups.items()}
    return [names[found.questions_text][found] for found in evaluations]


def _names(evaluations: Sequence[Evaluation]) -> Mapping[Evaluation, str]:
    """Return the questions in words of evaluations whose file names alone would give the same text."""
    paths = _short({found.data: found.files for found in evaluations})
    contents = {(found.data, found.digests) for found in evaluations}
    versions = Counter(data for data, _ in contents)
    now = {data: _digests_now(data, evaluations) for data, count in versions.items() if count > 1}
    return {
        found: found.asked(paths[found.data] + (_state(found, now[found.data]) if found.data in now else ""))
        for found in evaluations
    }


def _short(files: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return a name for each list of files, with as many parent folders as needed to make it distinct."""
    deepest = max(1, *(len(Path(name).parts) for names in files.values() for name in names))
    shown: dict[str, str] = {}
    for depth in range(1, deepest + 1):
        names = {data: ", ".join(_end(Path(name), depth) for name in files[data]) for data in files}
        count = Counter(names.values())
        shown |= {data: name for data, name in names.items() if data not in shown and count[name] == 1}
    return {data: shown.get(data, data) for data in files}


def _end(path: Path, depth: int) -> str:
    return str(Path(*path.parts[-depth:]))


def _digests_now(data: str, evaluations: Iterable[Evaluation]) -> tuple[str, ...] | None:
    """Return the present digests of data files; `None` if they cannot be read."""
    files = [expand_path(name) for name in next(found.files for found in evaluations if found.data == data)]
    if not all(file.is_absolute() for file in files):  # relative to an unknown folder
        return None
    try:
        digests = digests_of(files)
    except OSError:
        return None
    return tuple(digests[file] for file in files)


def _state(found: Evaluation, now: tuple[str, ...] | None) -> str:
    is_one = len(found.files) == 1
    if found.digests and found.digests == now:
        return f" as {'it is' if is_one else 'they are'} now"
    return f" as {'it was' if is_one else 'they were'} on {_moment(found)}"


def _moment(found: Evaluation) -> str:
    return f"{datetime.fromisoformat(found.written):%Y-%m-%d %H:%M:%S}"
