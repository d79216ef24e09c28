"""A recipe as Python code."""

from neva_recipes.config import Draft, Recipe, build

__all__ = ["recipe_to_python"]

_HEADER = '''\
"""{name}, field by field.

    nemo-run build_config --recipes THIS_FILE --dry-run
"""
'''


def recipe_to_python(recipe: Draft[Recipe]) -> str:
    """Return a Python file whose function `build_config` returns an equal recipe.

    The file can be given to `nemo-run --recipes`.

    Raises:
        RecipeError: The recipe is not valid.
    """
    from fiddle.codegen import codegen  # only this format needs it

    name: str = build(recipe).name
    lines = [line.rstrip() for line in codegen.codegen_dot_syntax(recipe).lines()]
    # The name may contain text that would end or change the docstring.
    title = name.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return "\n".join([_HEADER.format(name=title), *lines]) + "\n"
