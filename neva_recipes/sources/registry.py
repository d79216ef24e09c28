"""The sources of installed packages, found by the endings of files.

A package offers a source by an entry point; its name is that of the source:

    [project.entry-points."neva_recipes.sources"]
    csv = "mylab.sources:CSV"
"""

import hashlib
import sys
from functools import lru_cache
from pathlib import Path

from neva_recipes.config import RecipeError
from neva_recipes.sources.source import DataSource
from neva_recipes.user_code import PackageObject, package_objects

__all__ = ["ENTRY_POINT_GROUP", "find_source", "plain_name", "source_version"]

ENTRY_POINT_GROUP = "neva_recipes.sources"

_PACKED = (".gz", ".zst")
_OWN = (".json", ".jsonl", ".txt")
"""The endings of formats that the product reads itself; so does it read text with an ending that nobody else reads."""


def plain_name(path: Path) -> str:
    """Return the name of a file in small letters, without the ending that only says that it is compressed."""
    name = path.name.lower()
    return name.rpartition(".")[0] if name.endswith(_PACKED) else name


def find_source(path: Path) -> DataSource | None:
    """Return the source of a package that reads a file; `None` if the product reads it itself.

    Raises:
        RecipeError: Several packages read files with this ending, or what one offers is no source or cannot be
            imported.
    """
    found = _find(path)
    return found[1] if found is not None else None


def source_version(path: Path) -> tuple[str, ...]:
    """Return what tells the source of a file from other sources, and from itself after a change of its code.

    That is its name, the version of its package, and digests of the modules that hold it and its reader. Other modules
    of the package, on which the reader may depend, count by the version.

    Returns:
        The texts; empty if the product reads the file itself.

    Raises:
        RecipeError: As for `find_source`.
    """
    found = _find(path)
    if found is None:
        return ()
    offered, source = found
    modules = dict.fromkeys([offered.value.partition(":")[0].strip(), getattr(source.records, "__module__", "")])
    files = [getattr(sys.modules.get(module), "__file__", None) for module in modules]
    digests = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files if file and Path(file).is_file()]
    return source.name, offered.version(), *digests


def _find(path: Path) -> tuple[PackageObject, DataSource] | None:
    name = plain_name(path)
    # The metadata of packages is slow to read.
    if name.endswith(_OWN) or "." not in name:
        return None
    offers = [(offered, _load(offered)) for offered in package_objects(ENTRY_POINT_GROUP)]
    found = [(offered, source) for offered, source in offers if name.endswith(source.endings)]
    if len(found) > 1:
        names = " and ".join(source.name for _, source in found)
        raise RecipeError(f"{path}: is read by the sources {names} of installed packages: uninstall all but one")
    return found[0] if found else None


@lru_cache
def _load(offered: PackageObject) -> DataSource:
    source = offered.load("source")
    where = f"source {offered.name} ({offered.value})"
    if not isinstance(source, DataSource):
        raise RecipeError(f"{where}: expected a DataSource, got {source!r}")
    if source.name != offered.name:
        raise RecipeError(f"{where}: its name is {source.name!r}: expected {offered.name!r}")
    for ending in source.endings:
        if ending in _OWN or ending in _PACKED or not ending.startswith(".") or ending != ending.lower():
            raise RecipeError(
                f"{where}: its ending is {ending!r}: expected one in small letters, with a dot before it, other than "
                f"{', '.join((*_OWN, *_PACKED))}"
            )
    return source
