"""Which version of this package is running."""

import functools
import importlib.metadata
import os
import subprocess
from pathlib import Path

__all__ = ["code_version"]


@functools.cache
def code_version() -> dict[str, str | None]:
    """Return the package version and, in a git checkout, its commit (with `-dirty` where files were changed)."""
    try:
        version = importlib.metadata.version("neva-recipes")
    except importlib.metadata.PackageNotFoundError:
        version = None
    return {"version": version, "commit": _commit(Path(__file__).parent)}


def _commit(package: Path) -> str | None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str | None:
        try:
            result = subprocess.run(
                ["git", "-C", str(package), *arguments], capture_output=True, text=True, env=environment, timeout=5
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return result.stdout.strip() if result.returncode == 0 else None

    # An installed copy may lie inside somebody else's repository, untracked.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
