"""The size in which a built-in recipe has the sizes of weights that it is given."""

from neva_recipes.config import PlainTable, Recipe
from neva_recipes.families.published import recipe_sizes
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
    offered = recipe_sizes(recipe.name)
    alike = {
        size: sum(field_value(recipe, path) == value for path, value in fields.items())
        for size, fields in offered.items()
    }
    fitting = [
        size
        for size, fields in offered.items()
        if all((size, path) == _OPEN or value in _values(fields, path) for path, value in sizes.items())
    ]
    # A recipe of this size in which some field has been changed needs that field's own value.
    if not sizes or not fitting or any(alike[size] == max(alike.values()) for size in fitting):
        return ""
    return f"take size={fitting[0]} of {recipe.name}, which has these sizes"


def _values(fields: PlainTable, path: str) -> tuple[object, ...]:
    """Return the values of a field that mean what a size has: two for the width of a head, which it derives."""
    if path == "model.language.kv_channels":
        return None, fields["model.language.hidden_size"] // fields["model.language.num_attention_heads"]
    return (fields[path],) if path in fields else ()
