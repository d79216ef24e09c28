"""`python -m executors RUN_DIR`: start the job of a written run directory in the foreground, as its launch.sh does."""

import sys
from pathlib import Path

from executors.runs import Run
from neva_recipes.config import UserError


def main() -> int:
    """Run the job to its end and return its exit code."""
    if len(sys.argv) != 2:
        print("usage: python -m executors RUN_DIR", file=sys.stderr)
        return 2
    run = Run(Path(sys.argv[1]).absolute())
    try:
        run.resume()
        return run.wait()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
