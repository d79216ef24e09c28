"""What the start of a run has told already: the warnings of the plan in its directory."""

from pathlib import Path

from neva_recipes.run_directory.layout import PLAN_FILE
from neva_recipes.run_directory.state import read_json

__all__ = ["was_told"]


def was_told(run_dir: Path, code: str, said: str) -> bool:
    """Return whether the plan of a run has a warning of a code that begins with a text; `False` without a plan.

    Args:
        run_dir: The run directory.
        code: The code of the finding.
        said: The text: with other numbers it is another one.
    """
    try:
        findings = read_json(run_dir / PLAN_FILE)["findings"]
        warnings = [found["message"] for found in findings if (found["severity"], found["code"]) == ("warning", code)]
        return any(message.startswith(said) for message in warnings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # told twice rather than never
