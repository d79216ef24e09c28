"""Prints what a shell needs to complete words of the command."""

from collections.abc import Sequence

from neva_recipes.cli.arguments import StrictParser
from neva_recipes.terminal import print_document

__all__ = ["completion_command"]

_SHELLS = ("bash", "zsh", "fish")


def completion_command(argv: Sequence[str]) -> int:
    """Print the shell code that completes words of the command: `nemo-run completion bash`."""
    parser = StrictParser(
        "nemo-run completion",
        description=(
            "Shell code with which the shell completes commands, recipes, fields and their\n"
            "values, runs, executors and flags. Run it in the shell, or in its start file:\n"
            "\n"
            '  eval "$(nemo-run completion bash)"      ~/.bashrc\n'
            '  eval "$(nemo-run completion zsh)"       ~/.zshrc, after compinit\n'
            "  nemo-run completion fish | source       ~/.config/fish/config.fish"
        ),
    )
    parser.add_argument("shell", choices=_SHELLS, help="bash, zsh or fish")
    arguments = parser.parse(argv)

    from argcomplete.shell_integration import shellcode

    print_document(shellcode(["nemo-run"], shell=arguments.shell) + "\n")
    return 0
