"""The command `nemo-run` where its program is not on PATH: `python -m neva_recipes`."""

import sys

from neva_recipes.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
