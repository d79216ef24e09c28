"""tool.json: the tool of a stage that trains nothing."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from neva_recipes.config import Draft, RunError, config
from neva_recipes.pipeline import Evaluate, Export, Tool
from neva_recipes.run_directory.stages import TOOL_FILE
from neva_recipes.run_directory.state import read_json

__all__ = ["saved_tool", "tool_text"]

_KINDS: dict[str, type[Tool]] = {kind.module: kind for kind in (Evaluate, Export)}


def tool_text(tool: Tool, run_dir: Path, chosen: Mapping[str, str]) -> str:
    """Return the text of a stage's tool.json: its program, the arguments, and the fields as the user gave them.

    Args:
        tool: The tool.
        run_dir: Directory of the stage.
        chosen: Fields that the user has left open, with what the tool takes in their place; chosen anew whenever other
            fields change.
    """
    fields = {field.name: getattr(tool, field.name) for field in dataclasses.fields(tool)}
    arguments = dataclasses.replace(tool, **chosen).argv(str(run_dir / tool.output))
    return json.dumps({"module": tool.module, "arguments": arguments, "fields": fields}, indent=2)


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
