"""Families by name: the built-in ones, and those of installed packages.

A package offers a family by an entry point; its name is that of the family:

    [project.entry-points."neva_recipes.families"]
    mymodel = "mylab.families:MYMODEL"
"""

import functools
from collections.abc import Iterator
from typing import TypeVar

from neva_recipes.config import LanguageConfig, RecipeError, VisionConfig, suggest
from neva_recipes.families.gpt2 import GPT2
from neva_recipes.families.internlm2 import INTERNLM2
from neva_recipes.families.language import LanguageFamily
from neva_recipes.families.llama import LLAMA
from neva_recipes.families.mistral import MISTRAL
from neva_recipes.families.phi3 import PHI3
from neva_recipes.families.qwen2 import QWEN2
from neva_recipes.families.qwen3 import QWEN3
from neva_recipes.families.towers.clip import CLIP
from neva_recipes.families.towers.dinov2 import DINOV2
from neva_recipes.families.towers.siglip import SIGLIP
from neva_recipes.families.vision import VisionFamily
from neva_recipes.user_code import PackageObject, package_objects

__all__ = [
    "ENTRY_POINT_GROUP",
    "families",
    "image_length",
    "language_families",
    "language_family",
    "vision_families",
    "vision_family",
]

ENTRY_POINT_GROUP = "neva_recipes.families"

_LANGUAGE = {family.name: family for family in (LLAMA, QWEN2, QWEN3, MISTRAL, INTERNLM2, PHI3, GPT2)}
_VISION = {family.name: family for family in (CLIP, SIGLIP, DINOV2)}

_Family = TypeVar("_Family", LanguageFamily, VisionFamily)


def families() -> Iterator[LanguageFamily | VisionFamily]:
    """Yield every family, the built-in ones first; packages are only read after those.

    Raises:
        RecipeError: A package offers something that is no family, or cannot be imported.
    """
    yield from _LANGUAGE.values()
    yield from _VISION.values()
    yield from _of_packages()


def language_families() -> Iterator[LanguageFamily]:
    """Yield every family of language models, as `families` does."""
    yield from _LANGUAGE.values()
    yield from (family for family in _of_packages() if isinstance(family, LanguageFamily))


def vision_families() -> Iterator[VisionFamily]:
    """Yield every family of vision towers, as `families` does."""
    yield from _VISION.values()
    yield from (family for family in _of_packages() if isinstance(family, VisionFamily))


def language_family(language: LanguageConfig) -> LanguageFamily:
    """Return the family of a language model.

    Raises:
        RecipeError: There is no such family (similar names are suggested), or its package cannot be imported.
    """
    name = language.family
    # Most recipes need no look at the metadata of packages, which is slow to read.
    return _LANGUAGE.get(name) or _find(name, list(language_families()), "model.language.family")


def vision_family(vision: VisionConfig) -> VisionFamily:
    """Return the family of a vision tower.

    Raises:
        RecipeError: There is no such family (similar names are suggested), or its package cannot be imported.
    """
    name = vision.vision_model_type
    return _VISION.get(name) or _find(name, list(vision_families()), "model.vision.vision_model_type")


def image_length(vision: VisionConfig) -> int:
    """Return the number of sequence positions that an image takes."""
    return vision_family(vision).image_length(vision)


def _find(name: str, families: list[_Family], field: str) -> _Family:
    found = [family for family in families if family.name == name]
    if len(found) > 1:
        raise RecipeError(f"{field}={name}: several installed packages offer this family: uninstall all but one")
    if not found:
        known = [family.name for family in families]
        raise RecipeError(f"{field}={name}: no such family{suggest(name, known)}; expected {', '.join(known)}")
    return found[0]


def _of_packages() -> Iterator[LanguageFamily | VisionFamily]:
    taken: dict[str, str] = {}
    for offered in package_objects(ENTRY_POINT_GROUP):
        family = _load(offered)
        if (other := taken.setdefault(family.model_type, family.name)) != family.name:
            raise RecipeError(
                f"the families {other} and {family.name} of installed packages are both for "
                f"model_type={family.model_type}: uninstall one"
            )
        yield family


@functools.cache
def _load(offered: PackageObject) -> LanguageFamily | VisionFamily:
    family = offered.load("family")
    where = f"family {offered.name} ({offered.value})"
    if not isinstance(family, LanguageFamily | VisionFamily):
        raise RecipeError(f"{where}: expected a LanguageFamily or a VisionFamily, got {family!r}")
    if family.name != offered.name:
        raise RecipeError(f"{where}: its name is {family.name!r}: expected {offered.name!r}")
    own_families: list[LanguageFamily | VisionFamily] = [*_LANGUAGE.values(), *_VISION.values()]
    for own in own_families:
        if family.name == own.name:
            raise RecipeError(f"{where}: is the name of a built-in family: rename it")
        if family.model_type == own.model_type:
            raise RecipeError(f"{where}: model_type={own.model_type} is that of the built-in family {own.name}")
    return family
