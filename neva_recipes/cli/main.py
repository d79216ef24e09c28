"""The entry point of `nemo-run`: prepares the process, then runs the command."""

import os
import sys
from collections.abc import Sequence

from neva_recipes.late_libcst import import_fiddle
from neva_recipes.run_directory.exit_codes import EXIT_CANCELLED, EXIT_MISTAKE

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 2 for a user's mistake, the job's own code if a job failed.

    Args:
        argv: Arguments; `None` means those of the process.
    """
    if sys.flags.optimize > 1:
        _start_again_with_docstrings()
    try:
        import_fiddle()  # not before docstrings are certain
        if "_ARGCOMPLETE" in os.environ:  # set by the shell code of argcomplete
            from neva_recipes.cli.completion import complete

            complete()
        from neva_recipes.cli.dispatch import run_command
    except KeyboardInterrupt:  # loading takes a quarter of a second
        return EXIT_CANCELLED
    code = run_command(sys.argv[1:] if argv is None else argv)
    if argv is None:
        sys.stdout = sys.stderr  # the document is complete; other code may still print something at the end
    return code


def _start_again_with_docstrings() -> None:
    """Restart the process with docstrings, since Fiddle and transformers read docstrings as they are imported.

    PYTHONOPTIMIZE=1 only strips asserts; it is also passed to the processes of a job.
    """
    words = ["-O" if word == "-OO" else word for word in sys.orig_argv]
    if words == sys.orig_argv and os.environ.get("PYTHONOPTIMIZE") == "1":
        print("error: Python runs without docstrings, which Fiddle needs: leave -OO out", file=sys.stderr)
        raise SystemExit(EXIT_MISTAKE)
    os.execve(sys.executable, words, {**os.environ, "PYTHONOPTIMIZE": "1"})


if __name__ == "__main__":
    sys.exit(main())
