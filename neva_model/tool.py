"""The entry point of a job that uses a trained model: `python -m neva_model.tool RUN_DIR`.

RUN_DIR/tool.json names the module, its function and its arguments. Exit codes and failure.json are those of the worker.
"""

import importlib
import json
import sys
import traceback
from pathlib import Path

from neva_model.failure import record_failure
from neva_recipes.config import UserError
from neva_recipes.run_directory.exit_codes import EXIT_MISTAKE
from neva_recipes.run_directory.stages import TOOL_FILE

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run the program that tool.json of a run directory names.

    Args:
        arguments: The run directory.

    Returns:
        The exit code.
    """
    if len(arguments) != 1:
        print("usage: python -m neva_model.tool RUN_DIR", file=sys.stderr)
        return EXIT_MISTAKE
    run_directory = Path(arguments[0])
    try:
        tool = json.loads((run_directory / TOOL_FILE).read_text(encoding="utf-8"))
        # Earlier versions named no function.
        function = getattr(importlib.import_module(tool["module"]), tool.get("function", "main"))
        code: int = function(tool["arguments"])
    except UserError as error:
        record_failure(run_directory, "user", str(error))
        print(f"error: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    except BaseException as error:  # noqa: BLE001 the reason must reach the person who waits for the run
        record_failure(run_directory, "crash", f"{type(error).__name__}: {error}")
        traceback.print_exc()
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
