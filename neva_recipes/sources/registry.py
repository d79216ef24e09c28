"""The sources of installed packages, found by the endings of files.

A package offers a source by an entry point; its name is that of the source:

    [project.entry-points."neva_recipes.sources"]
    csv = "mylab.sources:CSV"
"""

from functools import lru_cache
from pathlib import Path

from neva_recipes.config import RecipeError
from neva_recipes.sources.source import DataSource
from neva_recipes.user_code import PackageObject, package_objects

__all__ = ["ENTRY_POINT_GROUP", "find_source", "plain_name"]

ENTRY_POINT_GROUP = "neva_recipes.sources"

_GZ = ".gz"
_OWN = (".json", ".jsonl", ".txt")
"""The endings of formats that the product reads itself; so does it read text with an ending that nobody else reads."""


def plain_name(path: Path) -> str:
    """Return the name of a file in small letters, without the ending that only says that it is compressed."""
    return path.name.lower().removesuffix(_GZ)


def find_source(path: Path) -> DataSource | None:
    """Return the source of a package that reads a file; `None` if the product reads it itself.

    Raises:
        RecipeError: Several packages read files with this ending, or what one offers is no source or cannot be
            imported.
    """
    name = plain_name(path)
    # The metadata of packages is slow to read.
    if name.endswith(_OWN) or "." not in name:
        return None
    found = [
        source for offered in package_objects(ENTRY_POINT_GROUP) if name.endswith((source := _load(offered)).endings)
    ]
    if len(found) > 1:
        names = " and ".join(source.name for source in found)
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
        if ending in _OWN or ending == _GZ or not ending.startswith(".") or ending != ending.lower():
            raise RecipeError(
                f"{where}: its ending is {ending!r}: expected one in small letters, with a dot before it, other than "
                f"{', '.join((*_OWN, _GZ))}"
            )
    return source
