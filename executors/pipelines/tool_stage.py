"""tool.json: the tool of a stage that trains nothing."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neva_recipes.config import Draft, RunError, config, expand_path, field_types, is_here_path, listed_paths
from neva_recipes.pipeline import (
    Evaluate,
    Export,
    ExtendVocabulary,
    Generate,
    LocalizationReport,
    MergeTokenizers,
    TokenizeText,
    Tool,
    TrainTokenizer,
)
from neva_recipes.run_directory.stages import TOOL_FILE
from neva_recipes.run_directory.state import read_json

__all__ = ["output_of_tool", "saved_tool", "tool_text"]

_KINDS: dict[str, type[Tool]] = {
    kind.module: kind
    for kind in (
        Evaluate,
        Export,
        ExtendVocabulary,
        Generate,
        LocalizationReport,
        MergeTokenizers,
        TokenizeText,
        TrainTokenizer,
    )
}


def tool_text(tool: Tool, run_dir: Path, chosen: Mapping[str, str], *, on_gpu: bool) -> str:
    """Return the text of a stage's tool.json: its program, the arguments, and the fields as the user gave them.

    It also holds what a container for the tool needs: the paths it reads, and whether it uses a GPU.

    Args:
        tool: The tool.
        run_dir: Directory of the stage.
        chosen: Fields that the user has left open, with what the tool takes in their place; chosen anew whenever other
            fields change.
        on_gpu: Whether it uses a GPU.
    """
    fields = {field.name: getattr(tool, field.name) for field in dataclasses.fields(tool)}
    whole = dataclasses.replace(tool, **chosen)
    record = {
        "module": tool.module,
        "function": tool.function,
        "arguments": whole.argv(str(run_dir / tool.output)),
        "fields": fields,
        "reads": list(map(str, _read_paths(whole))),
        "on_gpu": on_gpu,
    }
    return json.dumps(record, indent=2)


def _read_paths(tool: Tool) -> list[Path]:
    """Return the files and folders that a tool reads beside its model."""
    kind: Any = type(tool)
    named = [
        path
        for name, annotation in field_types(kind).items()
        if name != "model" and is_here_path(annotation)
        for path in listed_paths(getattr(tool, name))
    ]
    paths = [expand_path(path).absolute() for path in named]
    if isinstance(tool, Evaluate) and not tool.image_folder:
        paths += [path.parent for path in paths]
    return list(dict.fromkeys(paths))


def output_of_tool(run_dir: Path) -> Path:
    """Return the path of what the tool of a stage makes; versions that kept no fields of it named its module too.

    Raises:
        RunError: tool.json cannot be read.
    """
    try:
        return run_dir / _KINDS[read_json(run_dir / TOOL_FILE)["module"]].output
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{run_dir / TOOL_FILE}: cannot be read: {type(error).__name__}: {error}") from None


def saved_tool(run_dir: Path) -> Draft[Tool]:
    """Return the config of a stage's tool.

    Raises:
        RunError: It cannot be read, or is of an older version that did not keep its fields.
    """
    try:
        record = read_json(run_dir / TOOL_FILE)
        return config(_KINDS[record["module"]], **record["fields"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{run_dir / TOOL_FILE}: the fields of this stage cannot be read: {type(error).__name__}: {error}"
        ) from None
