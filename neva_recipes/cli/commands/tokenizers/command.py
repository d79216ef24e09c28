"""Makes tokenizers, and measures them: `nemo-run tokenizer ACTION`."""

from collections.abc import Callable, Sequence
from importlib import import_module

from neva_recipes.cli.arguments import StrictParser

__all__ = ["tokenizer_command"]

_ACTIONS: dict[str, tuple[str, str, str]] = {
    "add-tokens": ("add", "add_action", "tokens of your own into a tokenizer"),
    "merge": ("merge", "merge_action", "the tokenizer of a new language into that of a model"),
    "train": ("train", "train_action", "a tokenizer on text of your own"),
    "compare": ("compare", "compare_action", "tokens per word and per byte of a text, by script"),
    "check": ("check", "check_action", "whether text comes back, and a template finds its tokens"),
}
"""The module of each action, its function, and its meaning; only the requested one is loaded."""


def tokenizer_command(argv: Sequence[str]) -> int:
    """Make or measure a tokenizer: `nemo-run tokenizer ACTION ...`."""
    if argv and argv[0] in _ACTIONS:
        module, function, _ = _ACTIONS[argv[0]]
        home = import_module(f"neva_recipes.cli.commands.tokenizers.{module}")
        action: Callable[[Sequence[str]], int] = getattr(home, function)
        return action(argv[1:])
    width = max(map(len, _ACTIONS))
    parser = StrictParser(
        "nemo-run tokenizer",
        usage="nemo-run tokenizer ACTION ...",
        description="\n".join(
            [
                "Tools for tokenizers. What each takes: nemo-run tokenizer ACTION --help",
                "",
                *(f"  {name:<{width}}  {meaning}" for name, (_, _, meaning) in _ACTIONS.items()),
            ]
        ),
    )
    parser.add_argument("action", metavar="ACTION", choices=tuple(_ACTIONS), help=", ".join(_ACTIONS))
    parser.parse(argv)
    raise AssertionError("an action alone was dispatched above")
