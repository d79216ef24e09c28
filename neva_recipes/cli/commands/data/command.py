"""Data files: `nemo-run data ACTION`."""

from collections.abc import Sequence
from importlib import import_module

from neva_recipes.cli.arguments import StrictParser

__all__ = ["data_command"]

_ACTIONS = {
    "text": "text into Megatron's indexed datasets (.bin and .idx)",
    "check": "what is wrong with files of conversations, and how long samples are",
    "preview": "samples as a model sees them, with what carries loss marked",
    "layout": "what is there and what is missing of LLaVA's published data",
}
"""Meaning of each action. Its module and its function have its name; only the requested one is loaded."""


def data_command(argv: Sequence[str]) -> int:
    """Make and look through data files: `nemo-run data ACTION ...`."""
    if argv and argv[0] in _ACTIONS:
        module = import_module(f"neva_recipes.cli.commands.data.{argv[0]}")
        code: int = getattr(module, f"{argv[0]}_action")(argv[1:])
        return code
    parser = StrictParser(
        "nemo-run data",
        usage="nemo-run data ACTION ...",
        description="Data files for training. What an action takes: nemo-run data ACTION --help\n\n"
        + "\n".join(f"  {name:<9}{meaning}" for name, meaning in _ACTIONS.items()),
    )
    parser.add_argument("action", metavar="ACTION", choices=tuple(_ACTIONS), help=", ".join(_ACTIONS))
    parser.parse(argv)
    raise AssertionError("an action alone was dispatched above")
