"""`python -m executors RUN_DIR`: start the job of a written run directory in the foreground, as its launch.sh does."""

import sys

from executors.runs.run import Run
from neva_recipes.config import UserError
from neva_recipes.interruption import ends_told_by_command
from neva_recipes.run_directory.exit_codes import EXIT_MISTAKE


def main() -> int:
    """Run the job to its end and return its exit code."""
    if len(sys.argv) != 2:
        print("usage: python -m executors RUN_DIR", file=sys.stderr)
        return EXIT_MISTAKE
    run = Run(sys.argv[1])
    try:
        with ends_told_by_command():
            run.resume()
        return run.wait()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_MISTAKE


if __name__ == "__main__":
    sys.exit(main())
