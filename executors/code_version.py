"""The version of this package that is running."""

import functools
import importlib.metadata
import os
import subprocess
from pathlib import Path

__all__ = ["code_version"]


@functools.cache
def code_version() -> dict[str, str | None]:
    """Return the package version and, in a git checkout, its commit (with `-dirty` if tracked files were changed)."""
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

    # An installed copy may lie untracked inside another repository.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    # `describe --dirty` would lock the repository, and a commit at the same time would fail.
    changed = git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if commit and changed else commit
