"""The size in which a built-in recipe has the sizes of weights that it is given."""

from neva_recipes.config import PlainTable, Recipe
from neva_recipes.families.published import sizes_of
from neva_recipes.plan.findings import field_value

__all__ = ["other_size"]

_OPEN = ("tiny", "model.language.vocab_size")
"""The vocabulary of tiny is that of the run it starts from."""


def other_size(recipe: Recipe, sizes: PlainTable) -> str:
    """Return the advice to take another size of a built-in recipe; empty if none has the sizes.

    Args:
        recipe: The recipe.
        sizes: Values of the weights in which the recipe differs, by dotted path.
    """
    alike: dict[str, int] = {}
    fitting = ""
    for size, fields in sizes_of(recipe.name).items():
        alike[size] = sum(field_value(recipe, path) == value for path, value in fields.items())
        if all((size, path) == _OPEN or (path in fields and fields[path] == value) for path, value in sizes.items()):
            fitting = size
    # A recipe of this size in which some field has been changed needs that field's own value.
    if not sizes or not fitting or alike[fitting] == max(alike.values()):
        return ""
    return f"take size={fitting} of {recipe.name}, which has these sizes"
