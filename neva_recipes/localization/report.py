"""What a model was before it learnt a language, and what it is now: the last stage of `gpt.localize`."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from neva_recipes.config import RunError, build, listed_paths, load_recipe
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.run_directory.metrics import (
    VAL_LOSS,
    VAL_PERPLEXITY,
    Curve,
    metric_of_file,
    read_metrics,
    validation_names,
)
from neva_recipes.storage.whole import written_whole
from neva_recipes.table import table_lines
from neva_recipes.terminal import print_text
from neva_recipes.tokenizers import compare

__all__ = ["main"]

_LANGUAGES = ("new", "old")


def main(arguments: Sequence[str]) -> int:
    """Print and write a table of the tokenizers, the perplexities and what the models write.

    Args:
        arguments: Flags and the file to write.

    Returns:
        The exit code.

    Raises:
        UserError: A tokenizer, a text or the run cannot be read, or the file cannot be written.
    """
    given = _parse(arguments)
    rows = [["", "before", "after"], *_fertility(given), *_perplexities(given.run)]
    lines = [*table_lines(rows, words=1)]
    if given.written_before is not None:
        lines += ["", *_written(given.written_before, given.written_after)]
    print_text("\n".join(lines))
    with written_whole(given.output, "file") as unfinished:
        unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="localization report", allow_abbrev=False)
    parser.add_argument("output", type=Path)
    parser.add_argument("--tokenizer-before", required=True)
    parser.add_argument("--tokenizer-after", required=True)
    for language in _LANGUAGES:
        parser.add_argument(f"--{language}-text", type=Path, action="append", required=True)
    parser.add_argument("--json-keys", default="text")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--written-before", type=Path)
    parser.add_argument("--written-after", type=Path)
    return parser.parse_args(arguments)


def _fertility(given: argparse.Namespace) -> Iterator[list[str]]:
    for language in _LANGUAGES:
        texts, keys = getattr(given, f"{language}_text"), given.json_keys.split(",")
        found = compare([given.tokenizer_before, given.tokenizer_after], texts, keys)
        whole = found.scripts[0]
        yield [f"tokens a word, {language} text", *(f"{cost.tokens / max(1, whole.words):.2f}" for cost in whole.costs)]


def _perplexities(run: Path) -> Iterator[list[str]]:
    """Yield the first and the last perplexity of each validation file, or its loss where that is all there is."""
    metrics = read_metrics(run)
    names = validation_names(listed_paths(build(load_recipe(run / RECIPE_FILE)).data.validation_data_path))
    for name in names if len(names) > 1 else [None]:
        # Of new/text/validation, the folder of a stage, the name of the stage is enough.
        shown = "" if name is None else f", {name.partition('/')[0]} text"
        for metric, meaning in ((VAL_PERPLEXITY, "perplexity"), (VAL_LOSS, "loss")):
            curve = metrics.get(metric_of_file(metric, name))
            if curve is not None:
                yield [f"{meaning}{shown}", *_ends(curve)]
                break
        else:
            raise RunError(f"{run}: has logged no validation{shown}: the report compares the first with the last")


def _ends(curve: Curve) -> list[str]:
    return [f"{curve.values[index]:,.2f} (step {curve.steps[index]})" for index in (0, -1)]


def _written(before: Path, after: Path) -> Iterator[str]:
    """Yield what both models write after each prompt."""
    # The lines of JSON end at "\n" alone: a text may hold other ends of lines.
    lines = [path.read_text(encoding="utf-8").rstrip("\n").split("\n") for path in (before, after)]
    for first, second in zip(*lines, strict=True):
        old, new = json.loads(first), json.loads(second)
        yield f"prompt: {old['prompt']}"
        yield f"  before: {_one_line(old['text'])}"
        yield f"  after:  {_one_line(new['text'])}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
