"""Finds out which runs of a folder are named in the recipe or job of another run."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from executors.runs.run import Run
from neva_recipes.run_directory.layout import JOB_FILE, RECIPE_FILE
from neva_recipes.run_directory.stages import STAGES, pipeline_of
from neva_recipes.run_directory.state import read_small_text

__all__ = ["References", "owner_of"]

_WORDS = re.compile(r"[^\w.+@%-]+")


def owner_of(run: Run) -> Run | None:
    """Return the pipeline that a run is a stage of; `None` if it is no stage."""
    pipeline = pipeline_of(run.path)
    return None if pipeline is None else Run(pipeline)


class References:
    """An index of all strings in the recipes and jobs of runs, to search them for names of runs.

    Each string is split into words once, so that the time grows only linearly with the number of runs. A name with a
    separator of words, such as a space, is searched for in every string.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        """Read the recipes and jobs of runs."""
        self._texts: dict[str, set[Path]] = {}
        for run in runs:
            for text in _texts_of(run):
                self._texts.setdefault(text, set()).add(run.path)
        self._answers: dict[Path, bool] = {}
        self._by_word: dict[str, list[str]] = {}
        for text in self._texts:
            for word in set(_WORDS.split(text)):
                self._by_word.setdefault(word, []).append(text)

    def is_needed(self, run: Run) -> bool:
        """Return whether another run names this one, or the pipeline that it is a stage of."""
        # Compares names and not paths, because the same folder may be mounted or linked elsewhere.
        owner = owner_of(run)
        if owner is None:
            return self._is_named(run.path, run.name, run.name)
        stage = f"{owner.name}/{STAGES}/{run.name}"
        return self._is_named(run.path, owner.name, stage) or self._is_named(owner.path, owner.name, owner.name)

    def _is_named(self, path: Path, directory: str, name: str) -> bool:
        texts = self._texts if _WORDS.search(directory) else self._by_word.get(directory, [])
        return any(path not in (other, *other.parents) for text in texts if name in text for other in self._texts[text])


def _texts_of(run: Run) -> set[str]:
    """Return every string in the recipe and the job of a run; the whole text of a file that cannot be parsed."""
    texts: set[str] = set()
    for name, parse in ((RECIPE_FILE, _parse_yaml), (JOB_FILE, json.loads)):
        with contextlib.suppress(OSError):
            text = read_small_text(run.path / name, errors="replace")
            try:
                texts.update(_strings(parse(text)))
            except (ValueError, RecursionError, yaml.YAMLError):
                texts.add(text)
    return texts


def _parse_yaml(text: str) -> Any:
    # Plain YAML is enough, even for recipes of older versions, and libyaml takes a tenth of the time.
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _strings(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)
